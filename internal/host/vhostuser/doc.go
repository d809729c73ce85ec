// Package vhostuser is the device side of vhost-user: this process is the back end
// of a virtio device of a virtual machine. The machine's monitor (QEMU) connects to
// it over a Unix socket and shares the guest's memory with it.
//
//	message.go    the messages on the socket
//	server.go     their handling
//	lifecycle.go  the start and the end of rings
//	memory.go     the guest's memory
//	ring.go       split virtqueues as a device sees them (virtio 1.2, 2.7)
//
// The protocol is QEMU's document "Vhost-user Protocol". The monitor is trusted to
// share its own memory. The guest is not trusted: all that it writes into rings and
// descriptors is checked before it is used.
package vhostuser

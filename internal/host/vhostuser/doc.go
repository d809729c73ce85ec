// Package vhostuser is the device side of vhost-user: this process plays a
// virtio device of a virtual machine whose monitor (QEMU) connects to it over
// a Unix socket and shares the guest's memory with it.
//
//	message.go  the messages on the socket
//	server.go   what they do
//	memory.go   the guest's memory
//	ring.go     split virtqueues as a device sees them (virtio 1.2, 2.7)
//
// The protocol is QEMU's document "Vhost-user Protocol". The monitor is
// trusted as far as it shares its own memory; the guest is not: everything
// that it writes into rings and descriptors is checked before it is used.
package vhostuser

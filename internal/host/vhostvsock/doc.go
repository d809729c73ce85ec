// Package vhostvsock is a vsock device for virtual machines whose host has no
// vhost-vsock of its own: QEMU reaches it by vhost-user, and what the guest
// connects to becomes Unix sockets, in Firecracker's manner. A guest's
// connection to port P of the host (CID 2) goes to the Unix stream socket PATH_P
// if somebody listens there, and is refused otherwise. Nothing connects to the
// guest.
//
//	device.go   the two rings, and what leaves by them
//	packet.go   packets (virtio 1.2, 5.10.6)
//	conn.go     one connection between guest and socket
//
// The guest is not trusted: lengths, addresses and credit are checked, its
// connections and what is buffered for each are bounded, and what it does wrong
// is counted and refused.
package vhostvsock

// Package vhostvsock is a vsock device that needs no vhost-vsock of the host's
// kernel: QEMU connects to it by vhost-user, and the guest's connections become
// connections to Unix sockets, as with Firecracker. A connection to port P of the
// host (CID 2) goes to the Unix stream socket PATH_P, and is refused if no process
// listens there. There are no connections to the guest.
//
//	device.go   the two rings, and packets to the guest
//	packet.go   packets (virtio 1.2, 5.10.6)
//	conn.go     one connection between guest and socket
//
// The guest is not trusted: lengths, addresses and credit are checked, the number of
// its connections and the bytes buffered for each are bounded, and violations are
// counted and refused.
package vhostvsock

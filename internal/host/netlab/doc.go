// Package netlab is a small internet in one process: hosts with real TCP/IP
// stacks (gVisor's netstack) on simulated Ethernet, on both sides of a
// firewall. It needs no privileges.
//
//	alice 10.0.0.2 ─┐                      ┌─ mallory 203.0.113.2
//	  bob 10.0.0.3 ─┤                      │
//	              [LAN] ─ (firewall) ─ [WAN] ─ router 203.0.113.1
//	                                                │
//	                       web 198.51.100.80 ─┐     │
//	                       dns 198.51.100.53 ─┴ [internet]
//
// The firewall is attached to the two switches: a virtual machine over QEMU's
// stream sockets (Switch.Serve), or the router itself in this process
// (NewPoolPort). Time is the wall clock, since the stacks have their own timers.
package netlab

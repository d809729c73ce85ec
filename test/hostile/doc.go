// Package hostile attacks what stands on the host beside the firewall: the
// launcher and its devices, the stream's readers, the commands that read files.
// It has no code but its tests.
//
// Each attack is a row of one table (add, in harness_test.go) with a name that
// stays, and a legitimate twin: what is like it and must still work.
//
//	harness_test.go   the table; launcher and commands under attack
//	monitor_test.go   a monitor under the launcher, instead of QEMU, that plays the guest
//	front_test.go     the monitor's side of vhost-user, and packets of vsock
//	others            attacks, by who the attacker is
package hostile

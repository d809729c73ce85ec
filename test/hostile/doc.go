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
//	other_test.go     processes of another user
//	guest_test.go     a guest, by its rings and its packets
//	console_test.go   a guest, by its console and by how its machine ends
//	frames_test.go    a guest, by its frames, on the simulated networks
//	capture_test.go   who has the monitor itself
//	neighbour_test.go another user of the host
//	descriptors_test.go whoever takes what there is few of
package hostile

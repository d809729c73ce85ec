// Package evasions is a corpus of attacks on a firewall: ways to make it pass, lose or
// evict what it should not. Each is a short program that puts frames on the wires of a
// firewall, as a hostile host on either side would, and checks whether the attack
// succeeded; and each has a legitimate twin, which differs in one point, and must work.
//
// The same programs run against the data plane in process, against the booted image, and
// against other firewalls (docs/evasions.md).
//
//	corpus_test.go     what an attack is, and the run in process
//	arena_test.go      the hosts around the firewall
//	packet_test.go     building and reading packets
//	end_test.go        the TCP of a server, which reads what others write
//	client_test.go     the TCP of a client, which writes what it likes
//	resolver_test.go   the name server upstream, and who asks
//	tls_test.go        first messages of TLS
//	NAME_test.go       the attacks of a family: names, hello, tcp, ...
//	thurward_test.go   the data plane in process; image_test.go: booted
//	linux_test.go      a Linux router in a network namespace
//	peers_test.go      what people use instead, on such a router
//	page_test.go       docs/evasions.md
package evasions

// Package replay runs the data plane in virtual time, between two ports in memory,
// with frames of a caller or of captures. The same input and seed give the same
// output, byte for byte.
//
//	firewall.go  the data plane between two ports, frame by frame
//	source.go    a capture's bytes: files, pipes, gzip
//	capture.go   captures: opening, limits, writing
//	pcap.go      the older format
//	pcapng.go    the newer format
//	link.go      link types: what is made an Ethernet frame
//	direction.go which frames arrive, where the link does not tell
//	any.go       the sides in a capture of all interfaces
//	checksum.go  checksums that were left to a network device
//	survey.go    the firewall's link-layer addresses in a capture
//	names.go     answers of name servers, for the firewall's own queries
//	run.go       two captures through the firewall
//	summary.go   the summary
package replay

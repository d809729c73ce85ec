// Package replay runs the data plane in virtual time, between two ports in memory,
// with frames of a caller or of captures. The same input and seed give the same
// output, byte for byte.
//
//	firewall.go  the data plane between two ports, frame by frame
//	capture.go   captures: opening, limits, writing
//	pcap.go      the older format
//	pcapng.go    the newer format
//	survey.go    the firewall's link-layer addresses in a capture
//	names.go     answers of name servers, for the firewall's own queries
//	run.go       two captures through the firewall
//	summary.go   the summary
package replay

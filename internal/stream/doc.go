// Package stream is the host's end of what the firewall tells: it listens for
// guests, reads their lines within bounds, and turns each into an event, a
// metric or a span.
//
//	line.go     one line: what it is, and what it says
//	event.go    an event's fields
//	sample.go   a metric in Prometheus' text format
//	span.go     a span in OTLP's JSON
//	reader.go   lines from a connection or a file
//	listen.go   where guests and followers connect
//	hub.go      one stream, many readers
//	rundir.go   where sockets are found
//	text.go     events as people read them
//
// A guest is not trusted: a line has a largest length, what cannot be read is
// kept as it is and counted, and nothing that it sends makes a reader hold more
// than a bounded amount of memory.
package stream

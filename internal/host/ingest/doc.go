// Package ingest receives the firewall's stream on the host: it listens for
// guests, reads their lines within bounds, and decodes each into an event
// (package ecs), a metric or a span.
//
//	line.go     one line: its kind and content
//	sample.go   a metric in Prometheus' text format
//	span.go     a span in OTLP's JSON
//	reader.go   lines from a connection or a file
//	schema.go   the metrics that there are
//	listen.go   where guests and followers connect
//	accept.go   the loop that accepts connections
//	serve.go    connections of guests, and which are no firewall's
//	peer.go     who connects, and what it may be called
//	hub.go      one stream, many readers
//	rundir.go   where sockets are found
//
// A guest is not trusted: a line has a largest length, numbers and times are
// those that can be, metrics those of the schema, what cannot be read is counted,
// and nothing that it sends makes a reader hold more than a bounded amount of
// memory. Who it is follows from its connection, not from what it says.
package ingest

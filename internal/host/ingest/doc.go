// Package ingest receives the firewall's stream on the host: it listens for
// guests, reads their lines within bounds, and decodes each into an event
// (package ecs), a metric or a span.
//
//	line.go     one line: its kind and content
//	sample.go   a metric in Prometheus' text format
//	span.go     a span in OTLP's JSON
//	reader.go   lines from a connection or a file
//	follow.go   a stream of several firewalls
//	schema.go   the firewall's metrics
//	listen.go   where guests and followers connect
//	accept.go   the loop that accepts connections
//	serve.go    connections of guests, and when they are cut off
//	peer.go     the identity of a connection, and the names that it may have
//	hub.go      one stream, many readers
//	rundir.go   default paths of the sockets
//
// A guest is not trusted: lines have a largest length, numbers and times a range,
// and metrics must be in the schema; lines that cannot be read are counted, and
// the memory that a guest can make a reader use is bounded. A guest's identity
// follows from its connection, not from what it sends.
package ingest

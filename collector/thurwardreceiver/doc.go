// Package thurwardreceiver is a receiver for the OpenTelemetry Collector. It
// listens where thurward firewalls connect and turns their lines into logs,
// metrics and traces, one resource for each firewall.
//
//	config.go    what can be set
//	factory.go   one receiver for the pipelines of all three signals
//	receiver.go  sockets, connections, and what is known of each firewall
//	queue.go     a bounded queue in front of each pipeline
//	resource.go  the resource of a firewall
//	logs.go      events, and lines that cannot be read
//	metrics.go   snapshots of metrics
//	traces.go    spans
package thurwardreceiver

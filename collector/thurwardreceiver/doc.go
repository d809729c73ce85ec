// Package thurwardreceiver is a receiver for the OpenTelemetry Collector. It listens
// for thurward firewalls and converts their lines to logs, metrics and traces, with one
// resource for each firewall.
//
//	config.go    the configuration
//	factory.go   one receiver for the pipelines of all three signals
//	receiver.go  sockets, start and end
//	conn.go      one connection: its queues and lines
//	known.go     the firewalls, and whether they are connected
//	ledger.go    bounds of series
//	own.go       the receiver's own metrics
//	queue.go     a bounded queue in front of each pipeline
//	resource.go  the resource of a firewall
//	logs.go      events, and malformed lines
//	metrics.go   snapshots of metrics
//	traces.go    spans
package thurwardreceiver

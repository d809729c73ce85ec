// Package ecs decodes the firewall's events, which are JSON with the field
// names of the Elastic Common Schema (version 8.12), and writes them for people.
//
//	fields.go   the names of the fields, and of the actions
//	event.go    one event: decoding within bounds, values by type
//	text.go     an event on one line of a terminal
//	command.go  the command that asks the policy for the same verdict
//
// Whatever reads events uses it: the receiver of the stream, the launcher for
// the lines of the console, the commands events and suggest, and the collector.
// A guest is not trusted: an event has a largest size, and numbers and times out
// of range count as absent.
package ecs

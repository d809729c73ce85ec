// Package export turns the firewall's events and metrics into lines, the JSON of
// the Elastic Common Schema, Prometheus' text and spans of OpenTelemetry, and
// sends them over vsock. It runs beside the packet path and never holds it up:
// what cannot be sent in time is dropped and counted.
package export

// Package export renders the firewall's events, metrics and spans as lines, in the JSON of
// the Elastic Common Schema, the text format of Prometheus and the JSON encoding of OTLP,
// and sends them over vsock. It runs beside the packet path and never delays it: what
// cannot be sent in time is dropped and counted.
package export

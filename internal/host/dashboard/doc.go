// Package dashboard keeps what a firewall tells as a picture of its present state:
// what rules and checks decide and how often, how full its tables are, what
// happened last. The terminal view, the web page and the metrics endpoint show
// it.
//
//	model.go     all firewalls: lines in, views out
//	firewall.go  one firewall: its events and their history
//	store.go     its metrics, within their bounds
//	snapshot.go  a whole snapshot of them, and what it comes to
//	view.go      the picture
//	top.go       the most frequent names and sources, in bounded memory
//	metrics.go   the last snapshot again, for Prometheus
//	page.go      the web page
//	token.go     who may see it
//	receiver.go  a whole receiver
//	throttle.go  messages that a guest or a client causes
//
// Everything is bounded, since a guest is not trusted, and time is an argument.
package dashboard

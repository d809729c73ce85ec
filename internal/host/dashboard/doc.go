// Package dashboard keeps the present state of firewalls, from their streams: the
// rates of rules and drops, the fill of tables, the last verdicts. The terminal view,
// the web page and the metrics endpoint show it.
//
//	model.go     all firewalls: lines in, views out
//	firewall.go  one firewall: its events and their history
//	store.go     its metrics, within their bounds
//	snapshot.go  a whole snapshot of them, and its summary
//	view.go      what is shown of one firewall
//	detail.go    what is known of one rule, host or name
//	policies.go  rules in words
//	top.go       the most frequent names and sources, in bounded memory
//	metrics.go   the last snapshot for Prometheus, and for followers that join
//	text.go      a view as text
//	page.go      the web page
//	api.go       what it asks for beside the views
//	pageconns.go its connections, and their bounds
//	token.go     who may read it
//	receiver.go  a whole receiver
//	throttle.go  messages that a guest or a client causes
//
// Everything is bounded, since a guest is not trusted, and time is an argument.
package dashboard

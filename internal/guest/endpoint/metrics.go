package endpoint

import (
	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Metrics returns the metrics of the DNS proxy, its connections and the name set. Without a
// proxy they exist as well, and stay zero. Fill must be called by the router's goroutine.
func (h *Host) Metrics() []export.Family {
	p, s, t := &dnsproxy.Counters{}, &fqdn.Counters{}, &tcp.Counters{}
	none := func() int { return 0 }
	outstanding, ends, size, capacity := none, none, none, none
	clients := func() (int, int) { return 0, 0 }
	if names := h.c.Names; h.proxy != nil {
		p, s, t = h.proxy.Counters(), names.Counters(), h.tcp.Counters()
		clients = names.Clients
		outstanding, ends, size, capacity = h.proxy.Outstanding, h.tcp.Len, names.Len, names.Cap
	}
	one := func(name, help string, from *uint64) export.Family {
		return export.One(export.Counter, name, help, from)
	}
	bounds := make([]uint64, len(dnsproxy.Buckets))
	for i, b := range dnsproxy.Buckets {
		bounds[i] = uint64(b)
	}
	label := func(name string, values ...string) func([]byte, int) []byte {
		return export.LabelOf(name, func(i int) string { return values[i%len(values)] })
	}
	return append(h.linkMetrics(), []export.Family{
		{Name: "thurward_dns_queries_total",
			Help: "Queries of clients, by outcome.",
			Type: export.Counter, N: int(verdict.NumDNSOutcomes) - 1,
			Labels: export.LabelOf("outcome", func(i int) string { return verdict.DNSOutcome(i + 1).String() }),
			Fill:   func(v []uint64) { copy(v, p.Outcomes[1:]) }},
		{Name: "thurward_dns_lookup_duration_seconds",
			Help: "Time from a query to its answer, where an upstream was asked.",
			Type: export.Histogram, Bounds: bounds, Scale: 1e9,
			Fill: func(v []uint64) {
				copy(v, p.Latency[:])
				v[len(p.Latency)] = uint64(p.LatencySum)
			}},
		one("thurward_dns_upstream_queries_total", "Queries to upstreams, retransmissions included.", &p.Asked),
		one("thurward_dns_upstream_retries_total",
			"Queries to upstreams that were not the first for a client's query.", &p.Retries),
		one("thurward_dns_upstream_tcp_total", "Queries to upstreams over TCP.", &p.OverTCP),
		one("thurward_dns_upstream_tls_total", "Queries to upstreams over TLS.", &p.OverTLS),
		one("thurward_dns_upstream_unreachable_total",
			"Queries to upstreams that ICMP errors have said cannot be delivered.", &p.Unreachable),
		one("thurward_dns_truncated_total", "Answers that did not fit what the client takes over UDP.", &p.Truncated),
		{Name: "thurward_dns_answers_rejected_total",
			Help: "Messages from the WAN that were not taken for an answer.",
			Type: export.Counter, N: 3,
			Labels: label("reason", "mismatch", "wrong_case", "malformed"),
			Fill:   func(v []uint64) { v[0], v[1], v[2] = p.Mismatched, p.WrongCase, p.Malformed }},
		one("thurward_dns_addresses_bound_total", "Addresses of answers that were bound to names.", &p.Bound),
		one("thurward_dns_addresses_unbound_total",
			"Addresses of answers beyond the limit for one answer, which open nothing.", &p.Unbound),
		one("thurward_dns_additional_removed_total",
			"Answers whose additional section was left out, because it had an address of a private network.",
			&p.AdditionalRemoved),
		one("thurward_dns_ech_removed_total",
			"Answers about names of rules with sni: require from which the key for Encrypted Client Hello was removed.",
			&p.ECHRemoved),
		{Name: "thurward_dns_outstanding",
			Help: "Queries that wait for an upstream.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(outstanding()) }},
		{Name: "thurward_dns_tcp_connections",
			Help: "TCP connections that end at the proxy, to clients and to upstreams.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(ends()) }},
		one("thurward_dns_tcp_refused_total", "TCP connections of clients beyond the limits.", &t.Refused),
		{Name: "thurward_dns_tcp_ended_total",
			Help: "TCP connections that were reset: to make room for others, or because their client read too slowly.",
			Type: export.Counter, N: 2,
			Labels: label("reason", "evicted", "stalled"), Fill: func(v []uint64) { v[0], v[1] = t.Evicted, t.Stalled }},
		{Name: "thurward_fqdn_set_size",
			Help: "Names of addresses that clients have learned and that have not expired.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(size()) }},
		{Name: "thurward_fqdn_set_capacity",
			Help: "Capacity of the set of names.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(capacity()) }},
		{Name: "thurward_fqdn_set_clients",
			Help: "Clients that know names which rules have; all for whom a resolver asks are one.",
			Type: export.Gauge, Fill: func(v []uint64) { n, _ := clients(); v[0] = uint64(n) }},
		{Name: "thurward_fqdn_set_largest_client",
			Help: "Such names of addresses that the client with the most knows.",
			Type: export.Gauge, Fill: func(v []uint64) { _, n := clients(); v[0] = uint64(n) }},
		{Name: "thurward_fqdn_set_evictions_total",
			Help: "Names of addresses evicted before they expired.",
			Type: export.Counter, N: 3,
			Labels: label("reason", "full", "text_full", "address_full"),
			Fill:   func(v []uint64) { v[0], v[1], v[2] = s.EvictedFull, s.EvictedText, s.EvictedAddress }},
	}...)
}

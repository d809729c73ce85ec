package router

import (
	"reflect"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/guest/reassembly"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// number gives every counter in a struct a different value, from n on, and returns the
// next.
func number(v reflect.Value, n uint64) uint64 {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			n = number(v.Field(i), n)
		}
	case reflect.Array, reflect.Slice:
		for i := range v.Len() {
			n = number(v.Index(i), n)
		}
	case reflect.Uint64, reflect.Uint32:
		v.SetUint(n)
		n++
	case reflect.Int64:
		v.SetInt(int64(n))
		n++
	}
	return n
}

// TestEachMetricIsItsCounter: when all counters differ, each value of each metric
// is that of the counter with its meaning, and no metric has more values or fewer
// than there are.
func TestEachMetricIsItsCounter(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		p.Upstreams = nil
		for i := range 3 {
			p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip("198.51.100.60").To16(), Port: uint16(853 + i), TLS: uint8(i & 1), ServerName: nameOf(p, dotName).Text})
		}
		p.Upstreams = append(p.Upstreams, p.Upstreams[1])
		p.SNAT = append(p.SNAT, p.SNAT[0])
		p.SNAT[1].External = ip("203.0.113.11").To16()
	}, "accept egress udp", established)
	e := l.e
	c, dns, set, tcp, table := &e.c, e.host.DNS().Counters(), e.names.set.Counters(), e.host.Conns().Counters(), &e.flows.C
	n := uint64(100)
	for _, s := range []any{c, dns, set, tcp, table} {
		n = number(reflect.ValueOf(s).Elem(), n)
	}
	if len(e.host.Links()) != 2 {
		t.Fatalf("%d links", len(e.host.Links()))
	}
	n = number(reflect.ValueOf(e.host.Links()[0].Link.Counters()).Elem(), n)
	number(reflect.ValueOf(e.host.Links()[1].Link.Counters()).Elem(), n+1e6)
	for i := range uint16(7) {
		buf, _ := l.pool.Get()
		var r reassembly.Result
		e.frags.Add(&reassembly.Fragment{Key: reassembly.Key{Src: ip(host), ID: i}, Piece: packet.Piece{Len: 8, More: true}, Frame: framebuf.Frame{Buf: buf, Len: 60}}, &r, l.now)
	}
	e.nat.Pools()[1].Take(packet.UDP, ip(host), 4000, 0) // the second pool has one in use
	links := func(of func(c *dot.Counters) uint64) uint64 {
		return of(e.host.Links()[0].Link.Counters()) + of(e.host.Links()[1].Link.Counters())
	}
	want := map[string][]uint64{}
	for name, v := range map[string]*uint64{
		"thurward_filter_decisions_total": &c.Decisions, "thurward_icmp_errors_sent_total": &c.ICMPErrorsSent, "thurward_icmp_errors_translated_total": &c.ICMPErrorsTranslated,
		"thurward_resets_sent_total": &c.ResetsSent, "thurward_answers_suppressed_total": &c.AnswersSuppressed, "thurward_echo_replies_total": &c.LocalReplies,
		"thurward_own_messages_unsent_total": &c.NoBuffer, "thurward_fragmented_total": &c.Fragmented, "thurward_fragments_sent_total": &c.FragmentsSent,
		"thurward_reassembled_total": &c.Reassembled, "thurward_fragments_joined_total": &c.Joined, "thurward_mss_clamped_total": &c.MSSClamped,
		"thurward_large_forwarded_total": &c.LargeForwarded, "thurward_large_cut_total": &c.LargeCut,
		"thurward_nat_ports_reclaimed_total": &c.PortsReclaimed, "thurward_conntrack_inserts_total": &table.Inserts, "thurward_conntrack_full_total": &table.Full,
		"thurward_dns_upstream_queries_total": &dns.Asked, "thurward_dns_upstream_retries_total": &dns.Retries, "thurward_dns_upstream_tcp_total": &dns.OverTCP,
		"thurward_dns_upstream_tls_total": &dns.OverTLS, "thurward_dns_upstream_unreachable_total": &dns.Unreachable, "thurward_dns_truncated_total": &dns.Truncated,
		"thurward_dns_addresses_bound_total": &dns.Bound, "thurward_dns_addresses_unbound_total": &dns.Unbound, "thurward_dns_additional_removed_total": &dns.AdditionalRemoved,
		"thurward_dns_ech_removed_total": &dns.ECHRemoved, "thurward_sni_accepted_total": &c.ServerNamesAccepted, "thurward_sni_segments_repeated_total": &c.ServerNameRepeats,
		"thurward_dns_tcp_refused_total": &tcp.Refused,
	} {
		want[name] = []uint64{*v}
	}
	for name, v := range map[string][]uint64{
		"thurward_rule_accepts_total": c.Accepts, "thurward_rule_drops_total": c.Drops, "thurward_rule_shadows_total": c.Shadows, "thurward_drops_total": c.DropReasons[1:],
		"thurward_interface_receive_packets_total": c.RxPackets[:], "thurward_interface_receive_bytes_total": c.RxBytes[:],
		"thurward_interface_transmit_packets_total": c.TxPackets[:], "thurward_interface_transmit_bytes_total": c.TxBytes[:], "thurward_interface_transmit_holds_total": c.Holds[:],
		"thurward_interface_other_host_total": c.OtherHost[:], "thurward_arp_received_total": c.ARPReceived[:], "thurward_arp_sent_total": c.ARPSent[:],
		"thurward_arp_conflicts_total": c.ARPConflicts[:], "thurward_neighbour_evictions_total": c.NeighbourEvictions[:], "thurward_fragments_held": {7},
		"thurward_nat_translations_total": c.Translations[:], "thurward_conntrack_entries": {0}, "thurward_conntrack_capacity": {uint64(e.flows.Cap())},
		"thurward_conntrack_entries_highest": {uint64(table.HighWater)}, "thurward_conntrack_evictions_total": table.Evictions[:],
		"thurward_nat_port_pool_in_use":  {0, 0, 0, 0, 1, 0},
		"thurward_nat_port_pool_highest": {0, 0, 0, 0, 1, 0},
		"thurward_nat_port_pool_size":    {64512, 64512, 64512, 64512, 64512, 64512},
		"thurward_dns_queries_total":     dns.Outcomes[1:], "thurward_dns_lookup_duration_seconds": append(dns.Latency[:], uint64(dns.LatencySum)),
		"thurward_dns_answers_rejected_total": {dns.Mismatched, dns.WrongCase, dns.Malformed}, "thurward_dns_outstanding": {0}, "thurward_dns_tcp_connections": {0},
		"thurward_dns_tcp_ended_total": {tcp.Evicted, tcp.Stalled}, "thurward_fqdn_set_size": {0}, "thurward_fqdn_set_capacity": {2048}, "thurward_fqdn_set_clients": {0},
		"thurward_fqdn_set_largest_client": {0}, "thurward_fqdn_set_evictions_total": {set.EvictedFull, set.EvictedText, set.EvictedAddress},
		"thurward_dns_upstream_tls_connections_total": {links(func(c *dot.Counters) uint64 { return c.Connections })},
		"thurward_dns_upstream_tls_unsent_total":      {links(func(c *dot.Counters) uint64 { return c.Unsent })}, "thurward_dns_upstream_tls_open": {0},
	} {
		want[name] = v
	}
	for i := range verdict.NumTLSClasses - 1 {
		const name = "thurward_dns_upstream_tls_failures_total"
		want[name] = append(want[name], links(func(c *dot.Counters) uint64 { return c.Failures[i+1] }))
	}
	for _, f := range e.Metrics() {
		w, ok := want[f.Name]
		if !ok {
			t.Errorf("%s is not in this test", f.Name)
			continue
		}
		delete(want, f.Name)
		n := max(f.N, 1)
		if f.Type == export.Histogram {
			n = len(f.Bounds) + 2
			if f.Scale != 1e9 || len(f.Bounds) != len(dnsproxy.Buckets) || f.Bounds[3] != uint64(dnsproxy.Buckets[3]) || f.Bounds[0] != 5e5 {
				t.Errorf("%s: bounds %v of scale %v", f.Name, f.Bounds, f.Scale)
			}
		}
		v := make([]uint64, n)
		v[0] = 12345 // of the snapshot before
		f.Fill(v)
		if !reflect.DeepEqual(v, w) {
			t.Errorf("%s is %v, want %v", f.Name, v, w)
		}
		if f.Labels == nil || strings.HasPrefix(f.Name, "thurward_rule_") {
			continue // the rules of labs have no names
		}
		seen := map[string]bool{}
		for i := range max(f.N, 1) {
			s := string(f.Labels(nil, i))
			if seen[s] || s == "" || strings.Contains(s, `"invalid"`) {
				t.Errorf("%s: labels %s of value %d", f.Name, s, i)
			}
			seen[s] = true
		}
	}
	for name := range want {
		t.Errorf("there is no %s", name)
	}
}

// TestLabelsStandByTheirValues: the labels of values that are easily confused.
func TestLabelsStandByTheirValues(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		p.SNAT = append(p.SNAT, p.SNAT[0])
		p.SNAT[1].External = ip("203.0.113.11").To16()
	}, "accept egress udp")
	c, dns, set, tcp, table := &l.e.c, l.e.host.DNS().Counters(), l.e.Names().Counters(), l.e.host.Conns().Counters(), &l.e.flows.C
	for i, s := range []any{c, dns, set, tcp, table} {
		number(reflect.ValueOf(s).Elem(), uint64(1000*i+1000))
	}
	l.e.nat.Pools()[1].Take(packet.UDP, ip(host), 4000, 0)
	fs := l.e.Metrics()
	for _, x := range []struct {
		name, labels string
		want         uint64
	}{
		{"thurward_dns_answers_rejected_total", `reason="mismatch"`, dns.Mismatched},
		{"thurward_dns_answers_rejected_total", `reason="wrong_case"`, dns.WrongCase},
		{"thurward_dns_answers_rejected_total", `reason="malformed"`, dns.Malformed},
		{"thurward_dns_tcp_ended_total", `reason="evicted"`, tcp.Evicted},
		{"thurward_dns_tcp_ended_total", `reason="stalled"`, tcp.Stalled},
		{"thurward_fqdn_set_evictions_total", `reason="full"`, set.EvictedFull},
		{"thurward_fqdn_set_evictions_total", `reason="text_full"`, set.EvictedText},
		{"thurward_fqdn_set_evictions_total", `reason="address_full"`, set.EvictedAddress},
		{"thurward_dns_queries_total", `outcome="` + verdict.DNSAnswered.String() + `"`, dns.Outcomes[verdict.DNSAnswered]},
		{"thurward_dns_queries_total", `outcome="` + verdict.DNSRateLimited.String() + `"`, dns.Outcomes[verdict.DNSRateLimited]},
		{"thurward_drops_total", `drop_reason="malformed_packet"`, c.DropReasons[verdict.MalformedPacket]},
		{"thurward_drops_total", `drop_reason="tx_full"`, c.DropReasons[verdict.TxFull]},
		{"thurward_nat_translations_total", `kind="snat"`, c.Translations[nat.SNAT]},
		{"thurward_nat_translations_total", `kind="hairpin"`, c.Translations[nat.Hairpin]},
		{"thurward_conntrack_evictions_total", `reason="expired"`, table.Evictions[conntrack.Expired]},
		{"thurward_conntrack_evictions_total", `reason="reclaimed"`, table.Evictions[conntrack.Reclaimed]},
		{"thurward_nat_port_pool_in_use", `external_ip="203.0.113.11",proto="udp"`, 1},
		{"thurward_nat_port_pool_in_use", `external_ip="203.0.113.11",proto="tcp"`, 0},
		{"thurward_nat_port_pool_in_use", `external_ip="203.0.113.11",proto="icmp"`, 0},
		{"thurward_nat_port_pool_in_use", `external_ip="203.0.113.10",proto="udp"`, 0},
		{"thurward_arp_sent_total", `interface="wan"`, c.ARPSent[wan]},
		{"thurward_arp_sent_total", `interface="lan"`, c.ARPSent[lan]},
	} {
		if got := sample(t, fs, x.name, x.labels); got != x.want {
			t.Errorf("%s{%s} is %d, want %d", x.name, x.labels, got, x.want)
		}
	}
}

// TestMetricsOfNames: metrics computed on demand: clients, upstreams, and what is known.
// Without an upstream all of it is there, and zero.
func TestMetricsOfNames(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.DNSNames = 100 })
	v, q := l.asked(host, l.query("github.com", 1))
	h := l.tcpHost(lan)
	h.askTCP(host, lanAddr, l.query("other.example", 1))
	l.exchange(h)
	l.taken(wan)
	fs := l.e.Metrics()
	for name, want := range map[string]uint64{"thurward_dns_outstanding": 2, "thurward_dns_tcp_connections": 1, "thurward_fqdn_set_capacity": 100, "thurward_fqdn_set_size": 0} {
		if got := sample(t, fs, name, ""); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	l.answers(v, reply(q, "@ 60 IN A 192.0.2.1", "@ 60 IN A 192.0.2.2"))
	l.resolve("10.0.0.3", "github.com", "@ 60 IN A 192.0.2.1")
	for name, want := range map[string]uint64{"thurward_dns_outstanding": 1, "thurward_fqdn_set_size": 3, "thurward_fqdn_set_clients": 2, "thurward_fqdn_set_largest_client": 2} {
		if got := sample(t, fs, name, ""); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	plain := map[string]bool{}
	for _, f := range newLab(t, "accept").e.Metrics() {
		plain[f.Name] = true
		if strings.HasPrefix(f.Name, "thurward_dns_") || strings.HasPrefix(f.Name, "thurward_fqdn_") {
			v := make([]uint64, max(f.N, 1)+len(f.Bounds)+1)
			f.Fill(v)
			for _, n := range v {
				if n != 0 {
					t.Errorf("without an upstream %s is %v", f.Name, v)
				}
			}
		}
	}
	for _, f := range fs {
		if !plain[f.Name] {
			t.Errorf("without an upstream there is no %s", f.Name)
		}
	}
	for _, f := range newLabWith(t, routed, "accept").e.Metrics() {
		if strings.HasPrefix(f.Name, "thurward_nat_port_pool") {
			t.Errorf("%s is there, and there is no pool", f.Name)
		}
	}
}

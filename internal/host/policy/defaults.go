package policy

import (
	"fmt"
	"strconv"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// maxDNSRate is the highest limit of queries that one client may ask in a second.
const maxDNSRate = 1_000_000

// defaults reads defaults.
func (l *loader) defaults(n *node, path string) {
	d := &l.p.Defaults
	count := func(into *int, lo, hi int) func(*node, string) {
		return func(n *node, path string) {
			if v, ok := l.number(n, path, lo, hi); ok {
				*into = v
			}
		}
	}
	share := func(into *float64) func(*node, string) {
		return func(n *node, path string) {
			v, err := strconv.ParseFloat(n.text, 64)
			if n.kind != scalar || n.quoted || err != nil || !(v >= 0 && v <= 1) {
				l.err(n, path, "share", "is not a share", "want a number from 0 (none) to 1 (all), as 0.01")
				return
			}
			*into = v
		}
	}
	l.fields(n, path, []field{
		{"default_action", func(n *node, path string) {
			d.Line, d.Column = n.line, n.col
			d.Action, _ = oneOf(l, n, path, actions...)
		}},
		{"max_flows", count(&d.MaxFlows, ruleset.MinFlows, ruleset.MaxFlows)},
		{"max_flows_per_source", func(n *node, path string) {
			count(&d.SourceFlows, 0, ruleset.MaxFlows)(n, path)
			if d.SourceFlows > d.MaxFlows {
				l.err(n, path, "range", fmt.Sprintf("%d is more than all sources together may have, %d", d.SourceFlows, d.MaxFlows), "want fewer, or raise max_flows")
			}
		}},
		{"new_flows_per_source", count(&d.SourceRate, 0, 10_000_000)},
		{"conntrack_timeouts", func(n *node, path string) {
			var fs []field
			for _, t := range Timeouts {
				fs = append(fs, field{t.Name, func(n *node, path string) {
					if v, ok := l.seconds(n, path); ok {
						d.Timeouts[t.Name] = v
					}
				}})
			}
			l.fields(n, path, fs)
		}},
		{"fragments", func(n *node, path string) {
			w, _ := l.word(n, path, "drop", "reassemble")
			d.Reassemble = w == "reassemble"
		}},
		{"icmp_time_exceeded", func(n *node, path string) {
			v, ok := l.flag(n, path)
			d.NoTimeExceeded = ok && !v
		}},
		{"tcp_mss_clamp", func(n *node, path string) {
			w, _ := l.word(n, path, "auto", "off")
			d.NoMSSClamp = w == "off"
		}},
		{"tcp_reset_unknown", func(n *node, path string) {
			v, ok := l.flag(n, path)
			d.NoResetUnknown = ok && !v
		}},
		{"flow_end_events", func(n *node, path string) {
			v, ok := l.flag(n, path)
			d.NoFlowEnd = ok && !v
		}},
		{"flow_trace_sample_accept", share(&d.SampleAccept)},
		{"flow_trace_sample_drop", share(&d.SampleDrop)},
		{"upstream_dns", func(n *node, path string) {
			l.each(n, path, func(n *node, path string) {
				if a, ok := l.host(n, path); ok {
					l.upstream(n, path, Upstream{Address: a, Port: DNSPort})
				}
			})
		}},
		{"dns_qps_per_client", func(n *node, path string) {
			if l.atMost(n, path, maxDNSRate) {
				d.DNSRate = maxDNSRate
				return
			}
			count(&d.DNSRate, 1, maxDNSRate)(n, path)
		}},
	})
}

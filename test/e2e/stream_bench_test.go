package e2e

import (
	"testing"
	"time"
)

// BenchmarkEvents is how many events a second leave the image by vsock and are
// read, when there are more than that: every packet is dropped and is an event
// of its own. It runs for a fixed time. Run it with -benchtime 1x.
func BenchmarkEvents(b *testing.B) {
	for name, kvm := range map[string]bool{"tcg": false, "kvm": true} {
		b.Run(name, func(b *testing.B) {
			if why := noKVM(); kvm && why != "" {
				b.Skip(why)
			}
			l, r := watched(b, kvm, nil)
			s := l.sprayer()
			const span = 8 * time.Second
			before := r.fresh()
			r.mu.Lock()
			n := len(r.lines)
			r.mu.Unlock()
			start := time.Now()
			for i := 0; time.Since(start) < span; i++ {
				s.send(uint16(i), uint16(i))
				if i%64 == 0 {
					time.Sleep(100 * time.Microsecond)
				}
			}
			took := time.Since(start)
			r.mu.Lock()
			got := len(r.lines) - n
			r.mu.Unlock()
			after := r.fresh()
			diff := func(m string) float64 { return float64(after[m] - before[m]) }
			b.ReportMetric(float64(got)/took.Seconds(), "lines/s")
			b.ReportMetric(diff(`thurward_rule_drops_total{rule_id="default-deny"}`)/took.Seconds(), "drops/s")
			b.ReportMetric(diff("thurward_vsock_dropped_lines_total"), "dropped-lines")
			b.ReportMetric(diff("thurward_event_records_lost_total"), "lost-records")
			b.ReportMetric(0, "ns/op")
		})
	}
}

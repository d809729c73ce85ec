package e2e

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestS41_Spans: with shares of 1 every drop has a span right behind its event,
// which names it; with shares of 0 none has.
func TestS41_Spans(t *testing.T) {
	t.Parallel()
	for _, share := range []uint32{0, math.MaxUint32} {
		image := linked(t, func(p *ruleset.Policy) { p.Settings.SampleAccept, p.Settings.SampleDrop = share, share })
		l, r := watched(t, false, func(c *vmm.Config) { c.Image = image })
		s := l.sprayer()
		for i := range uint16(10) {
			s.send(500+i, 600+i)
		}
		if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Fatal(err)
		}
		ev := r.awaitEvents(10, map[string]any{"event.action": "drop", "source.ip": "10.0.0.77"})
		r.mu.Lock()
		lines := r.lines
		r.mu.Unlock()
		spans := map[string]bool{}
		for _, line := range lines {
			b, ok := strings.CutPrefix(line, "# SPAN ")
			if !ok {
				continue
			}
			var sp struct {
				TraceID, SpanID, Name, StartTimeUnixNano, EndTimeUnixNano string
				Kind                                                      int
				Attributes                                                []struct {
					Key   string
					Value map[string]string
				}
			}
			if err := json.Unmarshal([]byte(b), &sp); err != nil || len(sp.TraceID) != 32 || len(sp.SpanID) != 16 || sp.Kind != 1 || sp.StartTimeUnixNano > sp.EndTimeUnixNano || len(sp.Attributes) < 8 {
				t.Errorf("%v: %s", err, b)
			}
			if spans[sp.SpanID] {
				t.Errorf("two spans with the id %s", sp.SpanID)
			}
			spans[sp.SpanID] = true
		}
		want := 0
		if share != 0 {
			want = 10
		}
		found := 0
		for _, e := range ev {
			if id, ok := e["span.id"].(string); ok && spans[id] {
				found++
			}
		}
		if found != want || share == 0 && len(spans) != 0 {
			t.Errorf("share %d: %d of 10 drops have their span, %d spans", share, found, len(spans))
		}
		// A flow's events name its span before it is written.
		if e := r.events(map[string]any{"event.action": "accept", "rule.id": "allow-web"}); len(e) != 1 || (e[0]["trace.id"] != nil) != (share != 0) {
			t.Errorf("share %d: %v", share, e)
		}
	}
}

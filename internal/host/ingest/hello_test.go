package ingest

import (
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

// FuzzHello: the fields of a HELLO that are kept are known, bounded and printable, and
// its times are valid.
func FuzzHello(f *testing.F) {
	for _, s := range []string{helloA[len("# HELLO "):], helloB[len("# HELLO "):], `{"service.instance.id":"ab","firewall.clock":"none"}`,
		`{"service":{"instance":{"id":"ab"}},"@timestamp":"9999-12-31T23:59:59Z","firewall.uptime_ns":-9223372036854775808}`,
		`{"service.instance.id":"a","firewall.wan.address":"203.0.113.10/33","firewall.lan.mac":"02:00"}`,
		`{"service.instance.id":"a b","service.version":"\u009b2J"}`, `{"service.instance.id":["a"]}`} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHello(s)
		if err != nil {
			return
		}
		h.Received(now)
		if h.Boot == "" || len(h.Boot) > maxBoot || strings.ContainsAny(h.Boot, " #\n") || !ecs.ValidTime(h.Booted) {
			t.Errorf("%+v", h)
		}
		for name, v := range h.Fields {
			most, known := helloFields[name]
			v := ecs.Text(v)
			if !known || len(v) > most || strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }) {
				t.Errorf("%s: %q", name, v)
			}
		}
		for _, at := range []ecs.Event{{}, {"@timestamp": "1970-01-01T00:00:04Z"}, {"@timestamp": "9999-12-31T23:59:59Z"}} {
			if w := h.When(at); !w.IsZero() && !ecs.ValidTime(w) {
				t.Errorf("%v of %v", w, at)
			}
		}
	})
}

package ecs

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestParse: fields may be flat, nested or both; the bounds hold on both of
// their sides.
func TestParse(t *testing.T) {
	fields := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(`,"` + strconv.Itoa(i) + `":1`)
		}
		return "{" + b.String()[1:] + "}"
	}
	nested := func(depth int) string {
		return strings.Repeat(`{"a":`, depth+1) + "1" + strings.Repeat("}", depth+1)
	}
	list := func(n int) string { return `{"a":[1` + strings.Repeat(",1", n-1) + `]}` }
	name := func(n int) string { return `{"` + strings.Repeat("k", n) + `":1}` }
	text := func(n int) string { return `{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}` }
	for _, c := range []struct {
		in  string
		err error
	}{
		{`{"event.action":"drop"}`, nil},
		{`{"event":{"action":"drop"},"event.reason":"rule"}`, nil},
		{`{}`, nil},
		{"", ErrJSON},
		{"{", ErrJSON},
		{"[]", ErrJSON},
		{"null", ErrJSON},
		{`{"a":1`, ErrJSON},
		{`{"a":1}x`, ErrJSON},
		{`{"a":1} {"b":2}`, ErrJSON},
		{"{\"a\":\"\xff\"}", ErrUTF8},
		{`{"event":{"action":"drop"},"event.action":"accept"}`, ErrFields},
		{`{"a":{"b":{"c":1}},"a.b":{"c":2}}`, ErrFields},
		{fields(maxFields), nil}, {fields(maxFields + 1), ErrFields},
		{nested(maxDepth), nil}, {nested(maxDepth + 1), ErrFields},
		{list(maxList), nil}, {list(maxList + 1), ErrFields},
		{name(maxName), nil}, {name(maxName + 1), ErrFields},
		{`{"` + strings.Repeat("p", 50) + `":{"` + strings.Repeat("k", 49) + `":1}}`, nil},
		{`{"` + strings.Repeat("p", 50) + `":{"` + strings.Repeat("k", 50) + `":1}}`, ErrFields},
		{text(MaxBytes), nil}, {text(MaxBytes + 1), ErrTooLong},
	} {
		if e, err := Parse(c.in); !errors.Is(err, c.err) || (e == nil) != (err != nil) {
			t.Errorf("%.60s (%d bytes): %v, want %v", c.in, len(c.in), err, c.err)
		}
	}
}

func TestValues(t *testing.T) {
	e := parse(t, `{"@timestamp":"2026-11-24T12:00:01.234567Z","event":{"category":["network","x"]},
		"firewall.flow_id":18446744073709551615,"n":7,"neg":-5,"big":9223372036854775807,"b":true,"o":[{"x":1}],"z":null}`)
	for name, want := range map[string]string{
		"event.category": "network,x", "firewall.flow_id": "18446744073709551615", "b": "true", "o": `{"x":1}`, "z": "", "none": "",
	} {
		if got := e.Str(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if e.Int("n") != 7 || e.Int("b") != 0 || e.Count() != 1 || e.Time().UnixMicro() != 1795521601234567 {
		t.Errorf("%d %d %d %v", e.Int("n"), e.Int("b"), e.Count(), e.Time())
	}
	if e.Amount("n") != 7 || e.Amount("neg") != 0 || e.Amount("big") != MaxAmount {
		t.Errorf("amounts %d, %d, %d", e.Amount("n"), e.Amount("neg"), e.Amount("big"))
	}
	if e.Duration("n") != 7 || e.Duration("neg") != 0 || e.Duration("big") != MaxDuration {
		t.Errorf("durations %v, %v, %v", e.Duration("n"), e.Duration("neg"), e.Duration("big"))
	}
	if e.Seconds("n") != 7*time.Second || e.Seconds("neg") != 0 || e.Seconds("big") != (1<<32-1)*time.Second {
		t.Errorf("seconds %v, %v, %v", e.Seconds("n"), e.Seconds("neg"), e.Seconds("big"))
	}
}

// TestEndpoints: addresses and ports of the wrong type or out of range count as
// absent.
func TestEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		`{"source.ip":"10.0.0.2","source.port":40112}`:                  "10.0.0.2:40112",
		`{"source":{"ip":"10.0.0.2","port":1}}`:                         "10.0.0.2:1",
		`{"source.ip":"10.0.0.2"}`:                                      "10.0.0.2:0",
		`{"source.ip":"10.0.0.2","source.port":65535}`:                  "10.0.0.2:65535",
		`{"source.ip":"10.0.0.2","source.port":65536}`:                  "10.0.0.2:0",
		`{"source.ip":"10.0.0.2","source.port":-1}`:                     "10.0.0.2:0",
		`{"source.ip":"10.0.0.2","source.port":"53"}`:                   "10.0.0.2:0",
		`{"source.ip":"10.0.0.2.3","source.port":53}`:                   "invalid AddrPort",
		`{"source.port":53,"destination.ip":"1.1.1.1"}`:                 "invalid AddrPort",
		`{"destination.ip":"10.0.0.2","network.translated.port":40112}`: "invalid AddrPort",
	} {
		if got := parse(t, in).Source().String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	e := parse(t, `{"destination.ip":"1.1.1.1","destination.port":53,"network.translated":{"address":"203.0.113.10","port":7}}`)
	if e.Destination() != netip.MustParseAddrPort("1.1.1.1:53") || e.Translated() != netip.MustParseAddrPort("203.0.113.10:7") {
		t.Errorf("%v, %v", e.Destination(), e.Translated())
	}
}

// TestTime: a time out of range counts as absent.
func TestTime(t *testing.T) {
	for at, valid := range map[string]bool{
		"-0001-01-01T00:00:00Z": false, "0000-01-01T00:00:00Z": false, "1969-12-31T23:59:59Z": false, "2200-01-01T00:00:00Z": false,
		"9999-12-31T23:59:59Z": false, "12026-11-24T12:00:00Z": false, "": false,
		"1970-01-01T00:00:00Z": true, "2199-12-31T23:59:59Z": true,
	} {
		if e := parse(t, `{"@timestamp":"`+at+`"}`); e.Time().IsZero() == valid {
			t.Errorf("%q is %v", at, e.Time())
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 5000: "5.0 kB", 1.5e6: "1.5 MB", 2e9: "2.0 GB", 3e12: "3.0 TB", 4e15: "4000.0 TB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}

// FuzzParse: no input panics, gives more than the bounds allow, or drives a
// terminal.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		line, `{"a.b":{"c":[1,{"d":2}]}}`, `{"event.action":"drop","event":{"action":"x"},"event.action.more":1}`,
		`{"a":1,"a.b":2}`, `{"":{"":{}}}`, `{"event.action":"flow-end","event.duration":1e400}`, "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Parse(s)
		if (e == nil) != (err != nil) || len(e) > maxFields {
			t.Fatalf("%d fields, %v", len(e), err)
		}
		for name, v := range e {
			list, _ := v.([]any)
			if len(name) > maxName || len(list) > maxList {
				t.Fatalf("%q has %d elements", name, len(list))
			}
		}
		e.Source()
		if e.Time().Before(firstTime) && !e.Time().IsZero() || e.Count() < 1 {
			t.Fatalf("%v, %d", e.Time(), e.Count())
		}
		for _, out := range []string{Style{}.Text(e.Time(), e), Explain(e), Remedy(e)} {
			if strings.ContainsFunc(out, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Fatalf("control character in %q", out)
			}
		}
	})
}

const line = `{"@timestamp":"2026-11-24T12:00:02.000000Z","event.kind":"event","event.category":["network"],` +
	`"event.type":["connection","denied"],"event.action":"drop","event.outcome":"failure","event.reason":"no_matching_allow_rule",` +
	`"firewall.drop_reason":"no_matching_allow_rule","rule.id":"default-deny","source.ip":"192.0.2.1","source.port":53,` +
	`"destination.ip":"203.0.113.10","destination.port":5353,"network.transport":"udp","network.iana_number":"17",` +
	`"network.type":"ipv4","network.direction":"ingress","trace.id":"2f32548fe553beb13f682a142ade2de8",` +
	`"span.id":"6bf75c14af3344b3","firewall.clock":"kvmclock",` +
	`"firewall.policy":"sha256:ab00000000000000000000000000000000000000000000000000000000000000"}`

func BenchmarkParse(b *testing.B) {
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(line); err != nil {
			b.Fatal(err)
		}
	}
}

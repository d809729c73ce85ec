package export

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func v4(a, b, c, d byte) [16]byte { return [16]byte{10: 0xff, 11: 0xff, 12: a, 13: b, 14: c, 15: d} }

func context(name string) *Context {
	id := "allow-web"
	return &Context{
		Policy: &ruleset.Policy{Digest: [32]byte{0xab}, Settings: ruleset.Settings{DefaultAction: ruleset.Deny},
			Rules:   []ruleset.Rule{{ID: ruleset.Text{Off: 0, Len: uint32(len(id))}, Name: ruleset.Text{Off: uint32(len(id)), Len: uint32(len(name))}, Action: ruleset.Accept}},
			Strings: []byte(id + name)},
		WallBase: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).UnixNano(), Clock: "kvmclock",
		Tracer: NewTracer([16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, 1<<32-1, 1<<32-1),
	}
}

var records = []event.Record{
	{Time: 1_234_567_890, Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 0, Direction: verdict.Egress, FlowID: 7, Proto: 6,
		Src: v4(10, 0, 0, 2), Dst: v4(198, 51, 100, 80), SrcPort: 40000, DstPort: 443, XlatAddr: v4(203, 0, 113, 10), XlatPort: 40000, Lookup: 3},
	{Time: 2e9, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.NoMatchingAllowRule, Rule: 1, Direction: verdict.Ingress, Proto: 17,
		Src: v4(192, 0, 2, 1), Dst: v4(203, 0, 113, 10), SrcPort: 53, DstPort: 5353},
	{Time: 3e9, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.IPv6Unsupported, Rule: 1, Direction: verdict.Egress, Truncated: true, EtherType: 0x86dd},
	{Time: 4e9, Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 0, Direction: verdict.Egress, Proto: 1, Src: v4(10, 0, 0, 2), Dst: v4(1, 1, 1, 1), DstPort: 8 << 8},
	{Time: 4_234_567_890, Kind: event.FlowEnd, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 0, Direction: verdict.Egress, FlowID: 7, Proto: 6, Packets: 10, Bytes: 5000, Duration: 3e9,
		ReplyPackets: 4, ReplyBytes: 4200, Lookup: 3,
		Src: v4(10, 0, 0, 2), Dst: v4(198, 51, 100, 80), SrcPort: 40000, DstPort: 443, XlatAddr: v4(203, 0, 113, 10), XlatPort: 40000},
	{Time: 6e9, Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 0, Direction: verdict.Ingress, FlowID: 8, Proto: 6,
		Src: v4(192, 0, 2, 1), Dst: v4(203, 0, 113, 10), SrcPort: 50000, DstPort: 443, XlatAddr: v4(10, 0, 0, 5), XlatPort: 8443, XlatDst: true},
	{Time: 7e9, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.ExplicitDeny, Rule: 0, Direction: verdict.Ingress, Proto: 6, Count: 1000, Duration: 900e6,
		Src: v4(192, 0, 2, 66), Dst: v4(203, 0, 113, 10), SrcPort: 50000, DstPort: 22},
	{Time: 8e9, Kind: event.Verdict, Action: verdict.WouldDrop, Reason: verdict.ExplicitDeny, Rule: 0, Direction: verdict.Egress, Proto: 17, Src: v4(10, 0, 0, 2), Dst: v4(1, 1, 1, 1), SrcPort: 1, DstPort: 53},
	{Time: 9e9, Kind: event.DNSQuery, DNS: verdict.DNSAnswered, QType: 1, Lookup: 3, Direction: verdict.Egress, Proto: 17, Duration: 12e6,
		Src: v4(10, 0, 0, 2), Dst: v4(10, 0, 0, 1), SrcPort: 5353, DstPort: 53, XlatAddr: v4(198, 51, 100, 80)},
	{Time: 10e9, Kind: event.DNSQuery, DNS: verdict.DNSRateLimited, QType: 65, Lookup: 4, Direction: verdict.Egress, Proto: 17,
		Src: v4(10, 0, 0, 2), Dst: v4(10, 0, 0, 1), SrcPort: 5353, DstPort: 53},
	{Time: 12e9, Kind: event.UpstreamFailed, TLS: verdict.TLSVerify, Direction: verdict.Egress, Proto: 6, Dst: v4(9, 9, 9, 9), DstPort: 853},
	{Time: 13e9, Kind: event.ClockAdjusted, Duration: -10_012_000_345},
	{Time: 14e9, Kind: event.PacketsLate, Duration: 412_000_345, Packets: 3},
}

// nameOf is the name that goes with a record of the table.
func nameOf(r *event.Record) []byte {
	if r.Kind == event.DNSQuery || r.FlowID == 7 {
		return []byte("github.com")
	}
	if r.Kind == event.UpstreamFailed {
		return []byte("x509: certificate is valid for a.example, not \"dns.example\"")
	}
	return nil
}

func FuzzEventIsJSON(f *testing.F) {
	f.Add("plain", uint8(1), uint8(2), uint32(0), uint8(6), false)
	f.Add("\"quotes\\ \x00\x1f\x7f \xff\xfe é 世\u2028", uint8(2), uint8(1), uint32(9), uint8(47), true)
	f.Fuzz(func(t *testing.T, name string, kind, action uint8, rule uint32, proto uint8, trunc bool) {
		r := event.Record{Kind: event.Kind(kind), Action: verdict.Action(action), Reason: verdict.Reason(kind), Rule: rule, Proto: proto, Truncated: trunc, EtherType: 0x1234}
		line := AppendEvent(nil, &r, context(name))
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if told := event.Kind(kind) == event.Verdict || event.Kind(kind) == event.FlowEnd; told && rule == 0 && name != "" && m["rule.name"] != string([]rune(name[:min(len(name), maxText)])) && json.Valid([]byte(`"`+name+`"`)) && !strings.Contains(name, `\`) {
			t.Fatalf("rule name %q became %q", name, m["rule.name"])
		}
		if strings.ContainsAny(string(line), "\n\r") {
			t.Fatalf("line break in %q", line)
		}
	})
}

func TestEveryReasonHasAName(t *testing.T) {
	seen := map[string]bool{}
	for r := verdict.Reason(1); r < verdict.NumReasons; r++ {
		n := r.String()
		if n == "" || n == "invalid" || seen[n] {
			t.Errorf("reason %d is called %q", r, n)
		}
		seen[n] = true
	}
	if verdict.Reason(0).String() != "invalid" || verdict.NumReasons.String() != "invalid" {
		t.Error("values that are no reason have a name")
	}
}

func TestRing(t *testing.T) {
	q := event.NewRing(4)
	for i := range 6 {
		if ok := q.Put(&event.Record{FlowID: uint64(i)}); ok != (i < 4) {
			t.Fatalf("Put %d: %v", i, ok)
		}
	}
	if q.Lost() != 2 || q.Len() != 4 {
		t.Fatalf("lost %d, waiting %d", q.Lost(), q.Len())
	}
	var r event.Record
	for i := range 4 {
		if !q.Get(&r) || r.FlowID != uint64(i) {
			t.Fatalf("got %d, want %d", r.FlowID, i)
		}
	}
	if q.Get(&r) {
		t.Fatal("a record from an empty ring")
	}
}

func TestLimiter(t *testing.T) {
	l := Limiter{Rate: 10, Burst: 5}
	n := 0
	for range 100 {
		if l.Allow(1e9) {
			n++
		}
	}
	if n != 5 || l.Held != 95 {
		t.Fatalf("%d passed, %d held", n, l.Held)
	}
	if l.Allow(1e9+99e6) || !l.Allow(1e9+101e6) {
		t.Fatal("not one line in 100 ms")
	}
	if got := string(l.AppendLost(nil, 4)); !strings.Contains(got, `"thurward.lost":100`) {
		t.Fatalf("%s", got)
	}
	if got := l.AppendLost(nil, 4); len(got) != 0 {
		t.Fatalf("told twice: %s", got)
	}
}

func BenchmarkRender(b *testing.B) {
	c := context("Web for everyone")
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEvent(buf[:0], &records[0], c)
	}
}

func BenchmarkRecord(b *testing.B) {
	q := event.NewRing(1024)
	var r event.Record
	b.ReportAllocs()
	for b.Loop() {
		q.Put(&records[0])
		q.Get(&r)
	}
}

// TestEscapedIsPrintable: a line has the original text, and no control characters of
// terminals.
func TestEscapedIsPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"Zürich 東京":              "Zürich 東京",
		"a\"b\\\n\x1b[2J\x7f":    `a\"b\\\u000a\u001b[2J\u007f`,
		"\u009b1m\u0085\u2028":   `\u009b1m\u0085\u2028`,
		"\u202eevil\u2066\u200f": `\u202eevil\u2066\u200f`,
		"\U000e0041\U0001f525":   `\udb40\udc41` + "\U0001f525",
		"\xff\x9b":               "\ufffd\ufffd",
	} {
		got := string(appendEscaped(nil, in))
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
		var back string
		if err := json.Unmarshal([]byte(`"`+got+`"`), &back); err != nil || back != string([]rune(in)) {
			t.Errorf("%s means %q (%v)", got, back, err)
		}
	}
}

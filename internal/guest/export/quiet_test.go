package export

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestQuiet: what the policy wants no events of, and beside each what is still told.
func TestQuiet(t *testing.T) {
	p := &ruleset.Policy{
		Settings: ruleset.Settings{Quiet: 1<<verdict.IPv6Unsupported | 1<<verdict.TxFull, Flags: ruleset.FlagQuietGroups},
		Interfaces: []ruleset.Interface{
			{Role: ruleset.LAN, Address: ruleset.Addr(v4(10, 0, 0, 1)), PrefixLen: 24},
			{Role: ruleset.WAN, Address: ruleset.Addr(v4(203, 0, 113, 10)), PrefixLen: 31},
		},
		Rules: []ruleset.Rule{{}, {Quiet: 1}},
	}
	drop := func(why verdict.Reason, dst [16]byte) event.Record {
		return event.Record{Kind: event.Verdict, Action: verdict.Drop, Reason: why, Rule: 2, Src: v4(10, 0, 0, 2), Dst: dst}
	}
	ruled := func(k event.Kind, a verdict.Action, why verdict.Reason, rule uint32) event.Record {
		return event.Record{Kind: k, Action: a, Reason: why, Rule: rule, Src: v4(10, 0, 0, 2), Dst: v4(1, 1, 1, 1)}
	}
	host := v4(198, 51, 100, 1)
	for i, c := range []struct {
		r     event.Record
		quiet bool
	}{
		{drop(verdict.IPv6Unsupported, host), true},
		{drop(verdict.TxFull, host), true},
		{drop(verdict.EtherTypeUnsupported, host), false},
		{drop(verdict.UntranslatedDestination, host), false}, // the last bit
		{drop(verdict.Martian, host), false},
		{drop(verdict.Martian, v4(223, 255, 255, 255)), false},
		{drop(verdict.Martian, v4(224, 0, 0, 0)), true},
		{drop(verdict.Martian, v4(239, 255, 255, 255)), true},
		{drop(verdict.Martian, v4(240, 0, 0, 0)), false},
		{drop(verdict.Martian, v4(255, 255, 255, 255)), true},
		{drop(verdict.Martian, v4(10, 0, 0, 255)), true},
		{drop(verdict.Martian, v4(10, 0, 1, 255)), false},
		{drop(verdict.Martian, v4(10, 0, 0, 0)), false},
		{drop(verdict.Martian, v4(203, 0, 113, 11)), false}, // a host of a /31
		{drop(verdict.NoMatchingAllowRule, v4(224, 0, 0, 1)), false},
		{event.Record{Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.Martian, Truncated: true}, false},
		{ruled(event.Verdict, verdict.Accept, verdict.RuleAccept, 1), true},
		{ruled(event.FlowEnd, verdict.Accept, verdict.RuleAccept, 1), true},
		{ruled(event.Verdict, verdict.Drop, verdict.ExplicitDeny, 1), true},
		{ruled(event.Verdict, verdict.Drop, verdict.ConntrackFull, 1), false},
		{ruled(event.Verdict, verdict.Drop, verdict.NATPortPoolExhausted, 1), false},
		{ruled(event.Verdict, verdict.Accept, verdict.RuleAccept, 0), false},
		{ruled(event.FlowEnd, verdict.Accept, verdict.RuleAccept, 0), false},
		{ruled(event.Verdict, verdict.Drop, verdict.NoMatchingAllowRule, 2), false},
		{ruled(event.Verdict, verdict.Accept, verdict.RuleAccept, 1<<31), false},
		{event.Record{Kind: event.DNSQuery, Rule: 1}, false},
		{event.Record{Kind: event.FlowEnd, Action: verdict.Drop, Reason: verdict.IPv6Unsupported, Rule: 2}, false},
	} {
		if got := (&Context{Policy: p}).quiet(&c.r); got != c.quiet {
			t.Errorf("%d: %+v is quiet: %v", i, c.r, got)
		}
	}
	martian := drop(verdict.Martian, v4(224, 0, 0, 1))
	p.Settings.Flags = 0
	if (&Context{Policy: p}).quiet(&martian) {
		t.Error("multicast is quiet though the policy asks for it")
	}
	if (&Context{}).quiet(&martian) {
		t.Error("quiet without a policy")
	}
}

// TestQuietOnTheStream: a quiet record makes no line, neither alone nor merged with
// others, is not shown on the console, and takes no number of the sequence.
func TestQuietOnTheStream(t *testing.T) {
	tapped := 0
	l := newStreamLab(t, func(c *StreamConfig) {
		c.Tap = func(*event.Record, []byte) { tapped++ }
		p := *c.Context.Policy
		p.Settings.Quiet = 1 << verdict.IPv6Unsupported
		c.Context.Policy = &p
	})
	l.settle()
	for range 3 {
		l.ring.Put(&event.Record{Time: l.now, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.IPv6Unsupported, Rule: 1, Truncated: true, EtherType: 0x86dd})
	}
	l.accept(5)
	l.ring.Put(&event.Record{Time: l.now, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.Martian, Src: v4(10, 0, 0, 2), Dst: v4(224, 0, 0, 1), Proto: 17})
	l.until(l.now + 3e9)
	ev := l.link.lines("{")
	if len(ev) != 2 || strings.Contains(strings.Join(ev, ""), "ipv6") || tapped != 2 || num(t, ev[1], "event.sequence") != 2 {
		t.Errorf("%d tapped, events %q", tapped, ev)
	}
}

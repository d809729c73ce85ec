package compile

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestAddrMask: a network is an address and a mask of IPv6's length; everything, and none,
// are zeros.
func TestAddrMask(t *testing.T) {
	for in, want := range map[string]string{
		"10.1.2.3/8":      "::ffff:10.0.0.0 ffff:ffff:ffff:ffff:ffff:ffff:ff00:0",
		"192.0.2.1/32":    "::ffff:192.0.2.1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"128.0.0.0/1":     "::ffff:128.0.0.0 ffff:ffff:ffff:ffff:ffff:ffff:8000:0",
		"2001:db8:1::/32": "2001:db8:: ffff:ffff::",
		"0.0.0.0/0":       ":: ::",
		"::/0":            ":: ::",
		"":                ":: ::",
	} {
		var p netip.Prefix
		if in != "" {
			p = netip.MustParsePrefix(in)
		}
		a, m := addrMask(p)
		if got := netip.AddrFrom16(a).String() + " " + netip.AddrFrom16(m).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestTooManyCombinations: lists that make more matches than there may be are refused with
// the rule's place, before any of them is made.
func TestTooManyCombinations(t *testing.T) {
	many := func(n int) (ps []netip.Prefix) {
		for i := range n {
			ps = append(ps, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32))
		}
		return ps
	}
	few := policy.Rule{Action: ruleset.Accept, Source: many(3), Destination: many(2), Line: 3}
	for name, c := range map[string]struct {
		rules []policy.Rule
		want  string // of the error; "": none
		n     int    // matches
	}{
		"few":             {[]policy.Rule{few, few}, "", 12},
		"too many in one": {[]policy.Rule{few, {Line: 7, Source: many(1 << 10), Destination: many(1<<10 + 1)}}, "p.yaml:7: the lists", 0},
		"one too many":    {[]policy.Rule{{Line: 5, Source: many(1)}, {Line: 9, Source: many(1 << 10), Destination: many(1 << 10)}}, "p.yaml:9: the lists", 0},
	} {
		s, err := Compile(&policy.Policy{File: "p.yaml", Rules: c.rules})
		if c.want == "" && (err != nil || len(s.Matches) != c.n) || c.want != "" && (err == nil || s != nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

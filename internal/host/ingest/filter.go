package ingest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Filter selects events. Of each list an event must match an element, if there is one
// without ! in front, and none of those with it; the zero Filter selects all.
type Filter struct {
	Rules, Reasons, Actions []string       // exact, or with * for any text
	Names                   []string       // the same, of destination.domain or dns.question.name
	Hosts                   []netip.Prefix // of source, destination, translated or resolved address
	NotHosts                []netip.Prefix // none of them
	From                    []string       // of the firewall, by its name
}

// ParseHost parses an address or a prefix.
func ParseHost(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address (want 10.0.0.2 or 10.0.0.0/24)", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// Matches reports whether an event of a firewall is selected.
func (f *Filter) Matches(h *Hello, e ecs.Event) bool {
	return fits(f.Rules, e.Str(ecs.RuleID)) &&
		fits(f.Reasons, e.Str(ecs.EventReason)) &&
		fits(f.Actions, e.Str(ecs.EventAction)) &&
		fits(f.Names, e.Str(ecs.DestinationDomain), e.Str(ecs.DNSQuestionName)) &&
		fits(f.From, h.Name()) &&
		(len(f.Hosts) == 0 || hosts(f.Hosts, e)) && !hosts(f.NotHosts, e)
}

// fits reports whether a pattern matches a value that is not empty, or there is no
// pattern without ! in front, and none with it matches.
func fits(patterns []string, values ...string) bool {
	wanted, found := false, false
	for _, p := range patterns {
		p, not := strings.CutPrefix(strings.ToLower(p), "!")
		matches := slices.ContainsFunc(values, func(v string) bool { return v != "" && wild(p, strings.ToLower(v)) })
		if not && matches {
			return false
		}
		wanted, found = wanted || !not, found || !not && matches
	}
	return found || !wanted
}

// MayMatch reports whether a pattern, with or without ! in front, matches one of the
// values.
func MayMatch(pattern string, values []string) bool {
	p := strings.TrimPrefix(strings.ToLower(pattern), "!")
	return slices.ContainsFunc(values, func(v string) bool { return wild(p, v) })
}

// wild matches a pattern in which * stands for any text.
func wild(p, s string) bool {
	parts := strings.Split(p, "*")
	if len(parts) == 1 {
		return p == s
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, m := range parts[1 : len(parts)-1] { // the first occurrence leaves most text for the rest
		i := strings.Index(s, m)
		if i < 0 {
			return false
		}
		s = s[i+len(m):]
	}
	return true
}

// hostFields are the addresses of an event.
var hostFields = [...]string{ecs.SourceIP, ecs.DestinationIP, ecs.TranslatedAddress, ecs.DNSResolvedIP}

// hosts reports whether an address of an event is in one of some networks.
func hosts(ps []netip.Prefix, e ecs.Event) bool {
	if len(ps) == 0 {
		return false
	}
	for _, n := range hostFields {
		a, err := netip.ParseAddr(e.Str(n))
		if err == nil && slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) }) {
			return true
		}
	}
	return false
}

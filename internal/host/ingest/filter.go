package ingest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Filter selects events. An event must match an element of each list that is not
// empty; the zero Filter selects all.
type Filter struct {
	Rules, Reasons, Actions []string       // exact, or with * for any text
	Names                   []string       // the same, of destination.domain or dns.question.name
	Hosts                   []netip.Prefix // of source, destination, translated or resolved address
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
		f.host(e)
}

// fits reports whether a pattern matches a value that is not empty, or there is no
// pattern.
func fits(patterns []string, values ...string) bool {
	if len(patterns) == 0 {
		return true
	}
	return slices.ContainsFunc(values, func(v string) bool {
		return v != "" && slices.ContainsFunc(patterns, func(p string) bool {
			return wild(strings.ToLower(p), strings.ToLower(v))
		})
	})
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

func (f *Filter) host(e ecs.Event) bool {
	if len(f.Hosts) == 0 {
		return true
	}
	for _, n := range hostFields {
		a, err := netip.ParseAddr(e.Str(n))
		if err != nil {
			continue
		}
		for _, p := range f.Hosts {
			if p.Contains(a.Unmap()) {
				return true
			}
		}
	}
	return false
}

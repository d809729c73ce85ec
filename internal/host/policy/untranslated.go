package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// hides returns the snat entry for which the data plane drops a flow that the
// rules accept: it comes from the WAN straight to a host whose source the entry
// translates. From outside such a host has no address but those of nat.dnat; who
// could use its own would pass by the sources that an entry there is for.
// It returns nil when there is none.
func (p *Policy) hides(o *Outcome) *SNAT {
	f := &o.Seen
	if f.FromLAN || f.Established || o.Local || o.DNAT >= 0 {
		return nil
	}
	for i := range p.SNAT {
		if n := &p.SNAT[i]; !n.Source.IsValid() || n.Source.Contains(f.Dst.Addr()) {
			return n
		}
	}
	return nil
}

// sourceText says which sources an entry is for, as an insertion, "" for all.
func (n *SNAT) sourceText() string {
	if !n.Source.IsValid() {
		return ""
	}
	return fmt.Sprintf(" (snat of %v)", n.Source)
}

// routed returns the part of the LAN that no snat entry covers: its hosts have
// the same addresses on both sides.
func (p *Policy) routed() []netip.Prefix {
	var sources []netip.Prefix
	for i := range p.SNAT {
		if !p.SNAT[i].Source.IsValid() {
			return nil
		}
		sources = append(sources, p.SNAT[i].Source)
	}
	return without(p.side(true).Prefix.Masked(), sources)
}

// without returns the networks that a network consists of beside others.
func without(n netip.Prefix, others []netip.Prefix) []netip.Prefix {
	overlaps := false
	for _, o := range others {
		if o.Bits() <= n.Bits() && o.Contains(n.Addr()) {
			return nil
		}
		overlaps = overlaps || n.Contains(o.Addr())
	}
	if !overlaps {
		return []netip.Prefix{n}
	}
	// One of the others lies within, so that n has two halves.
	lo := netip.PrefixFrom(n.Addr(), n.Bits()+1)
	hi := netip.PrefixFrom(broadcast(n), n.Bits()+1).Masked()
	return append(without(lo, others), without(hi, others)...)
}

// exposed warns when rules let the WAN begin flows to hosts by their own
// addresses, because no snat entry covers them.
func (l *loader) exposed() {
	p := l.p
	open := p.routed()
	if len(open) == 0 {
		return
	}
	lan := p.side(true).Name
	const hint = "right where these addresses are routed; otherwise cover them with an snat entry, and servers with nat.dnat"
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.accepts(verdict.Ingress) || len(r.Names) > 0 {
			continue
		}
		reached := open
		if len(r.Destination) > 0 {
			reached = slices.DeleteFunc(slices.Clone(open), func(n netip.Prefix) bool { return !slices.ContainsFunc(r.Destination, n.Overlaps) })
		}
		if len(reached) > 0 {
			l.warn(r.Line, r.Column, r.path, "untranslated", fmt.Sprintf("rule %q lets the wan begin flows to hosts of %s by their own addresses: no snat entry covers %s", r.ID, lan, largest(reached)), hint)
			return
		}
	}
	if p.Defaults.Action == ruleset.Accept {
		l.warn(l.action.line, l.action.col, "defaults.default_action", "untranslated", fmt.Sprintf("the wan may begin flows to hosts of %s by their own addresses: no snat entry covers %s", lan, largest(open)), hint)
	}
}

// largest writes some networks, the largest first.
func largest(ps []netip.Prefix) string {
	ps = slices.SortedStableFunc(slices.Values(ps), func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	var s []string
	for i, p := range ps {
		if i == 3 && len(ps) > 4 {
			return strings.Join(s, ", ") + fmt.Sprintf(" and %d more", len(ps)-i)
		}
		s = append(s, p.String())
	}
	return strings.Join(s, ", ")
}

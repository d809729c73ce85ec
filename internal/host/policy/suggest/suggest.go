// Package suggest makes rules of what the firewall has dropped or would have
// dropped, for review.
package suggest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An Observation is a packet that the firewall has reported: one that the
// default action dropped, or one that a shadow rule would have decided.
type Observation struct {
	FromLAN  bool
	Protocol policy.Protocol
	Src, Dst netip.Addr
	Port     int    // destination; 0 for icmp
	Domain   string // name by which Src knows Dst, "" for none
	Shadow   string // id of the shadow rule; "": the default action dropped it
	Accept   bool   // the shadow rule would have accepted it
	Expired  int    // seconds for which that name had expired, 0: it had not
	ByOther  bool   // not Src, but another client had resolved that name
	Count    int    // packets that it stands for, at least 1
	Time     string // of the event
	Until    string // of the last of several that are the same; "": Time
}

// Limits on what is listed one by one. More sources become the LAN's network, or
// any source; more addresses become any destination.
const (
	maxSources      = 8
	maxDestinations = 16
)

// A Suggestion is what Suggest makes of observations.
type Suggestion struct {
	rules   []proposal
	policy  *policy.Policy
	seen    int // packets
	already int // that the policy accepts now
	ingress int // from the WAN, not proposed
	own     map[string]int
	late    late
	strange strange
}

// late is what was dropped because the source used an address for longer than it
// may be used by its name.
type late struct {
	packets int
	beyond  int            // of them, later than dns.ttl_grace can be
	most    int            // seconds, of the others
	names   map[string]int // packets
}

func (l *late) add(o *Observation, grace int) {
	l.packets += o.Count
	if policy.BadName(o.Domain) == "" {
		l.names[strings.ToLower(o.Domain)] += o.Count
	}
	if grace+o.Expired > policy.MaxTTLGrace {
		l.beyond += o.Count
		return
	}
	l.most = max(l.most, o.Expired)
}

// lines say what dns.ttl_grace would do about it.
func (l *late) lines(grace int) (lines []string) {
	if l.packets == 0 {
		return nil
	}
	which := ""
	if len(l.names) > 0 {
		which = fmt.Sprintf(" (%s)", most(l.names))
	}
	lines = append(lines, fmt.Sprintf("%s left out: the names of their destinations had expired, and clients went on to use the addresses%s.", packets(l.packets), which))
	if l.most > 0 {
		lines = append(lines, fmt.Sprintf("dns.ttl_grace: %d lets %s through. Addresses then stay open when they may belong to somebody else; see docs/dns.md.", grace+l.most, packets(l.packets-l.beyond)))
	}
	if l.beyond > 0 {
		lines = append(lines, fmt.Sprintf("%s came later than dns.ttl_grace may be, %d seconds: those clients must resolve again, or need a rule by address.", packets(l.beyond), policy.MaxTTLGrace))
	}
	return lines
}

// strange is what was dropped because the source used an address without having
// resolved the name by which a rule opens it: another client had.
type strange struct {
	packets int
	names   map[string]int // packets
	srcs    map[string]int // packets
}

func (s *strange) add(o *Observation) {
	s.packets += o.Count
	s.names[strings.ToLower(o.Domain)] += o.Count // a rule's, so that it is one
	s.srcs[o.Src.String()] += o.Count
}

// lines says which sources must resolve which names.
func (s *strange) lines() []string {
	if s.packets == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s left out: rules open their destinations by name (%s) to hosts that have resolved it, and the sources (%s) have not. They must ask the firewall for it, or need a rule by address; see docs/dns.md.",
		packets(s.packets), most(s.names), most(s.srcs))}
}

// most lists the five that have the most packets, and says how many more there are.
func most(count map[string]int) string {
	keys := slices.SortedFunc(maps.Keys(count), func(x, y string) int {
		return cmp.Or(cmp.Compare(count[y], count[x]), strings.Compare(x, y))
	})
	if len(keys) > 5 {
		keys = append(keys[:5:5], fmt.Sprintf("%d more", len(keys)-5))
	}
	return strings.Join(keys, ", ")
}

// A proposal is a rule with what it was made of.
type proposal struct {
	shadow  string
	accept  bool
	fromLAN bool
	proto   policy.Protocol
	ports   []int
	dsts    []netip.Addr
	names   []string
	srcs    map[netip.Addr]int
	count   int
	first   string
	last    string
}

// Suggest groups what was observed into rules: what has the same protocol, port
// and destination becomes one, then what has the same sources. Rules that would
// open the LAN to the WAN are made only of what shadow rules would accept, unless
// ingress is true. rs is the compiled policy that is to be extended.
func Suggest(p *policy.Policy, rs *ruleset.Policy, obs []Observation, ingress bool) *Suggestion {
	s := &Suggestion{policy: p, own: map[string]int{}, late: late{names: map[string]int{}}, strange: strange{names: map[string]int{}, srcs: map[string]int{}}}
	type flow struct {
		fromLAN  bool
		proto    policy.Protocol
		src, dst netip.Addr
		port     int
	}
	shadowed := map[flow]bool{} // what the default action dropped below a shadow rule is reported twice
	for _, o := range obs {
		if o.Shadow != "" && o.Accept {
			shadowed[flow{o.FromLAN, o.Protocol, o.Src, o.Dst, o.Port}] = true
		}
	}
	type key struct {
		shadow  string
		accept  bool
		fromLAN bool
		proto   policy.Protocol
		port    int
		dst     netip.Addr
		name    string
	}
	groups := map[key]*proposal{}
	for _, o := range obs {
		o.Count = max(o.Count, 1)
		if o.Shadow == "" && shadowed[flow{o.FromLAN, o.Protocol, o.Src, o.Dst, o.Port}] {
			continue
		}
		s.seen += o.Count
		f := policy.Flow{FromLAN: o.FromLAN, Protocol: o.Protocol, Src: netip.AddrPortFrom(o.Src, 0), Dst: netip.AddrPortFrom(o.Dst, uint16(o.Port)), FQDN: strings.ToLower(o.Domain)}
		now := explain.Decide(p, rs, f)
		byName := false // a rule by this name accepts it, and its source did not have the name
		if now.Accept && (o.Expired > 0 || o.ByOther) {
			f.FQDN = ""
			byName = !explain.Decide(p, rs, f).Accept
		}
		switch {
		case o.Shadow == "" && byName && o.ByOther:
			s.strange.add(&o)
			continue
		case o.Shadow == "" && byName:
			s.late.add(&o, p.DNS.TTLGrace)
			continue
		case o.Shadow == "" && now.Accept:
			s.already += o.Count
			continue
		case !now.Asked || o.Shadow == "" && now.Local && !explain.Offers(p, &now.Seen):
			s.own[cmp.Or(now.Note, fmt.Sprintf("%v is the firewall's own address, for which rules open nothing; nat.dnat forwards its ports", o.Dst))] += o.Count
			continue
		case o.Shadow == "" && !o.FromLAN && !ingress:
			s.ingress += o.Count
			continue
		default:
			if !now.Local {
				o.Dst, o.Port = now.Seen.Dst.Addr(), int(now.Seen.Dst.Port())
			}
		}
		k := key{o.Shadow, o.Accept || o.Shadow == "", o.FromLAN, o.Protocol, o.Port, o.Dst, ""}
		if o.Domain != "" && o.FromLAN && k.accept && policy.BadName(o.Domain) == "" {
			k.dst, k.name = netip.Addr{}, strings.ToLower(o.Domain)
		}
		g := groups[k]
		if g == nil {
			g = &proposal{shadow: k.shadow, accept: k.accept, fromLAN: k.fromLAN, proto: k.proto, srcs: map[netip.Addr]int{}, first: o.Time, last: o.Time}
			if k.port != 0 {
				g.ports = []int{k.port}
			}
			if k.name != "" {
				g.names = []string{k.name}
			} else {
				g.dsts = []netip.Addr{k.dst}
			}
			groups[k] = g
		}
		g.srcs[o.Src] += o.Count
		g.count += o.Count
		g.first, g.last = min(g.first, o.Time), max(g.last, cmp.Or(o.Until, o.Time))
	}
	for _, g := range groups {
		s.rules = append(s.rules, *g)
	}
	// In an order of their own, so that what is merged does not depend on chance.
	slices.SortFunc(s.rules, func(a, b proposal) int {
		return cmp.Or(strings.Compare(a.identity(), b.identity()), slices.Compare(a.ports, b.ports))
	})
	s.merge(func(g *proposal) string { return g.like(true, false) })
	s.merge(func(g *proposal) string { return g.like(false, true) })
	slices.SortStableFunc(s.rules, func(a, b proposal) int { return cmp.Compare(b.count, a.count) })
	return s
}

// identity is all of a proposal's conditions in one string.
func (g *proposal) identity() string { return g.like(true, true) }

// like is what proposals have in common that are merged into one: the sources
// and, as asked, ports and destinations.
func (g *proposal) like(ports, dsts bool) string {
	s := fmt.Sprint(g.shadow, g.accept, g.fromLAN, g.proto, len(g.names) > 0, slices.SortedFunc(maps.Keys(g.srcs), netip.Addr.Compare))
	if ports {
		s += fmt.Sprint(g.ports)
	}
	if dsts {
		s += fmt.Sprint(g.dsts, g.names)
	}
	return s
}

func (s *Suggestion) merge(like func(g *proposal) string) {
	at := map[string]int{}
	var out []proposal
	for _, g := range s.rules {
		k := like(&g)
		i, ok := at[k]
		if !ok {
			at[k] = len(out)
			out = append(out, g)
			continue
		}
		m := &out[i]
		m.count += g.count
		m.first, m.last = min(m.first, g.first), max(m.last, g.last)
		m.ports = policy.Unique(append(m.ports, g.ports...))
		m.dsts, m.names = policy.Unique(append(m.dsts, g.dsts...)), policy.Unique(append(m.names, g.names...))
		for a, n := range g.srcs {
			m.srcs[a] += n
		}
	}
	s.rules = out
}

// Rules returns how many rules are proposed.
func (s *Suggestion) Rules() int { return len(s.rules) }

// YAML returns the proposed rules as a list for review, with what they were made
// of as comments. source names where the events came from.
func (s *Suggestion) YAML(source string) ([]byte, error) {
	head := []string{
		fmt.Sprintf("Rules proposed by thurward suggest: %d, from %s of %s.", len(s.rules), packets(s.seen), source),
		"Review each: that something was tried does not mean that it should be allowed.",
	}
	if s.already > 0 {
		head = append(head, fmt.Sprintf("%s left out: %s accepts them now.", packets(s.already), s.policy.File))
	}
	head = append(head, s.late.lines(s.policy.DNS.TTLGrace)...)
	head = append(head, s.strange.lines()...)
	if s.ingress > 0 {
		head = append(head, fmt.Sprintf("%s left out, from the wan; --ingress proposes rules for those, too.", packets(s.ingress)))
	}
	for _, why := range slices.Sorted(maps.Keys(s.own)) {
		head = append(head, fmt.Sprintf("%s left out: %s.", packets(s.own[why]), why))
	}
	taken := map[string]bool{}
	for i := range s.policy.Rules {
		taken[s.policy.Rules[i].ID] = true
	}
	n := 0
	var rules []*policy.Node
	for i := range s.rules {
		g := &s.rules[i]
		id := ""
		for id == "" || taken[id] {
			n++
			id = fmt.Sprintf("suggested-%d", n)
		}
		rules = append(rules, s.rule(g, id))
	}
	return policy.Document(policy.Mapping(false, member("rules", policy.List(false, rules...))), head...)
}

// rule returns a proposed rule with its comments.
func (s *Suggestion) rule(g *proposal, id string) *policy.Node {
	srcs := slices.SortedFunc(maps.Keys(g.srcs), func(x, y netip.Addr) int {
		return cmp.Or(cmp.Compare(g.srcs[y], g.srcs[x]), x.Compare(y))
	})
	var from []string
	for i, a := range srcs {
		if i == 5 && len(srcs) > 6 {
			from = append(from, fmt.Sprintf("%d more", len(srcs)-i))
			break
		}
		from = append(from, fmt.Sprintf("%v (%d)", a, g.srcs[a]))
	}
	above := []string{fmt.Sprintf("%s, %s to %s, from %s.", packets(g.count), g.first, g.last, strings.Join(from, ", "))}
	action := ruleset.Accept
	switch {
	case g.shadow != "" && g.accept:
		above = append(above, fmt.Sprintf("The shadow rule %s would accept them: remove its mode: shadow, or put this in its place.", g.shadow))
	case g.shadow != "":
		action = ruleset.Deny
		above = append(above, fmt.Sprintf("The shadow rule %s would drop them: remove its mode: shadow, or put this in its place.", g.shadow))
	default:
		above = append(above, "No rule matches them. Put this after the others.")
	}
	direction := verdict.Ingress
	if g.fromLAN {
		direction = verdict.Egress
	}
	r := []policy.Member{member("id", policy.Scalar(id)), member("action", policy.Scalar(action.String())), member("direction", policy.Scalar(direction.String()))}
	address := func(a netip.Addr) *policy.Node { return policy.Scalar(a.String()) }
	slices.SortFunc(srcs, netip.Addr.Compare)
	switch lan := s.policy.LAN().Prefix.Masked(); {
	case len(srcs) <= maxSources:
		r = append(r, member("source", policy.OneOrList(srcs, address)))
	case g.fromLAN:
		r = append(r, policy.Member{Key: "source", Value: policy.Scalar(lan.String()), Comment: fmt.Sprintf("%d hosts of it", len(srcs))})
	default:
		above = append(above, fmt.Sprintf("source: %d addresses, too many to list", len(srcs)))
	}
	slices.SortFunc(g.dsts, netip.Addr.Compare)
	slices.Sort(g.names)
	slices.Sort(g.ports)
	switch {
	case len(g.names) > 0:
		r = append(r, member("destination_fqdn", policy.OneOrList(g.names, policy.Scalar)))
	case len(g.dsts) <= maxDestinations:
		r = append(r, member("destination", policy.OneOrList(g.dsts, address)))
	default:
		above = append(above, fmt.Sprintf("destination: %d addresses, too many to list", len(g.dsts)))
	}
	if len(g.ports) > 0 {
		r = append(r, member("destination_port", policy.OneOrList(g.ports, func(p int) *policy.Node { return policy.Plain(p) })))
	}
	return policy.Above(policy.Mapping(false, append(r, member("protocol", policy.Scalar(g.proto.String())))...), above...)
}

func member(key string, value *policy.Node) policy.Member {
	return policy.Member{Key: key, Value: value}
}

func packets(n int) string {
	if n == 1 {
		return "1 packet"
	}
	return fmt.Sprintf("%d packets", n)
}

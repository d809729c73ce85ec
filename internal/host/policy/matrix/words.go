package matrix

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Words names sets as the policy does, where it has a name for them.
type words struct {
	p       *policy.Policy
	sources map[bool]set // that may begin flows, by side: the LAN is true
	beyond  map[bool]set // what is on the other side, and reached directly
	places  map[bool]set // where packets may be sent
	// nameable is what a name can open for which dns.private_names says nothing.
	nameable set
	self     set     // the firewall's own addresses
	named    []named // sets of addresses that the policy mentions
	ports    []namedPorts
}

type named struct {
	label string
	set   set
}

type namedPorts struct {
	label string
	set   set
}

// newWords returns the words of a policy with these ways.
func newWords(p *policy.Policy, rs *ruleset.Policy, ways []way) *words {
	w := &words{p: p, sources: map[bool]set{}, beyond: map[bool]set{}, places: map[bool]set{}}
	edges := prove.Edges(p)
	var self []span
	for _, v := range ways {
		w.sources[v.fromLAN] = normal(append(w.sources[v.fromLAN], v.src...))
		switch {
		case v.local:
			self = append(self, v.dst...)
		case v.dnat < 0:
			w.beyond[v.fromLAN] = normal(append(w.beyond[v.fromLAN], v.dst...))
		}
	}
	w.self = normal(self)
	for _, fromLAN := range []bool{true, false} {
		_, w.places[fromLAN] = plausible(p, fromLAN, edges)
	}
	w.nameable = w.beyond[true].and(where(edges[packetset.Dst], func(v uint32) bool { return !dnsproxy.IsPrivate(rs, packet.Addr(v)) }))
	mention := func(label string, ns []netip.Prefix) {
		if len(ns) > 0 {
			w.named = append(w.named, named{label, spans(ns)})
		}
	}
	for _, g := range slices.Sorted(maps.Keys(p.AddressGroups)) {
		mention("$"+g, p.AddressGroups[g])
	}
	lists := func(ns []netip.Prefix) {
		if len(ns) <= 2 {
			mention(joined(ns, " and "), ns)
		}
		for _, n := range ns {
			mention(networkText(n), []netip.Prefix{n})
		}
	}
	seen := map[string]bool{}
	for i := range p.Rules {
		for _, ns := range [][]netip.Prefix{p.Rules[i].Source, p.Rules[i].Destination} {
			if k := fmt.Sprint(ns); len(ns) > 0 && !seen[k] && len(w.named) < 4096 {
				seen[k] = true
				lists(ns)
			}
		}
	}
	for _, g := range slices.Sorted(maps.Keys(p.PortGroups)) {
		var all []span
		for _, r := range p.PortGroups[g] {
			all = append(all, span{uint32(r.Lo), uint32(r.Hi)})
		}
		if len(all) > 1 {
			w.ports = append(w.ports, namedPorts{"$" + g, normal(all)})
		}
	}
	return w
}

func joined[T fmt.Stringer](vs []T, sep string) string {
	var s []string
	for _, v := range vs {
		if n, ok := any(v).(netip.Prefix); ok {
			s = append(s, networkText(n))
			continue
		}
		s = append(s, v.String())
	}
	return strings.Join(s, sep)
}

// networkText writes a network; one of a single address without its length.
func networkText(n netip.Prefix) string {
	if n.Bits() == 32 {
		return n.Addr().String()
	}
	return n.String()
}

// size returns how many values a set has.
func (a set) size() (n uint64) {
	for _, s := range a {
		n += uint64(s.hi-s.lo) + 1
	}
	return n
}

// label names what is in a side, and brings it into the order in which it is shown: the
// smallest classes of sources first and what reaches nothing last, services by port,
// those with names after those without, and what is about many ports last.
func (w *words) label(side *Side, fromLAN bool) {
	order, idle := make([]int, len(side.Sources)), make([]bool, len(side.Sources))
	for i := range order {
		order[i], idle[i] = i, true
	}
	for i := range side.Services {
		for _, c := range side.Services[i].Cells {
			idle[c.Source] = false
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if idle[a] != idle[b] {
			return cmp.Compare(truth(idle[a]), truth(idle[b]))
		}
		return cmp.Compare(side.Sources[a].set.size(), side.Sources[b].set.size())
	})
	sources, place := make([]Source, len(order)), make([]int, len(order))
	for i, from := range order {
		sources[i], place[from] = side.Sources[from], i
	}
	side.Sources = sources
	for i := range side.Services {
		s := &side.Services[i]
		for j := range s.Cells {
			c := &s.Cells[j]
			c.Source = place[c.Source]
			c.Label, c.Everywhere = w.destination(c, len(s.Names) > 0, fromLAN)
		}
		slices.SortFunc(s.Cells, func(a, b Cell) int { return cmp.Compare(a.Source, b.Source) })
		s.Label = w.service(s)
	}
	for i := range side.Sources {
		side.Sources[i].Label = w.source(side, i, fromLAN)
	}
	slices.SortStableFunc(side.Services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(truth(a.wide()), truth(b.wide())), cmp.Compare(a.Ports[0].class/packetset.ICMP, b.Ports[0].class/packetset.ICMP),
			cmp.Compare(truth(len(a.Names) > 0), truth(len(b.Names) > 0)), cmp.Compare(a.first(), b.first()))
	})
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// wide reports whether a service is about most ports.
func (s *Service) wide() bool { return s.Ports[0].set.size() > 1<<15 }

// first returns the first port of a service.
func (s *Service) first() uint32 {
	if len(s.Ports[0].set) == 0 {
		return 0
	}
	return s.Ports[0].set[0].lo
}

// source names a class of sources.
func (w *words) source(side *Side, i int, fromLAN bool) string {
	s, everyone := side.Sources[i].set, w.sources[fromLAN]
	where := "on the WAN"
	if fromLAN {
		where = "on the LAN"
	}
	if slices.Equal(s, everyone) {
		return "everyone " + where
	}
	if l := w.known(s, everyone); l != "" {
		return l
	}
	// What is left of a set that the policy mentions when other classes are taken away.
	best := named{}
	for _, n := range w.named {
		inside := n.set.and(everyone)
		if len(s.but(inside)) == 0 && (best.label == "" || inside.size() < best.set.size()) && inside.size() < everyone.size() {
			best = named{n.label, inside}
		}
	}
	if best.label != "" && 2*s.size() >= best.set.size() {
		return "others of " + best.label
	}
	if 2*s.size() >= everyone.size() {
		return "all others " + where
	}
	return w.list(s, everyone, 2)
}

// known returns the word that the policy has for a set of addresses, "" if there is none.
// Addresses outside of all do not count.
func (w *words) known(s, all set) string {
	for _, n := range w.named {
		if slices.Equal(n.set.and(all), s) {
			return n.label
		}
	}
	return ""
}

// destination names what is reached, and reports whether it is everything beyond. named
// is whether that is by a name.
func (w *words) destination(c *Cell, named, fromLAN bool) (label string, everywhere bool) {
	beyond, places := w.beyond[fromLAN], w.places[fromLAN]
	var parts []string
	self, across := c.dst.and(w.self), c.dst.and(beyond)
	forwarded := c.dst.but(self)
	if fromLAN {
		forwarded = forwarded.but(across)
	} else {
		across = across.but(c.forwarded)
		forwarded = forwarded.but(across)
	}
	all, there := "anywhere", "anywhere"
	if !fromLAN {
		all, there = "all of the LAN", "the LAN"
	}
	missing := beyond.but(across)
	switch {
	case len(across) == 0:
	case len(missing) == 0:
		parts, everywhere = append(parts, all), true
	case named && slices.Equal(across, w.nameable):
		parts, everywhere = append(parts, "by name"), true
	case w.known(across, places) != "":
		parts = append(parts, w.known(across, places))
	case 2*across.size() > beyond.size():
		parts = append(parts, there+" but "+cmp.Or(w.known(missing, places), w.list(missing, places, 2)))
	default:
		parts = append(parts, w.list(across, places, 2))
	}
	if len(forwarded) > 0 {
		text := cmp.Or(w.known(forwarded, places), w.list(forwarded, places, 2))
		if len(c.By) > 0 {
			text += " by " + c.By[0]
		}
		if n := len(c.By) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		parts = append(parts, text)
	}
	if len(self) > 0 {
		parts = append(parts, "the firewall")
	}
	if c.SNI {
		return strings.Join(parts, " and ") + ", sni", everywhere
	}
	return strings.Join(parts, " and "), everywhere
}

// list writes the first networks or ranges of a set. Addresses outside of all do not count.
func (w *words) list(s, all set, most int) string {
	var out []string
	for i, part := range s {
		if i == most && len(s) > most+1 {
			return strings.Join(out, ", ") + fmt.Sprintf(" and %d more", len(s)-i)
		}
		out = append(out, neat(part, all))
	}
	return strings.Join(out, ", ")
}

// neat writes a span as the smallest network that has no other address of all, or as a
// range.
func neat(s span, all set) string {
	bits := 32
	for bits > 0 && spanOf(netip.PrefixFrom(address(s.lo), bits)).hi < s.hi {
		bits--
	}
	n := netip.PrefixFrom(address(s.lo), bits).Masked()
	if slices.Equal((set{spanOf(n)}).and(all), set{s}) {
		return networkText(n)
	}
	return text(s)
}

// text writes a span of addresses.
func text(s span) string {
	if s.lo == s.hi {
		return address(s.lo).String()
	}
	if n := neatest(s); n != "" {
		return n
	}
	return address(s.lo).String() + "-" + address(s.hi).String()
}

// neatest returns a span that is a network as one.
func neatest(s span) string {
	for bits := range 33 {
		if n := netip.PrefixFrom(address(s.lo), bits); spanOf(n) == s {
			return n.Masked().String()
		}
	}
	return ""
}

// texts writes each span of addresses.
func texts(all set) []string {
	out := []string{}
	for _, s := range all {
		out = append(out, text(s))
	}
	return out
}

// numbers writes ports.
func numbers(all set) (out []string) {
	for _, s := range all {
		if s.lo == s.hi {
			out = append(out, fmt.Sprint(s.lo))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", s.lo, s.hi))
		}
	}
	return out
}

// wellKnown are services that go by their names (IANA, Service Name and Transport Protocol
// Port Number Registry), by port.
var wellKnown = map[uint32]string{22: "SSH", 25: "SMTP", 53: "DNS", 80: "HTTP", 123: "NTP", 143: "IMAP", 443: "HTTPS", 465: "SMTPS",
	587: "submission", 853: "DNS over TLS", 993: "IMAPS", 995: "POP3S", 3389: "RDP", 5432: "PostgreSQL", 8080: "HTTP", 8443: "HTTPS"}

// service names a class of services, without its names.
func (w *words) service(s *Service) string {
	var parts []string
	for i := 0; i < len(s.Ports); i++ {
		q := &s.Ports[i]
		proto := q.Protocol
		if q.class == packetset.ICMP {
			parts = append(parts, "ping")
			continue
		}
		if i+1 < len(s.Ports) && s.Ports[i+1].class != packetset.ICMP && slices.Equal(q.set, s.Ports[i+1].set) {
			proto += "+" + s.Ports[i+1].Protocol
			i++
		}
		parts = append(parts, proto+" "+w.portText(q.set))
	}
	return strings.Join(parts, ", ")
}

// portText names ports.
func (w *words) portText(s set) string {
	if slices.Equal(s, everyPort) {
		return "any port"
	}
	for _, n := range w.ports {
		if slices.Equal(n.set, s) {
			return n.label
		}
	}
	if rest := everyPort.but(s); 2*s.size() > everyPort.size() && len(rest) <= len(s)+1 {
		return "but " + few(rest, 5)
	}
	if len(s) == 1 && s[0].lo == s[0].hi && wellKnown[s[0].lo] != "" {
		return fmt.Sprintf("%d %s", s[0].lo, wellKnown[s[0].lo])
	}
	return few(s, 5)
}

func few(s set, most int) string {
	all := numbers(s)
	if len(all) > most+1 {
		return strings.Join(all[:most], ",") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ",")
}

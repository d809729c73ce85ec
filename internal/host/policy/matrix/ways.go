package matrix

import (
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A way is one of those on which new flows get to the rules and, if they accept them,
// on: everything that the data plane looks at beside rules. Addresses and ports are those
// that rules see.
type way struct {
	fromLAN bool
	classes []int // of packetset
	src     set
	dst     set
	ports   set
	dnat    int        // entry by which it leads, -1: directly
	sentTo  netip.Addr // where dnat does
	local   bool       // for the firewall itself
}

// everyPort are the ports that a flow may be for.
var everyPort = set{{1, 65535}}

// noPorts is the port of a flow of a protocol that has none.
var noPorts = set{{0, 0}}

// waysOf returns all ways of a policy.
func waysOf(p *policy.Policy) (all []way) {
	edges := prove.Edges(p)
	lan := p.LAN().Prefix
	own := number(lan.Addr())
	external := where(edges[packetset.Dst], func(v uint32) bool { return p.IsExternal(address(v)) })
	asks := len(p.DNS.Upstreams) > 0
	for _, fromLAN := range []bool{true, false} {
		srcs, dsts := plausible(p, fromLAN, edges)
		inside := normal([]span{spanOf(lan)})
		if fromLAN {
			ports := everyPort
			if p.DNS.Intercept && asks {
				ports = ports.but(set{{policy.DNSPort, policy.DNSPort}})
			}
			beyond := dsts.but(external).but(inside)
			all = append(all, way{fromLAN: true, classes: []int{packetset.TCP, packetset.UDP}, src: srcs, dst: beyond, ports: ports, dnat: -1},
				way{fromLAN: true, classes: []int{packetset.ICMP}, src: srcs, dst: beyond, ports: noPorts, dnat: -1})
			if dsts.has(own) {
				self := set{{own, own}}
				all = append(all, way{fromLAN: true, classes: []int{packetset.ICMP}, src: srcs, dst: self, ports: noPorts, dnat: -1, local: true})
				if asks {
					all = append(all, way{fromLAN: true, classes: []int{packetset.TCP, packetset.UDP}, src: srcs, dst: self, ports: set{{policy.DNSPort, policy.DNSPort}}, dnat: -1, local: true})
				}
			}
		} else {
			hidden := where(edges[packetset.Dst], func(v uint32) bool {
				return slices.ContainsFunc(p.SNAT, func(n policy.SNAT) bool { return !n.Source.IsValid() || n.Source.Contains(address(v)) })
			})
			straight := dsts.and(inside).but(hidden).but(external)
			all = append(all, way{classes: []int{packetset.TCP, packetset.UDP}, src: srcs, dst: straight, ports: everyPort, dnat: -1},
				way{classes: []int{packetset.ICMP}, src: srcs, dst: straight, ports: noPorts, dnat: -1},
				way{classes: []int{packetset.ICMP}, src: srcs, dst: dsts.and(external), ports: noPorts, dnat: -1, local: true})
		}
		for i := range p.DNAT {
			all = append(all, forwards(p, i, fromLAN, srcs, dsts)...)
		}
	}
	return all
}

// forwards returns the ways through a dnat entry.
func forwards(p *policy.Policy, entry int, fromLAN bool, srcs, dsts set) (all []way) {
	d := &p.DNAT[entry]
	if fromLAN && !d.Hairpin || !dsts.has(number(d.WAN)) {
		return nil
	}
	src := srcs.and(spans(d.From))
	if fromLAN {
		var translated []span
		for i := range p.SNAT {
			translated = append(translated, spanOf(p.SNAT[i].Source))
		}
		src = src.and(normal(translated))
	}
	ports := set{{uint32(d.Ports.Lo), uint32(d.Ports.Hi)}}
	if fromLAN && p.DNS.Intercept && len(p.DNS.Upstreams) > 0 {
		ports = ports.but(set{{policy.DNSPort, policy.DNSPort}})
	}
	for _, proto := range d.Protocols {
		// What an earlier entry takes does not come here, one part for each port range.
		type part struct{ src, ports set }
		left := []part{{src, ports}}
		for i := range p.DNAT[:entry] {
			e := &p.DNAT[i]
			if e.WAN != d.WAN || !slices.Contains(e.Protocols, proto) {
				continue
			}
			from, taken := spans(e.From), set{{uint32(e.Ports.Lo), uint32(e.Ports.Hi)}}
			var rest []part
			for _, q := range left {
				rest = append(rest, part{q.src, q.ports.but(taken)}, part{q.src.but(from), q.ports.and(taken)})
			}
			left = slices.DeleteFunc(rest, func(q part) bool { return len(q.src) == 0 || len(q.ports) == 0 })
		}
		for _, q := range left {
			w := way{fromLAN: fromLAN, classes: []int{classOf(proto)}, src: q.src, dnat: entry, sentTo: d.WAN}
			w.dst = set{{number(d.To), number(d.To)}}
			for _, s := range q.ports {
				w.ports = append(w.ports, span{s.lo - uint32(d.Ports.Lo) + uint32(d.ToPort), s.hi - uint32(d.Ports.Lo) + uint32(d.ToPort)})
			}
			if len(w.src) > 0 && len(w.ports) > 0 {
				all = append(all, w)
			}
		}
	}
	return all
}

// plausible returns the sources and destinations with which packets can arrive.
func plausible(p *policy.Policy, fromLAN bool, edges [packetset.NumRanges][]uint32) (srcs, dsts set) {
	ok := func(src, dst uint32) bool {
		return explain.Plausible(p, policy.Flow{FromLAN: fromLAN, Protocol: policy.TCP, Src: netip.AddrPortFrom(address(src), 1), Dst: netip.AddrPortFrom(address(dst), 1)})
	}
	// Each end is judged by itself, so that one pair of ends that is plausible tells about
	// all others.
	for _, s := range append([]uint32{0}, edges[packetset.Src]...) {
		for _, d := range append([]uint32{0}, edges[packetset.Dst]...) {
			if ok(s, d) {
				return where(edges[packetset.Src], func(v uint32) bool { return ok(v, d) }),
					where(edges[packetset.Dst], func(v uint32) bool { return ok(s, v) })
			}
		}
	}
	return nil, nil
}

func classOf(proto policy.Protocol) int {
	switch proto {
	case policy.TCP:
		return packetset.TCP
	case policy.UDP:
		return packetset.UDP
	}
	return packetset.ICMP
}

func number(a netip.Addr) uint32 { return uint32(policy.Number(a)) }

func address(v uint32) netip.Addr { return netip.AddrFrom16(packet.Addr(v).To16()).Unmap() }

// spanOf returns the addresses of a network; the zero Prefix has all.
func spanOf(n netip.Prefix) span {
	if !n.IsValid() {
		return span{0, ^uint32(0)}
	}
	return span{number(n.Masked().Addr()), number(policy.Broadcast(n))}
}

// spans returns the addresses of networks; an empty list has all.
func spans(ns []netip.Prefix) set {
	var all []span
	for _, n := range policy.OrAny(ns) {
		all = append(all, spanOf(n))
	}
	return normal(all)
}

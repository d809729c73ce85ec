package nat

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Steer says which part of several a packet is for, by its addresses and ports and the
// policy alone: nothing that it reads changes, so all workers may use it. Both directions of
// a flow lead to one part, as the packets arrive, translated or not:
//
//   - A flow of an internal endpoint that has, or would get, a port of a pool is that of
//     its port. All flows of the endpoint are there, so that they share its mapping (RFC
//     4787 REQ-1), and its external port is one of that part.
//   - Other flows, those of servers of nat.dnat and of hosts that are not translated, are
//     spread by both ports, as they are on the LAN.
//   - Where two entries of nat.dnat share an external port or a server's port, the ports do
//     not say which flow a packet may belong to: all of these are part 0's, and so are
//     flows from such servers and what is for the firewall itself.
type Steer struct {
	n         *NAT
	mask      uint16
	lan       packet.Addr
	own       []packet.Addr // the firewall's addresses on the WAN, sorted
	pools     []int16       // by address in own: its pool, or -1
	whole     []bool        // by pool: it is not divided
	intercept bool          // DNS queries to other servers are the firewall's
	entries   []destined
}

// A destined is an entry of nat.dnat.
type destined struct {
	server
	shared bool // with another entry: it is part 0's
}

// Steer returns what steers packets to the parts of the policy's NAT, of which n is one.
func (n *NAT) Steer(p *ruleset.Policy) *Steer {
	s := &Steer{n: n, mask: uint16(max(n.part.N, 1) - 1), whole: n.whole}
	if f := p.Interface(ruleset.LAN); f != nil {
		s.lan, _ = packet.AddrFrom16(f.Address)
	}
	add := func(a packet.Addr) {
		if at, ok := slices.BinarySearch(s.own, a); !ok && a != 0 {
			s.own = slices.Insert(s.own, at, a)
		}
	}
	if f := p.Interface(ruleset.WAN); f != nil {
		a, _ := packet.AddrFrom16(f.Address)
		add(a)
	}
	for _, q := range n.pools {
		add(q.Addr)
	}
	for i := range n.static.entries {
		e := destined{server: n.static.entries[i]}
		add(e.external)
		for j := range n.static.entries {
			o := &n.static.entries[j]
			e.shared = e.shared || i != j && o.proto == e.proto && (o.external == e.external && overlap(o.lo, o.hi, e.lo, e.hi) ||
				o.to == e.to && overlap(o.port, o.port+(o.hi-o.lo), e.port, e.port+(e.hi-e.lo)))
		}
		s.entries = append(s.entries, e)
	}
	for _, a := range s.own {
		s.pools = append(s.pools, int16(slices.IndexFunc(n.pools, func(q *Pool) bool { return q.Addr == a })))
	}
	s.intercept = len(p.Upstreams) > 0 && p.Settings.Flags&ruleset.FlagDNSIntercept != 0
	return s
}

func overlap(a, b, c, d uint16) bool { return a <= d && c <= b }

const dnsPort = 53

// FromLAN returns the part of a packet that arrives from the LAN. It must not be an ICMP
// error; see Quoting.
func (s *Steer) FromLAN(t *packet.Tuple) int {
	at, own := s.ours(t.Dst)
	switch {
	case own && s.external(uint8(t.Proto), t.Dst, t.DstPort) != nil:
		// To a server by its external address, or a server's answer to another server.
		if s.server(uint8(t.Proto), t.Src, t.SrcPort) != nil {
			return 0
		}
		return s.pooled(t.Src, t.SrcPort)
	case own:
		return s.port(at, uint8(t.Proto), t.DstPort) // an answer to a host that came to the server by its external address
	case t.Dst == s.lan, s.intercept && t.DstPort == dnsPort && t.Proto != packet.ICMP:
		return 0
	}
	return s.inside(t.Src, t.SrcPort, t.DstPort, uint8(t.Proto))
}

// FromWAN returns the part of a packet that arrives from the WAN. It must not be an ICMP
// error; see Quoting.
func (s *Steer) FromWAN(t *packet.Tuple) int {
	at, own := s.ours(t.Dst)
	if !own {
		if t.Dst == s.lan {
			return 0
		}
		return s.inside(t.Dst, t.DstPort, t.SrcPort, uint8(t.Proto))
	}
	if e := s.external(uint8(t.Proto), t.Dst, t.DstPort); e != nil {
		if e.shared {
			return 0
		}
		return s.both(e.port+(t.DstPort-e.lo), t.SrcPort)
	}
	return s.port(at, uint8(t.Proto), t.DstPort)
}

// Quoting returns the tuple to steer an ICMP error by that quotes a packet with the tuple
// q, and arrives where that packet left: that of its answer.
func Quoting(q *packet.Tuple) packet.Tuple {
	return packet.Tuple{Src: q.Dst, Dst: q.Src, SrcPort: q.DstPort, DstPort: q.SrcPort, Proto: q.Proto}
}

// inside returns the part of a flow between an internal endpoint and a port outside, by its
// addresses on the LAN.
func (s *Steer) inside(addr packet.Addr, port, other uint16, proto uint8) int {
	if e := s.server(proto, addr, port); e != nil {
		if e.shared {
			return 0
		}
		return s.both(port, other)
	}
	if s.n.source.find(addr) != nil {
		return s.pooled(addr, port)
	}
	return s.both(port, other)
}

// both returns the part of a flow by both of its ports, in either order.
func (s *Steer) both(a, b uint16) int {
	return int(uint32(a+b)*0x9e3779b1>>24) & int(s.mask)
}

// pooled returns the part of an internal endpoint that gets a port of a pool.
func (s *Steer) pooled(addr packet.Addr, port uint16) int {
	e := s.n.source.find(addr)
	if e == nil || s.whole[s.n.source.member(e, addr).pool] {
		return 0
	}
	return partOf(port, s.mask)
}

// port returns the part of a port, or identifier, of the external address own[at].
func (s *Steer) port(at int, proto uint8, port uint16) int {
	q := s.pools[at]
	if q < 0 || s.whole[q] {
		return 0
	}
	if s.n.away == nil {
		return partOf(port, s.mask)
	}
	return s.n.away[q].of(spaceOf(proto), port, s.mask)
}

// ours finds an address of the firewall's on the WAN.
func (s *Steer) ours(a packet.Addr) (at int, ok bool) {
	if len(s.own) == 1 {
		return 0, s.own[0] == a
	}
	return slices.BinarySearch(s.own, a)
}

// external returns the first entry with an external port, whatever source it is for, or nil.
func (s *Steer) external(proto uint8, addr packet.Addr, port uint16) *destined {
	n := spaceOf(proto)
	if n < 0 || n >= len(s.n.static.inPorts) || !hasPort(&s.n.static.inPorts[n], port) {
		return nil
	}
	for i := range s.entries {
		if e := &s.entries[i]; e.external == addr && e.proto == proto && port >= e.lo && port <= e.hi {
			return e
		}
	}
	return nil
}

// server returns an entry that leads to a port of a host inside, or nil.
func (s *Steer) server(proto uint8, addr packet.Addr, port uint16) *destined {
	n := spaceOf(proto)
	if n < 0 || n >= len(s.n.static.outPorts) || !hasPort(&s.n.static.outPorts[n], port) {
		return nil
	}
	for i := range s.entries {
		if e := &s.entries[i]; e.to == addr && e.proto == proto && port >= e.port && port-e.port <= e.hi-e.lo {
			return e
		}
	}
	return nil
}

package nat

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	steerLAN = packet.Addr(0x0a000001)
	steerWAN = packet.Addr(0xcb00710a)
)

// steerPolicy draws a policy with hosts that are translated and hosts that are not, pools of
// all sizes, and entries of nat.dnat that share ports.
func steerPolicy(t *rapid.T) *ruleset.Policy {
	p := &ruleset.Policy{Interfaces: []ruleset.Interface{
		{Role: ruleset.LAN, Address: steerLAN.To16(), PrefixLen: 24},
		{Role: ruleset.WAN, Address: steerWAN.To16(), PrefixLen: 24},
	}}
	external := rapid.SampledFrom([]packet.Addr{steerWAN, steerWAN, steerWAN + 1})
	for range rapid.IntRange(0, 4).Draw(t, "snat") {
		lo := rapid.SampledFrom([]uint16{1, 1000, 1024, 40000}).Draw(t, "lo")
		e := ruleset.SNAT{Interface: 1, PortLo: lo, PortHi: uint16(min(65535, int(lo)+rapid.SampledFrom([]int{0, 3, 255, 1023, 2047, 20000, 65535}).Draw(t, "ports")))}
		e.External = external.Draw(t, "external").To16()
		if rapid.Bool().Draw(t, "some") {
			e.Source, e.SourceMask = (steerLAN &^ 1).To16(), maskOf(rapid.SampledFrom([]int{30, 29, 24}).Draw(t, "bits"))
			a, _ := packet.AddrFrom16(e.Source)
			e.Source = (a & packet.Mask(e.SourceMask)).To16()
		}
		p.SNAT = append(p.SNAT, e)
	}
	for range rapid.IntRange(0, 8).Draw(t, "dnat") {
		d := ruleset.DNAT{External: external.Draw(t, "external").To16(), To: (steerLAN + 1 + packet.Addr(rapid.IntRange(0, 5).Draw(t, "server"))).To16(),
			Proto: rapid.SampledFrom([]uint8{packet.TCP, packet.UDP}).Draw(t, "protocol"), Hairpin: uint8(rapid.IntRange(0, 1).Draw(t, "hairpin"))}
		d.PortLo = rapid.Uint16Range(2000, 2008).Draw(t, "lo")
		d.PortHi = d.PortLo + rapid.Uint16Range(0, 3).Draw(t, "more")
		d.ToPort = rapid.Uint16Range(2000, 2008).Draw(t, "to")
		if rapid.Bool().Draw(t, "from") {
			d.From, d.FromMask = packet.Addr(0xc6336400).To16(), maskOf(24)
		}
		p.DNAT = append(p.DNAT, d)
	}
	return p
}

// A steered is the NATs of all parts and what steers to them.
type steered struct {
	parts []*NAT
	by    []*Steer
}

func newSteered(t interface{ Fatal(...any) }, p *ruleset.Policy, n int) *steered {
	s := &steered{}
	for k := range n {
		v, err := NewPart(p, 12345, Part{k, n}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.parts, s.by = append(s.parts, v), append(s.by, v.Steer(p))
	}
	return s
}

// own reports whether an address is the firewall's on the WAN.
func (s *steered) own(a packet.Addr) bool { _, ok := s.by[0].ours(a); return ok }

// to returns the part of a packet, which all parts must agree on.
func (s *steered) to(t interface{ Fatalf(string, ...any) }, fromWAN bool, k *packet.Tuple) int {
	part := -1
	for _, by := range s.by {
		at := by.FromLAN(k)
		if fromWAN {
			at = by.FromWAN(k)
		}
		if part >= 0 && at != part {
			t.Fatalf("%+v: part %d or %d", *k, part, at)
		}
		part = at
	}
	if part < 0 || part >= len(s.parts) {
		t.Fatalf("%+v: part %d of %d", *k, part, len(s.parts))
	}
	return part
}

// begin translates a first packet as the router does, in its part. It reports false where
// no flow begins. answersFromWAN is where the answer comes from.
func (s *steered) begin(part int, fromWAN bool, k *packet.Tuple, rnd uint64) (m Mapping, o Outcome, answer packet.Tuple, answersFromWAN, ok bool) {
	n, proto := s.parts[part], uint8(k.Proto)
	to, port, own := k.Dst, k.DstPort, s.own(k.Dst)
	inside := func(a packet.Addr) bool { return a&^0xff == steerLAN&^0xff }
	if k.Dst == steerLAN || inside(k.Src) == fromWAN || own && k.Src == k.Dst {
		return
	}
	if own {
		x, found := n.Forward(proto, k.Src, k.Dst, k.DstPort)
		if !found || !fromWAN && (!x.Hairpin || !n.Translates(k.Src)) || x.Addr == k.Src {
			return
		}
		to, port = x.Addr, x.Port
	} else if inside(to) != fromWAN || fromWAN && n.Translates(to) {
		return
	}
	src, sport := k.Src, k.SrcPort
	m.Pool = NoPool
	if !fromWAN {
		if m, o = n.Map(proto, src, sport, rnd); o == Exhausted {
			return
		} else if o == Mapped {
			src, sport = m.Addr, m.Port
			if proto == packet.ICMP {
				port = m.Port
			}
		}
	}
	return m, o, packet.Tuple{Src: to, Dst: src, SrcPort: port, DstPort: sport, Proto: k.Proto}, !inside(to), true
}

func drawTuple(t *rapid.T) (fromWAN bool, k packet.Tuple) {
	port := rapid.OneOf(rapid.Uint16Range(2000, 2010), rapid.Uint16Range(2000, 2010), rapid.SampledFrom([]uint16{1, 53, 443, 1023, 1024, 40001, 65535}), rapid.Uint16Range(1, 65535))
	in := steerLAN + packet.Addr(rapid.IntRange(1, 6).Draw(t, "host"))
	out := rapid.SampledFrom([]packet.Addr{0xc6336401, 0xc6336402, 0x08080808}).Draw(t, "peer")
	k = packet.Tuple{Src: in, Dst: out, SrcPort: port.Draw(t, "sport"), DstPort: port.Draw(t, "dport"),
		Proto: rapid.SampledFrom([]uint32{packet.TCP, packet.UDP, packet.ICMP}).Draw(t, "protocol")}
	if fromWAN = rapid.Bool().Draw(t, "from WAN"); fromWAN {
		k.Src, k.Dst = out, in
	}
	if rapid.IntRange(0, 2).Draw(t, "to the firewall") > 0 {
		k.Dst = steerWAN + packet.Addr(rapid.IntRange(0, 2).Draw(t, "external"))
	}
	if k.Proto == packet.ICMP {
		k.DstPort = k.SrcPort
	}
	return fromWAN, k
}

// TestSteerFlows: with random policies, both directions of every flow that a part begins
// lead to that part, and so do ICMP errors about packets of both. All flows of an internal
// endpoint have one external endpoint, which no other one has, in whichever part.
func TestSteerFlows(t *testing.T) {
	flows, hairpins, servers, spread := 0, 0, 0, [MaxParts]int{}
	rapid.Check(t, func(r *rapid.T) {
		p := steerPolicy(r)
		s := newSteered(r, p, rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(r, "parts"))
		type endpoint struct {
			addr  packet.Addr
			port  uint16
			proto uint32
		}
		mapped, owner := map[endpoint]endpoint{}, map[endpoint]endpoint{}
		keys := map[string]int{}
		for range rapid.IntRange(1, 300).Draw(r, "packets") {
			fromWAN, k := drawTuple(r)
			part := s.to(r, fromWAN, &k)
			m, o, answer, answersFromWAN, ok := s.begin(part, fromWAN, &k, rapid.Uint64().Draw(r, "rnd"))
			if !ok {
				continue
			}
			flows++
			spread[part]++
			if at := s.to(r, answersFromWAN, &answer); at != part {
				r.Fatalf("%+v begins a flow in part %d of %d, its answer %+v is part %d's (policy %+v)", k, part, len(s.parts), answer, at, *p)
			}
			// An error about the first packet quotes it as it left, one about the answer
			// as that left.
			left := packet.Tuple{Src: answer.Dst, Dst: answer.Src, SrcPort: answer.DstPort, DstPort: answer.SrcPort, Proto: k.Proto}
			back := packet.Tuple{Src: k.Dst, Dst: k.Src, SrcPort: k.DstPort, DstPort: k.SrcPort, Proto: k.Proto}
			if a, b := Quoting(&left), Quoting(&back); s.to(r, answersFromWAN, &a) != part || s.to(r, fromWAN, &b) != part {
				r.Fatalf("%+v: an error about it is not part %d's", k, part)
			}
			// No two flows have a direction in common, but of one part.
			for _, d := range []string{fmt.Sprint(fromWAN, k), fmt.Sprint(answersFromWAN, answer)} {
				if at, seen := keys[d]; seen && at != part {
					r.Fatalf("%s is in parts %d and %d", d, at, part)
				}
				keys[d] = part
			}
			if fromWAN {
				servers++
			}
			if !fromWAN && !answersFromWAN {
				hairpins++
			}
			if o != Mapped {
				continue
			}
			in, out := endpoint{k.Src, k.SrcPort, k.Proto}, endpoint{m.Addr, m.Port, k.Proto}
			if was, seen := mapped[in]; seen && was != out {
				r.Fatalf("%+v is %+v outside, and %+v (RFC 4787 REQ-1)", in, was, out)
			}
			if was, seen := owner[out]; seen && was != in {
				r.Fatalf("%+v is %+v and %+v inside (RFC 4787 REQ-3)", out, was, in)
			}
			mapped[in], owner[out] = out, in
		}
	})
	t.Logf("%d flows, %d hairpins, %d from the WAN, by part %v", flows, hairpins, servers, spread)
	if flows < 1000 || hairpins == 0 || servers == 0 || spread[1] == 0 || spread[7] == 0 {
		t.Errorf("too little: %d flows, %d hairpins, %d from the WAN, by part %v", flows, hairpins, servers, spread)
	}
}

// masqueraded is the policy of most firewalls.
func masqueraded() *ruleset.Policy {
	return &ruleset.Policy{
		Interfaces: []ruleset.Interface{{Role: ruleset.LAN, Address: steerLAN.To16(), PrefixLen: 24}, {Role: ruleset.WAN, Address: steerWAN.To16(), PrefixLen: 24}},
		SNAT:       []ruleset.SNAT{{Interface: 1, PortLo: 1024, PortHi: 65535}},
	}
}

// TestPartsShareAPool: every port of a pool is in one part's pool and no other's, each part
// gives out its own only, and together they give out all.
func TestPartsShareAPool(t *testing.T) {
	for i, n := range []int{1, 2, 4, 8} {
		s := newSteered(t, masqueraded(), n)
		for _, proto := range Protocols[i%protos:][:1] {
			size, seen := 0, map[uint16]int{}
			for k, v := range s.parts {
				size += v.Pools()[0].Size(proto)
				for i := 0; ; i++ {
					m, o := v.Map(proto, steerLAN+1+packet.Addr(i/8), uint16(30000+k*2+i%8*2*n), uint64(i)*0x9e3779b97f4a7c15)
					if o != Mapped {
						break
					}
					if was, ok := seen[m.Port]; ok {
						t.Fatalf("%d parts: port %d is in parts %d and %d", n, m.Port, was, k)
					}
					seen[m.Port] = k
					answer := packet.Tuple{Src: 0x08080808, Dst: steerWAN, SrcPort: 443, DstPort: m.Port, Proto: uint32(proto)}
					if at := s.to(t, true, &answer); at != k {
						t.Fatalf("%d parts: part %d has port %d, whose answers go to %d", n, k, m.Port, at)
					}
				}
			}
			kept := 0
			if proto != packet.ICMP {
				kept = 64512 / ownPart
			}
			if size != 64512 || len(seen) != 64512-kept {
				t.Errorf("%d parts, protocol %d: %d ports, %d given out", n, proto, size, len(seen))
			}
		}
	}
}

// TestPartsPreserve: an endpoint keeps its port where it would without parts, and otherwise
// gets one of the same class and parity.
func TestPartsPreserve(t *testing.T) {
	p := masqueraded()
	p.SNAT[0].PortLo = 1
	for _, n := range []int{2, 4, 8} {
		s := newSteered(t, p, n)
		for host := range 2 {
			for port := 1; port <= 65535; port += 7 {
				k := packet.Tuple{Src: steerLAN + 1 + packet.Addr(host), Dst: 0x08080808, SrcPort: uint16(port), DstPort: 443, Proto: packet.UDP}
				m, o := s.parts[s.to(t, false, &k)].Map(packet.UDP, k.Src, k.SrcPort, uint64(port)*0x9e3779b97f4a7c15)
				if o != Mapped || host == 0 && int(m.Port) != port || m.Port&1 != k.SrcPort&1 || (m.Port < 1024) != (k.SrcPort < 1024) {
					t.Fatalf("%d parts: port %d of host %d is %d outside", n, port, host, m.Port)
				}
			}
		}
	}
}

// TestSmallPoolsAreWhole: a pool of few ports is one part's, so that no host finds it empty
// because of the port that it happens to use.
func TestSmallPoolsAreWhole(t *testing.T) {
	for _, ports := range []int{1, 4, 100, 1023, 1024} {
		p := masqueraded()
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 40000, uint16(40000+ports-1)
		s := newSteered(t, p, 4)
		want := 1
		if ports >= 4*leastPart {
			want = 4
		}
		used := map[int]bool{}
		for i := range 256 {
			k := packet.Tuple{Src: steerLAN + 1, Dst: 0x08080808, SrcPort: uint16(50000 + i), DstPort: 443, Proto: packet.TCP}
			used[s.to(t, false, &k)] = true
		}
		if len(used) != want || !used[0] {
			t.Errorf("%d ports: parts %v", ports, used)
		}
		if n := s.parts[1].Pools()[0].Size(packet.TCP); want == 1 && n != 0 {
			t.Errorf("%d ports: part 1 has %d", ports, n)
		}
	}
}

// TestFirewallIsPartZero: what is for the firewall itself is part 0's: its services, also
// where queries to other servers are its own, and the answers to its own queries.
func TestFirewallIsPartZero(t *testing.T) {
	p := masqueraded()
	p.Upstreams = make([]ruleset.Upstream, 1)
	p.Settings.Flags |= ruleset.FlagDNSIntercept
	s := newSteered(t, p, 4)
	for i := range 1000 {
		for _, dst := range []packet.Addr{steerLAN, 0x08080808} {
			k := packet.Tuple{Src: steerLAN + 1, Dst: dst, SrcPort: uint16(1024 + i), DstPort: 53, Proto: packet.UDP}
			if at := s.to(t, false, &k); at != 0 {
				t.Fatalf("%+v is part %d's", k, at)
			}
		}
		for _, proto := range []uint8{packet.TCP, packet.UDP} {
			port, ok := s.parts[0].Own().Take(proto, uint64(i)*0x9e3779b97f4a7c15)
			k := packet.Tuple{Src: 0x09090909, Dst: steerWAN, SrcPort: 53, DstPort: port, Proto: uint32(proto)}
			if at := s.to(t, true, &k); !ok || at != 0 {
				t.Fatalf("the answer to port %d of the firewall's own is part %d's", port, at)
			}
		}
	}
	// The twin: without interception such a query is the host's.
	p.Settings.Flags = 0
	s = newSteered(t, p, 4)
	k := packet.Tuple{Src: steerLAN + 1, Dst: 0x08080808, SrcPort: 1026, DstPort: 53, Proto: packet.UDP}
	if at := s.to(t, false, &k); at != 1 {
		t.Errorf("a host's query is part %d's", at)
	}
}

// TestParts: numbers of parts that are not possible are refused.
func TestParts(t *testing.T) {
	for _, v := range []Part{{0, 3}, {2, 2}, {-1, 2}, {0, 16}, {1, 1}, {1, 0}} {
		if _, err := NewPart(masqueraded(), 1, v, nil); err == nil {
			t.Errorf("part %+v", v)
		}
	}
	for _, v := range []Part{{}, {0, 1}, {1, 2}, {7, 8}} {
		if _, err := NewPart(masqueraded(), 1, v, nil); err != nil {
			t.Errorf("part %+v: %v", v, err)
		}
	}
}

// TestSteerServers: flows that random ports seldom make: a server reaches another by its
// external address, from the port of its own static mapping; and an external port has two
// servers, by source.
func TestSteerServers(t *testing.T) {
	p := masqueraded()
	entry := func(port uint16, to packet.Addr, toPort uint16) ruleset.DNAT {
		return ruleset.DNAT{External: steerWAN.To16(), PortLo: port, PortHi: port, To: to.To16(), ToPort: toPort, Proto: packet.UDP, Hairpin: 1}
	}
	p.DNAT = []ruleset.DNAT{entry(2002, steerLAN+1, 2002), entry(2001, steerLAN+2, 2005), entry(3000, steerLAN+3, 3001), entry(3000, steerLAN+4, 3005)}
	p.DNAT[2].From, p.DNAT[2].FromMask = packet.Addr(0xc6336400).To16(), maskOf(24)
	s := newSteered(t, p, 8)
	for i, k := range []packet.Tuple{
		{Src: steerLAN + 1, SrcPort: 2002, Dst: steerWAN, DstPort: 2001},
		{Src: steerLAN + 2, SrcPort: 2005, Dst: steerWAN, DstPort: 2002},
		{Src: steerLAN + 9, SrcPort: 2006, Dst: steerWAN, DstPort: 2002},
		{Src: 0xc6336401, SrcPort: 4007, Dst: steerWAN, DstPort: 3000},
		{Src: 0x08080808, SrcPort: 4007, Dst: steerWAN, DstPort: 3000},
		{Src: steerLAN + 4, SrcPort: 3005, Dst: 0x08080808, DstPort: 4009},
		{Src: steerLAN + 3, SrcPort: 3001, Dst: 0x08080808, DstPort: 4009},
	} {
		k.Proto = packet.UDP
		fromWAN := k.Src&^0xff != steerLAN&^0xff
		part := s.to(t, fromWAN, &k)
		_, _, answer, answersFromWAN, ok := s.begin(part, fromWAN, &k, 1)
		if !ok {
			t.Fatalf("case %d begins no flow", i)
		}
		if at := s.to(t, answersFromWAN, &answer); at != part {
			t.Errorf("case %d: %+v is part %d's, its answer %+v part %d's", i, k, part, answer, at)
		}
	}
}

package nat

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// lendPolicy translates two networks to one address, each to ports of its own of which some are
// both's, and has a server whose port is no pool's.
func lendPolicy(lo, mid, hi uint16) *ruleset.Policy {
	return &ruleset.Policy{
		Interfaces: []ruleset.Interface{{Role: ruleset.LAN, Address: steerLAN.To16(), PrefixLen: 24}, {Role: ruleset.WAN, Address: steerWAN.To16(), PrefixLen: 24}},
		SNAT: []ruleset.SNAT{
			{Interface: 1, PortLo: lo, PortHi: mid, Source: steerLAN.To16(), SourceMask: maskOf(32)},
			{Interface: 1, PortLo: lo, PortHi: hi},
		},
		DNAT: []ruleset.DNAT{{External: steerWAN.To16(), To: (steerLAN + 7).To16(), Proto: packet.UDP, PortLo: lo + 5, PortHi: lo + 9, ToPort: 80}},
	}
}

// newParts makes parts that lend each other ports.
func newParts(t interface{ Fatal(...any) }, p *ruleset.Policy, n int) *steered {
	s := newSteered(t, p, n)
	for _, v := range s.parts {
		v.Join(s.parts[0])
	}
	return s
}

// TestPortsMove: whatever parts lend and give back, each port is in one pool or on its way, and
// no server's in any; who has it is whom answers are led to; a part lends no more than half of
// what it has more; and in the end all are where they were.
func TestPortsMove(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.SampledFrom([]int{2, 4, 8}).Draw(r, "parts")
		lo := rapid.SampledFrom([]uint16{1, 1000, 2048, 40003}).Draw(r, "lo")
		hi := lo + uint16(rapid.IntRange(n*leastPart, n*leastPart+1500).Draw(r, "ports"))
		mid := lo + uint16(n*leastPart)
		s := newParts(r, lendPolicy(lo, mid, hi), n)
		type way struct {
			to int
			l  Loan
		}
		var ways []way
		type flow struct {
			k    int
			port uint16
		}
		var flows []flow
		const sp = 1 // UDP
		check := func() {
			away := 0
			for p := uint32(lo); p <= uint32(hi); p++ {
				has, free := -1, 0
				for k, v := range s.parts {
					q := v.pools[0].space[sp]
					if q.byExt[uint16(p)-lo].refs > 0 || q.free(uint16(p)) {
						has = k
						free++
					}
				}
				for _, w := range ways {
					if int(w.l.Word) == int(p/64) && w.l.Set>>(p%64)&1 != 0 {
						free++
					}
				}
				want := 1
				if uint16(p) >= lo+5 && uint16(p) <= lo+9 {
					want = 0
				}
				if free != want {
					r.Fatalf("port %d is in %d pools or on its way, want %d", p, free, want)
				}
				if has < 0 {
					continue
				}
				if has != partOf(uint16(p), uint16(n-1)) {
					away++
				}
				k := packet.Tuple{Src: 0xc6336401, Dst: steerWAN, SrcPort: 53, DstPort: uint16(p), Proto: packet.UDP}
				if at := s.by[p%uint32(n)].FromWAN(&k); at != has {
					r.Fatalf("port %d of part %d is led to %d", p, has, at)
				}
			}
			guests, size := 0, 0
			for _, v := range s.parts {
				q := v.pools[0].space[sp]
				guests += q.guests
				size += len(q.byExt) - q.reserved
			}
			for _, w := range ways {
				for b := w.l.Set; b != 0; b &= b - 1 {
					size++
				}
			}
			if guests != away || size != int(hi-lo)+1-5 {
				r.Fatalf("%d guests, %d ports away; %d ports of %d", guests, away, size, int(hi-lo)+1-5)
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"take": func(r *rapid.T) {
				k := rapid.IntRange(0, n-1).Draw(r, "part")
				for i := range rapid.IntRange(1, 400).Draw(r, "flows") {
					if m, o := s.parts[k].Map(packet.UDP, steerLAN+packet.Addr(10+len(flows)), uint16(2*k+i*2*n), rapid.Uint64().Draw(r, "rnd")); o == Mapped {
						flows = append(flows, flow{k, m.Port})
					}
				}
			},
			"end": func(r *rapid.T) {
				for range rapid.IntRange(1, 300).Draw(r, "flows") {
					if len(flows) == 0 {
						break
					}
					i := rapid.IntRange(0, len(flows)-1).Draw(r, "which")
					s.parts[flows[i].k].Give(0, packet.UDP, flows[i].port)
					flows[i] = flows[len(flows)-1]
					flows = flows[:len(flows)-1]
				}
			},
			"lend": func(r *rapid.T) {
				from, to := rapid.IntRange(0, n-1).Draw(r, "from"), rapid.IntRange(0, n-1).Draw(r, "to")
				if from == to {
					return
				}
				src := steerLAN + packet.Addr(rapid.IntRange(0, 1).Draw(r, "network"))
				w, ok := s.parts[to].Wish(packet.UDP, src)
				if !ok || w.Lo != lo || (w.Hi == mid) != (src == steerLAN) && mid != hi {
					r.Fatalf("%+v, %v", w, ok)
				}
				q := s.parts[from].pools[0]
				had, has := q.spare(q.space[sp], w.Lo, w.Hi), int(w.Free)
				for range rapid.IntRange(1, 5).Draw(r, "words") {
					l, ok := s.parts[from].Lend(&w)
					if !ok {
						break
					}
					ways = append(ways, way{to, l})
				}
				if now := q.spare(q.space[sp], w.Lo, w.Hi); now+int(w.Free) != had+has || int(w.Free) > has && int(w.Free) > now {
					r.Fatalf("%d lent %d of %d to one with %d", from, had-now, had, has)
				}
			},
			"arrive": func(*rapid.T) {
				for i := range ways {
					s.parts[ways[i].to].Receive(&ways[i].l)
				}
				ways = nil
			},
			"go home": func(r *rapid.T) {
				k := rapid.IntRange(0, n-1).Draw(r, "part")
				if l, home, ok := s.parts[k].GoHome(0, packet.UDP, 4); ok {
					if home == k {
						r.Fatalf("part %d gives ports home to itself", k)
					}
					ways = append(ways, way{home, l})
				}
			},
		})
		for _, f := range flows {
			s.parts[f.k].Give(0, packet.UDP, f.port)
		}
		for i := range ways {
			s.parts[ways[i].to].Receive(&ways[i].l)
		}
		ways = nil
		for range 3 {
			for k := range s.parts {
				for {
					l, home, ok := s.parts[k].GoHome(0, packet.UDP, 1024)
					if !ok {
						break
					}
					s.parts[home].Receive(&l)
				}
			}
		}
		check()
		if a := s.parts[0].away[0].ports.Load(); a != 0 {
			r.Fatalf("%d ports are away in the end", a)
		}
	})
}

// TestNothingMoves: a pool that is not divided lends nothing, nor does a part alone, nor is
// anything received for a pool or a protocol that there is not.
func TestNothingMoves(t *testing.T) {
	for _, c := range []struct{ parts, ports int }{{1, 4096}, {4, 4*leastPart - 1}} {
		s := newParts(t, lendPolicy(1024, 1024+uint16(c.ports)-1, 1024+uint16(c.ports)-1), c.parts)
		for _, v := range s.parts {
			if w, ok := v.Wish(packet.UDP, steerLAN+1); ok {
				t.Errorf("%+v of %+v", w, c)
			}
			if l, ok := v.Lend(&Wish{0, packet.UDP, 1024, 2000, 0}); ok {
				t.Errorf("%+v of %+v", l, c)
			}
			if _, _, ok := v.GoHome(0, packet.UDP, 64); ok {
				t.Errorf("of %+v", c)
			}
			v.Receive(&Loan{0, packet.UDP, 20, ^uint64(0)})
		}
	}
	s := newParts(t, lendPolicy(1024, 5000, 5000), 2)
	v := s.parts[0]
	for _, l := range []Loan{{-1, packet.UDP, 20, ^uint64(0)}, {1, packet.UDP, 20, ^uint64(0)}, {0, 47, 20, ^uint64(0)}, {0, packet.UDP, 1024, ^uint64(0)},
		{0, packet.UDP, 15, ^uint64(0)}, {0, packet.UDP, 79, ^uint64(0)}} {
		size := v.pools[0].Size(packet.UDP)
		if v.Receive(&l); v.pools[0].Size(packet.UDP) != size {
			t.Errorf("%+v was received", l)
		}
	}
	for _, w := range []Wish{{-1, packet.UDP, 1024, 5000, 0}, {1, packet.UDP, 1024, 5000, 0}, {0, 47, 1024, 5000, 0}} {
		if l, ok := v.Lend(&w); ok {
			t.Errorf("%+v for %+v", l, w)
		}
	}
	if _, ok := v.Wish(47, steerLAN+1); ok {
		t.Error("a protocol without ports")
	}
	if n := v.pools[0].Guests(47); n != 0 {
		t.Error(n)
	}
}

package router

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestHolders: for whom a frame waits: for the host that has sent it, and of the
// firewall's own for a conversation of UDP, or else for a destination.
func TestHolders(t *testing.T) {
	l := newLab(t, "accept")
	p := &l.e.port[wan]
	p.arp.key = 0x9e3779b97f4a7c15 // the lab's secret is mostly zeros
	of := func(source string, v pkt, cut int) uint16 {
		if l.e.source = 0; source != "" {
			l.e.source = ip(source)
		}
		f := v.frame(wanMAC)
		return l.e.holder(p, f[:len(f)-cut])
	}
	a, b := udp(ours, 4000, web, 53), udp(ours, 4001, web, 53)
	c, d := udp(ours, 4000, "192.0.2.9", 53), syn(ours, 4000, web, 80)
	e := syn(ours, 4001, web, 80)
	n := len(a.frame(wanMAC)) - packet.EthLen - packet.MinIPv4
	same := func(what string, x, y uint16, want bool) {
		t.Helper()
		if (x == y) != want {
			t.Errorf("%s: %d and %d", what, x, y)
		}
	}
	same("a host's, whatever it sends", of(host, a, 0), of(host, c, 0), true)
	same("two hosts'", of(host, a, 0), of("10.0.0.3", a, 0), false)
	same("own, the same", of("", a, 0), of("", a, 0), true)
	same("own, by port", of("", a, 0), of("", b, 0), false)
	same("own, by destination", of("", a, 0), of("", c, 0), false)
	same("own TCP, not by port", of("", d, 0), of("", e, 0), true)
	same("own, cut behind the port", of("", a, n-2), of("", a, 0), true)
	same("own, cut within the port", of("", a, n-1), of("", b, n-1), true)
	same("own, cut within the port, and whole", of("", a, n-1), of("", a, 0), false)
	opts := func(v pkt) uint16 { l.e.source = 0; return l.e.holder(p, withOptions(v.frame(wanMAC))) }
	same("own, with options", opts(a), of("", a, 0), true)
	same("own, with options, by port", opts(a), opts(b), false)
	l.e.source = 0
	key := of(host, a, 0)
	p.arp.key = ^p.arp.key | 1
	same("under another key", of(host, a, 0), key, false)
}

// TestWaitingFrames compares what waits for neighbours, and who gives way, with
// lists, through a long run in which there is room for few. The frames leave in
// order when the neighbour answers.
func TestWaitingFrames(t *testing.T) {
	const room = 60
	type held struct {
		holder uint16
		id     uint16
	}
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 5))
		l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsDrop }, "accept")
		p := &l.e.port[lan]
		p.arp.held.room = room
		p.gateway = ip("10.0.0.30")
		hops := []packet.Addr{p.gateway}
		for i := range packet.Addr(5) {
			hops = append(hops, ip("10.0.0.40")+i)
		}
		model := map[packet.Addr][]held{}
		by := map[uint16]int{}
		total, dropped := 0, 0
		// oldest removes a holder's first frame for a hop.
		oldest := func(hop packet.Addr, h uint16) bool {
			at := slices.IndexFunc(model[hop], func(x held) bool { return x.holder == h })
			if at < 0 {
				return false
			}
			model[hop] = slices.Delete(model[hop], at, at+1)
			by[h]--
			total--
			dropped++
			return true
		}
		most := func(h uint16, among func(k uint16) bool) uint16 {
			best := h
			for k := range uint16(holders) {
				if among(k) && by[k] > by[best] {
					best = k
				}
			}
			return best
		}
		for i := range uint16(1500) {
			src := packet.Addr(10<<24 | 7<<8 + r.IntN(1+r.IntN(6)))
			hop := hops[min(r.IntN(8), 5)]
			if r.IntN(100) == 0 { // it answers: all leave in order
				f := make([]byte, 60)
				packet.PutARP(f, &lanMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: macOf(hop), SenderAddr: hop, TargetMAC: lanMAC, TargetAddr: p.addr})
				l.port[lan].in = append(l.port[lan].in, f)
				l.e.Poll(l.now)
				var got, want []uint16
				for _, f := range l.port[lan].out {
					if packet.Type(f) == packet.TypeIPv4 {
						got = append(got, binary.BigEndian.Uint16(f[packet.EthLen+22:]))
					}
				}
				l.port[lan].out = nil
				for _, x := range model[hop] {
					want = append(want, x.id)
					by[x.holder]--
					total--
				}
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d: %v left, want %v", seed, got, want)
				}
				delete(model, hop)
				if n := p.arp.find(hop); n != nil {
					l.e.forget(p, n)
				}
				continue
			}
			buf, ok := l.pool.Get()
			if !ok {
				t.Fatal("no buffer")
			}
			f := l.pool.Buffer(buf)[headroom:]
			n := copy(f, udp(addr(src).String(), i, addr(hop).String(), i).frame(lanMAC))
			l.e.source = src
			h := l.e.holder(p, f[:n])
			before := l.e.c.DropReasons[verdict.NeighbourUnresolved]
			dropped = 0
			l.e.output(p, framebuf.Frame{Buf: buf, Len: uint32(n)}, hop, l.now)
			// The model.
			fits := true
			if total >= room {
				if m := most(h, func(uint16) bool { return true }); m == h {
					fits = oldest(hop, h)
				} else {
					fits = false
					for j := range p.arp.slot {
						if a := p.arp.slot[j].addr; p.arp.slot[j].state != unused && oldest(a, m) {
							fits = true
							break
						}
					}
				}
			}
			if fits && hop != p.gateway && len(model[hop]) >= queued {
				fits = oldest(hop, most(h, func(k uint16) bool {
					return slices.ContainsFunc(model[hop], func(x held) bool { return x.holder == k })
				}))
			}
			if fits {
				model[hop] = append(model[hop], held{h, i})
				by[h]++
				total++
			} else {
				dropped++
			}
			if got := int(l.e.c.DropReasons[verdict.NeighbourUnresolved] - before); got != dropped {
				t.Fatalf("seed %d, frame %d: %d dropped, want %d", seed, i, got, dropped)
			}
			if p.arp.held.n != total {
				t.Fatalf("seed %d, frame %d: %d wait, want %d", seed, i, p.arp.held.n, total)
			}
			for k := range p.arp.held.by {
				if int(p.arp.held.by[k]) != by[uint16(k)] {
					t.Fatalf("seed %d, frame %d: holder %d has %d, want %d", seed, i, k, p.arp.held.by[k], by[uint16(k)])
				}
			}
			for _, hop := range hops {
				var got []uint16
				if n := p.arp.find(hop); n != nil {
					fr := n.first
					for range n.n {
						got = append(got, binary.BigEndian.Uint16(l.pool.Bytes(fr)[packet.EthLen+22:]))
						fr = l.e.nodes[fr.Buf].next
					}
				}
				var want []uint16
				for _, x := range model[hop] {
					want = append(want, x.id)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d, frame %d: for %v wait %v, want %v", seed, i, addr(hop), got, want)
				}
			}
		}
		l.e.flush(p)
		l.port[lan].out = nil
		l.buffers()
	}
}

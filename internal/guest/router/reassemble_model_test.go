package router

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// plainDatagram is an incomplete datagram as said of it.
type plainDatagram struct {
	key    fragKey
	group  uint8
	began  int64
	pieces []piece
	end    int // 0: not known
	void   bool
}

func (d *plainDatagram) have() (n int) {
	for _, p := range d.pieces {
		n += int(p.len)
	}
	return n
}

// plainGathering is what reassembly is said to do, without tables.
type plainGathering struct {
	list    []*plainDatagram
	dropped uint64
}

func (g *plainGathering) remove(d *plainDatagram) {
	g.dropped += uint64(len(d.pieces))
	g.list = slices.DeleteFunc(g.list, func(o *plainDatagram) bool { return o == d })
}

// oldest removes the oldest datagram of those for which ok.
func (g *plainGathering) oldest(ok func(d *plainDatagram) bool) bool {
	for _, d := range g.list { // they stand in order of time
		if ok(d) {
			g.remove(d)
			return true
		}
	}
	return false
}

func (g *plainGathering) expire(now int64) {
	for g.oldest(func(d *plainDatagram) bool { return now-d.began >= gatherFor }) {
	}
}

// count is how many datagrams and fragments each group has.
func (g *plainGathering) count() (slots, held map[uint8]int, all int) {
	slots, held = map[uint8]int{}, map[uint8]int{}
	for _, d := range g.list {
		slots[d.group]++
		held[d.group] += len(d.pieces)
		all += len(d.pieces)
	}
	return slots, held, all
}

func most(m map[uint8]int) (n int) {
	for _, v := range m {
		n = max(n, v)
	}
	return n
}

// add takes a fragment, and reports whether it completes its datagram.
func (g *plainGathering) add(k fragKey, group uint8, w piece, more bool, now int64) (whole []piece) {
	var d *plainDatagram
	for _, o := range g.list {
		if o.key == k {
			d = o
		}
	}
	if d != nil && now-d.began >= gatherFor {
		g.remove(d)
		d = nil
	}
	if d == nil {
		if len(g.list) == datagramMax {
			slots, _, _ := g.count()
			g.oldest(func(o *plainDatagram) bool { return slots[o.group] == most(slots) })
		}
		d = &plainDatagram{key: k, group: group, began: now}
		g.list = append(g.list, d)
	}
	end := int(w.end())
	bad := d.void || len(d.pieces) == perDatagram || d.end != 0 && (!more || end > d.end)
	for _, p := range d.pieces {
		if !d.void && p == w && more == (end != d.end) {
			g.dropped++ // the same again
			return nil
		}
		bad = bad || int(w.off) < int(p.end()) && int(p.off) < end || !more && int(p.end()) > end
	}
	if bad {
		g.dropped += uint64(len(d.pieces)) + 1
		d.pieces, d.void = nil, true
		return nil
	}
	d.pieces = append(d.pieces, w)
	if !more {
		d.end = end
	}
	if d.end != 0 && d.have() == d.end {
		pieces := d.pieces
		d.pieces = nil
		g.remove(d)
		slices.SortFunc(pieces, func(a, b piece) int { return int(a.off) - int(b.off) })
		return pieces
	}
	if _, held, _ := g.count(); held[group] > perSource {
		g.oldest(func(o *plainDatagram) bool { return o.group == group && len(o.pieces) > 0 })
	}
	if _, held, all := g.count(); all > gatheredMax {
		if !g.oldest(func(o *plainDatagram) bool { return o != d && len(o.pieces) > 0 && held[o.group] == most(held) }) {
			g.oldest(func(o *plainDatagram) bool { return o != d && len(o.pieces) > 0 })
		}
	}
	return nil
}

// TestReassemblyIsAsSaid runs random fragments of few and of many datagrams, from
// few and from many sources, through gather, and compares all that it holds, drops
// and completes with a plain model, at each of the limits.
func TestReassemblyIsAsSaid(t *testing.T) {
	for _, c := range []struct {
		name                   string
		steps                  int
		sources, ids, places   int
		step                   int64
		ends                   int // one in so many fragments is the last
		long                   bool
		datagrams, held, whole int // that the run must reach
	}{
		{"few datagrams", 3000, 2, 3, 12, second / 50, 6, false, 5, 12, 1},
		{"in order", 2000, 3, 3, 6, second / 5, 6, true, 5, 12, 10},
		{"many datagrams", 1200, 40, 6, 6, second / 100, 20, false, datagramMax, 100, 5},
		{"many fragments", 3000, 6, 4, 120, second / 1000, 1000, false, 20, gatheredMax, 0},
		{"one source", 1000, 1, 400, 90, second / 1000, 500, false, 50, perSource, 0},
		{"two sources", 1200, 2, 100, 4, second / 1000, 1000, false, datagramMax, 100, 0},
		{"long datagrams", 3000, 8, 1, 80, second / 1000, 80, true, 8, 200, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(c.sources), uint64(c.ids)))
			l := reassembling(t, "accept")
			l.e.events = nil
			in, g, m := &l.e.port[lan], &l.e.frags, &plainGathering{}
			now, datagrams, held, whole := l.now, 0, 0, 0
			next := map[[2]int]int{}
			for step := range c.steps {
				now += c.step
				src, id := r.IntN(c.sources), r.IntN(c.ids)
				w := piece{uint16(8 * r.IntN(c.places)), 8}
				if c.long { // mostly in order
					k := [2]int{src, id}
					w.off = uint16(8 * (next[k] % c.places))
					next[k]++
				} else if r.IntN(8) == 0 {
					w.len = uint16(8 * (1 + r.IntN(3)))
				}
				more := r.IntN(c.ends) != 0
				if !more && r.IntN(2) == 0 {
					w.len -= uint16(r.IntN(8))
				}
				f := udp(addr(ip("10.0.0.20")+packet.Addr(src)).String(), 4000, web, 53)
				f.data = nil
				b := f.frame(lanMAC)[:packet.EthLen+packet.MinIPv4]
				packet.SetID(b[packet.EthLen:], uint16(id))
				binary.BigEndian.PutUint16(b[packet.EthLen+2:], packet.MinIPv4+w.len)
				b = shift(append(b, make([]byte, w.len)...), int(w.off), more)

				buf, _ := l.pool.Get()
				fr := framebuf.Frame{Buf: buf, Len: uint32(copy(l.pool.Buffer(buf)[headroom:], b))}
				p := &received{in: in, frame: fr}
				packet.ParseIPv4(l.pool.Bytes(fr), &p.Packet)
				key := fragKey{uint64(p.Src)<<32 | uint64(p.Dst), 1<<63 | uint64(id)<<8 | packet.UDP}

				before := l.e.c.DropReasons[verdict.MalformedPacket]
				done := l.e.gather(p, now)
				at := g.find(&key)
				group := uint8(0)
				if at >= 0 {
					group = g.dg[at].group
				} else {
					for _, d := range m.list {
						if d.key == key {
							group = d.group
						}
					}
				}
				want := m.add(key, group, w, more, now)
				// The transport header is no UDP's: a whole one is dropped as that.
				if got := l.e.c.DropReasons[verdict.MalformedPacket] - before; done || (want != nil) != (got != 0) || got != uint64(len(want)) {
					t.Fatalf("step %d: whole: %v, %d; want %d fragments", step, done, got, len(want))
				}
				if want != nil {
					whole++
				}
				if r.IntN(50) == 0 {
					l.e.gatherTick(now)
					m.expire(now)
				}
				if r.IntN(400) == 0 {
					now += 29 * second
				}
				if g.used < 20 || step%8 == 0 {
					l.sameGathering(m, step)
				}
				datagrams, held = max(datagrams, g.used), max(held, g.held)
			}
			if datagrams < c.datagrams || held < c.held || whole < c.whole {
				t.Errorf("the run reaches %d datagrams, %d fragments and %d whole ones, not %d, %d and %d", datagrams, held, whole, c.datagrams, c.held, c.whole)
			}
			l.e.gatherTick(now + gatherFor)
			m.expire(now + gatherFor)
			l.sameGathering(m, c.steps)
			l.buffers()
		})
	}
}

// sameGathering compares what is held with the model.
func (l *lab) sameGathering(m *plainGathering, step int) {
	l.t.Helper()
	g := &l.e.frags
	slots, held, all := m.count()
	if g.used != len(m.list) || g.held != all || l.e.c.DropReasons[verdict.FragmentedIPv4] != m.dropped {
		l.t.Fatalf("step %d: %d datagrams, %d fragments, %d dropped; want %d, %d, %d", step, g.used, g.held, l.e.c.DropReasons[verdict.FragmentedIPv4], len(m.list), all, m.dropped)
	}
	due := int64(math.MaxInt64)
	for _, d := range m.list {
		due = min(due, d.began+gatherFor)
		n := g.find(&d.key)
		if n < 0 {
			l.t.Fatalf("step %d: a datagram is not found", step)
		}
		x := &g.dg[n]
		if x.void != d.void || x.list.Len() != len(d.pieces) || x.expires != d.began+gatherFor || int(g.slots[x.group]) != slots[x.group] || int(g.group[x.group]) != held[x.group] {
			l.t.Fatalf("step %d: %+v, want %+v; its group has %d and %d, want %d and %d", step, *x, *d, g.slots[x.group], g.group[x.group], slots[x.group], held[x.group])
		}
		// They lie in order, each once.
		last, fr := uint32(0), x.list.First()
		for range x.list.Len() {
			w := pieceOf(l.e.links.Tag(fr))
			if uint32(w.off) < last || !slices.Contains(d.pieces, w) {
				l.t.Fatalf("step %d: piece %+v behind %d", step, w, last)
			}
			last, fr = w.end(), l.e.links.Next(fr)
		}
	}
	if g.due() != due {
		l.t.Fatalf("step %d: due at %d, want %d", step, g.due(), due)
	}
}

// TestFragmentsAtTheLimits: a datagram of just so many fragments, and one more; of
// just so many bytes with its header, and one more; one that lives for 30 seconds,
// and a nanosecond longer.
func TestFragmentsAtTheLimits(t *testing.T) {
	for n, want := range map[int]int{perDatagram - 1: 1, perDatagram: 1, perDatagram + 1: 0} {
		l := reassembling(t, "accept")
		fs := fragments(large(udp(host, 4000, web, 53), 8*n-packet.UDPLen), lanMAC, 28, 7)
		if got := l.feed(lan, fs...); len(fs) != n || len(got) != want {
			t.Errorf("%d fragments: %d passed; drops: %s", len(fs), len(got), l.drops())
		}
		l.invariants()
	}
	// The first one's header is longer than the others'.
	for n, want := range map[int]int{65507 - 8: 1, 65507 - 7: 0} {
		l := reassembling(t, "accept")
		fs := fragments(large(udp(host, 4000, web, 53), n), lanMAC, 1500, 7)
		f := append(append(bytes.Clone(fs[0][:34]), 1, 1, 1, 1, 1, 1, 1, 1), fs[0][34:]...)
		f[packet.EthLen] = 0x47
		binary.BigEndian.PutUint16(f[packet.EthLen+2:], uint16(len(f)-packet.EthLen))
		resum(f[packet.EthLen:])
		fs[0] = f
		if got := l.feed(lan, fs...); len(l.port[wan].out) != 0 || want == 0 && (len(got) != 0 || l.e.c.DropReasons[verdict.MalformedPacket] != uint64(len(fs))) || want == 1 && l.e.c.Reassembled != 1 {
			t.Errorf("%d bytes: %d passed; drops: %s", n, len(got), l.drops())
		}
		l.buffers()
	}
	for late, want := range map[int64]int{-1: 1, 0: 0, 1: 0} {
		l := reassembling(t, "accept")
		l.one(lan, udp(host, 4000, web, 53))
		l.now += 100 * second
		fs := fragments(large(udp(host, 4000, web, 53), 100), lanMAC, 60, 7)
		l.feed(lan, fs[0], fs[1])
		if d := l.e.frags.due(); d != l.now+gatherFor {
			t.Errorf("due in %d", d-l.now)
		}
		l.now += gatherFor + late
		if got := l.feed(lan, fs[2:]...); len(got) != want {
			t.Errorf("%d ns after 30 seconds: %d passed; drops: %s", late, len(got), l.drops())
		}
		l.pass(60)
		l.invariants()
	}
}

// TestFragmentEvents: a datagram that is given up is one event, with its addresses
// and the side that it came from.
func TestFragmentEvents(t *testing.T) {
	for _, from := range []int{lan, wan} {
		l := reassembling(t, "accept")
		src, dst, mac, dir := host, web, lanMAC, verdict.Egress
		if from == wan {
			src, dst, mac, dir = web, ours, wanMAC, verdict.Ingress
		}
		fs := fragments(large(udp(src, 4000, dst, 53), 200), mac, 60, 7)
		l.feed(from, fs[1], fs[2], fs[0])
		l.seen = nil
		l.pass(31)
		if len(l.seen) != 1 || l.e.c.DropReasons[verdict.FragmentedIPv4] != 3 {
			t.Fatalf("%d events; drops: %s", len(l.seen), l.drops())
		}
		r := l.seen[0]
		if r.Time != l.now || r.Kind != event.Verdict || r.Action != verdict.Drop || r.Reason != verdict.FragmentedIPv4 || r.Direction != dir ||
			r.Rule != 1 || r.Src != ip(src).To16() || r.Dst != ip(dst).To16() || r.Proto != packet.UDP || r.EtherType != packet.TypeIPv4 || r.Truncated {
			t.Errorf("event %+v", r)
		}
		l.invariants()
	}
}

// TestJoinedFragmentsFit: what the firewall itself reads is copied together when it
// just fits a buffer, in order and with every byte, and not when it is longer by one.
func TestJoinedFragmentsFit(t *testing.T) {
	const most = framebuf.MaxLen - packet.EthLen - packet.MinIPv4 - packet.ICMPLen
	for n, want := range map[int]int{most - 1: 1, most: 1, most + 1: 0} {
		l := reassembling(t, "accept")
		fs := fragments(large(echo(host, lanAddr, packet.EchoRequest, 9), n), lanMAC, 500, 7)
		slices.Reverse(fs)
		l.feed(lan, fs...)
		back := l.taken(lan)
		if len(back) != want {
			t.Fatalf("%d bytes: %d answers; drops: %s", n, len(back), l.drops())
		}
		if want == 1 && (l.e.c.Joined != uint64(len(fs)-1) || !bytes.Equal(back[0].frame[packet.EthLen+28:], large(pkt{}, n).data)) {
			t.Errorf("%d bytes: %d joined of %d", n, l.e.c.Joined, len(fs))
		}
		if want == 0 && l.e.c.DropReasons[verdict.FragmentedIPv4] != uint64(len(fs)) {
			t.Errorf("%d bytes: drops: %s", n, l.drops())
		}
		l.invariants()
	}
}

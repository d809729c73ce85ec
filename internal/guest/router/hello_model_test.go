package router

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestHeldSegments compares what is held of a first message with a model that
// marks each byte: what a segment is to it, the order, and what is there without
// a gap. Numbers of sequence wrap within it.
func TestHeldSegments(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const size = 40
	var h hello
	n := map[coverage]int{}
	for range 20_000 {
		h.first, h.n, h.len = -uint32(r.IntN(2*size)), 0, 0
		var there [size]bool
		for range heldHello {
			at := r.IntN(size) - 3
			data := make([]byte, 1+r.IntN(min(12, size-max(at, 0))))
			for i := range data {
				data[i] = byte(at + i) // as all of the message is
				if r.IntN(40) == 0 {
					data[i] ^= 0x80
				}
			}
			want := known
			for i, b := range data {
				switch {
				case at < 0:
				case there[at+i] && b != h.data[at+i]:
					want = alien
				case !there[at+i] && want == known:
					want = fresh
				}
			}
			got := h.covers(uint32(at), data)
			if n[got]++; got != want {
				t.Fatalf("at %d, %v: %d, want %d; there is %v", at, data, got, want, there)
			}
			if got != fresh {
				continue
			}
			h.insert(&received{frame: framebuf.Frame{Buf: uint32(at)}, Packet: packet.Packet{Seq: h.first + uint32(at), Payload: uint16(len(data))}})
			copy(h.data[at:], data)
			for i := range data {
				there[at+i] = true
			}
			h.grow()
			gap := 0
			for gap < size && there[gap] {
				gap++
			}
			if h.len != gap {
				t.Fatalf("%d bytes without a gap, want %d: %v", h.len, gap, there)
			}
			for k := range h.n {
				if h.held[k].frame.Buf != h.begin(k) || k > 0 && h.begin(k-1) > h.begin(k) {
					t.Fatalf("segment %d of %d begins at %d", k, h.n, h.begin(k))
				}
			}
		}
	}
	for _, c := range []coverage{fresh, known, alien} {
		if n[c] < 1000 {
			t.Errorf("%d segments are %d", n[c], c)
		}
	}
}

// TestWhoMakesRoom: in full places the client that has most, the new one counted,
// loses the oldest of them; of two that have as many, the one with the oldest.
func TestWhoMakesRoom(t *testing.T) {
	fill := func(source []packet.Addr, due []int64, kind uint8) *lab {
		l := sniLab(t).lab
		hs := &l.e.names.hellos
		for i, s := range source {
			k := conntrack.Key{Src: s, Dst: ip(cdn), SrcPort: uint16(1000 + i), DstPort: 443, Proto: packet.TCP}
			ref := l.e.flows.Insert(&k, &packet.Rewrite{Src: s, Dst: ip(cdn), SrcPort: k.SrcPort, DstPort: 443}, conntrack.Established, false, l.now)
			l.e.flows.Shared(ref).Pool = -1
			h := l.e.openHello(ref, l.now)
			if kind != incomplete {
				l.e.turnHello(h, kind, 0, l.now)
			}
			hs.place[h.place].due = due[i]
		}
		if hs.n[kind] != len(source) {
			t.Fatalf("%d places", hs.n[kind])
		}
		return l
	}
	a, b, c := ip(host), ip("10.0.0.3"), ip("10.0.0.4")
	for kind, limit := range helloLimit {
		for _, x := range []struct {
			name   string
			of     func(i int) packet.Addr // source of place i
			due    func(i int) int64
			source packet.Addr // of the new one
			want   int         // who gives way
		}{
			{"one has all", func(i int) packet.Addr { return a }, func(i int) int64 { return int64(1000 + (i+limit-7)%limit) }, b, 7},
			{"its own", func(i int) packet.Addr { return a }, func(i int) int64 { return int64(1000 + (i+limit-5)%limit) }, a, 5},
			{"who has more", func(i int) packet.Addr { return []packet.Addr{a, b}[min(i/(limit/2-1), 1)] }, func(i int) int64 { return int64(1000 + i) }, c, limit/2 - 1},
			{"the new one makes it most", func(i int) packet.Addr { return []packet.Addr{a, b}[i%2] }, func(i int) int64 { return int64(1000 + i) }, b, 1},
			{"the oldest of as many", func(i int) packet.Addr { return []packet.Addr{a, b}[i%2] }, func(i int) int64 { return int64(5000 - i) }, c, limit - 1},
			{"each has one", func(i int) packet.Addr { return packet.Addr(10<<24 | 100 + i) }, func(i int) int64 { return int64(1000 + (i+limit-9)%limit) }, a, 9},
		} {
			var source []packet.Addr
			var due []int64
			for i := range limit {
				source, due = append(source, x.of(i)), append(due, x.due(i))
			}
			l := fill(source, due, uint8(kind))
			before := l.e.flows.Len()
			l.e.makeRoom(uint8(kind), x.source, l.now)
			if l.e.flows.Len() != before-1 || l.e.names.hellos.n[kind] != limit-1 {
				t.Fatalf("%s, kind %d: %d flows of %d", x.name, kind, l.e.flows.Len(), before)
			}
			gone := conntrack.Key{Src: source[x.want], Dst: ip(cdn), SrcPort: uint16(1000 + x.want), DstPort: 443, Proto: packet.TCP}
			if l.e.flows.Taken(&gone) {
				t.Errorf("%s, kind %d: another one gave way than %d", x.name, kind, x.want)
			}
			l.e.makeRoom(uint8(kind), x.source, l.now) // there is room now
			if l.e.names.hellos.n[kind] != limit-1 {
				t.Errorf("%s: one gave way for nothing", x.name)
			}
		}
	}
}

// TestHelloTimes: a first message has 10 seconds, the server's answer 30, to the
// nanosecond; both ends are told, and that is counted.
func TestHelloTimes(t *testing.T) {
	for _, whole := range []bool{false, true} {
		for _, late := range []bool{false, true} {
			k := newTalk(t)
			m, within := k.good, answerWithin
			if !whole {
				m, within = m[:50], helloWithin
			}
			k.put(lan, k.first(0, m))
			k.taken(wan)
			if !k.e.names.hellos.any() {
				t.Fatal("it has no place")
			}
			resets, drops := k.e.c.ResetsSent, k.e.c.DropReasons[verdict.SNIRefused]
			k.lab.now += within - 1
			if late {
				k.lab.now++
			}
			k.e.timers(k.lab.now)
			k.lab.run()
			if k.e.names.hellos.any() == late {
				t.Errorf("whole %v, late %v: it is open %v", whole, late, !late)
			}
			var toClient, toServer int
			for _, v := range k.taken(lan) {
				if v.Flags&packet.RST != 0 && v.Dst == ip(host) {
					toClient++
				}
			}
			for _, v := range k.taken(wan) {
				if v.Flags == packet.RST && v.Dst == ip(cdn) {
					toServer++
				}
			}
			wantServer, held := 1, uint64(1)
			if whole {
				wantServer, held = 2, 0 // for all of it may have arrived, or none
			}
			if !late {
				wantServer, held = 0, 0
			}
			if toServer != wantServer || toClient != min(wantServer, 1) || k.e.c.ResetsSent-resets != uint64(toServer+toClient) || k.e.c.DropReasons[verdict.SNIRefused]-drops != held {
				t.Errorf("whole %v, late %v: %d resets to the server, %d to the client, %d counted, %d segments dropped", whole, late, toServer, toClient,
					k.e.c.ResetsSent-resets, k.e.c.DropReasons[verdict.SNIRefused]-drops)
			}
			k.invariants()
		}
	}
	// A connection that has ended by itself is only forgotten.
	k := newTalk(t)
	k.put(lan, k.first(0, k.good))
	k.put(wan, tcpSeg(cdn, 443, ours, k.ext, packet.RST, 5001, 0))
	k.taken(lan)
	k.taken(wan)
	resets := k.e.c.ResetsSent
	for range 40 {
		k.pass(1)
	}
	if k.e.c.ResetsSent != resets || k.e.names.hellos.any() || len(k.taken(lan))+len(k.taken(wan)) != 0 {
		t.Errorf("%d resets, places taken %v", k.e.c.ResetsSent-resets, k.e.names.hellos.any())
	}
}

// TestRemovedWithItsSegments: whoever removes a flow, by either of its directions,
// frees the place and what is held, and counts it for the rule.
func TestRemovedWithItsSegments(t *testing.T) {
	for dir := range conntrack.Ref(2) {
		k := newTalk(t)
		k.put(lan, k.first(0, k.good[:50]))
		k.put(lan, k.first(100, k.good[100:150]))
		rule := k.e.flows.Dir(0).Rule
		drops, reasons := k.e.c.Drops[rule], k.e.c.DropReasons[verdict.SNIRefused]
		if k.e.names.hellos.held != 2 {
			t.Fatalf("%d held", k.e.names.hellos.held)
		}
		k.e.helloRemoved(dir)
		if k.e.names.hellos.any() || k.e.names.hellos.held != 0 || k.e.c.Drops[rule] != drops+2 || k.e.c.DropReasons[verdict.SNIRefused] != reasons+2 {
			t.Errorf("direction %d: %d held, %d dropped", dir, k.e.names.hellos.held, k.e.c.Drops[rule]-drops)
		}
		k.e.helloRemoved(dir)
		if k.e.c.Drops[rule] != drops+2 {
			t.Error("they are counted twice")
		}
		k.buffers()
	}
}

// TestPendingSegments: what a client may send before the server's name is settled,
// by flags, data and protocol.
func TestPendingSegments(t *testing.T) {
	k := newTalk(t)
	for flags := range uint8(64) {
		for _, n := range []int{0, 1} {
			p := k.first(0, k.good[:n])
			p.flags = flags
			f := p.frame(lanMAC)
			buf, _ := k.pool.Get()
			in := &received{in: &k.e.port[lan], frame: framebuf.Frame{Buf: buf, Len: uint32(copy(k.pool.Buffer(buf)[framebuf.Headroom:], f))}}
			if _, why := packet.ParseIPv4(f, &in.Packet); why != 0 {
				k.pool.Put(buf)
				continue // parse drops it
			}
			want := flags&packet.URG == 0 && (n == 0 || flags&(packet.SYN|packet.RST) == 0)
			dec := k.e.sniFits(in, 0)
			if got := dec.outcome == pass; got != want || (dec.reason == verdict.SNIRefused) == got {
				t.Errorf("flags %02x, %d bytes: fits %v, want %v", flags, n, got, want)
			}
			k.pool.Put(buf)
			// The same from the server: nothing but a SYN with data is dropped.
			buf, _ = k.pool.Get()
			in.in, in.frame = &k.e.port[wan], framebuf.Frame{Buf: buf, Len: uint32(copy(k.pool.Buffer(buf)[framebuf.Headroom:], f))}
			if got, want := k.e.sniFits(in, 1).outcome == pass, flags&packet.SYN == 0 || n == 0; got != want {
				t.Errorf("flags %02x, %d bytes from the server: fits %v", flags, n, got)
			}
			k.pool.Put(buf)
			k.buffers()
		}
	}
}

// TestPendingTTL: a client's segment lives as long as its server is away, until the
// name is settled, and a SYN as long as it was to.
func TestPendingTTL(t *testing.T) {
	k := newTalk(t)
	for in, out := range map[uint8]uint8{2: guardTTL - 1, guardTTL - 1: guardTTL - 1, guardTTL: guardTTL - 1, guardTTL + 1: guardTTL, 255: 254} {
		p := tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001, 5001)
		p.ttl = in
		if v := k.one(lan, p); v.TTL != out {
			t.Errorf("TTL %d became %d, want %d", in, v.TTL, out)
		}
	}
}

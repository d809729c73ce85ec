package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestWhatFitsTheWayOut: a packet of just the MTU leaves as it is, one byte more is
// cut or answered.
func TestWhatFitsTheWayOut(t *testing.T) {
	const mtu = 1000
	for _, df := range []bool{false, true} {
		for over, size := range map[int]int{-1: mtu - 29, 0: mtu - 28, 1: mtu - 27} {
			l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = mtu }, "accept", established)
			p := large(udp(host, 4000, web, 53), size)
			p.df = df
			across, back := l.put(lan, p)
			switch {
			case over <= 0:
				if len(across) != 1 || len(across[0].sizes) != 0 || l.e.c.Fragmented+l.e.c.FragmentsSent != 0 {
					t.Errorf("DF %v, %d over: %v", df, over, across)
				}
			case df:
				if len(across) != 0 || len(back) != 1 || l.e.c.DropReasons[verdict.PacketTooBig] != 1 {
					t.Errorf("DF %v, %d over: %v, %v", df, over, across, back)
				}
			default:
				if len(across) != 1 || len(across[0].sizes) != 2 || l.e.c.Fragmented != 1 || l.e.c.FragmentsSent != 2 {
					t.Errorf("DF %v, %d over: %v; %d cut, %d sent", df, over, across, l.e.c.Fragmented, l.e.c.FragmentsSent)
				}
			}
			l.invariants()
		}
	}
}

// TestFragmentsThatFit: with DF a datagram's fragments leave as they came when each
// of them fits, the last one too.
func TestFragmentsThatFit(t *testing.T) {
	const mtu = 996 // 976 bytes of data are a multiple of 8
	for _, c := range []struct {
		in   int // MTU by which they came
		fits bool
	}{{mtu, true}, {mtu + 8, false}, {mtu - 8, true}} {
		l := newLabWith(t, func(p *ruleset.Policy) {
			p.Settings.Fragments, p.Interfaces[1].MTU = ruleset.FragmentsReassemble, mtu
		}, "accept", established)
		fs := fragments(large(udp(host, 4000, web, 53), 2500), lanMAC, c.in, 8)
		for i := range fs {
			packet.SetDF(fs[i][packet.EthLen:])
		}
		got := l.feed(lan, fs...)
		if c.fits != (len(got) == 1 && len(got[0].sizes) == len(fs)) || !c.fits && l.e.c.DropReasons[verdict.PacketTooBig] != uint64(len(fs)) {
			t.Errorf("fragments of %d bytes: %v; drops: %s", c.in, got, l.drops())
		}
		l.invariants()
	}
	// Only the last is too long: the others would fit.
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.Fragments, p.Interfaces[1].MTU = ruleset.FragmentsReassemble, 600
	}, "accept", established)
	fs := fragments(large(udp(host, 4000, web, 53), 1500), lanMAC, 1012, 8) // 992 bytes and 516
	fs = append(fragments(large(udp(host, 4000, web, 53), 1500), lanMAC, 516, 8)[:2], fs[1:]...)
	for i := range fs {
		packet.SetDF(fs[i][packet.EthLen:])
	}
	l.e.port[wan].mtu = 527
	if got := l.feed(lan, fs...); len(got) != 0 || l.e.c.DropReasons[verdict.PacketTooBig] != uint64(len(fs)) {
		t.Errorf("%v; drops: %s", got, l.drops())
	}
	l.invariants()
}

// TestCutWithJustEnoughBuffers: as many free buffers as the fragments may take are enough.
func TestCutWithJustEnoughBuffers(t *testing.T) {
	for _, spare := range []int{0, 1} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 576 }, "accept", established)
		l.one(lan, udp(host, 4000, web, 53))
		var taken []uint32
		for l.pool.Free() > 5-spare { // the packet itself, three fragments, and one more
			b, _ := l.pool.Get()
			taken = append(taken, b)
		}
		across, _ := l.put(lan, large(udp(host, 4000, web, 53), 1472))
		if want := 1 - spare; len(across) != want || l.partial != 0 || l.e.c.NoBuffer != uint64(spare) || l.e.c.DropReasons[verdict.TxFull] != uint64(spare) {
			t.Errorf("%d too few: %v; drops: %s", spare, across, l.drops())
		}
		for _, b := range taken {
			l.pool.Put(b)
		}
		l.invariants()
	}
}

// TestIdentifications: each pair of addresses and protocol counts by itself, whatever
// others send, and starts elsewhere with another key.
func TestIdentifications(t *testing.T) {
	l := newLab(t)
	l.e.rndKey = 0x9e3779b97f4a7c15 // as random as a real one
	places := map[[3]uint32]uint16{}
	bucket := func(src, dst packet.Addr, proto uint8) int {
		before := l.e.ids
		l.e.nextID(src, dst, proto)
		for i := range before {
			if before[i] != l.e.ids[i] {
				if l.e.ids[i] != before[i]+1 {
					t.Fatalf("from %d to %d", before[i], l.e.ids[i])
				}
				return i
			}
		}
		t.Fatal("nothing has changed")
		return 0
	}
	seen := map[int]bool{}
	same := 0
	for i := range packet.Addr(300) {
		a := bucket(ip(ours)+i, ip(web), packet.UDP)
		b := bucket(ip(ours), ip(web)+i, packet.UDP)
		c := bucket(ip(ours)+i, ip(web), packet.TCP)
		seen[a], seen[b] = true, true
		if a == c {
			same++
		}
	}
	// 1024 places: of 599 pairs at random 453 have one of their own.
	if len(seen) < 420 || same > 10 {
		t.Errorf("%d places for 599 pairs, %d the same for both protocols", len(seen), same)
	}
	for range 3 { // one after the other
		id := l.e.nextID(ip(ours), ip(web), packet.UDP)
		k := [3]uint32{uint32(ip(ours)), uint32(ip(web)), packet.UDP}
		if last, ok := places[k]; ok && id != last+1 {
			t.Errorf("%d after %d", id, last)
		}
		places[k] = id
	}
}

// TestTransmitInPart: what the device does not take is dropped, counted and reported, and
// what it takes is counted by packets and bytes; more frames than a batch's room wait for
// nothing.
func TestTransmitInPart(t *testing.T) {
	for _, room := range []int{1, 3, 5} {
		l := newLab(t, "accept egress", established)
		l.one(lan, udp(host, 4000, web, 53))
		before := l.e.c
		w := &l.e.port[wan]
		l.port[wan].room, l.seen = room, nil
		for i := range 5 {
			fr := l.load(lan, udp(host, 4000, web, uint16(53+i)), lanMAC).frame
			fr.Len = uint32(60 + i)
			l.e.enqueue(w, fr)
		}
		l.e.flush(w)
		bytes := uint64(0)
		for i := range room {
			bytes += uint64(60 + i)
		}
		if w.ntx != 0 || l.e.c.TxPackets[wan]-before.TxPackets[wan] != uint64(room) || l.e.c.TxBytes[wan]-before.TxBytes[wan] != bytes || l.e.c.DropReasons[verdict.TxFull] != uint64(5-room) {
			t.Errorf("room for %d: %d packets, %d bytes; drops: %s", room, l.e.c.TxPackets[wan], l.e.c.TxBytes[wan], l.drops())
		}
		l.e.flush(w) // nothing twice
		l.run()
		for i, r := range l.seen {
			if r.Reason != verdict.TxFull || r.DstPort != uint16(53+room+i) {
				t.Errorf("room for %d: event %d is %+v", room, i, r)
			}
		}
		if len(l.seen) != 5-room || len(l.port[wan].out) != room {
			t.Errorf("room for %d: %d events, %d left", room, len(l.seen), len(l.port[wan].out))
		}
		l.buffers()
	}
	// More than there is room for at once.
	l := newLab(t, "accept egress", established)
	w := &l.e.port[wan]
	for range len(w.tx) + 1 {
		buf, _ := l.pool.Get()
		l.e.enqueue(w, framebuf.Frame{Buf: buf, Len: 60})
	}
	if len(l.port[wan].out) != len(w.tx) || w.ntx != 1 {
		t.Fatalf("%d left, %d wait", len(l.port[wan].out), w.ntx)
	}
	l.e.flush(w)
	l.buffers()
}

// TestBatchesLeaveTogether: what a batch becomes is given to the device at once, on the fast
// path and off it.
func TestBatchesLeaveTogether(t *testing.T) {
	for _, plain := range []bool{false, true} {
		l := newLab(t, "accept egress", established)
		l.e.plain = plain
		l.one(lan, udp(host, 4000, web, 53)) // the gateway is known
		for round := range 3 {               // the first packets of flows, and more of them
			for i := range uint16(Batch) {
				l.port[lan].in = append(l.port[lan].in, udp(host, 5000+i, web, 53).frame(lanMAC))
			}
			before := l.port[wan].sent
			l.poll()
			if n := len(l.taken(wan)); n != Batch || l.port[wan].sent != before+1 {
				t.Errorf("plain %v, round %d: %d packets in %d calls", plain, round, n, l.port[wan].sent-before)
			}
		}
		before := [2]int{l.port[lan].sent, l.port[wan].sent}
		l.poll()
		if after := [2]int{l.port[lan].sent, l.port[wan].sent}; after != before {
			t.Errorf("plain %v: nothing left in %d calls", plain, after[wan]-before[wan])
		}
		l.invariants()
	}
}

// TestHeldUpToTheNanosecond: as long as roomWait and no longer, counted once.
func TestHeldUpToTheNanosecond(t *testing.T) {
	l := newLab(t)
	w := &l.e.port[wan]
	for _, start := range []int64{0, 5 * second} { // also at the beginning of time
		l.port[wan].room, l.port[wan].out = Batch-1, nil
		holds := l.e.c.Holds[wan]
		from := max(start, 1)
		for _, c := range []struct {
			at   int64
			want bool
		}{{start, true}, {from + 1, true}, {from + roomWait - 1, true}, {from + roomWait, false}, {from + roomWait + 1, false}, {from + 5*roomWait, false}} {
			if got := l.e.backedUp(w, c.at); got != c.want {
				t.Errorf("%d ns after %d: %v", c.at-start, start, got)
			}
		}
		if l.e.c.Holds[wan] != holds+1 || l.e.c.Holds[lan] != 0 {
			t.Errorf("counted %v", l.e.c.Holds)
		}
		l.port[wan].room = Batch
		if l.e.backedUp(w, from+6*roomWait) || w.fullSince != 0 {
			t.Error("with room it is held up")
		}
	}
}

// TestNoGateway: without a gateway only the link's own hosts are reached.
func TestNoGateway(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].Gateway = ruleset.Addr{} }, "accept")
	l.dropped(lan, udp(host, 4000, web, 53), verdict.NeighbourUnresolved)
	if l.e.c.ARPSent[wan] != 0 || l.last().Reason != verdict.NeighbourUnresolved {
		t.Errorf("%d asked for, event %+v", l.e.c.ARPSent[wan], l.last())
	}
	l.one(lan, udp(host, 4000, "203.0.113.77", 53))
	l.invariants()
}

// TestNeighboursAreProbedInTime: at the end of its minute and not before.
func TestNeighboursAreProbedInTime(t *testing.T) {
	for late, want := range map[int64]uint64{-1: 0, 0: 1, 1: 1} {
		l := newLab(t, "accept", established)
		l.one(lan, udp(host, 4000, web, 53))
		n := l.e.port[wan].neigh.Find(ip("203.0.113.1"))
		sent := l.e.c.ARPSent[wan]
		l.now = n.Expires + late
		l.one(lan, udp(host, 4000, web, 53))
		if got := l.e.c.ARPSent[wan] - sent; got != want {
			t.Errorf("%d ns after its time: asked %d times", late, got)
		}
	}
}

// TestUnreachableIsAboutFlows: a frame without an answer of its next hop that belongs to no
// flow, or is not a packet, causes no answer; one of a flow does, to its own side.
func TestUnreachableIsAboutFlows(t *testing.T) {
	l := newLab(t, "accept", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	in := l.one(wan, udp(web, 53, ours, v.SrcPort))
	tell := func(f []byte) int {
		sent := l.e.c.ICMPErrorsSent
		l.e.unreachable(f, l.now)
		for i := range l.e.port {
			l.e.flush(&l.e.port[i])
		}
		return int(l.e.c.ICMPErrorsSent - sent)
	}
	if tell(v.frame) != 1 {
		t.Error("no answer about a frame that leaves")
	}
	if got := l.taken(lan); len(got) != 1 || got[0].Dst != ip(host) || got[0].Src != ip(lanAddr) {
		t.Errorf("answered %v", got)
	}
	if tell(in.frame) != 1 {
		t.Error("no answer about a frame that arrives")
	}
	if got := l.taken(wan); len(got) != 1 || got[0].Dst != ip(web) || got[0].Src != ip(ours) {
		t.Errorf("answered %v", got)
	}
	other := append([]byte(nil), v.frame...)
	other[len(other)-12] ^= 1 // its destination port
	six := append([]byte(nil), v.frame...)
	six[12], six[13] = 0x86, 0xdd
	for name, f := range map[string][]byte{"another port": other, "another type": six, "too short": v.frame[:packet.EthLen+20], "ARP": arp(packet.ARPRequest, host, macOf(ip(host)), lanAddr)} {
		if tell(f) != 0 {
			t.Errorf("%s: an answer was sent", name)
		}
	}
	// Above the rate none is.
	for range icmperr.Burst + icmperr.ReserveBurst {
		tell(v.frame)
	}
	if l.e.c.AnswersSuppressed == 0 {
		t.Error("nothing was suppressed")
	}
	if a := l.e.port[lan].answers; a.Used(icmperr.TTL) || a.Used(icmperr.Size) {
		t.Error("other kinds' rates are used up")
	}
	l.port[lan].out = nil
	l.buffers()
}

package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestHelloTimes: a first message has 10 seconds, the server's answer 30, to the
// nanosecond; both ends get a RST, which is counted.
func TestHelloTimes(t *testing.T) {
	for _, whole := range []bool{false, true} {
		for _, late := range []bool{false, true} {
			k := newTalk(t)
			m, within := k.good, sni.AnsweredWithin
			if !whole {
				m, within = m[:50], sni.ReadWithin
			}
			k.put(lan, k.first(0, m))
			k.taken(wan)
			if !k.e.sni.Any() {
				t.Fatal("it has no place")
			}
			resets, drops := k.e.c.ResetsSent, k.e.c.DropReasons[verdict.SNIRefused]
			k.lab.now += within - 1
			if late {
				k.lab.now++
			}
			k.e.timers(k.lab.now)
			k.lab.run()
			if k.e.sni.Any() == late {
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
	resets, ended := k.e.c.ResetsSent, k.e.flows.C.Evictions
	for range 40 {
		k.pass(1)
	}
	ended[conntrack.Closed]++
	if k.e.flows.C.Evictions != ended {
		t.Errorf("flows ended by cause: %v, want %v", k.e.flows.C.Evictions, ended)
	}
	if k.e.c.ResetsSent != resets || k.e.sni.Any() || len(k.taken(lan))+len(k.taken(wan)) != 0 {
		t.Errorf("%d resets, places taken %v", k.e.c.ResetsSent-resets, k.e.sni.Any())
	}
}

// TestRemovedWithItsSegments: whatever removes a flow, by either of its directions, frees
// the place and what is held, and counts it for the rule.
func TestRemovedWithItsSegments(t *testing.T) {
	for dir := range conntrack.Ref(2) {
		k := newTalk(t)
		k.put(lan, k.first(0, k.good[:50]))
		k.put(lan, k.first(100, k.good[100:150]))
		rule := k.e.flows.Dir(0).Rule
		drops, reasons := k.e.c.Drops[rule], k.e.c.DropReasons[verdict.SNIRefused]
		if k.e.sni.Segments() != 2 {
			t.Fatalf("%d held", k.e.sni.Segments())
		}
		k.e.sniRemoved(dir)
		if k.e.sni.Any() || k.e.sni.Segments() != 0 || k.e.c.Drops[rule] != drops+2 || k.e.c.DropReasons[verdict.SNIRefused] != reasons+2 {
			t.Errorf("direction %d: %d held, %d dropped", dir, k.e.sni.Segments(), k.e.c.Drops[rule]-drops)
		}
		k.e.sniRemoved(dir)
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

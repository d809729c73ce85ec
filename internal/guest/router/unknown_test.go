package router

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// resets makes a policy that answers TCP segments of no connection, and has a server on the
// LAN.
func resets(p *ruleset.Policy) {
	p.Settings.Flags |= ruleset.FlagResetUnknown
	p.DNAT = []ruleset.DNAT{{External: ip(ours).To16(), To: ip("10.0.0.5").To16(), PortLo: 443, PortHi: 443, ToPort: 8443, Proto: packet.TCP}}
}

// TestUnknownSegments: after a restart, what may have belonged to a connection that the
// policy accepts is answered with a RST that its sender believes, and nothing else is.
func TestUnknownSegments(t *testing.T) {
	rules := []rule{"deny egress tcp :25", "accept egress tcp 10.0.0.0/24 -> any :1-1024", "accept ingress tcp 192.0.2.0/24 -> 10.0.0.5/32 :8443", established}
	const fPSH = 0x08
	data := func(p pkt) pkt { p.data = []byte("more of the same"); return p }
	for name, c := range map[string]struct {
		from  int
		p     pkt
		reset bool
		seq   uint32
	}{
		"data of a client":                     {lan, data(tcpSeg(host, 4000, web, 443, fACK|fPSH, 1001, 5001)), true, 5001},
		"a bare ACK of a client":               {lan, tcpSeg(host, 4000, web, 443, fACK, 1001, 5001), true, 5001},
		"FIN of a client":                      {lan, tcpSeg(host, 4000, web, 443, fFIN|fACK, 1001, 5001), true, 5001},
		"data from the WAN to a server":        {wan, data(tcpSeg("192.0.2.7", 4000, ours, 443, fACK, 1001, 5001)), true, 5001},
		"RST of a client":                      {lan, tcpSeg(host, 4000, web, 443, fRST|fACK, 1001, 5001), false, 0},
		"to a port that is denied":             {lan, data(tcpSeg(host, 4000, web, 25, fACK, 1001, 5001)), false, 0},
		"to a port of no rule":                 {lan, data(tcpSeg(host, 4000, web, 6667, fACK, 1001, 5001)), false, 0},
		"from the WAN to a port of no server":  {wan, data(tcpSeg("192.0.2.7", 4000, ours, 444, fACK, 1001, 5001)), false, 0},
		"from the WAN, not of whom may":        {wan, data(tcpSeg("198.51.100.9", 4000, ours, 443, fACK, 1001, 5001)), false, 0},
		"from the WAN to an address inside":    {wan, data(tcpSeg("192.0.2.7", 4000, "10.0.0.5", 8443, fACK, 1001, 5001)), false, 0},
		"from a server to a translated client": {wan, data(tcpSeg(web, 443, ours, 4000, fACK, 5001, 1001)), false, 0},
		"a source that cannot be":              {lan, data(tcpSeg("127.0.0.1", 4000, web, 443, fACK, 1001, 5001)), false, 0},
		"a broadcast as source":                {lan, data(tcpSeg("10.0.0.255", 4000, web, 443, fACK, 1001, 5001)), false, 0},
	} {
		for _, on := range []bool{true, false} {
			l := newLabWith(t, func(p *ruleset.Policy) {
				resets(p)
				if !on {
					p.Settings.Flags = 0
				}
			}, rules...)
			across, back := l.put(c.from, c.p)
			if len(across) != 0 || l.e.flows.Len() != 0 {
				t.Errorf("%s: %d crossed, %d flows", name, len(across), l.e.flows.Len())
			}
			if !on || !c.reset {
				if len(back) != 0 || l.e.c.ResetsSent != 0 {
					t.Errorf("%s (on: %v): answers %v", name, on, back)
				}
				continue
			}
			if len(back) != 1 || l.e.c.ResetsSent != 1 {
				t.Errorf("%s: %d answers; drops: %s", name, len(back), l.drops())
				continue
			}
			v := back[0]
			if addr(v.Src).String() != c.p.dst || v.SrcPort != c.p.dport || addr(v.Dst).String() != c.p.src || v.DstPort != c.p.sport || v.Flags != fRST || v.Seq != c.seq {
				t.Errorf("%s: answer %v, flags %#x, seq %d", name, v, v.Flags, v.Seq)
			}
			if r := l.last(); r.Action != verdict.Drop || r.Reason != verdict.ConntrackInvalid {
				t.Errorf("%s: event %+v", name, r)
			}
			l.buffers()
		}
	}
}

// TestUnknownSegmentsByName: which name a client had resolved is lost with the flows; a rule
// by name counts for any address.
func TestUnknownSegmentsByName(t *testing.T) {
	for _, on := range []bool{true, false} {
		l := newLabWith(t, func(p *ruleset.Policy) {
			if on {
				resets(p)
			}
			p.Names = append(p.Names, nameOf(p, "www.example.org"))
			p.Matches[1].Name = 1
		}, "deny egress tcp :25", "accept egress tcp :443")
		_, back := l.put(lan, tcpSeg(host, 4000, web, 443, fACK, 1001, 5001))
		if (len(back) == 1) != on {
			t.Errorf("on %v: %d answers", on, len(back))
		}
		if _, back = l.put(lan, tcpSeg(host, 4000, web, 25, fACK, 1001, 5001)); len(back) != 0 {
			t.Error("what a rule denies is answered")
		}
		l.dropped(lan, syn(host, 4001, web, 443), verdict.NoMatchingAllowRule) // it opens nothing
	}
}

// TestUnknownSegmentsResetNothingAlive: who is not on the path, and sends segments in the
// names of a live connection's ends, from either side and with any numbers, gets the
// firewall to send no RST to either end; the connection goes on.
func TestUnknownSegmentsResetNothingAlive(t *testing.T) {
	l := newLabWith(t, resets, "accept egress tcp", "accept ingress tcp :8443", established)
	l.handshake(host, 4000, web, 80)
	l.one(wan, syn("192.0.2.7", 5000, ours, 443))
	l.one(lan, tcpSeg("10.0.0.5", 8443, "192.0.2.7", 5000, fSYN|fACK, 5000, 1001))
	l.one(wan, tcpSeg("192.0.2.7", 5000, ours, 443, fACK, 1001, 5001))
	r := rand.New(rand.NewPCG(1, 2))
	others := 0
	for i := range 20000 {
		flags := uint8(r.IntN(64))
		seq, ack := r.Uint32(), r.Uint32()
		var p pkt
		from := lan
		switch i % 6 {
		case 0: // the connections' own addresses
			p = tcpSeg(host, 4000, web, 80, flags, seq, ack)
		case 1:
			p, from = tcpSeg(web, 80, ours, 4000, flags, seq, ack), wan
		case 2:
			p, from = tcpSeg("192.0.2.7", 5000, ours, 443, flags, seq, ack), wan
		case 3:
			p = tcpSeg("10.0.0.5", 8443, "192.0.2.7", 5000, flags, seq, ack)
		case 4: // others like them
			p = tcpSeg(host, uint16(1024+r.IntN(60000)), web, 80, flags&^fSYN, seq, ack)
		case 5:
			p, from = tcpSeg("192.0.2.7", uint16(1024+r.IntN(60000)), ours, 443, flags&^fSYN, seq, ack), wan
		}
		if p.sport == 4000 && i%6 == 4 || p.sport == 5000 && i%6 == 5 || i%6 < 4 && (flags&fRST != 0 || flags&fSYN != 0 && flags&fACK == 0) {
			continue // other tests' matter: RFC 5961
		}
		_, back := l.put(from, p)
		for _, v := range back {
			if v.Proto != packet.TCP || v.Flags&fRST == 0 {
				continue
			}
			if i%6 < 4 {
				t.Fatalf("a segment of a live connection, flags %#x, is answered: %v", flags, v)
			}
			others++
		}
		if i%100 == 0 {
			l.now += second / 10
		}
	}
	if others == 0 {
		t.Error("nothing of no connection was answered: the test has lost its point")
	}
	p := tcpSeg(host, 4000, web, 80, fACK, 1001, 5001)
	p.data = []byte("alive")
	l.one(lan, p)
	p = tcpSeg("192.0.2.7", 5000, ours, 443, fACK, 1001, 5001)
	p.data = []byte("alive")
	l.one(wan, p)
}

// TestUnknownSegmentsReflectNothing: a flood in the names of many others gets answers at the
// rate of a port and no more, each no longer than its cause. Meanwhile a client inside that
// has lost its connection gets its answer, and what a rule rejects gets its own.
func TestUnknownSegmentsReflectNothing(t *testing.T) {
	l := newLabWith(t, resets, "reject egress tcp :25", "accept egress tcp", "accept ingress tcp :8443", established)
	r := rand.New(rand.NewPCG(3, 4))
	answers, sent, got := 0, 0, 0
	began := l.now
	for i := range 20000 {
		src := addr(packet.Addr(0xc6336400 | r.Uint32N(256))).String() // 198.51.100.0/24
		p := tcpSeg(src, uint16(1024+r.IntN(60000)), ours, 443, fACK, r.Uint32(), r.Uint32())
		_, back := l.put(wan, p)
		sent += len(p.frame(wanMAC))
		for _, v := range back {
			answers++
			got += len(v.frame)
		}
		l.now += second / 10000
		if i%2000 == 1999 {
			if _, back := l.put(lan, tcpSeg(host, uint16(4000+i), web, 80, fACK, 1001, 5001)); len(back) != 1 {
				t.Errorf("a client inside gets %d answers beside the flood", len(back))
			}
			if _, back := l.put(lan, syn(host, uint16(4000+i), web, 25)); len(back) != 1 {
				t.Errorf("a rejected client gets %d answers beside the flood", len(back))
			}
		}
	}
	seconds := int(l.now-began)/int(second) + 1
	if most := seconds*(icmperr.Rate+icmperr.ReserveRate) + icmperr.Burst + icmperr.ReserveBurst; answers > most || answers == 0 {
		t.Errorf("%d answers in %d s, at most %d", answers, seconds, most)
	}
	if got > sent {
		t.Errorf("%d bytes for %d", got, sent)
	}
	if l.e.c.AnswersSuppressed == 0 {
		t.Error("what was not answered is not counted")
	}
	// From inside as well: one host's flood leaves another its answer, and the rejected theirs.
	for i := range 5000 {
		l.put(lan, tcpSeg("10.0.0.66", uint16(1024+i), web, 80, fACK, 1, 1))
	}
	if _, back := l.put(lan, tcpSeg(host, 4000, web, 80, fACK, 1001, 5001)); len(back) != 1 {
		t.Error("one host's flood takes another's answer")
	}
	if _, back := l.put(lan, syn("10.0.0.66", 999, web, 25)); len(back) != 1 {
		t.Error("the flood takes the answers of a rule that rejects")
	}
}

package router

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestRFC1812_S5_2_2_HeaderChecks: what fails one is dropped in silence.
func TestRFC1812_S5_2_2_HeaderChecks(t *testing.T) {
	l := newLab(t, "reject")
	good := func() []byte { return udp(host, 4000, web, 53).frame(lanMAC) }
	edit := func(sum bool, f func(ip []byte)) []byte {
		b := good()
		f(b[packet.EthLen:])
		if sum {
			resum(b[packet.EthLen:][:min(len(b)-packet.EthLen, 60)])
		}
		return b
	}
	for name, f := range map[string][]byte{
		"(1) shorter than a header":          good()[:packet.EthLen+19],
		"(2) checksum":                       edit(false, func(ip []byte) { ip[11] ^= 1 }),
		"(3) version":                        edit(true, func(ip []byte) { ip[0] = 0x55 }),
		"(4) header length below 20":         edit(true, func(ip []byte) { ip[0] = 0x44 }),
		"(5) total length below the header":  edit(true, func(ip []byte) { ip[2], ip[3] = 0, 19 }),
		"(5) total length beyond the frame":  edit(true, func(ip []byte) { ip[2] = 9 }),
		"(5) header beyond the total length": edit(true, func(ip []byte) { ip[0], ip[3] = 0x47, 24 }),
	} {
		t.Run(name, func(t *testing.T) {
			l.t = t
			before := l.e.c.DropReasons[verdict.MalformedPacket]
			if across, back := l.raw(lan, f); len(across)+len(back) != 0 || l.e.c.DropReasons[verdict.MalformedPacket] != before+1 {
				t.Fatalf("crossed %v, answered %v", across, back)
			}
		})
	}
	l.t = t
	// What the link added behind the packet is cut off.
	l = newLab(t, "accept")
	if v, _ := l.raw(lan, append(good(), 1, 2, 3, 4, 5, 6, 7)); len(v) != 1 || len(v[0].frame) != len(good()) {
		t.Fatalf("%v", v)
	}
}

// TestRFC1812_S5_3_1_TTL: it is decremented, never to 0; the sender is notified from the
// address of the side where it is, except about what is addressed to the firewall itself,
// whose TTL is not used.
func TestRFC1812_S5_3_1_TTL(t *testing.T) {
	l := newLab(t, "accept", established)
	for ttl := 255; ttl > 0; ttl-- {
		p := udp(host, 4000, web, 53)
		p.ttl = uint8(ttl)
		if ttl == 1 {
			v := l.answered(lan, p, verdict.TTLExpired)
			if q := v.quotes(t, packet.TimeExceeded, 0); q.SrcPort != 4000 || q.Src != ip(host) || v.Src != ip("10.0.0.1") {
				t.Fatalf("%v about %+v", v, q)
			}
		} else if v := l.one(lan, p); int(v.TTL) != ttl-1 {
			t.Fatalf("TTL %d became %d", ttl, v.TTL)
		}
	}
	f := udp(host, 4000, web, 53).frame(lanMAC)
	f[packet.EthLen+8] = 0
	resum(f[packet.EthLen:])
	l.droppedRaw(lan, f, verdict.TTLExpired)
	p := udp(web, 53, ours, 4000)
	p.ttl = 1
	v := l.answered(wan, p, verdict.TTLExpired)
	if q := v.quotes(t, packet.TimeExceeded, 0); q.Dst != ip(ours) || v.Src != ip(ours) {
		t.Fatalf("%v about %+v: it is to quote what came", v, q)
	}
	e := echo(host, "10.0.0.1", packet.EchoRequest, 3)
	e.ttl = 1
	if _, back := l.put(lan, e); len(back) != 1 || back[0].ICMPType != packet.EchoReply || back[0].TTL != 64 {
		t.Fatalf("%v", back)
	}
}

// TestRFC1812_S5_3_4_LinkBroadcasts are not forwarded, whatever they hold.
func TestRFC1812_S5_3_4_LinkBroadcasts(t *testing.T) {
	l := newLab(t, "accept")
	for _, mac := range [][6]byte{broadcastMAC, {1, 0, 0x5e, 0, 0, 1}, {3, 0, 0, 0, 0, 9}} {
		p := udp(host, 4000, web, 53)
		p.mac = &mac
		l.unanswered(lan, p, verdict.Martian)
		e := echo(host, "10.0.0.1", packet.EchoRequest, 1) // nor is a ping answered: no amplifier
		e.mac = &mac
		l.unanswered(lan, e, verdict.Martian)
		l := reassembling(t, "accept")
		p.mac = &mac
		if got := l.feed(lan, fragments(large(p, 100), lanMAC, 60, 7)[1:]...); len(got) != 0 || l.e.frags.Len() != 0 {
			t.Fatalf("fragments to %x: %v; drops: %s", mac, got, l.drops())
		}
	}
}

// TestRFC1812_S5_3_5_Broadcasts (RFC 2644): neither limited nor directed ones.
func TestRFC1812_S5_3_5_Broadcasts(t *testing.T) {
	l := newLab(t, "accept")
	for _, dst := range []string{"255.255.255.255", "10.0.0.255", "10.0.0.0", "203.0.113.255", "203.0.113.0"} {
		l.unanswered(lan, udp(host, 4000, dst, 7), verdict.Martian)
		l.unanswered(wan, udp(web, 4000, dst, 7), verdict.Martian)
		l.unanswered(wan, echo(web, dst, packet.EchoRequest, 7), verdict.Martian)
		l.unanswered(lan, udp(dst, 4000, web, 7), verdict.Martian) // nor is one a source
		l.unanswered(wan, udp(dst, 4000, ours, 7), verdict.Martian)
	}
	// On a link of two there are none (RFC 3021).
	l = newLabWith(t, func(p *ruleset.Policy) {
		p.Interfaces[0].Address, p.Interfaces[0].PrefixLen, p.SNAT = ip("10.0.0.0").To16(), 31, nil
	}, "accept")
	l.one(lan, udp("10.0.0.1", 4000, web, 53))
	l.one(wan, udp(web, 53, "10.0.0.1", 4000))
}

// TestRFC1812_S5_3_7_Martians: the blocks of RFC 6890 that are not to be
// forwarded, as source and as destination; their neighbours pass.
func TestRFC1812_S5_3_7_Martians(t *testing.T) {
	for _, c := range []struct {
		addr    string
		martian bool
	}{
		{"0.0.0.0", true}, {"0.255.255.255", true}, {"1.0.0.0", false},
		{"126.255.255.255", false}, {"127.0.0.1", true}, {"127.255.255.255", true}, {"128.0.0.0", false},
		{"169.253.255.255", false}, {"169.254.0.0", true}, {"169.254.169.254", true}, {"169.254.255.255", true}, {"169.255.0.0", false},
		{"191.255.255.255", false}, {"192.0.0.0", false}, {"192.0.0.7", false}, {"192.0.0.8", true}, {"192.0.0.9", false}, {"192.0.0.10", false},
		{"192.0.0.11", true}, {"192.0.0.15", true}, {"192.0.0.16", true}, {"192.0.0.31", true}, {"192.0.0.32", true}, {"192.0.0.100", true},
		{"192.0.0.170", true}, {"192.0.0.171", true}, {"192.0.0.255", true}, {"192.0.1.0", false},
		{"192.0.2.1", false}, {"198.18.0.1", false}, {"100.64.0.1", false}, {"172.16.0.1", false}, {"192.168.1.1", false},
		{"223.255.255.255", false}, {"224.0.0.1", true}, {"239.255.255.255", true}, {"240.0.0.1", true}, {"255.255.255.255", true},
	} {
		l := newLab(t, "accept")
		if c.martian {
			l.unanswered(lan, udp(host, 4000, c.addr, 53), verdict.Martian)
			l.unanswered(wan, udp(c.addr, 4000, host, 53), verdict.Martian)
			l.unanswered(wan, syn(c.addr, 4000, ours, 53), verdict.Martian)
		} else {
			l.one(lan, udp(host, 4000, c.addr, 53))
			newLabWith(t, routed, "accept").one(wan, udp(c.addr, 4001, host, 53))
		}
	}
	// A link may lie in a block of link-local addresses: then it is no martian.
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Interfaces[0].Address, p.Interfaces[0].PrefixLen = ip("169.254.7.1").To16(), 30
	}, "accept")
	l.one(lan, udp("169.254.7.2", 4000, web, 53))
}

// TestRFC1812_S5_3_8_ReversePath (RFC 3704): a source must be reached by the
// side on which it arrives, ICMP errors and pings of the firewall included.
func TestRFC1812_S5_3_8_ReversePath(t *testing.T) {
	l := newLab(t, "accept")
	v := l.one(lan, udp(host, 4000, web, 53))
	l.unanswered(lan, udp(web, 4000, "192.0.2.9", 53), verdict.Martian)
	l.unanswered(lan, echo(web, "10.0.0.1", packet.EchoRequest, 1), verdict.Martian)
	l.unanswered(wan, udp(host, 4000, "10.0.0.3", 53), verdict.Martian)
	l.unanswered(wan, echo(host, ours, packet.EchoRequest, 1), verdict.Martian)
	l.unanswered(wan, quoted(host, ours, 3, 3, v.frame, 28, nil), verdict.Martian)
	l.unanswered(wan, quoted(ours, ours, 3, 3, v.frame, 28, nil), verdict.Martian)
	if l.e.flows.Len() != 1 {
		t.Fatalf("%d flows", l.e.flows.Len())
	}
}

// TestRFC1812_S5_3_13_Options: source routes are dropped (RFC 7126), what cannot
// be parsed too; other options pass as they are, whatever they ask of a router.
func TestRFC1812_S5_3_13_Options(t *testing.T) {
	with := func(o ...byte) []byte {
		f := udp(host, 4000, web, 53).frame(lanMAC)
		for len(o)%4 != 0 {
			o = append(o, 0)
		}
		f = append(f[:34:34], append(o, f[34:]...)...)
		f[packet.EthLen] = 0x40 | byte(5+len(o)/4)
		binary.BigEndian.PutUint16(f[packet.EthLen+2:], uint16(len(f)-packet.EthLen))
		resum(f[packet.EthLen:])
		return f
	}
	for _, c := range []struct {
		name string
		o    []byte
		pass bool
	}{
		{"loose source route", []byte{131, 7, 4, 1, 2, 3, 4}, false},
		{"strict source route", []byte{137, 7, 4, 1, 2, 3, 4}, false},
		{"source route that is used up", []byte{131, 7, 8, 1, 2, 3, 4}, false},
		{"source route behind others", []byte{1, 1, 7, 3, 4, 131, 3, 4}, false},
		{"record route", []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0}, true},
		{"timestamp", []byte{68, 8, 5, 0, 0, 0, 0, 0}, true},
		{"router alert", []byte{148, 4, 0, 0}, true},
		{"security", []byte{130, 4, 1, 1}, true},
		{"unknown", []byte{30, 4, 9, 9}, true},
		{"source route behind the end", []byte{0, 131, 7, 4}, true},
		{"as many as fit", append([]byte{7, 39, 4}, make([]byte, 37)...), true},
		{"without a length", []byte{1, 1, 1, 7}, false},
		{"length 0", []byte{7, 0, 0, 0}, false},
		{"length 1", []byte{7, 1, 0, 0}, false},
		{"beyond the header", []byte{7, 5, 4, 0}, false},
	} {
		l := newLab(t, "accept")
		f := with(c.o...)
		if !c.pass {
			l.droppedRaw(lan, f, verdict.MalformedPacket)
			continue
		}
		v, _ := l.raw(lan, f)
		if len(v) != 1 || string(v[0].frame[34:34+len(c.o)]) != string(c.o) {
			t.Errorf("%s: left as %v; drops: %s", c.name, v, l.drops())
		}
	}
}

// TestRFC791_S3_1_OptionsOfFragments: only those with the copied flag are in every one.
func TestRFC791_S3_1_OptionsOfFragments(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 576 }, "accept")
	f := large(udp(host, 4000, web, 53), 1400).frame(lanMAC)
	o := []byte{7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0}
	f = append(f[:34:34], append(o, f[34:]...)...)
	f[packet.EthLen] = 0x48
	binary.BigEndian.PutUint16(f[packet.EthLen+2:], uint16(len(f)-packet.EthLen))
	resum(f[packet.EthLen:])
	l.one(lan, udp(host, 4000, web, 53))
	l.port[lan].in = append(l.port[lan].in, f)
	l.run()
	out := l.port[wan].out
	if len(out) != 3 {
		t.Fatalf("%d fragments; drops: %s", len(out), l.drops())
	}
	if string(out[0][34:46]) != string(o) || out[1][packet.EthLen] != 0x46 || string(out[1][34:38]) != string(o[7:11]) || out[2][packet.EthLen] != 0x46 {
		t.Fatalf("options %x, %x, %x", out[0][34:46], out[1][34:46], out[2][34:46])
	}
	if got := l.taken(wan); len(got) != 1 {
		t.Fatalf("%d datagrams", len(got))
	}
}

// TestRFC1812_S4_3_2_4_SourceOfErrors: the address of the side where they leave.
func TestRFC1812_S4_3_2_4_SourceOfErrors(t *testing.T) {
	l := newLab(t, "reject")
	if v := l.answered(lan, udp(host, 1, web, 2), verdict.ExplicitDeny); v.Src != ip("10.0.0.1") {
		t.Fatalf("%v", v)
	}
	if v := l.answered(wan, udp(web, 1, ours, 2), verdict.ExplicitDeny); v.Src != ip(ours) {
		t.Fatalf("%v", v)
	}
}

// TestRFC1812_S4_3_3_6_EchoReply: all data come back.
func TestRFC1812_S4_3_3_6_EchoReply(t *testing.T) {
	l := newLab(t, "accept")
	seen := map[uint16]bool{} // a reply may be cut on its way, so that its identification counts
	for _, n := range []int{0, 1, 56, 1472} {
		p := large(echo(host, "10.0.0.1", packet.EchoRequest, 99), n)
		_, back := l.put(lan, p)
		if len(back) != 1 || back[0].SrcPort != 99 || back[0].Src != ip("10.0.0.1") || string(back[0].frame[42:]) != string(p.data) {
			t.Fatalf("%d bytes: %v", n, back)
		}
		if id := packet.FragmentID(back[0].frame); seen[id] {
			t.Fatalf("identification %d again", id)
		} else {
			seen[id] = true
		}
	}
}

// TestRFC1812_S5_3_1_DeniedIsNotAnswered: what the policy denies without a word
// is denied so when its TTL ends or it is too long, as an answer of a flow, too.
func TestRFC1812_S5_3_1_DeniedIsNotAnswered(t *testing.T) {
	for name, edit := range map[string]func(p *pkt){
		"TTL": func(p *pkt) { p.ttl = 1 },
		"MTU": func(p *pkt) { *p = large(*p, 1400); p.df = true },
	} {
		t.Run(name, func(t *testing.T) {
			small := func(p *ruleset.Policy) { p.Interfaces[0].MTU = 1000 }
			l := newLabWith(t, small, "accept egress", "deny ingress")
			v := l.one(lan, udp(host, 4000, web, 53))
			p := udp(web, 53, ours, v.SrcPort)
			edit(&p)
			for range 3 {
				l.unanswered(wan, p, verdict.ExplicitDeny)
			}
			if l.e.c.Drops[1] != 3 {
				t.Fatalf("%d counted on the rule", l.e.c.Drops[1])
			}
			// Where it is accepted the sender is notified, but nothing has passed: there is
			// no error to report about it, and the first that passes is the direction's
			// first.
			l = newLabWith(t, small, "accept egress", established)
			v = l.one(lan, udp(host, 4000, web, 53))
			across, back := l.put(wan, p)
			if len(across) != 0 || len(back) != 1 {
				t.Fatalf("%v crossed, answers %v", across, back)
			}
			l.unanswered(lan, quoted(host, web, packet.Unreachable, 3, udp(web, 53, host, 4000).frame(wanMAC), 28, nil), verdict.ConntrackInvalid)
			events := len(l.seen)
			l.one(wan, udp(web, 53, ours, v.SrcPort))
			if r := l.last(); len(l.seen) != events+1 || r.Action != verdict.Accept || r.Rule != 1 {
				t.Fatalf("%d events, the last %+v", len(l.seen)-events, r)
			}
			l.invariants()
		})
	}
}

// TestRFC1812_S5_3_7_SourceIsDestination: a packet to its own sender ("land").
func TestRFC1812_S5_3_7_SourceIsDestination(t *testing.T) {
	l := newLab(t, "accept", established)
	for _, a := range []string{host, web, ours, "10.0.0.1"} {
		for _, side := range []int{lan, wan} {
			l.unanswered(side, syn(a, 80, a, 80), verdict.Martian)
		}
	}
}

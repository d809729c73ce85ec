package router

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const secondUpstream = "198.51.100.54"

// twoUpstreams is a lab with two upstreams.
func twoUpstreams(t testing.TB) *dnsLab {
	return githubLab(t, func(p *ruleset.Policy) {
		p.Settings.DNSRate = 10000
		p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip(secondUpstream).To16(), Port: 53})
	})
}

// queryOf returns what a client's query makes the firewall send, the first of
// it when a probe goes beside.
func (l *dnsLab) queryOf(name string) *view {
	l.t.Helper()
	across, back := l.ask(host, l.query(name, dns.TypeA))
	if len(across) == 0 || len(back) != 0 {
		l.t.Fatalf("%d packets to upstreams, %d back", len(across), len(back))
	}
	return across[0]
}

// unreachable sends an ICMP error of a router about a packet of the firewall's.
func (l *dnsLab) unreachable(v *view, code uint8, n int, edit func(q []byte)) (across, back []*view) {
	l.t.Helper()
	return l.put(wan, quoted("192.0.2.1", ours, packet.Unreachable, code, v.frame, n, edit))
}

// TestUnreachableUpstreamIsLeftAtOnce: an ICMP error about a query makes the
// next upstream be asked at once, in whatever words and however much it quotes.
func TestUnreachableUpstreamIsLeftAtOnce(t *testing.T) {
	for _, c := range []struct {
		name      string
		typ, code uint8
		quotes    int
	}{
		{"port", 3, 3, 600}, {"net", 3, 0, 600}, {"host", 3, 1, 600}, {"prohibited", 3, 13, 600}, {"time exceeded", 11, 0, 600},
		{"8 bytes", 3, 3, 28}, {"the identifier", 3, 3, 30}, {"a part of the name", 3, 3, 45}, {"9 bytes", 3, 3, 29},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := twoUpstreams(t)
			v := l.queryOf("github.com")
			across, back := l.put(wan, quoted("192.0.2.1", ours, c.typ, c.code, v.frame, c.quotes, nil))
			if len(across) != 0 || len(back) != 1 || addr(back[0].Dst).String() != secondUpstream || back[0].SrcPort == v.SrcPort {
				t.Fatalf("sent %v, %v; drops %s", across, back, l.drops())
			}
			if m := l.answers(back[0], reply(l.message(back[0]), "@ 60 IN A "+github)); m.Rcode != 0 || !l.connects(host, github, 443) {
				t.Fatalf("the client got %v", m)
			}
			if p := l.e.host.DNS().Counters(); p.Unreachable != 1 || p.Retries != 1 || l.lastQuery().Duration != 0 {
				t.Fatalf("%+v, took %d", p, l.lastQuery().Duration)
			}
			if p := l.e.Pools()[0]; p.InUse(packet.UDP) != 0 {
				t.Fatal("a port is held")
			}
			l.buffers()
		})
	}
}

// TestUnreachableFitsTheCounting: three errors in a row are three tries without
// an answer; the upstream is asked beside from then on, and back at once.
func TestUnreachableFitsTheCounting(t *testing.T) {
	l := twoUpstreams(t)
	for i := range 3 {
		v := l.queryOf("github.com")
		if addr(v.Dst).String() != upstreamAddr {
			t.Fatalf("after %d errors the first is not asked first any more", i)
		}
		_, back := l.unreachable(v, 3, 600, nil)
		l.answers(back[0], reply(l.message(back[0]), "@ 60 IN A "+github))
	}
	if v := l.queryOf("github.com"); addr(v.Dst).String() != secondUpstream {
		t.Fatal("after three errors it is still asked first")
	} else {
		l.answers(v, reply(l.message(v), "@ 60 IN A "+github))
	}
	// The probe a second later: refused once more, then answered.
	for i := range 2 {
		l.pass(1.1)
		across, _ := l.ask(host, l.query("github.com", dns.TypeA))
		var probe, asked *view
		for _, v := range across {
			if addr(v.Dst).String() == upstreamAddr {
				probe = v
			} else {
				asked = v
			}
		}
		if probe == nil || asked == nil {
			t.Fatalf("round %d: sent %v", i, across)
		}
		if i == 0 {
			if a, b := l.unreachable(probe, 3, 600, nil); len(a)+len(b) != 0 {
				t.Fatalf("a refused probe made %v, %v", a, b)
			}
		} else {
			l.answersRaw(probe, reply(l.message(probe), "@ 60 IN A "+github))
		}
		l.answers(asked, reply(l.message(asked), "@ 60 IN A "+github))
	}
	if v := l.queryOf("github.com"); addr(v.Dst).String() != upstreamAddr {
		t.Fatal("it is not back")
	}
	l.buffers()
}

// TestAllUnreachable: when all upstreams have refused, the query waits for its time-out and
// tries again, so that a short outage is not an error; and it sends no more than an
// unanswered query.
func TestAllUnreachable(t *testing.T) {
	for _, n := range []int{1, 2} {
		l := twoUpstreams(t)
		if n == 1 {
			l = githubLab(t, nil)
		}
		vs := []*view{l.queryOf("github.com")}
		sent := 0
		var got []*view
		waited := 0.0
		for ; len(got) == 0 && waited < 10; waited += 0.25 {
			for k := 0; len(vs) > 0 && k < 100; k++ {
				sent++
				v := vs[0]
				vs = vs[1:]
				_, back := l.unreachable(v, 1, 600, nil)
				_, again := l.unreachable(v, 1, 600, nil) // once more: nothing
				if len(again) != 0 {
					t.Fatalf("a repeated error made %v", again)
				}
				vs = append(vs, back...)
			}
			l.pass(0.25)
			vs = append(vs, l.taken(wan)...)
			got = l.taken(lan)
		}
		if len(got) != 1 || l.message(got[0]).Rcode != dns.RcodeServerFailure || waited < 4.5 || waited > 5.5 || sent > 8 || l.lastQuery().DNS != verdict.DNSTimeout {
			t.Fatalf("%d upstreams: %d answers after %v s, %d queries", n, len(got), waited, sent)
		}
		// It is back: the query is repeated after the time-out, not abandoned.
		v := l.queryOf("github.com")
		l.unreachable(v, 1, 600, nil)
		l.taken(wan)
		l.pass(1.3)
		vs = l.taken(wan)
		if len(vs) != 1 {
			t.Fatalf("%d upstreams: asks %v", n, vs)
		}
		l.answers(vs[0], reply(l.message(vs[0]), "@ 60 IN A "+github))
		if n == 1 { // a soft error: the answer to the refused query is still one
			v := l.queryOf("github.com")
			l.unreachable(v, 0, 600, nil)
			l.answers(v, reply(l.message(v), "@ 60 IN A "+github))
		}
		l.pass(10)
		l.buffers()
	}
}

// TestS35n_ForgedUnreachable: an error that does not quote exactly what is outstanding has
// no effect, whatever its source.
func TestS35n_ForgedUnreachable(t *testing.T) {
	for _, c := range []struct {
		name   string
		quotes int
		edit   func(q []byte)
		err    func(e *pkt)
	}{
		{name: "another identifier", quotes: 600, edit: func(q []byte) { q[28] ^= 1 }},
		{name: "another identifier, cut", quotes: 30, edit: func(q []byte) { q[29] ^= 1 }},
		{name: "another case of the name", quotes: 600, edit: func(q []byte) { q[41] ^= 0x20 }},
		{name: "another checksum, nothing else", quotes: 28, edit: func(q []byte) { q[26] ^= 1 }},
		{name: "no checksum, nothing else", quotes: 28, edit: func(q []byte) { q[26], q[27] = 0, 0 }},
		{name: "another length", quotes: 600, edit: func(q []byte) { q[25]++ }},
		{name: "another port of ours", quotes: 600, edit: func(q []byte) { q[21] ^= 1 }},
		{name: "another port of the upstream", quotes: 600, edit: func(q []byte) { q[23] ^= 1 }},
		{name: "the other upstream", quotes: 600, edit: func(q []byte) { q[19] ^= 1; resum(q) }},
		{name: "another source", quotes: 600, edit: func(q []byte) { q[15] ^= 1; resum(q) }},
		{name: "TCP", quotes: 600, edit: func(q []byte) { q[9] = packet.TCP; resum(q) }},
		{name: "a later fragment", quotes: 600, edit: func(q []byte) { q[7] = 1; resum(q) }},
		{name: "a wrong header checksum", quotes: 600, edit: func(q []byte) { q[10] ^= 1 }},
		{name: "too short", quotes: 27},
		{name: "fragmentation needed", quotes: 600, err: func(e *pkt) { e.code = 4 }},
		{name: "reassembly time exceeded", quotes: 600, err: func(e *pkt) { e.typ, e.code = packet.TimeExceeded, 1 }},
		{name: "parameter problem", quotes: 600, err: func(e *pkt) { e.typ, e.code = packet.ParamProblem, 0 }},
		{name: "source quench", quotes: 600, err: func(e *pkt) { e.typ, e.code = 4, 0 }},
		{name: "from the LAN's network", quotes: 600, err: func(e *pkt) { e.src = host }},
		{name: "from our own address", quotes: 600, err: func(e *pkt) { e.src = ours }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := twoUpstreams(t)
			v := l.queryOf("github.com")
			e := quoted("192.0.2.1", ours, packet.Unreachable, 3, v.frame, c.quotes, c.edit)
			if c.err != nil {
				c.err(&e)
			}
			if a, b := l.put(wan, e); len(a)+len(b) != 0 {
				t.Fatalf("it made %v, %v", a, b)
			}
			if n := l.e.host.DNS().Counters().Unreachable; n != 0 {
				t.Fatal("it counts")
			}
			l.answers(v, reply(l.message(v), "@ 60 IN A "+github))
			l.buffers()
		})
	}
	// From the LAN side nothing of the kind is believed.
	l := twoUpstreams(t)
	v := l.queryOf("github.com")
	if a, b := l.put(lan, quoted(host, ours, packet.Unreachable, 3, v.frame, 600, nil)); len(a)+len(b) != 0 || l.e.host.DNS().Counters().Unreachable != 0 {
		t.Fatalf("a LAN host's error made %v, %v", a, b)
	}
	// What was true is not when the query is over.
	l.answers(v, reply(l.message(v), "@ 60 IN A "+github))
	if a, b := l.unreachable(v, 3, 600, nil); len(a)+len(b) != 0 || l.e.host.DNS().Counters().Unreachable != 0 {
		t.Fatalf("a late error made %v, %v", a, b)
	}
	l.buffers()
}

// TestS35n_FloodOfUnreachable: a flood of forged errors that hits the right port
// moves nothing; beyond a rate even true ones are left alone, and the time-out
// does what it did before.
func TestS35n_FloodOfUnreachable(t *testing.T) {
	l := twoUpstreams(t)
	v := l.queryOf("github.com")
	for i := range 3000 {
		if a, b := l.unreachable(v, 3, 28, func(q []byte) { q[26], q[27] = q[26]^byte(1+i>>8), byte(i) }); len(a)+len(b) != 0 {
			t.Fatalf("forgery %d made %v, %v", i, a, b)
		}
	}
	if a, b := l.unreachable(v, 3, 600, nil); len(a)+len(b) != 0 {
		t.Fatalf("beyond the rate it made %v, %v", a, b)
	}
	l.pass(1.3)
	vs := l.taken(wan)
	if len(vs) != 1 || addr(vs[0].Dst).String() != secondUpstream {
		t.Fatalf("after the time-out: %v", vs)
	}
	// A second later they work again.
	if _, b := l.unreachable(vs[0], 3, 600, nil); len(b) != 1 {
		t.Fatalf("then %v", b)
	}
	l.pass(10)
	l.buffers()
}

// TestUnreachableOverTCP: an error about the SYN to an upstream makes the query
// go on elsewhere; once the connection is there, errors do nothing (RFC 5927).
func TestUnreachableOverTCP(t *testing.T) {
	begin := func() (*dnsLab, *view) {
		l := twoUpstreams(t)
		v := l.queryOf("github.com")
		l.truncated(v)
		for _, v := range l.putNothing() {
			if v.Proto == packet.TCP {
				return l, v
			}
		}
		t.Fatal("no connection to the upstream")
		return nil, nil
	}
	l, v := begin()
	for _, edit := range []func(q []byte){
		func(q []byte) { q[24] ^= 1 },            // sequence number
		func(q []byte) { q[27]++ },               // the next one
		func(q []byte) { q[21] ^= 1 },            // port
		func(q []byte) { q[19] ^= 1; resum(q) },  // upstream
		func(q []byte) { q[15] ^= 16; resum(q) }, // source
	} {
		if a, b := l.unreachable(v, 3, 600, edit); len(a)+len(b) != 0 || l.e.host.Conns().Len() != 1 {
			t.Fatalf("a forged error made %v, %v", a, b)
		}
	}
	_, back := l.unreachable(v, 3, 28, nil)
	if len(back) != 1 || back[0].Proto != packet.UDP || addr(back[0].Dst).String() != secondUpstream || l.e.host.Conns().Len() != 0 {
		t.Fatalf("made %v", back)
	}
	l.answers(back[0], reply(l.message(back[0]), "@ 60 IN A "+github))
	if p := l.e.Pools()[0]; p.InUse(packet.TCP) != 0 {
		t.Fatal("a port is held")
	}
	l.pass(10)
	l.buffers()

	l, v = begin()
	_, back = l.put(wan, tcpSeg(upstreamAddr, 53, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, v.Seq+1))
	if len(back) == 0 || back[0].Proto != packet.TCP {
		t.Fatalf("sent %v", back)
	}
	for _, s := range []*view{v, back[0]} {
		if a, b := l.unreachable(s, 3, 600, nil); len(a)+len(b) != 0 || l.e.host.Conns().Len() != 1 {
			t.Fatalf("an error about a connection that is there made %v, %v", a, b)
		}
	}
	l.pass(20)
	l.buffers()
}

// putNothing lets the firewall run and returns what it sends to the WAN.
func (l *dnsLab) putNothing() []*view {
	l.run()
	return l.taken(wan)
}

package router

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestDoTHostileAnswers: only a message with the identifier, the question and the case of a
// query is its answer; others are counted.
func TestDoTHostileAnswers(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		l.serve = l.tls(l.ca.sign(t, dotName, 30), func(q *dns.Msg) []*dns.Msg {
			forged := func(f func(r *dns.Msg)) *dns.Msg {
				r := reply(q, "@ 60 IN A 192.0.2.66")
				f(r)
				return r
			}
			return []*dns.Msg{
				forged(func(r *dns.Msg) { r.Id++ }),
				forged(func(r *dns.Msg) { r.Id ^= 1 << 12 }),
				forged(func(r *dns.Msg) { r.Question[0].Name = "evil.example." }),
				forged(func(r *dns.Msg) { r.Question[0].Qtype = dns.TypeAAAA }),
				forged(func(r *dns.Msg) { r.Question = nil }),
				forged(func(r *dns.Msg) { r.Response = false }),
				forged(func(r *dns.Msg) { r.Question[0].Name = flipped(r.Question[0].Name) }),
				reply(q, "@ 60 IN A "+github),
				reply(q, "@ 60 IN A 192.0.2.66"), // a second answer to the same
			}
		})
		m := l.answered(l.asks("github.com"))
		if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != github {
			t.Fatalf("the client got %v", m)
		}
		if c := l.e.host.DNS().Counters(); c.Mismatched != 7 || c.WrongCase != 1 {
			t.Fatalf("%+v", c)
		}
		if l.connects(host, "192.0.2.66", 443) {
			t.Fatal("a forged address is bound")
		}
	})
}

// flipped changes the case of a name's first letter.
func flipped(s string) string { return string(s[0]^0x20) + s[1:] }

// TestDoTNeverAnswers: a server that accepts queries and sends nothing, or no valid answer,
// delays neither a query nor the connection for longer than five seconds.
func TestDoTNeverAnswers(t *testing.T) {
	for name, answer := range map[string]func(q *dns.Msg) []*dns.Msg{
		"nothing": func(*dns.Msg) []*dns.Msg { return nil },
		"a flood": func(q *dns.Msg) []*dns.Msg {
			r := reply(q)
			r.Id++
			rs := make([]*dns.Msg, 5000)
			for i := range rs {
				rs[i] = r
			}
			return rs
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(l *tlsLab) {
				l.serve = l.tls(l.ca.sign(t, dotName, 30), answer)
				l.fails(l.asks("github.com"))
				if l.lastQuery().Duration > 51*second/10 {
					t.Fatalf("took %v", l.lastQuery().Duration)
				}
				l.pass(0.5)
				l.settle()
				if name == "nothing" && (l.link().State() == dot.Open || l.link().Counters().Failures[verdict.TLSTimeout] == 0) {
					t.Fatalf("state %d, %+v", l.link().State(), l.link().Counters())
				}
				if name == "a flood" && l.e.host.DNS().Counters().Mismatched != 5000 {
					t.Fatalf("%+v", l.e.host.DNS().Counters())
				}
			})
		})
	}
}

// TestDoTHostileStream: after a good handshake, data that are neither TLS nor DNS.
func TestDoTHostileStream(t *testing.T) {
	for name, send := range map[string]func(c *tls.Conn, raw net.Conn){
		"messages without bytes": func(c *tls.Conn, _ net.Conn) { c.Write(make([]byte, 20000)) },
		"short messages": func(c *tls.Conn, _ net.Conn) {
			c.Write([]byte{0, 1, 7, 0, 2, 7, 7, 0, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
		},
		"a message that does not end": func(c *tls.Conn, _ net.Conn) {
			c.Write([]byte{0xff, 0xff})
			c.Write(make([]byte, 60000))
		},
		"garbage for a record": func(_ *tls.Conn, raw net.Conn) {
			raw.Write([]byte{23, 3, 3, 0, 40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0})
		},
		"a huge record": func(_ *tls.Conn, raw net.Conn) {
			raw.Write(append([]byte{23, 3, 3, 0xff, 0xff}, make([]byte, 70000)...))
		},
		"a close in a record": func(_ *tls.Conn, raw net.Conn) { raw.Write([]byte{23, 3, 3, 0, 40, 1}); raw.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(l *tlsLab) {
				cert := l.ca.sign(t, dotName, 30)
				l.serve = func(raw net.Conn) {
					c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}})
					if _, err := readMessage(c); err != nil {
						return
					}
					send(c, raw)
					io.Copy(io.Discard, c)
				}
				l.fails(l.asks("github.com"))
				l.serve = l.tls(cert, one(github))
				for range 25 {
					l.pass(1)
					if g := l.asks("github.com"); len(g[lan]) > 0 && len(l.message(g[lan][0]).Answer) == 1 {
						l.buffers()
						return
					}
				}
				t.Fatalf("a good server is not asked afterwards: %+v", l.link().Counters())
			})
		})
	}
}

// TestDoTDeadPath: a connection whose segments are no longer acknowledged is abandoned
// while there is time to repeat the query.
func TestDoTDeadPath(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		l.answered(l.asks("github.com"))
		dead := l.conns[0]
		dead.mu.Lock()
		dead.port = 0 // nobody is there
		dead.mu.Unlock()
		g := l.asks("a.github.com")
		if len(g[lan]) != 0 {
			t.Fatal("answered")
		}
		g, after := l.wait(5)
		if m := l.answered(g); len(m.Answer) != 1 || after > 4.5 {
			t.Fatalf("after %.1f s: %v", after, m)
		}
	})
}

// TestDoTPlainFallback: where the policy allows it, a plain upstream is asked
// while the one with TLS is down, and only then.
func TestDoTPlainFallback(t *testing.T) {
	inBubble(t, func(p *ruleset.Policy) {
		p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip(other).To16(), Port: 53})
	}, func(l *tlsLab) {
		for range 5 {
			l.answered(l.asks("github.com"))
		}
		good := l.serve
		l.serve = nil
		l.conns[0].Close()
		l.settle()
		g := l.asks("github.com")
		if len(g[wan]) != 0 {
			t.Fatal("asked in the clear after one failure")
		}
		g, after := l.wait(5)
		if len(g[wan]) != 1 || g[wan][0].Dst != ip(other) || after < 1 {
			t.Fatalf("after %.1f s: %v", after, g)
		}
		if m := l.answers(g[wan][0], reply(l.message(g[wan][0]), "@ 60 IN A "+github)); len(m.Answer) != 1 {
			t.Fatalf("the client got %v", m)
		}
		if g = l.asks("github.com"); len(g[wan]) != 1 {
			t.Fatalf("while it is down: %v", g)
		}
		l.answers(g[wan][0], reply(l.message(g[wan][0]), "@ 60 IN A "+github))
		// It is back: nothing is asked in the clear any more.
		l.serve = good
		for range 20 {
			l.pass(1)
			if g := l.asks("github.com"); len(g[wan]) == 1 {
				l.answers(g[wan][0], reply(l.message(g[wan][0]), "@ 60 IN A "+github))
			}
		}
		l.answered(l.asks("github.com"))
	})
}

// TestDoTWithoutClock: certificates cannot be verified; nothing is sent, and that is
// reported.
func TestDoTWithoutClock(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		p.Upstreams = []ruleset.Upstream{{Address: ip(upstreamAddr).To16(), Port: dotPort, TLS: 1, ServerName: nameOf(p, dotName).Text}}
	})
	e := &tlsLab{dnsLab: l}
	if err := l.e.newHost(&Config{Policy: l.policy, Pool: l.pool, Events: l.events, ClockSet: false}, nil); err != nil {
		t.Fatal(err)
	}
	if across, back := l.ask(host, l.query("github.com", dns.TypeA)); len(across)+len(back) != 0 {
		t.Fatalf("%v %v", across, back)
	}
	for range 60 {
		l.pass(0.1)
	}
	if v := l.taken(lan); len(l.taken(wan)) != 0 || len(v) != 1 || l.message(v[0]).Rcode != dns.RcodeServerFailure {
		t.Fatalf("%v", v)
	}
	if class, reason := e.why(); class != verdict.TLSClockNotSet || reason == "" {
		t.Fatalf("reported %v %q", class, reason)
	}
}

// TestDoTManyUpstreams: as many as there may be, each with a connection.
func TestDoTManyUpstreams(t *testing.T) {
	inBubble(t, func(p *ruleset.Policy) {
		u := p.Upstreams[0]
		p.Upstreams = nil
		for i := range ruleset.MaxTLS {
			u.Address = ip(fmt.Sprintf("198.51.100.%d", 100+i)).To16()
			p.Upstreams = append(p.Upstreams, u)
		}
	}, func(l *tlsLab) {
		good := l.serve
		works := func(c net.Conn) bool { return c.(*stream).addr == ip("198.51.100.107") }
		l.serve = func(c net.Conn) {
			if works(c) {
				good(c)
			} else {
				c.Close()
			}
		}
		if m := l.answered(l.asks("github.com")); len(m.Answer) != 1 {
			t.Fatalf("the client got %v", m)
		}
	})
}

// TestDoTManyConnections: connections that end in every way leave nothing behind.
func TestDoTManyConnections(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		good, bad := l.serve, l.tls(l.ca.sign(t, "other.example", 30), one(github))
		for i := range 200 {
			l.serve = []func(net.Conn){good, bad, nil, func(c net.Conn) { c.Close() }}[i%4]
			l.asks(fmt.Sprintf("n%d.github.com", i))
			for _, c := range l.conns {
				if i%8 < 4 {
					c.Close()
				}
			}
			l.pass(float64(i % 40))
			l.settle()
			l.pass(6)
			l.settle()
		}
		l.pass(60)
		l.settle()
		if n := l.e.host.Conns().Len(); n != 0 || l.e.host.DNS().Outstanding() != 0 {
			t.Fatalf("%d TCP connections, %d queries are left", n, l.e.host.DNS().Outstanding())
		}
		for _, p := range l.e.Pools() {
			if p.InUse(packet.TCP)+p.InUse(packet.UDP) != 0 {
				t.Fatalf("%d and %d ports are held", p.InUse(packet.TCP), p.InUse(packet.UDP))
			}
		}
		if c := l.link().Counters(); c.Connections < 20 || c.Failures[verdict.TLSVerify] == 0 || c.Failures[verdict.TLSClosed] == 0 {
			t.Fatalf("%+v", c)
		}
		l.buffers()
	})
}

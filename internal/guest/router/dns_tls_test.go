package router

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// answered requires that the client got one answer, and that nothing left in the
// clear, and returns it.
func (l *tlsLab) answered(grams [2][]*view) *dns.Msg {
	l.t.Helper()
	if len(grams[wan]) != 0 {
		l.t.Fatalf("%v left towards the WAN in the clear", grams[wan])
	}
	if len(grams[lan]) != 1 {
		l.t.Fatalf("%d answers; %+v, link %+v; drops %s", len(grams[lan]), l.e.host.DNS().Counters(), l.e.host.Links()[0].Link.Counters(), l.drops())
	}
	return l.message(grams[lan][0])
}

// send puts a client's query on the wire.
func (l *tlsLab) send(client string, m *dns.Msg) {
	l.port2(lan).in = append(l.port2(lan).in, l.datagram(client, m).frame(lanMAC))
}

// asks has a client ask for a name and returns what comes of it at once.
func (l *tlsLab) asks(name string) [2][]*view {
	l.t.Helper()
	l.send(host, l.query(name, dns.TypeA))
	return l.settle()
}

// wait lets seconds pass, in steps, until something comes out.
func (l *tlsLab) wait(seconds float64) (grams [2][]*view, after float64) {
	l.t.Helper()
	const step = 0.05
	for ; after < seconds; after += step {
		l.pass(step)
		g := l.settle()
		if len(g[lan])+len(g[wan]) > 0 {
			return g, after + step
		}
	}
	return grams, after
}

// fails requires that the client's query gets SERVFAIL within the total time.
func (l *tlsLab) fails(grams [2][]*view) {
	l.t.Helper()
	if len(grams[lan]) == 0 {
		var after float64
		if grams, after = l.wait(7); after > 5.1 {
			l.t.Fatalf("nothing within %.1f s", after)
		}
	}
	if m := l.answered(grams); m.Rcode != dns.RcodeServerFailure {
		l.t.Fatalf("the client got %v", m)
	}
}

// why returns the class and the reason of the last event about an upstream.
func (l *tlsLab) why() (c verdict.TLSClass, reason string) {
	l.t.Helper()
	for i := range l.seen {
		if l.seen[i].Kind == event.UpstreamFailed {
			c, reason = l.seen[i].TLS, l.names[i]
		}
	}
	return c, reason
}

func (l *tlsLab) link() *dot.Link { return l.e.host.Links()[0].Link }

// TestDoTAnswers: an answer over TLS binds like any other. The query is padded
// (RFC 8467), and the client's answer has none of it.
func TestDoTAnswers(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		size := 0
		l.serve = l.tls(l.ca.sign(t, dotName, 30), func(q *dns.Msg) []*dns.Msg {
			b, _ := q.Pack()
			size = len(b)
			r := reply(q, "@ 60 IN A "+github)
			r.IsEdns0().Option = append(r.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, 100)})
			return []*dns.Msg{r}
		})
		q := l.query("GitHub.com", dns.TypeA)
		q.SetEdns0(1232, true)
		l.send(host, q)
		m := l.answered(l.settle())
		if len(m.Answer) != 1 || m.Question[0].Name != "GitHub.com." || m.IsEdns0() == nil || len(m.IsEdns0().Option) != 0 {
			t.Fatalf("the client got %v", m)
		}
		if size == 0 || size%128 != 0 {
			t.Fatalf("the query has %d bytes", size)
		}
		if !l.connects(host, github, 443) {
			t.Fatal("the name is not bound")
		}
		for _, name := range []string{"a.github.com", strings.Repeat("a23456789.", 20) + "github.com"} {
			if l.answered(l.asks(name)); size%128 != 0 {
				t.Fatalf("the query for %s has %d bytes", name, size)
			}
		}
		if c := l.link().Counters(); c.Connections != 1 || len(l.conns) != 1 || l.e.host.DNS().Counters().OverTLS != 3 {
			t.Fatalf("%+v, %d connections", c, len(l.conns))
		}
		l.buffers()
	})
}

// TestDoTCertificates: every invalid certificate is refused, and reported with the reason,
// and no query is sent in the clear.
func TestDoTCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		cert   func(l *tlsLab) tls.Certificate
		reason string
	}{
		"another name":      {func(l *tlsLab) tls.Certificate { return l.ca.sign(l.t, "other.example", 30) }, "certificate is valid for other.example, not dns.example"},
		"unknown authority": {func(l *tlsLab) tls.Certificate { return newAuthority(l.t).sign(l.t, dotName, 30) }, "signed by unknown authority"},
		"expired":           {func(l *tlsLab) tls.Certificate { return l.ca.sign(l.t, dotName, -1) }, "certificate has expired"},
		"hostile text":      {func(l *tlsLab) tls.Certificate { return l.ca.sign(l.t, "x\x1b[31m\n\""+strings.Repeat("a", 300), 30) }, `valid for x\x1b[31m\x0a"aaa`},
		"forged console":    {func(l *tlsLab) tls.Certificate { return l.ca.sign(l.t, "x\r\nthurward: refusing to start: x", 30) }, `valid for x\x0d\x0athurward: refusing to start: x`},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(l *tlsLab) {
				l.serve = l.tls(c.cert(l), one(github))
				l.fails(l.asks("github.com"))
				class, reason := l.why()
				if class != verdict.TLSVerify || !strings.Contains(reason, c.reason) || len(reason) > 160 || strings.ContainsFunc(reason, func(r rune) bool { return r < ' ' || r > '~' }) ||
					len(l.refused) == 0 || l.refused[0] != reason {
					t.Fatalf("reported: %v, %q", class, reason)
				}
				if n := l.link().Counters().Failures[verdict.TLSVerify]; n == 0 || int(n) != len(l.conns) || n > 4 || l.link().Counters().Connections != 0 {
					t.Fatalf("%d failures with %d connections", n, len(l.conns))
				}
				reports := 0
				for i := range l.seen {
					if l.seen[i].Kind == event.UpstreamFailed {
						reports++
					}
				}
				if reports != 1 {
					t.Fatalf("reported %d times", reports)
				}
				// The right one is taken as soon as there is another try.
				l.serve = l.tls(l.ca.sign(t, dotName, 30), one(github))
				for range 20 {
					l.pass(1)
					if g := l.asks("github.com"); len(g[lan]) == 1 && len(l.message(g[lan][0]).Answer) == 1 {
						l.settle()
						return
					}
				}
				t.Fatal("a right certificate is not taken afterwards")
			})
		})
	}
}

// TestDoTHandshakeFails: whatever goes wrong before the connection is open is
// told by its class.
func TestDoTHandshakeFails(t *testing.T) {
	answers := func(b string) func(l *tlsLab) {
		return func(l *tlsLab) {
			l.serve = func(c net.Conn) {
				io.ReadFull(c, make([]byte, 100))
				io.WriteString(c, b)
				io.Copy(io.Discard, c)
			}
		}
	}
	for name, c := range map[string]struct {
		server func(l *tlsLab)
		class  verdict.TLSClass
		most   int // connections within the five seconds
	}{
		"refused":                {func(l *tlsLab) { l.serve = nil }, verdict.TLSClosed, 0},
		"no answer to the SYN":   {func(l *tlsLab) { l.deaf = true }, verdict.TLSTimeout, 0},
		"no answer to the hello": {answers(""), verdict.TLSTimeout, 2},
		"closed at once":         {func(l *tlsLab) { l.serve = func(c net.Conn) { c.Close() } }, verdict.TLSClosed, 4},
		"closed in between": {func(l *tlsLab) {
			l.serve = func(c net.Conn) { io.ReadFull(c, make([]byte, 100)); c.Write([]byte{22, 3, 3, 0, 100, 2}); c.Close() }
		}, verdict.TLSClosed, 4},
		"garbage":       {answers("HTTP/1.1 400 Bad Request\r\n\r\n"), verdict.TLSProtocol, 4},
		"an alert":      {answers("\x15\x03\x03\x00\x02\x02\x28"), verdict.TLSProtocol, 4},
		"a huge record": {answers("\x16\x03\x03\xff\xff" + strings.Repeat("x", 60000)), verdict.TLSProtocol, 4},
		"an old version": {func(l *tlsLab) {
			cert := l.ca.sign(l.t, dotName, 30)
			l.serve = func(c net.Conn) {
				tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake()
				c.Close()
			}
		}, verdict.TLSProtocol, 4},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(l *tlsLab) {
				c.server(l)
				l.fails(l.asks("github.com"))
				for range 80 { // a handshake may still be under way
					l.pass(0.05)
					l.settle()
				}
				class, reason := l.why()
				if class != c.class || reason == "" || l.link().Counters().Failures[c.class] == 0 || len(l.conns) > c.most {
					t.Fatalf("reported: %v, %q; %+v; %d connections", class, reason, l.link().Counters(), len(l.conns))
				}
				if l.link().State() == dot.Open || l.e.host.Conns().Len() > 0 {
					t.Fatalf("state %d, %d TCP connections are left", l.link().State(), l.e.host.Conns().Len())
				}
				for _, p := range l.e.Pools() {
					if p.InUse(packet.TCP) != 0 {
						t.Fatalf("%d ports are held", p.InUse(packet.TCP))
					}
				}
				l.buffers()
			})
		})
	}
}

// TestDoTNextUpstream: when a connection fails the next upstream is asked at
// once, over TLS too, and the first is back when it works again.
func TestDoTNextUpstream(t *testing.T) {
	inBubble(t, func(p *ruleset.Policy) {
		p.Upstreams = append([]ruleset.Upstream{{Address: ip(other).To16(), Port: dotPort, TLS: 1, ServerName: p.Upstreams[0].ServerName}}, p.Upstreams...)
	}, func(l *tlsLab) {
		good, bad := l.serve, l.tls(newAuthority(t).sign(t, dotName, 30), one(github))
		l.serve = func(c net.Conn) {
			if c.(*stream).addr == ip(other) {
				bad(c)
			} else {
				good(c)
			}
		}
		for i := range 5 {
			if m := l.answered(l.asks("github.com")); len(m.Answer) != 1 {
				t.Fatalf("query %d: %v", i, m)
			}
		}
		if c := l.link().Counters(); c.Failures[verdict.TLSVerify] != 1 {
			t.Fatalf("%+v", c)
		}
		bad = good
		for range 20 { // probes bring it back
			l.pass(1)
			l.answered(l.asks("github.com"))
		}
		if l.link().State() != dot.Open {
			t.Fatalf("%+v", l.link().Counters())
		}
	})
}

// TestDoTPipelining (RFC 7766 section 6.2.1.1): many queries share a connection,
// and are answered in any order.
func TestDoTPipelining(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		const n = 60
		var all []*dns.Msg
		l.serve = l.tls(l.ca.sign(t, dotName, 30), func(q *dns.Msg) []*dns.Msg {
			if all = append(all, q); len(all) < n {
				return nil
			}
			var rs []*dns.Msg
			for _, q := range slices.Backward(all) {
				rs = append(rs, reply(q, fmt.Sprintf("@ 60 IN A 192.0.2.%s", strings.ToLower(q.Question[0].Name[1:strings.IndexByte(q.Question[0].Name, '.')]))))
			}
			return rs
		})
		for i := range n {
			l.send(host, l.query(fmt.Sprintf("n%d.github.com", i+1), dns.TypeA))
		}
		g := l.settle()
		if len(g[lan]) != n || len(l.conns) != 1 {
			t.Fatalf("%d answers over %d connections; %+v", len(g[lan]), len(l.conns), l.e.host.DNS().Counters())
		}
		for _, v := range g[lan] {
			m := l.message(v)
			if want := "192.0.2." + m.Question[0].Name[1:strings.IndexByte(m.Question[0].Name, '.')]; len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != want {
				t.Fatalf("%v, want %s", m, want)
			}
		}
	})
}

// TestDoTPieces: segments of a few bytes, and a record of many segments.
func TestDoTPieces(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		l.slow = 3
		l.answered(l.asks("github.com"))
		l.slow = 0
		l.serve = nil
		many := manyAddresses(3500) // 56 KB
		l.conns[0].Close()
		l.settle()
		l.serve = l.tls(l.ca.sign(t, dotName, 30), func(q *dns.Msg) []*dns.Msg { return []*dns.Msg{many(q)} })
		if m := l.answered(l.asks("github.com")); !m.Truncated {
			t.Fatalf("%d records over UDP", len(m.Answer))
		}
		cl := l.tcpHost(lan)
		cl.askTCP(host, lanAddr, l.query("github.com", dns.TypeA))
		for range 200 {
			l.port2(lan).in, cl.out = append(l.port2(lan).in, cl.out...), nil
			for _, v := range l.settle()[lan] {
				cl.arrive(v)
			}
		}
		if len(cl.got) != 1 || len(cl.got[0].Answer) != 3500 {
			t.Fatalf("%d answers over TCP", len(cl.got))
		}
	})
}

// TestDoTLostConnection: what was under way on a connection that had worked is
// asked again over a new one, at once.
func TestDoTLostConnection(t *testing.T) {
	for _, how := range []string{"close", "reset"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, nil, func(l *tlsLab) {
				cert := l.ca.sign(t, dotName, 30)
				l.serve = l.tls(cert, func(q *dns.Msg) []*dns.Msg {
					if len(l.conns) == 1 && strings.HasPrefix(strings.ToLower(q.Question[0].Name), "late") {
						return nil
					}
					return one(github)(q)
				})
				l.answered(l.asks("github.com"))
				for i := range 3 {
					if g := l.asks(fmt.Sprintf("late%d.github.com", i)); len(g[lan])+len(g[wan]) != 0 {
						t.Fatalf("answered: %v", g)
					}
				}
				first := l.conns[0]
				if how == "close" {
					first.Close()
				} else {
					p := first.segment(packet.RST, nil)
					l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
				}
				if g := l.settle(); len(g[lan]) != 3 || len(l.conns) != 2 {
					t.Fatalf("%d answers, %d connections; %+v; %+v", len(g[lan]), len(l.conns), l.e.host.DNS().Counters(), l.link().Counters())
				}
				if c := l.link().Counters(); c.Connections != 2 || c.Failures != [verdict.NumTLSClasses]uint64{} {
					t.Fatalf("%+v", c)
				}
			})
		})
	}
}

// TestDoTClosesWithoutAnswer: a server that opens connections and answers
// nothing has failed; there are few connections, not one for each query.
func TestDoTClosesWithoutAnswer(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		cert := l.ca.sign(t, dotName, 30)
		l.serve = func(raw net.Conn) {
			c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}})
			readMessage(c)
			c.Close()
		}
		for i := range 20 {
			l.send(host, l.query(fmt.Sprintf("n%d.github.com", i), dns.TypeA))
		}
		n := 0
		for range 120 {
			l.pass(0.05)
			n += len(l.settle()[lan])
		}
		if n != 20 || len(l.conns) > 4 || l.link().Counters().Failures[verdict.TLSClosed] == 0 {
			t.Fatalf("%d answers, %d connections; %+v", n, len(l.conns), l.link().Counters())
		}
	})
}

// TestDoTIdle: an unused connection is closed by FIN, and the next query makes a new one.
func TestDoTIdle(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		l.answered(l.asks("github.com"))
		l.pass(29)
		l.settle()
		if l.link().State() != dot.Open || len(l.conns) != 1 {
			t.Fatalf("state %d after 29 s", l.link().State())
		}
		if at, ok := l.link().Due(); !ok || at > l.now+2*second {
			t.Fatal("it has no time at which it ends")
		}
		l.pass(1.5)
		l.settle()
		if c := l.conns[0]; l.link().State() != dot.Idle || !c.eof || c.reset || l.e.host.Conns().Len() != 0 {
			t.Fatalf("state %d, the server sees the end %v, a reset %v, %d connections", l.link().State(), c.eof, c.reset, l.e.host.Conns().Len())
		}
		l.answered(l.asks("github.com"))
		if c := l.link().Counters(); c.Connections != 2 || c.Failures != [verdict.NumTLSClasses]uint64{} {
			t.Fatalf("%+v", c)
		}
		for _, p := range l.e.Pools() {
			if p.InUse(packet.TCP) != 1 {
				t.Fatalf("%d ports are held", p.InUse(packet.TCP))
			}
		}
	})
}

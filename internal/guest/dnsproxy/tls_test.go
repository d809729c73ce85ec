package dnsproxy

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// overTLSBench has upstreams with TLS, and behind them upstreams without.
func overTLSBench(t testing.TB, tls, plain int) *bench {
	return newBench(t, func(p *ruleset.Policy) {
		p.Upstreams = nil
		for i := range tls + plain {
			u := ruleset.Upstream{Address: (upAddr + 10).To16(), Port: 53}
			u.Address[15] += uint8(i)
			if i < tls {
				u.Port, u.TLS = 853, 1
			}
			p.Upstreams = append(p.Upstreams, u)
		}
	})
}

// TestTLSFailsOver: each upstream with TLS is tried at once, none in the clear, and
// the client gets the response of the first that works.
func TestTLSFailsOver(t *testing.T) {
	b := overTLSBench(t, 3, 0)
	b.ask(query("www.example", dns.TypeA))
	if len(b.tls) != 1 || b.tls[0].up != 0 || len(b.sent)+len(b.tcp) != 0 {
		t.Fatalf("%d over TLS, %d and %d otherwise", len(b.tls), len(b.sent), len(b.tcp))
	}
	b.p.TLSLost(0, true, b.now)
	b.p.TLSLost(1, true, b.now)
	if len(b.tls) != 3 || b.tls[1].up != 1 || b.tls[2].up != 2 {
		t.Fatalf("%+v", b.tls)
	}
	for i := range 2 { // those that have lost it say nothing any more
		b.p.TLSResponse(i, answerTo(b.tls[2].msg), b.now)
	}
	if len(b.got) != 0 || b.p.Counters().Mismatched != 2 {
		t.Fatalf("%d answers, %+v", len(b.got), b.p.Counters())
	}
	b.p.TLSResponse(2, answerTo(b.tls[2].msg), b.now)
	b.p.TLSResponse(2, answerTo(b.tls[2].msg), b.now)
	if len(b.got) != 1 || b.p.Outstanding() != 0 || b.p.Counters().Mismatched != 3 {
		t.Fatalf("%d answers, %+v", len(b.got), b.p.Counters())
	}
	if len(b.sent)+len(b.tcp)+len(b.ports) != 0 {
		t.Fatal("something went in the clear")
	}
}

// TestTLSIsNotRepeated: with one upstream a query is not sent again over the same
// connection; it waits, and is sent again over a new one.
func TestTLSIsNotRepeated(t *testing.T) {
	b := overTLSBench(t, 1, 0)
	b.ask(query("www.example", dns.TypeA))
	for range 40 {
		b.now += second / 10
		b.p.Tick(b.now)
	}
	if len(b.tls) != 1 {
		t.Fatalf("asked %d times over one connection", len(b.tls))
	}
	b.p.TLSLost(0, false, b.now)
	if len(b.tls) != 2 {
		t.Fatalf("asked %d times over two connections", len(b.tls))
	}
	b.p.TLSResponse(0, answerTo(b.tls[1].msg), b.now)
	if len(b.got) != 1 || b.p.Outstanding() != 0 {
		t.Fatalf("%d answers", len(b.got))
	}
	// A server that loses one connection after the other ends it in the end.
	b.ask(query("www.example", dns.TypeA))
	for range 100 {
		b.p.TLSLost(0, false, b.now)
	}
	if len(b.tls) != 2+maxTries {
		t.Fatalf("asked %d times", len(b.tls)-2)
	}
	for range 60 {
		b.now += second / 10
		b.p.Tick(b.now)
	}
	if len(b.got) != 2 || b.p.Outstanding() != 0 {
		t.Fatalf("%d answers, %d outstanding", len(b.got), b.p.Outstanding())
	}
}

// TestTLSRefused: while no connection can be made, a query waits for its tries and
// fails; each upstream is tried over TLS only.
func TestTLSRefused(t *testing.T) {
	b := overTLSBench(t, 2, 0)
	b.noTLS = true
	for range 20 {
		b.ask(query("www.example", dns.TypeA))
	}
	for range 60 {
		b.now += second / 10
		b.p.Tick(b.now)
	}
	if len(b.got) != 20 || b.p.Outstanding() != 0 || len(b.sent)+len(b.tcp) != 0 {
		t.Fatalf("%d answers, %d outstanding, %d in the clear", len(b.got), b.p.Outstanding(), len(b.sent)+len(b.tcp))
	}
}

// TestTLSFallback: upstreams without TLS are used while all with TLS are down.
func TestTLSFallback(t *testing.T) {
	b := overTLSBench(t, 2, 1)
	fail := func(up int) {
		b.p.TLSLost(up, true, b.now)
	}
	b.ask(query("www.example", dns.TypeA))
	for range downAfter {
		fail(0)
	}
	for range downAfter - 1 {
		fail(1)
	}
	if len(b.sent) != 0 {
		t.Fatal("asked in the clear while one with TLS is up")
	}
	fail(1)
	b.ask(query("www.example", dns.TypeA))
	if len(b.sent) != 1 {
		t.Fatalf("%d in the clear, %d over TLS", len(b.sent), len(b.tls))
	}
	// A probe finds that one is back; from then on it is asked.
	b.noTLS = false
	b.now += 2 * second
	n := len(b.tls)
	b.ask(query("www.example", dns.TypeA))
	if len(b.tls) != n+2 {
		t.Fatalf("%d probes", len(b.tls)-n)
	}
	b.p.TLSResponse(b.tls[n].up, answerTo(b.tls[n].msg), b.now)
	b.sent = nil
	b.ask(query("www.example", dns.TypeA))
	if len(b.sent) != 0 || b.tls[len(b.tls)-1].up != b.tls[n].up {
		t.Fatal("still asked in the clear")
	}
}

// FuzzTLSResponse sends arbitrary messages over a connection with two pending
// queries. Only a message with the question of one completes it.
func FuzzTLSResponse(f *testing.F) {
	b := overTLSBench(f, 1, 0)
	b.ask(query("www.example", dns.TypeA))
	f.Add(answerTo(b.tls[0].msg), uint8(0))
	f.Add([]byte{0, 0, 0x80}, uint8(1))
	f.Fuzz(func(t *testing.T, msg []byte, up uint8) {
		b := overTLSBench(t, 2, 0)
		b.ask(query("www.example", dns.TypeA))
		b.ask(query("www.example.com", dns.TypeA))
		if len(msg) > 1 && up&2 != 0 { // near what is right
			copy(msg, b.tls[up>>2&1].msg[:2])
		}
		b.p.TLSResponse(int(up&1), msg, b.now)
		for i, s := range b.tls {
			if n := headerLen + 13 + 4*i + 4; len(b.got) > 0 && len(msg) >= n && bytes.Equal(msg[headerLen:n], s.msg[headerLen:n]) {
				return // it is one's answer
			}
		}
		if len(b.got) != 0 || b.p.Outstanding() != 2 {
			t.Fatalf("%x is taken for an answer", msg)
		}
	})
}

// answerTo returns a response without records to a query.
func answerTo(q []byte) []byte {
	m := bytes.Clone(q)
	m[2] |= 0x80
	return m
}

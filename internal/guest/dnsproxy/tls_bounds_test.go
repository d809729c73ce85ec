package dnsproxy

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestPadding (RFC 8467 section 4.1): the length of a query over TLS is the next
// multiple of 128 bytes, for names and options of all lengths; the padding is zero.
func TestPadding(t *testing.T) {
	b := overTLSBench(t, 1, 0)
	for n := range maxName - 1 {
		for _, opts := range []int{0, 1, 44} {
			name := []byte{0}
			if n > 0 {
				name = []byte(long(n+1) + "\x00")
			}
			w := &pending{tls: true, qtype: 1, qclass: 1, nameLen: uint8(len(name)), do: true}
			copy(w.name[:], name)
			if opts > 0 {
				w.nOpts = uint8(copy(w.opts[:], append([]byte{0, 3, 0, byte(opts)}, make([]byte, opts)...)))
			}
			m := b.p.encodeQuery(w)
			bare := headerLen + len(name) + 4 + 11 + int(w.nOpts) + 4
			if len(m) != (bare+padTo-1)/padTo*padTo {
				t.Fatalf("a name of %d, options of %d: %d bytes, without padding %d", len(name), w.nOpts, len(m), bare)
			}
			fill := len(m) - bare
			if string(m[bare-4:bare]) != string([]byte{0, optPadding, 0, byte(fill)}) || len(bytes.Trim(m[bare:], "\x00")) != 0 {
				t.Fatalf("a name of %d: %x", len(name), m[bare-4:])
			}
			if err := new(dns.Msg).Unpack(m); err != nil {
				t.Fatalf("a name of %d: %v", len(name), err)
			}
			w.noEDNS = true // to a server that does not know EDNS
			if m := b.p.encodeQuery(w); len(m) != headerLen+len(name)+4 || m[11] != 0 {
				t.Fatalf("without EDNS: %x", m)
			}
		}
	}
}

// TestTLSResponsesAreMatched: a response over TLS is accepted only over the
// connection, with the identifier, and in the case of a query pending there.
func TestTLSResponsesAreMatched(t *testing.T) {
	b := overTLSBench(t, 2, 0)
	b.ask(query("abcdefgh.example", dns.TypeA))
	b.ask(query("abcdefgh.example", dns.TypeA))
	one, two := answerTo(b.tls[0].msg), answerTo(b.tls[1].msg)
	if be16(one)%maxPending != 0 || be16(two)%maxPending != 1 || one[0]>>2 == two[0]>>2 {
		t.Fatalf("identifiers %x and %x", one[:2], two[:2])
	}
	wrong := uint64(0)
	for what, c := range map[string]struct {
		up int
		m  []byte
	}{
		"nothing":                        {0, nil},
		"11 bytes":                       {0, one[:headerLen-1]},
		"12 bytes":                       {0, one[:headerLen]},
		"another connection":             {1, one},
		"no such connection":             {7, one},
		"a free place":                   {0, append([]byte{one[0], 2}, one[2:]...)},
		"the last place":                 {0, append([]byte{0xff, 0xff}, one[2:]...)},
		"an earlier query in this place": {0, append([]byte{one[0] ^ 4, one[1]}, one[2:]...)},
		"the other's place":              {0, append([]byte{one[0], two[1]}, one[2:]...)},
	} {
		wrong++
		if b.p.TLSResponse(c.up, bytes.Clone(c.m), b.now); len(b.got) != 0 || b.p.c.Mismatched != wrong || b.p.Outstanding() != 2 {
			t.Errorf("%s: %d answers, %d counted of %d", what, len(b.got), b.p.c.Mismatched, wrong)
		}
	}
	other := bytes.Clone(one)
	other[headerLen+1] ^= 0x20
	if b.p.TLSResponse(0, other, b.now); len(b.got) != 0 || b.p.c.WrongCase != 1 || b.p.c.Mismatched != wrong || b.p.Outstanding() != 2 {
		t.Errorf("another case: %d answers, %+v", len(b.got), b.p.c)
	}
	b.p.TLSResponse(0, two, b.now) // in any order
	b.p.TLSResponse(0, one, b.now)
	if len(b.got) != 2 || b.p.Outstanding() != 0 || b.p.c.Mismatched != wrong {
		t.Errorf("%d answers, %+v", len(b.got), b.p.c)
	}
	// A query that was sent over UDP gets no response over TLS.
	b = newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	i := b.p.active.first - 1
	m := answerTo(b.sent[0].msg)
	b.p.queries[i].ourID = i
	m[0], m[1] = byte(i>>8), byte(i)
	if b.p.TLSResponse(0, m, b.now); len(b.got) != 0 || b.p.c.Mismatched != 1 {
		t.Errorf("a query over UDP was answered over TLS: %+v", b.p.c)
	}
}

// TestTLSIsCounted: queries and retries over TLS are counted.
func TestTLSIsCounted(t *testing.T) {
	b := overTLSBench(t, 2, 0)
	b.ask(query("a.example", dns.TypeA))
	if c := b.p.c; c != (Counters{Queries: 1, Asked: 1, OverTLS: 1}) {
		t.Errorf("%+v", c)
	}
	if at, any := b.p.Due(); !any || at != b.now+tryTimeout {
		t.Errorf("due at %d, %v", at-b.now, any)
	}
	b.p.TLSLost(0, true, b.now)
	if c := b.p.c; c != (Counters{Queries: 1, Asked: 2, OverTLS: 2, Retries: 1}) || b.p.up[0].failures != 1 || b.p.up[1].failures != 0 {
		t.Errorf("%+v, %d failures", c, b.p.up[0].failures)
	}
	b.p.TLSResponse(1, answerTo(b.tls[1].msg), b.now)
	if d := b.done[0]; d.Upstream != upAddr+11 || d.Outcome != verdict.DNSAnswered || b.p.up[1].answered != b.now {
		t.Errorf("%+v", d)
	}
	// A connection that could not be used is a failure, and the next is asked.
	b = overTLSBench(t, 2, 0)
	b.noTLS = true
	b.ask(query("a.example", dns.TypeA))
	if b.p.up[0].failures != 1 || b.p.up[1].failures != 1 || b.p.c.Asked != 2 || b.p.c.Retries != 1 || b.p.Outstanding() != 1 || b.p.queries[b.p.active.first-1].tls {
		t.Errorf("%+v, failures %d and %d", b.p.c, b.p.up[0].failures, b.p.up[1].failures)
	}
	if at, any := b.p.Due(); !any || at != b.now+tryTimeout {
		t.Errorf("due at %d, %v", at-b.now, any)
	}
	b.finishAll()
}

// TestTLSLost: what each query does when the connection to an upstream is lost,
// after it has worked or not.
func TestTLSLost(t *testing.T) {
	for _, failed := range []bool{false, true} {
		b := overTLSBench(t, 2, 0)
		for range 4 {
			b.ask(query("a.example", dns.TypeA))
		}
		var q [4]uint16
		for i, k := b.p.active.first, 0; i != 0; i = b.p.queries[i-1].next {
			q[k] = i
			k++
		}
		b.p.queries[q[1]-1].up = 1 // over the other connection
		b.p.queries[q[2]-1].tries = maxTries
		b.p.queries[q[3]-1].start = b.now - queryTimeout
		b.tls = nil
		b.p.TLSLost(0, failed, b.now)
		if len(b.tls) != 1 || b.p.Outstanding() != 4 || len(b.got) != 0 {
			t.Fatalf("failed %v: asked again %d times, %d answers", failed, len(b.tls), len(b.got))
		}
		up, failures := 0, uint8(0)
		if failed {
			up, failures = 1, 1
		}
		if b.tls[0].up != up || b.p.up[0].failures != failures || b.p.queries[q[0]-1].tries != 2 || int(b.p.queries[q[0]-1].up) != up || !b.p.queries[q[0]-1].tls {
			t.Errorf("failed %v: %d is asked, %d failures, %d tries", failed, b.tls[0].up, b.p.up[0].failures, b.p.queries[q[0]-1].tries)
		}
		if !b.p.queries[q[1]-1].tls || b.p.queries[q[1]-1].tries != 1 || b.p.queries[q[2]-1].tls || b.p.queries[q[3]-1].tls {
			t.Errorf("failed %v: what is not asked again", failed)
		}
		b.p.Tick(b.now + tryTimeout) // ends those whose tries or time are over
		if len(b.got) != 2 || b.p.Outstanding() != 2 {
			t.Errorf("failed %v: %d answers, %d under way", failed, len(b.got), b.p.Outstanding())
		}
	}
	// A probe ends with its connection.
	b := overTLSBench(t, 2, 0)
	b.p.up[0].failures = downAfter
	b.ask(query("a.example", dns.TypeA))
	if b.p.probes != 1 || len(b.tls) != 2 {
		t.Fatalf("%d probes", b.p.probes)
	}
	b.p.TLSLost(0, true, b.now)
	if b.p.probes != 0 || b.p.Outstanding() != 1 || len(b.tls) != 2 || b.p.up[0].failures != downAfter+1 {
		t.Fatalf("%d probes, %d under way, %d failures", b.p.probes, b.p.Outstanding(), b.p.up[0].failures)
	}
	b.finishAll()
}

// TestProbeOfPlainWhileTLSIsUp: upstreams without TLS that are down are not probed
// while one with TLS is up.
func TestProbeOfPlainWhileTLSIsUp(t *testing.T) {
	b := overTLSBench(t, 2, 1)
	b.p.up[2].failures, b.p.up[1].failures = downAfter, downAfter
	b.ask(query("a.example", dns.TypeA))
	if len(b.sent) != 0 || len(b.tls) != 2 || b.p.up[2].probed != 0 || b.p.up[1].probed != b.now {
		t.Fatalf("%d in the clear, %d over TLS", len(b.sent), len(b.tls))
	}
	b.p.up[0].failures = downAfter
	b.ask(query("a.example", dns.TypeA))
	if len(b.sent) != 1 || b.sent[0].to != upAddr+12 && b.sent[0].to != packet.Addr(0) {
		t.Fatalf("%+v", b.sent)
	}
	b.finishAll()
}

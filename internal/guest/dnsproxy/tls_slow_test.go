package dnsproxy

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// upstreamOf is the address of upstream number i of overTLSBench.
func upstreamOf(i int) packet.Addr { return upAddr + 10 + packet.Addr(i) }

// TestTLSSlowUpstream: an upstream that takes longer than a try is asked once over its
// connection although the next one is tried in vain meanwhile, and its response counts
// whenever it comes before the query's time is over.
func TestTLSSlowUpstream(t *testing.T) {
	for _, after := range []int64{second, 2 * second, 3 * second, queryTimeout - second/10} {
		b := overTLSBench(t, 2, 0)
		b.refusesTLS = 1 << 1
		start := b.now
		b.ask(query("www.example", dns.TypeA))
		for b.now < start+after {
			b.now += second / 10
			b.p.Tick(b.now)
		}
		if len(b.tls) != 1 || b.p.c.OverTLS != 1+b.refused || len(b.got) != 0 {
			t.Fatalf("after %d ms asked %d times, %d answers, %+v", after/1e6, len(b.tls), len(b.got), b.p.c)
		}
		if tries := (after - 1) / tryTimeout; b.refused != uint64(tries) {
			t.Errorf("after %d ms the other was tried %d times, want %d", after/1e6, b.refused, tries)
		}
		b.p.TLSResponse(1, answerTo(b.tls[0].msg), b.now) // the other has not been asked
		if len(b.got) != 0 || b.p.c.Mismatched != 1 {
			t.Fatalf("an answer of who was not asked: %d answers, %+v", len(b.got), b.p.c)
		}
		b.p.TLSResponse(0, answerTo(b.tls[0].msg), b.now)
		if len(b.got) != 1 || b.p.Outstanding() != 0 || b.done[0].Upstream != upstreamOf(0) {
			t.Fatalf("after %d ms: %d answers, %+v", after/1e6, len(b.got), b.done)
		}
		b.finishAll()
	}
}

// TestTLSSlowUpstreams: of two upstreams that are slow each is asked once, and the first
// response counts, whichever it is of, and no other.
func TestTLSSlowUpstreams(t *testing.T) {
	for first := range 2 {
		for wait := tryTimeout; wait < queryTimeout; wait += tryTimeout {
			b := overTLSBench(t, 2, 0)
			start := b.now
			b.ask(query("www.example", dns.TypeA))
			for b.now < start+wait {
				b.now += second / 20
				b.p.Tick(b.now)
			}
			if len(b.tls) != 2 || b.tls[0].up != 0 || b.tls[1].up != 1 {
				t.Fatalf("after %d ms: %+v", wait/1e6, b.tls)
			}
			b.p.TLSResponse(first, answerTo(b.tls[first].msg), b.now)
			if len(b.got) != 1 || b.done[0].Upstream != upstreamOf(first) || b.p.up[first].failures != 0 {
				t.Fatalf("%d answers, %+v, %+v", len(b.got), b.done, b.p.up)
			}
			b.p.TLSResponse(1-first, answerTo(b.tls[1-first].msg), b.now)
			b.p.TLSResponse(first, answerTo(b.tls[first].msg), b.now)
			if len(b.got) != 1 || b.p.c.Mismatched != 2 {
				t.Fatalf("%d answers, %+v", len(b.got), b.p.c)
			}
			b.finishAll()
		}
	}
}

// TestTLSSlowLost: a connection that is lost while another upstream is tried has the query
// no more: what comes over the next one is no answer until the query is sent over it.
func TestTLSSlowLost(t *testing.T) {
	b := overTLSBench(t, 2, 0)
	start := b.now
	b.ask(query("www.example", dns.TypeA))
	b.now = start + tryTimeout
	b.p.Tick(b.now)
	b.p.TLSLost(0, false, b.now) // it waits for the other
	b.p.TLSResponse(0, answerTo(b.tls[0].msg), b.now)
	if len(b.tls) != 2 || len(b.got) != 0 || b.p.c.Mismatched != 1 {
		t.Fatalf("asked %d times, %d answers", len(b.tls), len(b.got))
	}
	b.now = start + 2*tryTimeout
	b.p.Tick(b.now)
	if len(b.tls) != 3 || b.tls[2].up != 0 {
		t.Fatalf("not asked over the new connection: %+v", b.tls)
	}
	b.p.TLSResponse(1, answerTo(b.tls[1].msg), b.now) // the other still has it
	if len(b.got) != 1 || b.done[0].Upstream != upstreamOf(1) {
		t.Fatalf("%d answers, %+v", len(b.got), b.done)
	}
	b.finishAll()
}

// TestTLSSlowWithoutEDNS: an upstream without EDNS says so late, and is asked without it
// over the same connection; its second response counts.
func TestTLSSlowWithoutEDNS(t *testing.T) {
	b := overTLSBench(t, 2, 0)
	b.refusesTLS = 1 << 1
	b.ask(query("www.example", dns.TypeA))
	b.now += 2 * tryTimeout
	b.p.Tick(b.now)
	m := unpack(t, b.tls[0].msg)
	r := new(dns.Msg).SetRcode(m, dns.RcodeFormatError)
	b.p.TLSResponse(0, pack(t, r), b.now)
	if len(b.tls) != 2 || b.tls[1].up != 0 || unpack(t, b.tls[1].msg).IsEdns0() != nil {
		t.Fatalf("asked %d times: %+v", len(b.tls), b.tls)
	}
	b.p.TLSResponse(0, answerTo(b.tls[1].msg), b.now)
	if len(b.got) != 1 || b.p.Outstanding() != 0 {
		t.Fatalf("%d answers", len(b.got))
	}
	b.finishAll()
}

// TestTLSThenPlain: once a query goes in the clear, where the policy allows that, a late
// response over TLS does not end it: it had another identifier.
func TestTLSThenPlain(t *testing.T) {
	b := overTLSBench(t, 1, 1)
	b.ask(query("www.example", dns.TypeA))
	for range downAfter {
		b.p.noteFailure(0, b.now)
	}
	b.now += tryTimeout
	b.p.Tick(b.now)
	if len(b.tls) != 1 || len(b.sent) != 1 {
		t.Fatalf("%d over TLS, %d in the clear", len(b.tls), len(b.sent))
	}
	b.p.TLSResponse(0, answerTo(b.tls[0].msg), b.now)
	if len(b.got) != 0 || b.p.c.Mismatched != 1 {
		t.Fatalf("%d answers, %+v", len(b.got), b.p.c)
	}
	s := b.sent[0]
	b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, unpack(t, s.msg))), b.now)
	if len(b.got) != 1 {
		t.Fatalf("%d answers", len(b.got))
	}
	b.finishAll()
}

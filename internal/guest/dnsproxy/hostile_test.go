package dnsproxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// rawRR returns a record in wire form.
func rawRR(owner string, typ uint16, rdata string) string {
	return owner + string([]byte{byte(typ >> 8), byte(typ), 0, 1, 0, 0, 0, 60, byte(len(rdata) >> 8), byte(len(rdata))}) + rdata
}

// TestHostileAnswers: no response of an upstream crashes the proxy, is relayed
// without being parsed, or binds what was not asked for.
func TestHostileAnswers(t *testing.T) {
	const self = "\xc0\x0c"
	for what, body := range map[string]struct {
		answers uint16
		raw     string
	}{
		"pointer to itself":      {1, rawRR("\xc0\x1d", 1, "\xc0\x00\x02\x01")},
		"pointers in a circle":   {1, rawRR("\xc0\x1f\xc0\x1d", 1, "\xc0\x00\x02\x01")},
		"pointer forward":        {1, rawRR("\xc0\xff", 1, "\xc0\x00\x02\x01")},
		"label of 64":            {1, rawRR("\x40"+strings.Repeat("a", 64)+"\x00", 1, "\xc0\x00\x02\x01")},
		"name of 300":            {1, rawRR(strings.Repeat("\x3b"+strings.Repeat("a", 59), 5)+"\x00", 1, "\xc0\x00\x02\x01")},
		"address of 3":           {1, rawRR(self, 1, "\xc0\x00\x02")},
		"address of 5":           {1, rawRR(self, 1, "\xc0\x00\x02\x01\x01")},
		"record cut off":         {1, rawRR(self, 1, "\xc0\x00\x02\x01")[:9]},
		"more promised":          {2, rawRR(self, 1, "\xc0\x00\x02\x01")},
		"alias beyond":           {1, rawRR(self, 5, "\x03abc")},
		"alias with a tail":      {1, rawRR(self, 5, self+"x")},
		"OPT among the answers":  {1, rawRR("\x00", 41, "")},
		"65535 records promised": {65535, ""},
	} {
		b := newBench(t, nil)
		b.ask(query("a.example", dns.TypeA))
		s, _ := b.last()
		n := headerLen + len("\x01a\x07example\x00") + 4
		m := slices.Clone(s.msg[:n])
		m[2] |= 0x80
		m[6], m[7], m[11] = byte(body.answers>>8), byte(body.answers), 0
		m = append(m, body.raw...)
		raw := b.answer(m)
		if b.set.Len() != 0 {
			t.Errorf("%s: bound", what)
		}
		if m := unpack(t, raw); m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 || b.p.c.Malformed != 1 {
			t.Errorf("%s: passed on: %v, %d counted", what, m, b.p.c.Malformed)
		}
		b.finishAll()
	}
	// An answer as long as can be, with thousands of addresses.
	b := newBench(t, nil)
	q := query("a.example", dns.TypeA)
	q.SetEdns0(65535, false)
	b.ask(q)
	_, up := b.last()
	r := reply(t, up)
	for i := range 4000 {
		r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: up.Question[0].Name, Rrtype: 1, Class: 1, Ttl: 60}, A: []byte{8, 9, byte(i >> 8), byte(i)}})
	}
	if m := unpack(t, b.answer(pack(t, r))); !m.Truncated || len(m.Answer) != 0 || b.set.Len() != 0 {
		t.Fatalf("%d records, TC %v, %d bindings", len(m.Answer), m.Truncated, b.set.Len())
	}
	b.p.Query(&Client{Addr: client1, Conn: 1}, pack(t, q), b.now)
	_, up = b.last()
	r.Id, r.Question = up.Id, up.Question
	if m := unpack(t, b.answer(pack(t, r))); len(m.Answer) != 4000 || b.set.Len() != maxAddresses || b.p.c.Unbound != 4000-maxAddresses {
		t.Fatalf("%d records, %d bindings, %d not bound", len(m.Answer), b.set.Len(), b.p.c.Unbound)
	}
	// Chains: as long as allowed, longer, in circles.
	for _, n := range []int{maxChain - 1, maxChain, 40} {
		b := newBench(t, nil)
		b.ask(query("l0.example", dns.TypeA))
		_, up := b.last()
		var rrs []string
		for i := range n {
			rrs = append(rrs, fmt.Sprintf("l%d.example. 60 IN CNAME l%d.example.", i, i+1))
		}
		rrs = append(rrs, fmt.Sprintf("l%d.example. 60 IN A 192.0.2.1", n))
		b.answer(pack(t, reply(t, up, rrs...)))
		if got := b.ids("192.0.2.1") != 0; got != (n < maxChain) {
			t.Errorf("a chain of %d aliases: bound %v", n, got)
		}
	}
	b = newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	_, up = b.last()
	b.answer(pack(t, reply(t, up, "@ 60 IN CNAME b.example.", "b.example. 60 IN CNAME @", "b.example. 60 IN A 192.0.2.1", "@ 60 IN A 192.0.2.2")))
	if b.set.Len() != 0 {
		t.Error("a circle of aliases has bound something")
	}
}

// TestHostileClients: messages that are no queries get no response or FORMERR; a
// client over its limits gets SERVFAIL and does not affect others.
func TestHostileClients(t *testing.T) {
	b := newBench(t, nil)
	c := &Client{Addr: client1}
	good := pack(t, query("a.example", dns.TypeA))
	for _, m := range [][]byte{nil, {1}, good[:11], make([]byte, 70000)} {
		b.p.Query(c, m, b.now)
	}
	resp := slices.Clone(good)
	resp[2] |= 0x80
	b.p.Query(c, resp, b.now)
	if len(b.got) != 0 || len(b.sent) != 0 || b.p.c.NotQueries != 5 {
		t.Fatalf("%d answers to what is no query, %d counted", len(b.got), b.p.c.NotQueries)
	}
	for i := headerLen; i < len(good); i++ {
		b.p.Query(c, good[:i], b.now)
	}
	two := slices.Clone(good)
	two[5] = 2
	b.p.Query(c, two, b.now)
	loop := append(slices.Clone(good[:12]), 0xc0, 0x0c, 0, 1, 0, 1)
	b.p.Query(c, loop, b.now)
	for _, raw := range b.got {
		if raw[3]&15 != rcodeFormErr {
			t.Fatalf("the client got %x", raw)
		}
	}
	if len(b.sent) != 0 || len(b.got) == 0 {
		t.Fatalf("%d were passed on", len(b.sent))
	}
	for _, q := range []*dns.Msg{{MsgHdr: dns.MsgHdr{Id: 1, Opcode: dns.OpcodeUpdate}, Question: query("a.example", 6).Question}, query("a.example", dns.TypeAXFR), query("a.example", dns.TypeIXFR)} {
		b.ask(q)
		if m := unpack(t, b.got[len(b.got)-1]); m.Rcode != dns.RcodeNotImplemented || len(b.sent) != 0 {
			t.Fatalf("%v", m)
		}
	}
	// A client fills its share; others still have theirs.
	b.got = nil
	for i := range 3 * maxPerClient {
		b.ask(query(fmt.Sprintf("n%d.example", i), dns.TypeA))
	}
	if b.p.Outstanding() != maxPerClient || len(b.got) != 2*maxPerClient || b.p.c.Outcomes[verdict.DNSOverload] != 2*maxPerClient {
		t.Fatalf("%d under way, %d answered", b.p.Outstanding(), len(b.got))
	}
	for i := range packet.Addr(20) {
		for range maxPerClient {
			b.p.Query(&Client{Addr: 0x0a010000 + i}, good, b.now)
		}
	}
	if b.p.Outstanding() != b.p.clientRoom {
		t.Fatalf("%d under way", b.p.Outstanding())
	}
	b.finishAll()
	b.ask(query("a.example", dns.TypeA))
	if b.p.Outstanding() != 1 {
		t.Fatal("the share has not come back")
	}
}

// TestFlood: a flood of forged responses binds nothing, and the real one is still
// accepted.
func TestFlood(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	s, up := b.last()
	forged := pack(t, reply(t, up, "@ 60 IN A 192.0.2.66"))
	for i := range 200000 {
		m := forged
		m[0], m[1] = byte(b.rnd.Uint32()), byte(b.rnd.Uint32())
		if be16(m) == up.Id {
			continue
		}
		b.p.UDPResponse(upAddr, 53, uint16(i), m, b.now)
	}
	if b.set.Len() != 0 || len(b.got) != 0 || b.p.Outstanding() != 1 {
		t.Fatalf("%d bindings, %d answers", b.set.Len(), len(b.got))
	}
	_ = s
	if len(b.tcp) != 0 {
		t.Fatal("only who hits the port many times makes the proxy leave UDP")
	}
	if b.answer(pack(t, reply(t, up, "@ 60 IN A 192.0.2.1"))) == nil {
		t.Fatal("the real answer was not taken")
	}
}

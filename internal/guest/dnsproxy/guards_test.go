package dnsproxy

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestRDATALengths: for every type with names in its RDATA, the shortest RDATA is well
// formed, one byte less is not, and one byte more is only where any bytes may follow.
func TestRDATALengths(t *testing.T) {
	const root = "\x00"
	n := func(k int) string { return strings.Repeat("\x01", k) }
	for _, c := range []struct {
		typ   int
		rdata string
		more  bool
	}{
		{typeNS, root, false}, {typeMD, root, false}, {typeMF, root, false}, {typeCNAME, root, false}, {typeMB, root, false}, {typeMG, root, false},
		{typeMR, root, false}, {typePTR, root, false}, {typeNSAPPTR, root, false}, {typeDNAME, root, false}, {typeSOA, root + root + n(20), false},
		{typeMINFO, root + root, false}, {typeRP, root + root, false}, {typeTALINK, root + root, false}, {typeMX, n(2) + root, false},
		{typeAFSDB, n(2) + root, false}, {typeRT, n(2) + root, false}, {typeKX, n(2) + root, false}, {typeLP, n(2) + root, false},
		{typePX, n(2) + root + root, false}, {typeSRV, n(6) + root, false}, {typeSIG, n(18) + root, true}, {typeRRSIG, n(18) + root, true},
		{typeNXT, root, true}, {typeNSEC, root, true}, {typeTKEY, root, true}, {typeTSIG, root, true}, {typeSVCB, n(2) + root, true},
		{typeHTTPS, n(2) + root, true}, {typeDSYNC, n(5) + root, false}, {typeNAPTR, n(4) + "\x00\x02ab\x00" + root, false},
		{typeA6, "\x80" + root, false}, {typeA6, "\x7f" + n(1) + root, false}, {typeA6, "\x01" + n(16) + root, false}, {typeA6, "\x00" + n(16), false},
		{typeIPSECKEY, "\x01\x03\x01" + root, true}, {typeAMTRELAY, "\x01\x03" + root, false}, {typeAMTRELAY, "\x01\x83" + root, false},
		{typeHIP, "\x00\x01\x00\x00", false}, {typeHIP, "\x02\x01\x00\x03" + n(5), false}, {typeHIP, "\x02\x01\x00\x03" + n(5) + root + root, false},
	} {
		for diff := -1; diff <= 1; diff++ {
			rdata := c.rdata + "\x01"
			rdata = rdata[:len(c.rdata)+diff]
			m := []byte(strings.Repeat("\x00", headerLen) + rawRR(root, uint16(c.typ), rdata))
			var r rr
			if !record(m, headerLen, &r) {
				t.Fatalf("type %d: no record", c.typ)
			}
			want := diff == 0 || diff == 1 && c.more
			if c.typ == typeHIP && strings.HasSuffix(c.rdata, n(5)+root+root) {
				want = diff < 1 // one name less is as well
			}
			if got := (&response{}).wellFormed(m, &r); got != want {
				t.Errorf("type %d, %x: %v", c.typ, rdata, got)
			}
		}
	}
	m := []byte(strings.Repeat("\x00", headerLen) + rawRR(root, typeA6, "\x81"+root))
	var r rr
	if record(m, headerLen, &r); (&response{}).wellFormed(m, &r) {
		t.Error("an A6 record with a prefix of 129 bits")
	}
}

// TestHintLengths: hints of service bindings are whole addresses, and at least one.
func TestHintLengths(t *testing.T) {
	for key, size := range map[int]int{keyIPv4Hint: 4, keyIPv6Hint: 16} {
		for _, n := range []int{0, 1, size - 1, size, size + 1, 2*size - 1, 2 * size} {
			b := newBench(t, nil)
			b.ask(query("a.example", dns.TypeHTTPS))
			s, _ := b.last()
			m := slices.Clone(s.msg[:headerLen+len("\x01a\x07example\x00")+4])
			m[2], m[7], m[11] = m[2]|0x80, 1, 0
			rdata := "\x00\x01\x00" + string([]byte{0, byte(key), 0, byte(n)}) + strings.Repeat("\x08", n)
			r := unpack(t, b.answer(append(m, rawRR(pointer(headerLen), typeHTTPS, rdata)...)))
			if good := n > 0 && n%size == 0; (r.Rcode == dns.RcodeSuccess) != good || (b.p.c.Malformed == 0) != good {
				t.Errorf("key %d, %d bytes: %v", key, n, r)
			}
		}
	}
}

// TestOPTOwner (RFC 6891 section 6.1.2): the owner of an OPT record is the root.
func TestOPTOwner(t *testing.T) {
	for owner, good := range map[string]bool{"\x00": true, "\x01a\x00": false} {
		b := newBench(t, nil)
		b.ask(query("a.example", dns.TypeA))
		s, _ := b.last()
		m := slices.Clone(s.msg[:headerLen+len("\x01a\x07example\x00")+4])
		m[2], m[11] = m[2]|0x80, 1
		r := unpack(t, b.answer(append(m, rawRR(owner, typeOPT, "")...)))
		if (r.Rcode == dns.RcodeSuccess) != good || (b.p.c.Malformed == 0) != good {
			t.Errorf("%x: %v", owner, r)
		}
	}
}

// TestAliasesMayBeQueried: where queries follow the policy, a client may also query
// the names of an alias chain that it has resolved, and only that client.
func TestAliasesMayBeQueried(t *testing.T) {
	b := newBench(t, func(p *ruleset.Policy) {
		p.Settings.Flags |= ruleset.FlagDNSFollow
		p.Matches = []ruleset.Match{{Name: 1, Action: ruleset.Accept}} // *.example
		p.Rules = []ruleset.Rule{{Action: ruleset.Accept}}
	})
	b.ask(query("target.test", dns.TypeA))
	if len(b.sent) != 0 || b.done[0].Outcome != verdict.DNSBlockedPolicy {
		t.Fatalf("%d queries, %+v", len(b.sent), b.done)
	}
	b.ask(query("a.example", dns.TypeA))
	_, up := b.last()
	b.answer(pack(t, reply(t, up, "a.example. 60 IN CNAME target.test.", "target.test. 60 IN A 192.0.2.1")))
	n := len(b.sent)
	if b.ask(query("target.test", dns.TypeA)); len(b.sent) != n+1 {
		t.Errorf("the target is refused: %+v", b.done[len(b.done)-1])
	}
}

// TestNoRoomOverTCP: a truncated response is not fetched if there is no room over TCP
// or the transport cannot: the client gets SERVFAIL, and nothing is cancelled.
func TestNoRoomOverTCP(t *testing.T) {
	for _, full := range []bool{true, false} {
		b := newBench(t, nil)
		if b.noTCP = !full; full {
			for range maxTCP {
				b.truncated()
			}
			if b.p.tcp != maxTCP || len(b.done) != 0 {
				t.Fatalf("%d over TCP", b.p.tcp)
			}
		}
		b.truncated()
		if len(b.done) != 1 || b.done[0].Outcome != verdict.DNSOverload || unpack(t, b.got[0]).Rcode != dns.RcodeServerFailure || len(b.dropped) != 0 {
			t.Errorf("full %v: %+v, %d cancelled", full, b.done, len(b.dropped))
		}
		if full != (b.p.tcp == maxTCP) {
			t.Errorf("%d over TCP", b.p.tcp)
		}
	}
}

// truncated asks, and gets a truncated response from the upstream.
func (b *bench) truncated() {
	b.ask(query("a.example", dns.TypeA))
	s, up := b.last()
	r := reply(b.t, up)
	r.Truncated = true
	b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(b.t, r), b.now)
}

// TestProbeTimesOut: a probe without a response ends, and is not sent elsewhere.
func TestProbeTimesOut(t *testing.T) {
	b := newBench(t, twoPlain)
	for range downAfter {
		b.p.noteFailure(0, b.now)
	}
	b.now += probeEvery
	b.ask(query("a.example", dns.TypeA))
	if len(b.sent) != 2 || b.p.probes != 1 {
		t.Fatalf("%d queries, %d probes", len(b.sent), b.p.probes)
	}
	for _, s := range b.sent {
		if s.to != upAddr { // the other upstream responds, the probe does not get a response
			b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, unpack(t, s.msg))), b.now)
		}
	}
	b.now += tryTimeout
	if b.p.Tick(b.now); len(b.sent) != 2 || b.p.probes != 0 || b.p.Outstanding() != 0 || len(b.done) != 1 || b.p.up[0].failures != downAfter+1 {
		t.Errorf("%d queries, %d probes, %d pending, %+v", len(b.sent), b.p.probes, b.p.Outstanding(), b.p.up[0])
	}
}

// TestTLSWaitsForTheQuerysTime: over the only upstream with TLS a query is not sent
// again; it waits until its time is over.
func TestTLSWaitsForTheQuerysTime(t *testing.T) {
	b := overTLSBench(t, 1, 0)
	begin := b.now
	b.ask(query("a.example", dns.TypeA))
	b.now += tryTimeout
	b.p.Tick(b.now)
	if at, any := b.p.Due(); !any || at != begin+queryTimeout || len(b.done) != 0 {
		t.Fatalf("due at %d (%v), %+v", at-begin, any, b.done)
	}
	b.now = begin + queryTimeout
	if b.p.Tick(b.now); len(b.done) != 1 || b.done[0].Outcome != verdict.DNSTimeout {
		t.Errorf("%+v", b.done)
	}
}

// TestPreemptForAClientWithNone: a client without a query over TCP gets one if every
// other has one: the oldest query ends, however recent it is.
func TestPreemptForAClientWithNone(t *testing.T) {
	b := newBench(t, nil)
	for i := range packet.Addr(maxTCP + 1) {
		b.p.Query(&Client{Addr: client1 + i, Port: 4000, Server: 1}, pack(t, query("a.example", dns.TypeA)), b.now)
		s, up := b.last()
		r := reply(t, up)
		r.Truncated = true
		b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, r), b.now)
		b.now++
	}
	if len(b.done) != 1 || unpack(t, b.got[0]).Rcode != dns.RcodeServerFailure || b.done[0].Client.Addr != client1 || b.p.tcp != maxTCP || len(b.dropped) != 1 {
		t.Fatalf("%d over TCP, %+v", b.p.tcp, b.done)
	}
}

// TestNameOfAMalformedQuery: the result of a malformed query names the root, whatever
// was queried before.
func TestNameOfAMalformedQuery(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	s, _ := b.last()
	b.answer(answerTo(s.msg))
	m := pack(t, query("a.example", dns.TypeA))
	b.p.Query(&Client{Addr: client1, Port: 4000, Server: 1}, m[:len(m)-1], b.now)
	if d := b.done[len(b.done)-1]; len(b.done) != 2 || d.Outcome != verdict.DNSMalformed || string(d.Name) != "\x00" {
		t.Fatalf("%+v", b.done)
	}
}

// TestProbeWithoutPort: a probe for which there is no port is dropped: no client waits
// for it.
func TestProbeWithoutPort(t *testing.T) {
	b := newBench(t, twoPlain)
	for range downAfter {
		b.p.noteFailure(0, b.now)
	}
	b.now += probeEvery
	b.p.cfg.Transport = &portless{bench: b, port: 4242} // the probe's, which is sent first
	if b.ask(query("a.example", dns.TypeA)); b.p.probes != 1 || len(b.done) != 1 || len(b.got) != 1 {
		t.Fatalf("%d probes, %+v", b.p.probes, b.done)
	}
	b.now += probeEvery
	b.p.cfg.Transport = &portless{bench: b}
	if b.ask(query("a.example", dns.TypeA)); len(b.done) != 2 || len(b.got) != 2 || b.p.Outstanding() != 1 {
		t.Fatalf("%d pending, %d replies, %+v", b.p.Outstanding(), len(b.got), b.done)
	}
	for _, d := range b.done {
		if d.Client.Addr != client1 {
			t.Errorf("a result of no client: %+v", d)
		}
	}
}

// TestMalformedResponses: a response is malformed if it ends within a record without
// TC, whatever its code, or its OPT record has a malformed option.
func TestMalformedResponses(t *testing.T) {
	a := rawRR(pointer(headerLen), typeA, "\xc0\x00\x02\x01")
	for what, c := range map[string]struct {
		code, an, ar byte
		body         string
		good         bool
	}{
		"whole":                        {0, 1, 0, a, true},
		"cut off":                      {0, 1, 0, a[:len(a)-1], false},
		"cut off, with code 1":         {1, 1, 0, a[:len(a)-1], false},
		"with an option":               {0, 1, 1, a + rawRR("\x00", typeOPT, "\x00\x0f\x00\x01x"), true},
		"with half an option":          {0, 1, 1, a + rawRR("\x00", typeOPT, "\x00\x0f\x00"), false},
		"with an option that is short": {0, 1, 1, a + rawRR("\x00", typeOPT, "\x00\x0f\x00\x02x"), false},
	} {
		b := newBench(t, nil)
		b.ask(query("a.example", dns.TypeA))
		s, _ := b.last()
		m := slices.Clone(s.msg[:headerLen+len("\x01a\x07example\x00")+4])
		m[2], m[3], m[7], m[11] = m[2]|0x80, c.code, c.an, c.ar
		r := unpack(t, b.answer(append(m, c.body...)))
		if (r.Rcode == dns.RcodeSuccess) != c.good || (b.p.c.Malformed == 0) != c.good || len(b.tcp) != 0 {
			t.Errorf("%s: %v, %+v", what, r, b.p.c)
		}
	}
}

// TestLongestReplyOverTCP: a reply of 65535 bytes is relayed whole over TCP; one that
// becomes longer by the proxy's OPT record is truncated.
func TestLongestReplyOverTCP(t *testing.T) {
	const opt = 11
	for over, whole := range map[int]bool{0: true, 1: false} {
		b := newBench(t, nil)
		q := query("a.example", dns.TypeA)
		q.SetEdns0(1232, false)
		b.p.Query(&Client{Addr: client1, Port: 4000, Server: 1, Conn: 9}, pack(t, q), b.now)
		s, _ := b.last()
		m := slices.Clone(s.msg[:headerLen+len("\x01a\x07example\x00")+4])
		m[2], m[7], m[11] = m[2]|0x80, 1, 0
		m = append(m, rawRR(pointer(headerLen), 16, string(make([]byte, maxMsg-opt-12-len(m)+over)))...)
		got := b.answer(m)
		if tc := got[2]&(flagTC>>8) != 0; tc == whole || whole && len(got) != maxMsg || !whole && len(got) > 100 {
			t.Errorf("%d more: %d bytes, TC %v", over, len(got), tc)
		}
	}
}

// TestHintsThatDoNotCount: hints of a type that was not queried are not bound, and do
// not count as addresses for which there was no room.
func TestHintsThatDoNotCount(t *testing.T) {
	for typ, unbound := range map[uint16]uint64{dns.TypeA: 0, dns.TypeHTTPS: 10} {
		b := newBench(t, nil)
		b.p.Query(&Client{Addr: client1, Port: 4000, Server: 1, Conn: 9}, pack(t, query("a.example", typ)), b.now)
		s, _ := b.last()
		m := slices.Clone(s.msg[:headerLen+len("\x01a\x07example\x00")+4])
		m[2], m[7], m[11] = m[2]|0x80, 1, 0
		n := 4 * (maxAddresses + 10)
		hint := "\x00\x01\x00\x00\x04" + string([]byte{byte(n >> 8), byte(n)}) + strings.Repeat("\x08\x08\x08\x08", maxAddresses+10)
		b.answer(append(m, rawRR(pointer(headerLen), typeHTTPS, hint)...))
		if b.p.c.Unbound != unbound || b.p.c.Malformed != 0 {
			t.Errorf("type %d: %+v", typ, b.p.c)
		}
	}
}

// TestEDNSOfTheNextUpstream: that an upstream does not support EDNS says nothing of the
// next one.
func TestEDNSOfTheNextUpstream(t *testing.T) {
	b := newBench(t, twoPlain)
	b.ask(query("a.example", dns.TypeA))
	s, up := b.last()
	r := reply(t, up)
	r.Extra, r.Rcode = nil, dns.RcodeFormatError
	b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, r), b.now)
	if _, up := b.last(); len(b.sent) != 2 || up.IsEdns0() != nil {
		t.Fatalf("%d queries, %v", len(b.sent), up)
	}
	b.now += tryTimeout
	b.p.Tick(b.now)
	if s, up := b.last(); len(b.sent) != 3 || s.to == upAddr || up.IsEdns0() == nil {
		t.Errorf("%d queries, the last to %v: %v", len(b.sent), s.to, up)
	}
}

package dnsproxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestMismatches: a response is accepted only from the address and port to which the
// query was sent, to its port, and with its whole question. Others are counted, and
// the right one is still accepted.
func TestWhatIsNoAnswer(t *testing.T) {
	for what, change := range map[string]func(s *sent, m []byte) []byte{
		"another server":            func(s *sent, m []byte) []byte { s.to++; return m },
		"another port of it":        func(s *sent, m []byte) []byte { s.toPort++; return m },
		"identifier, first byte":    func(_ *sent, m []byte) []byte { m[0]++; return m },
		"identifier, second byte":   func(_ *sent, m []byte) []byte { m[1]++; return m },
		"a query":                   func(_ *sent, m []byte) []byte { m[2] &^= 0x80; return m },
		"another operation":         func(_ *sent, m []byte) []byte { m[2] |= 8; return m },
		"operation 8":               func(_ *sent, m []byte) []byte { m[2] |= 0x40; return m },
		"no question":               func(_ *sent, m []byte) []byte { m[5] = 0; return m },
		"two questions":             func(_ *sent, m []byte) []byte { m[5] = 2; return m },
		"257 questions":             func(_ *sent, m []byte) []byte { m[4] = 1; return m },
		"first letter of the name":  func(_ *sent, m []byte) []byte { m[headerLen+1]++; return m },
		"length of the first label": func(_ *sent, m []byte) []byte { m[headerLen]++; return m },
		"last byte of the name":     func(_ *sent, m []byte) []byte { m[bodyAt-5]++; return m },
		"type, first byte":          func(_ *sent, m []byte) []byte { m[bodyAt-4]++; return m },
		"type, second byte":         func(_ *sent, m []byte) []byte { m[bodyAt-3]++; return m },
		"class, first byte":         func(_ *sent, m []byte) []byte { m[bodyAt-2]++; return m },
		"class, second byte":        func(_ *sent, m []byte) []byte { m[bodyAt-1]++; return m },
		"a byte less":               func(_ *sent, m []byte) []byte { return m[:bodyAt-1] },
	} {
		for _, how := range ways {
			if how != "UDP" && (what == "another server" || what == "another port of it") {
				continue
			}
			b := newBench(t, overOf(how))
			b.ask(query("a.example", dns.TypeA))
			give := func(m []byte, _ sent) { b.p.TLSResponse(0, m, b.now) }
			var s sent
			var asked []byte
			switch how {
			case "TLS":
				asked = b.tls[0].msg
			case "TCP":
				r := reply(t, unpack(t, b.sent[0].msg))
				r.Truncated = true
				b.answer(pack(t, r))
				asked = b.tcp[0].msg
				give = func(m []byte, _ sent) { b.p.TCPResponse(b.tcp[0].tag, m, b.now) }
			default:
				s, asked = b.sent[0], b.sent[0].msg
				give = func(m []byte, s sent) { b.p.UDPResponse(s.to, s.toPort, s.myPort, m, b.now) }
			}
			right := bytes.Clone(asked[:bodyAt])
			right[2], right[11] = right[2]|0x80, 0
			wrong := s
			give(change(&wrong, bytes.Clone(right)), wrong)
			if b.p.c.Mismatched != 1 || len(b.got) != 0 || b.set.Len() != 0 || b.p.Outstanding() != 1 {
				t.Errorf("%s, %s: %d answers, %+v", how, what, len(b.got), b.p.c)
			}
			if how == "TCP" { // nothing else comes over this connection: asked again, over UDP
				if len(b.sent) != 2 || b.p.tcp != 0 || b.p.up[0].failures != 1 {
					t.Fatalf("TCP, %s: asked %d times, %d failures", what, len(b.sent), b.p.up[0].failures)
				}
				m := reply(t, unpack(t, b.sent[1].msg))
				if b.answer(pack(t, m)); len(b.got) != 1 {
					t.Errorf("TCP, %s: %d answers", what, len(b.got))
				}
				continue
			}
			if give(right, s); len(b.got) != 1 || b.p.Outstanding() != 0 || b.p.c.Mismatched != 1 {
				t.Errorf("%s, %s: then %d answers, %+v", how, what, len(b.got), b.p.c)
			}
		}
	}
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	s := b.sent[0]
	m := reply(t, unpack(t, s.msg))
	b.p.UDPResponse(s.to, s.toPort, s.myPort+1, pack(t, m), b.now)
	if len(b.got) != 0 || b.p.c != (Counters{Queries: 1, Asked: 1}) {
		t.Errorf("to another port: %d answers, %+v", len(b.got), b.p.c)
	}
}

// TestForgeriesLeadToTCP: after tcpAfter mismatches, and not before, a query is
// retried over TCP; a probe ends. After a response in another case it is retried at
// once.
func TestForgeriesLeadToTCP(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	s := b.sent[0]
	for i := range 2 * tcpAfter {
		want := 0
		if i >= tcpAfter {
			want = 1
		}
		if len(b.tcp) != want {
			t.Fatalf("%d forgeries: %d over TCP", i, len(b.tcp))
		}
		b.p.UDPResponse(s.to+1, s.toPort, s.myPort, s.msg, b.now)
	}
	if c := b.p.c; c.Mismatched != tcpAfter || c.OverTCP != 1 || c.Asked != 2 || c.Retries != 1 || c.WrongCase != 0 || b.p.OwnsPort(s.myPort) || len(b.ports) != 0 {
		t.Fatalf("%+v, port kept %v", c, b.p.OwnsPort(s.myPort))
	}
	if a := b.tcp[0]; a.to != upAddr || a.toPort != 53 || a.tag != b.p.tag(b.p.active.first) || string(a.msg) != string(s.msg) {
		t.Fatalf("%+v", a)
	}
	b.p.TCPResponse(b.tcp[0].tag, answerTo(b.tcp[0].msg), b.now)
	if len(b.got) != 1 || b.p.tcp != 0 || b.p.Outstanding() != 0 {
		t.Fatalf("%d answers, %d over TCP", len(b.got), b.p.tcp)
	}
	for _, probe := range []bool{false, true} {
		b := newBench(t, twoPlain)
		b.p.up[0].failures = downAfter
		b.ask(query("abcdefgh.example", dns.TypeA)) // enough letters for the case to differ
		s := b.sent[1]                              // the query; the probe is first
		if probe {
			s = b.sent[0]
		}
		if (s.to == upAddr) != probe {
			t.Fatalf("%+v", s)
		}
		other := answerTo(s.msg)
		other[headerLen+1] ^= 0x20
		got := len(b.got)
		b.p.UDPResponse(s.to, s.toPort, s.myPort, other, b.now)
		if c := b.p.c; c.WrongCase != 1 || c.Mismatched != 0 || len(b.got) != got {
			t.Fatalf("probe %v: %+v", probe, c)
		}
		if probe && (len(b.tcp) != 0 || b.p.probes != 0 || b.p.up[0].failures != downAfter) || !probe && (len(b.tcp) != 1 || b.tcp[0].to != up2Addr || b.tcp[0].toPort != 5353) {
			t.Fatalf("probe %v: %d over TCP, %d probes, %d failures", probe, len(b.tcp), b.p.probes, b.p.up[0].failures)
		}
		// Forgeries of answers to a probe never make it go on over TCP.
		if !probe {
			for range 3 * tcpAfter {
				b.p.UDPResponse(b.sent[0].to, 1, b.sent[0].myPort, nil, b.now)
			}
			if len(b.tcp) != 1 || b.p.probes != 1 || b.p.c.Mismatched != 3*tcpAfter {
				t.Fatalf("%d over TCP, %d probes", len(b.tcp), b.p.probes)
			}
		}
		b.finishAll()
	}
}

// TestOldTags: a tag is valid only for one query, while it is pending over TCP.
func TestOldTags(t *testing.T) {
	b := newBench(t, nil)
	over := func() uint32 {
		b.ask(query("a.example", dns.TypeA))
		r := reply(t, unpack(t, b.sent[len(b.sent)-1].msg))
		r.Truncated = true
		b.answer(pack(t, r))
		return b.tcp[len(b.tcp)-1].tag
	}
	old := over()
	b.p.TCPFailed(old, b.now) // it is asked again over UDP
	if s := b.sent[len(b.sent)-1]; len(b.sent) != 2 || b.p.tcp != 0 || b.p.up[0].failures != 1 {
		t.Fatalf("asked %d times, %d over TCP", len(b.sent), b.p.tcp)
	} else if b.p.UDPResponse(s.to, s.toPort, s.myPort, answerTo(s.msg), b.now); len(b.got) != 1 {
		t.Fatalf("%d answers", len(b.got))
	}
	b.ask(query("a.example", dns.TypeA)) // in the place of the one that is gone, over UDP
	i := b.p.active.first
	tag := over()
	for _, wrong := range []uint32{0, old, tag &^ 0xffff, tag + 1<<16, tag - 1<<16, tag&^0xffff | 0xffff, tag&^0xffff | maxPending + 1, b.p.tag(i), 1<<16 | maxPending} {
		b.p.TCPFailed(wrong, b.now)
		b.p.TCPResponse(wrong, answerTo(b.tcp[1].msg), b.now)
		if len(b.got) != 1 || b.p.Outstanding() != 2 || b.p.c.Mismatched != 0 {
			t.Fatalf("tag %x was taken for %x", wrong, tag)
		}
	}
	if b.p.TCPResponse(tag, answerTo(b.tcp[1].msg), b.now); len(b.got) != 2 {
		t.Fatal("the right one was not")
	}
	b.p.TCPResponse(tag, answerTo(b.tcp[1].msg), b.now)
	b.p.TCPFailed(tag, b.now)
	if len(b.got) != 2 || b.p.up[0].failures != 0 {
		t.Fatal("it was taken twice")
	}
	b.finishAll()
}

// TestTruncation: a response of the client's maximum length is relayed whole; a
// longer one is truncated, to the question and the proxy's OPT record.
func TestTruncation(t *testing.T) {
	for _, c := range []struct {
		size, max, limit int // the client's, the link's; of what fits
		edns, tcp        bool
	}{
		{0, 1472, 512, false, false}, {512, 1472, 512, true, false}, {100, 1472, 512, true, false}, {1232, 1472, 1232, true, false},
		{4096, 1472, 1472, true, false}, {65535, 1400, 1400, true, false}, {4096, 100, 512, true, false}, {0, 1472, 65535, false, true}, {512, 1472, 65535, true, true},
	} {
		for _, over := range []int{0, 1} {
			for _, rcode := range []int{0, 3, 16 + 7} {
				if rcode > 15 && !c.edns {
					continue
				}
				b := newBench(t, nil)
				b.p.cfg.MaxUDP = max(c.max, minUDP)
				q := query("A.example", dns.TypeA)
				q.RecursionDesired = rcode == 0
				if c.edns {
					q.SetEdns0(uint16(c.size), true)
				}
				client := Client{Addr: client1}
				if c.tcp {
					client.Conn = 1
				}
				b.p.Query(&client, pack(t, q), b.now)
				s, _ := b.last()
				// One address, and another record that fills it up.
				m := bytes.Clone(s.msg[:bodyAt])
				m[2], m[3], m[7], m[9], m[11] = m[2]|0x80, byte(rcode&15), 1, 1, 1
				opt := appendOPT(nil, 4096, uint8(rcode>>4), false, nil)
				m = append(m, rawRR(pointer(headerLen), typeA, "\xc0\x00\x02\x01")...)
				fill := c.limit + over - len(m) - 12
				if c.edns {
					fill -= len(opt)
				}
				rest := min(fill, 60000)
				m = append(m, rawRR(pointer(headerLen), 16, string(make([]byte, rest)))...)
				if rest < fill { // in two
					m[9] = 2
					m = append(m, rawRR(pointer(headerLen), 16, string(make([]byte, fill-rest-12)))...)
				}
				if len(m)+len(opt) > maxMsg {
					m[11], opt = 0, nil
				}
				if c.limit == maxMsg && (over > 0 || rcode > 15) {
					continue // there is none that is longer
				}
				got := b.answer(append(m, opt...))
				what := fmt.Sprintf("%+v, %d more, code %d", c, over, rcode)
				r := unpack(t, got)
				if r.Rcode != rcode || (r.IsEdns0() != nil) != c.edns || r.Id != 77 || r.Question[0].Name != "A.example." || r.RecursionDesired != (rcode == 0) {
					t.Errorf("%s: %v", what, r.MsgHdr)
				}
				if o := r.IsEdns0(); o != nil && o.UDPSize() != upstreamSize {
					t.Errorf("%s: a size of %d is announced", what, o.UDPSize())
				}
				if over == 0 {
					if len(got) != c.limit || r.Truncated || len(r.Answer) != 1 || b.p.c.Truncated != 0 || (b.ids("192.0.2.1") != 0) != (rcode == 0) || (b.done[0].Bound == 1) != (rcode == 0) {
						t.Errorf("%s: %d bytes, TC %v, %+v", what, len(got), r.Truncated, b.p.c)
					}
					continue
				}
				want := bodyAt
				if c.edns {
					want += 11
				}
				if len(got) != want || !r.Truncated || b.p.c.Truncated != 1 || b.set.Len() != 0 || b.done[0].Bound != 0 || string(got[6:11]) != "\x00\x00\x00\x00\x00" || (got[11] == 1) != c.edns || got[11] > 1 {
					t.Errorf("%s: %x, %+v", what, got, b.p.c)
				}
			}
		}
	}
	// Without EDNS no additional record is promised.
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	s, up := b.last()
	r := reply(t, up, many("@ 60 IN TXT \""+strings.Repeat("x", 200)+"\"", 3)...)
	with(t, r, "extra", "ns.example. 60 IN A 192.0.2.53", "ns2.example. 60 IN A 192.0.2.53")
	if got := b.answer(pack(t, r)); string(got[6:12]) != "\x00\x00\x00\x00\x00\x00" || len(got) != bodyAt || s.to != upAddr {
		t.Errorf("%x", got)
	}
}

// TestCutOffResponses: a response that ends within a record is retried over TCP if
// it has TC, and malformed if it has not, or arrives over TCP or TLS.
func TestCutOffResponses(t *testing.T) {
	for _, how := range ways {
		for _, tc := range []byte{0, flagTC >> 8} {
			b := newBench(t, overOf(how))
			b.ask(query("a.example", dns.TypeA))
			cut := func(asked []byte, tc byte) []byte {
				m := bytes.Clone(asked[:bodyAt])
				m[2], m[7], m[11] = m[2]|0x80|tc, 1, 0
				return append(m, rawRR(pointer(headerLen), typeA, "\xc0\x00\x02\x01")[:9]...)
			}
			switch how {
			case "TLS":
				b.p.TLSResponse(0, cut(b.tls[0].msg, tc), b.now)
			case "TCP":
				b.answer(cut(b.sent[0].msg, flagTC>>8))
				b.p.TCPResponse(b.tcp[0].tag, cut(b.tcp[0].msg, tc), b.now)
			default:
				b.answer(cut(b.sent[0].msg, tc))
			}
			if again := how == "UDP" && tc != 0; again && (len(b.tcp) != 1 || len(b.got) != 0 || b.p.c.Malformed != 0) ||
				!again && (len(b.got) != 1 || b.got[0][3]&15 != rcodeServFail || b.p.c.Malformed != 1) {
				t.Errorf("%s, TC %v: %d over TCP, %d answers, %+v", how, tc != 0, len(b.tcp), len(b.got), b.p.c)
			}
			b.finishAll()
		}
	}
}

// TestUpstreamsWithoutEDNS (RFC 6891 section 6.2.2): each error code with which an
// upstream refuses EDNS, over each transport; the query is retried without EDNS
// once.
func TestUpstreamsWithoutEDNS(t *testing.T) {
	for _, how := range ways {
		for rcode := range 16 {
			for _, knows := range []bool{false, true} {
				b := newBench(t, overOf(how))
				b.ask(query("a.example", dns.TypeA))
				answer := func(asked []byte) []byte {
					r := reply(t, unpack(t, asked))
					r.Rcode = rcode
					if r.Extra = nil; knows {
						r.SetEdns0(1232, false)
					}
					return pack(t, r)
				}
				asked := func() int { return len(b.sent) + len(b.tls) + len(b.tcp) }
				switch how {
				case "TLS":
					b.p.TLSResponse(0, answer(b.tls[0].msg), b.now)
				case "TCP":
					r := reply(t, unpack(t, b.sent[0].msg))
					r.Truncated = true
					b.answer(pack(t, r))
					b.p.TCPResponse(b.tcp[0].tag, answer(b.tcp[0].msg), b.now)
				default:
					b.answer(answer(b.sent[0].msg))
				}
				again := !knows && (rcode == rcodeFormErr || rcode == rcodeNotImp)
				switch {
				case again && how == "TCP": // it answers over UDP only; this try was the last
					if d := b.done[0]; len(b.got) != 1 || d.Outcome != verdict.DNSTimeout || b.got[0][3]&15 != rcodeServFail {
						t.Errorf("TCP, code %d: %+v", rcode, b.done)
					}
				case again:
					want := 1
					if how == "UDP" {
						want = 0
					}
					if len(b.got) != 0 || asked() != 2 || len(b.tls) != 2*want || b.p.c.Retries != 1 {
						t.Fatalf("%s, code %d: %d answers, asked %d times", how, rcode, len(b.got), asked())
					}
					var second []byte
					if how == "TLS" {
						second = b.tls[1].msg
					} else {
						second = b.sent[1].msg
					}
					if unpack(t, second).IsEdns0() != nil {
						t.Errorf("%s, code %d: asked with EDNS again", how, rcode)
					}
					if how == "TLS" {
						b.p.TLSResponse(0, answer(second), b.now)
					} else {
						b.answer(answer(second))
					}
					if len(b.got) != 1 || int(b.got[0][3]&15) != rcode {
						t.Errorf("%s, code %d: the second answer is not passed on", how, rcode)
					}
				case len(b.got) != 1 || int(b.got[0][3]&15) != rcode:
					t.Errorf("%s, code %d, knows EDNS %v: %d answers", how, rcode, knows, len(b.got))
				}
				b.finishAll()
			}
		}
	}
}

// TestMoreThanIsExamined: with blocked names, a response with more aliases or
// targets than are examined is refused, as is one with a blocked name anywhere; many
// addresses are no reason.
func TestMoreThanIsLookedAt(t *testing.T) {
	const hint = "@ 60 IN HTTPS 1 t.example. ipv4hint=192.0.2.1"
	const none = "@ 60 IN HTTPS 1 . ipv4hint=192.0.2.1"
	const bad = "@ 60 IN HTTPS 1 ads.test. ipv4hint=192.0.2.1"
	const alias, badAlias = "x.example. 60 IN CNAME t.example.", "x.example. 60 IN CNAME ads.test."
	for _, c := range []struct {
		what    string
		typ     uint16
		rrs     []string
		blocked int // code where a name is blocked
	}{
		{"128 addresses", dns.TypeA, many("@ 60 IN A 192.0.2.1", maxAddresses), 0},
		{"129 addresses", dns.TypeA, many("@ 60 IN A 192.0.2.1", maxAddresses+1), 0},
		{"300 addresses", dns.TypeA, many("@ 60 IN A 192.0.2.1", 300), 0},
		{"128 hints for a target", dns.TypeHTTPS, many(hint, maxAddresses), 0},
		{"129 hints for a target", dns.TypeHTTPS, many(hint, maxAddresses+1), rcodeServFail},
		{"129 hints for the owner", dns.TypeHTTPS, many(none, maxAddresses+1), 0},
		{"the 128th hint for a blocked target", dns.TypeHTTPS, append(many(none, maxAddresses-1), bad), rcodeRefused},
		{"the 129th", dns.TypeHTTPS, append(many(none, maxAddresses), bad), rcodeServFail},
		{"32 aliases", dns.TypeA, many(alias, maxAliases), 0},
		{"33 aliases", dns.TypeA, many(alias, maxAliases+1), rcodeServFail},
		{"the 32nd alias to a blocked name", dns.TypeA, append(many(alias, maxAliases-1), badAlias), rcodeRefused},
		{"the first of 33", dns.TypeA, append([]string{badAlias}, many(alias, maxAliases)...), rcodeRefused},
	} {
		for _, blocks := range []bool{false, true} {
			b := newBench(t, func(p *ruleset.Policy) {
				if blocks {
					p.Blocked = []ruleset.Name{name(p, "ads.test")}
				}
			})
			b.p.Query(&Client{Addr: client1, Conn: 1}, pack(t, query("a.example", c.typ)), b.now)
			_, up := b.last()
			m := unpack(t, b.answer(pack(t, reply(t, up, c.rrs...))))
			want, records := 0, len(c.rrs)
			if blocks && c.blocked != 0 {
				want, records = c.blocked, 0
			}
			if m.Rcode != want || len(m.Answer) != records {
				t.Errorf("%s, blocked %v: code %d with %d records", c.what, blocks, m.Rcode, len(m.Answer))
			}
			if left := uint64(max(0, len(c.rrs)-maxAddresses)); want == 0 && b.p.c.Unbound != left {
				t.Errorf("%s, blocked %v: %d not bound, want %d", c.what, blocks, b.p.c.Unbound, left)
			}
		}
	}
}

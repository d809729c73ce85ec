package dnsproxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	client1  = packet.Addr(0x0a000002)
	upAddr   = packet.Addr(0xc6336435)
	up2Addr  = packet.Addr(0xc6336436)
	resolver = packet.Addr(0x0a000035)
)

func name(p *ruleset.Policy, s string) ruleset.Name {
	rest, wild := strings.CutPrefix(s, "*.")
	n := ruleset.Name{Text: ruleset.Text{Off: uint32(len(p.Strings)), Len: uint32(len(rest))}}
	if wild {
		n.Wildcard = 1
	}
	p.Strings = append(p.Strings, rest...)
	return n
}

func newBench(t testing.TB, edit func(p *ruleset.Policy)) *bench {
	pol := &ruleset.Policy{Upstreams: []ruleset.Upstream{{Address: upAddr.To16(), Port: 53}}, Settings: ruleset.Settings{DNSRate: 1 << 30}}
	pol.Names = []ruleset.Name{name(pol, "*.example"), name(pol, "example.com")}
	if edit != nil {
		edit(pol)
	}
	pat, err := fqdn.NewPatterns(pol, pol.Names)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, now: 100 * second, ports: map[uint16]bool{}, rnd: rand.New(rand.NewPCG(1, 2))}
	b.set = fqdn.New(fqdn.Config{Capacity: 1000, Patterns: pat})
	if b.p, err = New(Config{Policy: pol, Names: b.set, Patterns: pat, Transport: b, MaxUDP: 1472}); err != nil {
		t.Fatal(err)
	}
	return b
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unpack(t testing.TB, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%v: %x", err, b)
	}
	return m
}

func query(n string, typ uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(n), typ)
	m.Id = 77
	return m
}

func (b *bench) ask(m *dns.Msg) {
	b.t.Helper()
	b.p.Query(&Client{Addr: client1, Port: 4000, Server: 1}, pack(b.t, m), b.now)
}

// last returns the last query to an upstream, and parses it.
func (b *bench) last() (sent, *dns.Msg) {
	b.t.Helper()
	if len(b.sent) == 0 {
		b.t.Fatal("no upstream was asked")
	}
	s := b.sent[len(b.sent)-1]
	return s, unpack(b.t, s.msg)
}

// answer sends a response to the last query and returns the reply, or nil.
func (b *bench) answer(msg []byte) []byte {
	n := len(b.got)
	s, _ := b.last()
	b.p.UDPResponse(s.to, s.toPort, s.myPort, msg, b.now)
	if len(b.got) == n {
		return nil
	}
	return b.got[len(b.got)-1]
}

func reply(t testing.TB, q *dns.Msg, rrs ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	for _, s := range rrs {
		rr, err := dns.NewRR(strings.ReplaceAll(s, "@", q.Question[0].Name))
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(4096, o.Do())
	}
	return m
}

func (b *bench) ids(addr string) int {
	var f fqdn.Found
	b.set.Find(client1, ip(addr), b.now, &f)
	return len(f.IDs)
}

func ip(s string) packet.Addr {
	var a, c, d, e packet.Addr
	fmt.Sscanf(s, "%d.%d.%d.%d", &a, &c, &d, &e)
	return a<<24 | c<<16 | d<<8 | e
}

// TestTransparent (RFC 5625): responses are relayed unchanged: unknown types (RFC
// 3597), flags, all sections, DNSSEC.
func TestTransparent(t *testing.T) {
	for _, rrs := range [][]string{
		{"@ 60 IN TXT \"some text\" \"more\""}, {"@ 60 IN MX 10 mail.example.com."}, {"@ 60 IN SRV 1 2 3 host.example.com."},
		{"@ 60 IN TYPE65399 \\# 4 0a000001"}, {"@ 60 IN AAAA 2001:db8::1"}, {"@ 60 IN CAA 0 issue \"ca.example\""},
		{"@ 60 IN NAPTR 1 2 \"s\" \"x\" \"\" replacement.example.com."}, {"@ 60 CH TXT \"chaos\""},
		{"@ 60 IN A 192.0.2.1", "@ 60 IN RRSIG A 13 2 60 20300101000000 20200101000000 1 example.com. c2lnbmF0dXJl"},
		{"@ 60 IN SOA a.example.com. b.example.com. 1 2 3 4 5"}, {"@ 60 IN CNAME other.example.com."}, {},
	} {
		b := newBench(t, nil)
		q := query("WwW.eXample.com", dns.TypeANY)
		q.CheckingDisabled, q.AuthenticatedData, q.RecursionDesired = true, true, true
		q.SetEdns0(4096, true)
		b.ask(q)
		_, up := b.last()
		if !up.CheckingDisabled || !up.AuthenticatedData || !up.RecursionDesired || !up.IsEdns0().Do() || up.Question[0].Qtype != dns.TypeANY || len(up.Question) != 1 {
			t.Fatalf("the upstream got %v", up)
		}
		r := reply(t, up, rrs...)
		r.Authoritative, r.RecursionAvailable, r.AuthenticatedData, r.CheckingDisabled = true, true, true, true
		ns, _ := dns.NewRR("example.com. 60 IN NS ns.example.com.")
		glue, _ := dns.NewRR("ns.example.com. 60 IN A 192.0.2.53")
		r.Ns = append(r.Ns, ns)
		r.Extra = append([]dns.RR{glue}, r.Extra...)
		got := unpack(t, b.answer(pack(t, r)))
		if got.Id != 77 || got.Question[0].Name != "WwW.eXample.com." || got.MsgHdr.String() == "" {
			t.Fatalf("the client got %v", got)
		}
		want := r.Copy()
		want.Id = 77
		want.Question[0].Name = q.Question[0].Name
		low := func(m *dns.Msg) string {
			for _, x := range m.Extra {
				if o, ok := x.(*dns.OPT); ok {
					o.SetUDPSize(0) // our own
				}
			}
			return strings.ToLower(m.String())
		}
		if low(got) != low(want) {
			t.Fatalf("got\n%v\nwant\n%v", got, want)
		}
	}
}

// TestEDNS (RFC 6891): the proxy's own OPT record on each side, sizes, versions,
// malformed ones, upstreams without EDNS.
func TestEDNS(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA)) // a client without
	_, up := b.last()
	if o := up.IsEdns0(); o == nil || o.UDPSize() != 1232 || o.Do() {
		t.Fatalf("the upstream got %v", up)
	}
	if got := unpack(t, b.answer(pack(t, reply(t, up, "@ 60 IN A 192.0.2.1")))); got.IsEdns0() != nil {
		t.Fatalf("a client without EDNS got %v", got)
	}
	q := query("a.example", dns.TypeA)
	q.SetEdns0(300, false) // less than 512 is 512
	b.ask(q)
	_, up = b.last()
	r := reply(t, up)
	for i := range 25 {
		rr, _ := dns.NewRR(fmt.Sprintf("a.example. 60 IN A 192.0.2.%d", i))
		r.Answer = append(r.Answer, rr)
	}
	raw := b.answer(pack(t, r))
	if got := unpack(t, raw); len(raw) > 512 || len(got.Answer) != 25 {
		t.Fatalf("%d bytes, %d records", len(raw), len(got.Answer))
	}
	q = query("a.example", dns.TypeA)
	q.SetEdns0(4096, false)
	q.IsEdns0().SetVersion(1)
	b.ask(q)
	m := unpack(t, b.got[len(b.got)-1])
	if m.Rcode != dns.RcodeBadVers || m.IsEdns0().Version() != 0 {
		t.Fatalf("version 1: %v", m)
	}
	// Extended errors pass; other options of the upstream do not.
	q.IsEdns0().SetVersion(0)
	b.ask(q)
	_, up = b.last()
	r = reply(t, up)
	r.Rcode = dns.RcodeServerFailure
	r.IsEdns0().Option = append(r.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"},
		&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "bogus"})
	m = unpack(t, b.answer(pack(t, r)))
	if o := m.IsEdns0(); m.Rcode != dns.RcodeServerFailure || len(o.Option) != 1 || o.Option[0].(*dns.EDNS0_EDE).InfoCode != dns.ExtendedErrorCodeDNSBogus {
		t.Fatalf("extended error: %v", m)
	}
	// Two OPT records, one in the wrong place, one that is malformed.
	two := q.Copy()
	two.Extra = append(two.Extra, two.Extra[0])
	b.ask(two)
	wrong := query("a.example", dns.TypeA)
	wrong.Answer = q.Copy().Extra
	b.ask(wrong)
	bad := pack(t, q)
	bad = append(bad[:len(bad)-2], 0, 5, 0, 3, 0, 9, 1)
	b.p.Query(&Client{Addr: client1}, bad, b.now)
	for i, raw := range b.got[len(b.got)-3:] {
		if m := unpack(t, raw); m.Rcode != dns.RcodeFormatError {
			t.Errorf("%d: %v", i, m)
		}
	}
	// An upstream from before EDNS is asked without.
	b.ask(q)
	_, up = b.last()
	old := reply(t, up)
	old.Rcode, old.Extra = dns.RcodeFormatError, nil
	if b.answer(pack(t, old)) != nil {
		t.Fatal("FORMERR was passed on")
	}
	_, up = b.last()
	if up.IsEdns0() != nil {
		t.Fatal("asked again with EDNS")
	}
	if m := unpack(t, b.answer(pack(t, reply(t, up, "@ 60 IN A 192.0.2.1")))); len(m.Answer) != 1 || m.IsEdns0() == nil {
		t.Fatalf("then %v", m)
	}
}

// TestOPTInTheMiddle: records behind an OPT record are left out.
func TestOPTInTheMiddle(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	_, up := b.last()
	r := reply(t, up, "@ 60 IN A 192.0.2.1")
	g1, _ := dns.NewRR("x.example. 60 IN A 192.0.2.2")
	g2, _ := dns.NewRR("y.example. 60 IN A 192.0.2.3")
	r.Extra = []dns.RR{g1, r.Extra[0], g2}
	m := unpack(t, b.answer(pack(t, r)))
	if len(m.Answer) != 1 || len(m.Extra) != 1 || m.Extra[0].String() != g1.String() {
		t.Fatalf("%v", m)
	}
	if b.ids("192.0.2.1") == 0 || b.ids("192.0.2.2") != 0 || b.ids("192.0.2.3") != 0 {
		t.Fatal("what is bound is not the answer section's")
	}
}

// TestBoundBeforeReleased: when the client gets the reply, the name is bound.
func TestBoundBeforeReleased(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	_, up := b.last()
	seen := 0
	b.atGot = func() { seen = b.ids("192.0.2.1") }
	b.answer(pack(t, reply(t, up, "@ 60 IN A 192.0.2.1")))
	if seen != 1 {
		t.Fatal("released before it was bound")
	}
}

// TestServiceBindings (RFC 9460): address hints are bound; malformed records are not
// relayed.
func TestServiceBindings(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeHTTPS))
	_, up := b.last()
	m := unpack(t, b.answer(pack(t, reply(t, up, "@ 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1", "@ 60 IN HTTPS 2 svc.example. ipv4hint=192.0.2.3"))))
	if len(m.Answer) != 2 {
		t.Fatalf("%v", m)
	}
	for _, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		if b.ids(a) != 1 {
			t.Errorf("%s is not bound", a)
		}
	}
	for what, rdata := range map[string]string{
		"hint of 3 bytes":   "\x00\x01\x00\x00\x04\x00\x03\x01\x02\x03",
		"empty hint":        "\x00\x01\x00\x00\x04\x00\x00",
		"keys out of order": "\x00\x01\x00\x00\x06\x00\x00\x00\x04\x00\x04\x01\x02\x03\x04",
		"key twice":         "\x00\x01\x00\x00\x04\x00\x04\x01\x02\x03\x04\x00\x04\x00\x04\x01\x02\x03\x05",
		"cut off":           "\x00\x01\x00\x00\x04\x00\x08\xc0\x00",
		"no target":         "\x00\x01",
		"no end":            "\x00\x01\x03abc",
	} {
		b := newBench(t, nil)
		b.ask(query("a.example", dns.TypeHTTPS))
		s, _ := b.last()
		m := slices.Clone(s.msg[:headerLen+11+4])
		m[2] |= 0x80
		m[7], m[11] = 1, 0
		if m := unpack(t, b.answer(append(m, rawRR("\xc0\x0c", 65, rdata)...))); m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 || b.set.Len() != 0 || b.p.c.Malformed != 1 {
			t.Errorf("%s: passed on: %v", what, m)
		}
	}
}

// finishAll lets all queries time out.
func (b *bench) finishAll() {
	b.t.Helper()
	for range 20 {
		b.now += second
		b.p.Tick(b.now)
	}
	if b.p.Outstanding() != 0 || len(b.ports) != 0 {
		b.t.Fatalf("%d queries and %d ports are left", b.p.Outstanding(), len(b.ports))
	}
}

// TestUpstreamFlaps: a single upstream that goes down and comes up.
func TestUpstreamFlaps(t *testing.T) {
	b := newBench(t, nil)
	for round := range 20 {
		b.ask(query("a.example", dns.TypeA))
		if round%2 == 0 { // dead
			n, start := len(b.got), b.now
			for len(b.got) == n && b.now < start+10*second {
				b.now += second / 50
				b.p.Tick(b.now)
			}
			if took := b.now - start; len(b.got) != n+1 || took > queryTimeout+second/10 || unpack(t, b.got[n]).Rcode != dns.RcodeServerFailure {
				t.Fatalf("round %d: %d answers after %d ms", round, len(b.got)-n, took/1e6)
			}
			continue
		}
		_, up := b.last()
		if b.answer(pack(t, reply(t, up, "@ 60 IN A 192.0.2.1"))) == nil {
			t.Fatal("not back at once")
		}
	}
	// Slow: an answer after 3 seconds is still the answer.
	b.ask(query("a.example", dns.TypeA))
	first, up := b.last()
	for range 30 {
		b.now += second / 10
		b.p.Tick(b.now)
	}
	n := len(b.got)
	b.p.UDPResponse(first.to, first.toPort, first.myPort, pack(t, reply(t, up, "@ 60 IN A 192.0.2.1")), b.now)
	if len(b.got) != n+1 {
		t.Fatal("a late answer was not taken")
	}
	b.finishAll()
}

func TestAllocations(t *testing.T) {
	b := newBench(t, nil)
	q := query("www.example.com", dns.TypeA)
	q.SetEdns0(1232, true)
	msg := pack(t, q)
	tr := &silent{}
	b.p.cfg.Transport = tr
	r := reply(t, q, "@ 60 IN CNAME x.example.", "x.example. 60 IN A 192.0.2.1", "x.example. 60 IN A 192.0.2.2")
	raw := pack(t, r)
	c := &Client{Addr: client1, Port: 4}
	if n := testing.AllocsPerRun(500, func() {
		b.now += second
		b.p.Query(c, msg, b.now)
		m := tr.buf[:copy(tr.buf[:], raw)]
		copy(m, tr.asked[:2])
		copy(m[headerLen:], tr.asked[headerLen:headerLen+17])
		b.p.UDPResponse(upAddr, 53, tr.port, m, b.now)
		b.p.Tick(b.now)
	}); n != 0 || tr.replies < 500 {
		t.Fatalf("%v allocations, %d replies", n, tr.replies)
	}
}

// A silent is a transport that keeps only the last query.
type silent struct {
	asked   [600]byte
	buf     [2000]byte
	port    uint16
	n       uint64
	replies int
}

func (s *silent) SendUDP(_ packet.Addr, _, from uint16, msg []byte) {
	s.port = from
	copy(s.asked[:], msg)
}
func (s *silent) SendTLS(int, []byte) bool                              { return false }
func (s *silent) CancelTCP(uint32)                                      {}
func (s *silent) SendTCP(int, packet.Addr, uint16, uint32, []byte) bool { return false }
func (s *silent) Reply(*Client, []byte)                                 { s.replies++ }
func (s *silent) AllocPort() (uint16, bool)                             { s.n++; return uint16(1024 + s.n%60000), true }
func (s *silent) FreePort(uint16)                                       {}
func (s *silent) Random() uint64                                        { s.n++; return s.n * 0x9e3779b97f4a7c15 }
func (s *silent) QueryDone(*Result)                                     {}

// BenchmarkProxy measures a query and its response, without frames.
func BenchmarkProxy(bm *testing.B) {
	b := newBench(bm, nil)
	q := query("www.example.com", dns.TypeA)
	q.SetEdns0(1232, true)
	msg := pack(bm, q)
	tr := &silent{}
	b.p.cfg.Transport = tr
	raw := pack(bm, reply(bm, q, "@ 60 IN CNAME x.example.", "x.example. 60 IN A 192.0.2.1", "x.example. 60 IN A 192.0.2.2"))
	c := &Client{Addr: client1, Port: 4}
	bm.ReportAllocs()
	for bm.Loop() {
		b.p.Query(c, msg, b.now)
		m := tr.buf[:copy(tr.buf[:], raw)]
		copy(m, tr.asked[:2])
		copy(m[headerLen:], tr.asked[headerLen:headerLen+17])
		b.p.UDPResponse(upAddr, 53, tr.port, m, b.now)
	}
	bm.ReportMetric(float64(bm.N)/bm.Elapsed().Seconds(), "queries/s")
}

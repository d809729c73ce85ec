package dnsproxy

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// with adds records to section "ns" or "extra" of a response.
func with(t testing.TB, m *dns.Msg, section string, rrs ...string) *dns.Msg {
	t.Helper()
	for _, s := range rrs {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		if section == "ns" {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Extra = append([]dns.RR{rr}, m.Extra...)
		}
	}
	return m
}

// names returns the names, as text, by which client1 knows an address.
func (b *bench) names(addr string) (out []string) {
	var f fqdn.Found
	b.set.Find(client1, ip(addr), b.now, &f)
	var buf [fqdn.MaxName]byte
	for _, k := range f.Names {
		out = append(out, string(fqdn.AppendText(nil, b.set.Text(k.Name, b.now, &buf))))
	}
	slices.Sort(out)
	return out
}

// TestForeignNames: a response binds addresses to names of the chain that begins
// with the queried name, whatever other records it has. In each case 192.0.2.66 is
// the attacker's address, and whose lists the names to which it may be bound;
// 192.0.2.1 is that of a correct record.
func TestForeignNames(t *testing.T) {
	for _, c := range []struct {
		what        string
		asked       string
		typ         uint16
		answer      []string
		ns, extra   []string
		evil, whose string // names of 192.0.2.66 and of 192.0.2.1
	}{
		{what: "target of a service", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 1 example.com. ipv4hint=192.0.2.66"}, evil: "evil.test"},
		{what: "target of a service, in capitals", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 1 EXAMPLE.com. ipv4hint=192.0.2.66"}, evil: "evil.test"},
		{what: "target of a service, type SVCB", asked: "evil.test", typ: dns.TypeSVCB,
			answer: []string{"@ 60 IN SVCB 1 example.com. ipv4hint=192.0.2.66"}, evil: "evil.test"},
		{what: "target of a service, asked for A", asked: "evil.test", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.1", "@ 60 IN HTTPS 1 example.com. ipv4hint=192.0.2.66"}, whose: "evil.test"},
		{what: "target of a service, asked for TXT", asked: "evil.test", typ: dns.TypeTXT,
			answer: []string{"@ 60 IN TXT x", "@ 60 IN HTTPS 1 example.com. ipv4hint=192.0.2.66"}},
		{what: "target of a service, asked for ANY", asked: "evil.test", typ: dns.TypeANY,
			answer: []string{"@ 60 IN A 192.0.2.1", "@ 60 IN HTTPS 1 example.com. ipv4hint=192.0.2.66"}, evil: "evil.test", whose: "evil.test"},
		{what: "hint, asked for A", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN HTTPS 1 . ipv4hint=192.0.2.66"}},
		{what: "hint, asked for AAAA", asked: "example.com", typ: dns.TypeAAAA,
			answer: []string{"@ 60 IN HTTPS 1 . ipv4hint=192.0.2.66"}},
		{what: "hint of SVCB, asked for HTTPS", asked: "example.com", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 1 . ipv4hint=192.0.2.1", "@ 60 IN SVCB 1 . ipv4hint=192.0.2.66"}, whose: "example.com"},
		{what: "hint of another owner", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 1 . ipv4hint=192.0.2.1", "example.com. 60 IN HTTPS 1 . ipv4hint=192.0.2.66"}, whose: "evil.test"},
		{what: "hint behind an alias", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN CNAME b.test.", "b.test. 60 IN HTTPS 1 example.com. ipv4hint=192.0.2.66"}, evil: "b.test evil.test"},
		{what: "hint in AliasMode", asked: "example.com", typ: dns.TypeHTTPS, // RFC 9460 section 2.4.2: its parameters are ignored
			answer: []string{"@ 60 IN HTTPS 0 b.test. ipv4hint=192.0.2.66"}},
		{what: "AliasMode to a foreign name", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 0 example.com. ipv4hint=192.0.2.66"}},
		{what: "AliasMode followed within the answer", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 0 example.com.", "example.com. 60 IN HTTPS 1 . ipv4hint=192.0.2.66"}},
		{what: "service of a port", asked: "_8443._https.example.com", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 1 example.com. ipv4hint=192.0.2.66"}, evil: "_8443._https.example.com"},
		{what: "address of the target, additional", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 1 example.com."}, extra: []string{"example.com. 60 IN A 192.0.2.66"}},
		{what: "address of the target, among the answers", asked: "evil.test", typ: dns.TypeHTTPS,
			answer: []string{"@ 60 IN HTTPS 1 example.com.", "example.com. 60 IN A 192.0.2.66"}},
		{what: "address of the target, asked for ANY", asked: "evil.test", typ: dns.TypeANY,
			answer: []string{"@ 60 IN HTTPS 1 example.com.", "example.com. 60 IN A 192.0.2.66"}},
		{what: "address of another owner", asked: "evil.test", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.1", "example.com. 60 IN A 192.0.2.66"}, whose: "evil.test"},
		{what: "address of a name below", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.1", "www.example.com. 60 IN A 192.0.2.66"}, whose: "example.com"},
		{what: "address of the asked name behind an alias", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN CNAME b.test.", "b.test. 60 IN A 192.0.2.1", "@ 60 IN A 192.0.2.66"}, whose: "b.test example.com"},
		{what: "authority section", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.1"}, ns: []string{"example.com. 60 IN A 192.0.2.66", "example.com. 60 IN NS example.com."}, whose: "example.com"},
		{what: "authority section alone", asked: "example.com", typ: dns.TypeA,
			ns: []string{"example.com. 60 IN A 192.0.2.66"}},
		{what: "additional section", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.1"}, extra: []string{"example.com. 60 IN A 192.0.2.66"}, whose: "example.com"},
		{what: "additional section alone", asked: "example.com", typ: dns.TypeANY,
			extra: []string{"example.com. 60 IN A 192.0.2.66", "example.com. 60 IN HTTPS 1 . ipv4hint=192.0.2.66"}},
		{what: "alias in the authority section", asked: "example.com", typ: dns.TypeA,
			answer: []string{"b.test. 60 IN A 192.0.2.66"}, ns: []string{"example.com. 60 IN CNAME b.test."}},
		{what: "alias that nobody has followed", asked: "evil.test", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.66", "example.com. 60 IN CNAME evil.test."}, evil: "evil.test"},
		{what: "alias of a name below", asked: "evil.test", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.66", "example.com. 60 IN CNAME @", "@ 60 IN TXT x"}, evil: "evil.test"},
		{what: "DNAME without its alias", asked: "a.evil.test", typ: dns.TypeA, // RFC 6672 section 3.1: the CNAME comes with it
			answer: []string{"evil.test. 60 IN DNAME example.", "a.example. 60 IN A 192.0.2.66"}},
		{what: "DNAME with its alias", asked: "a.evil.test", typ: dns.TypeA,
			answer: []string{"evil.test. 60 IN DNAME example.", "a.evil.test. 60 IN CNAME a.example.", "a.example. 60 IN A 192.0.2.1"}, whose: "a.evil.test a.example"},
		{what: "two aliases of one name", asked: "example.com", typ: dns.TypeA, // RFC 2181 section 10.1: there may be one
			answer: []string{"@ 60 IN CNAME b.test.", "@ 60 IN CNAME c.test.", "b.test. 60 IN A 192.0.2.1", "c.test. 60 IN A 192.0.2.66"}, whose: "b.test example.com"},
		{what: "aliases in a circle", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN CNAME b.test.", "b.test. 60 IN CNAME @", "@ 60 IN A 192.0.2.66", "b.test. 60 IN A 192.0.2.66"}},
		{what: "alias of itself", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN CNAME @", "@ 60 IN A 192.0.2.66"}},
		{what: "case", asked: "ExAmple.COM", typ: dns.TypeHTTPS,
			answer: []string{"EXAMPLE.com. 60 IN CNAME B.test.", "b.TEST. 60 IN HTTPS 1 . ipv4hint=192.0.2.1"}, whose: "b.test example.com"},
		{what: "another class", asked: "example.com", typ: dns.TypeA,
			answer: []string{"@ 60 IN A 192.0.2.1", "@ 60 HS A 192.0.2.66"}, whose: "example.com"},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			b := newBench(t, func(p *ruleset.Policy) {
				p.Names = append(p.Names, name(p, "*.test"), name(p, "_8443._https.example.com"))
			})
			b.ask(query(c.asked, c.typ))
			_, up := b.last()
			r := reply(t, up, c.answer...)
			with(t, r, "ns", c.ns...)
			with(t, r, "extra", c.extra...)
			m := unpack(t, b.answer(pack(t, r)))
			if m.Rcode != 0 || len(m.Answer) != len(c.answer) || len(m.Ns) != len(c.ns) || len(m.Extra) != len(c.extra) {
				t.Fatalf("the client got %v", m)
			}
			if got := strings.Join(b.names("192.0.2.66"), " "); got != c.evil {
				t.Errorf("192.0.2.66 is %q, want %q", got, c.evil)
			}
			if got := strings.Join(b.names("192.0.2.1"), " "); got != c.whose {
				t.Errorf("192.0.2.1 is %q, want %q", got, c.whose)
			}
			b.finishAll()
		})
	}
}

// TestErrorsBindNothing: records of a response with an error code are not bound.
func TestErrorsBindNothing(t *testing.T) {
	for _, typ := range []uint16{dns.TypeA, dns.TypeHTTPS, dns.TypeANY} {
		for rcode := range 24 {
			b := newBench(t, nil)
			q := query("example.com", typ)
			q.SetEdns0(1232, false)
			b.ask(q)
			_, up := b.last()
			r := reply(t, up, "@ 60 IN A 192.0.2.1", "@ 60 IN HTTPS 1 . ipv4hint=192.0.2.1")
			r.Rcode = rcode
			if m := unpack(t, b.answer(pack(t, r))); m.Rcode != rcode || len(m.Answer) != 2 {
				t.Fatalf("code %d: %v", rcode, m)
			}
			if (b.ids("192.0.2.1") != 0) != (rcode == 0) {
				t.Fatalf("code %d: bound %v", rcode, b.ids("192.0.2.1"))
			}
		}
	}
}

// TestForWhom: names are bound for the client that asked, and for everyone if it is
// a resolver of the policy.
func TestForWhom(t *testing.T) {
	for _, c := range []struct {
		who      packet.Addr
		everyone bool
	}{{client1, false}, {resolver, true}, {resolver + 1, false}} {
		b := newBench(t, func(p *ruleset.Policy) { p.Resolvers = []ruleset.Resolver{{Address: resolver.To16()}} })
		b.p.Query(&Client{Addr: c.who, Port: 4000, Server: 1}, pack(t, query("a.example", dns.TypeA)), b.now)
		_, up := b.last()
		b.answer(pack(t, reply(t, up, "@ 60 IN A 192.0.2.1")))
		var f fqdn.Found
		for _, other := range []packet.Addr{client1, resolver, resolver + 1, 0x0a000063} {
			b.set.Find(other, ip("192.0.2.1"), b.now, &f)
			if knows := len(f.IDs) > 0; knows != (c.everyone || other == c.who) {
				t.Errorf("asked by %v: %v knows it: %v", c.who, other, knows)
			}
		}
	}
}

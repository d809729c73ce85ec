package dnsproxy

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// echBench has rules with sni: require for seen.example, *.seen.example and
// two.example, and one without for plain.example.
func echBench(t testing.TB) *bench {
	return newBench(t, func(p *ruleset.Policy) {
		p.Names = []ruleset.Name{name(p, "seen.example"), name(p, "*.seen.example"), name(p, "plain.example"), name(p, "two.example")}
		p.Rules = []ruleset.Rule{{Action: ruleset.Accept, SNI: 1}, {Action: ruleset.Accept}}
		p.Matches = []ruleset.Match{{Name: 1, Action: ruleset.Accept}, {Name: 2, Action: ruleset.Accept}, {Name: 3, Action: ruleset.Accept, Rule: 1},
			{Name: 4, Action: ruleset.Accept, Rule: 1}, {Name: 4, Action: ruleset.Accept}, {Name: 1, Action: ruleset.Accept}, {Action: ruleset.Accept}}
	})
}

// keys returns the parameters of all service bindings of a message, by key, as text.
func keys(m *dns.Msg) (out []map[uint16]string) {
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		s, ok := rr.(*dns.SVCB)
		if h, isHTTPS := rr.(*dns.HTTPS); isHTTPS {
			s, ok = &h.SVCB, true
		}
		if ok {
			ks := map[uint16]string{}
			for _, v := range s.Value {
				ks[uint16(v.Key())] = v.String()
			}
			out = append(out, ks)
		}
	}
	return out
}

const echValue = "AEX+DQBBAAAgACBh" // any; its first bytes are not looked at

// TestECHIsRemoved: for names of rules with sni: require, service bindings are
// relayed without ech, and otherwise unchanged.
func TestECHIsRemoved(t *testing.T) {
	for _, c := range []struct {
		what, asked string
		typ         uint16
		do          bool
		answer      []string
		ns, extra   []string
		removed     bool
	}{
		{what: "the name", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1 ech=" + echValue + " ipv6hint=2001:db8::1"}, removed: true},
		{what: "nothing else", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}, removed: true},
		{what: "a service of the root", asked: "_8443._https.", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}},
		{what: "the root", asked: ".", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}},
		{what: "type SVCB", asked: "seen.example", typ: dns.TypeSVCB, answer: []string{"@ 60 IN SVCB 1 . alpn=dot ech=" + echValue}, removed: true},
		{what: "below a wildcard", asked: "WWW.Seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}, removed: true},
		{what: "also of a rule that need not", asked: "two.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}, removed: true},
		{what: "a service of a port", asked: "_8443._https.seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 seen.example. port=8443 ech=" + echValue}, removed: true},
		{what: "behind an alias", asked: "other.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN CNAME seen.example.", "seen.example. 60 IN HTTPS 1 . ech=" + echValue}, removed: true},
		{what: "an alias to elsewhere", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN CNAME cdn.test.", "cdn.test. 60 IN HTTPS 1 . ech=" + echValue}, removed: true},
		{what: "AliasMode", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 0 cdn.test."}, extra: []string{"cdn.test. 60 IN HTTPS 1 . ech=" + echValue}, removed: true},
		{what: "several", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue, "@ 60 IN HTTPS 2 a.seen.example. port=8443 ech=" + echValue, "@ 60 IN HTTPS 3 b.seen.example. port=8444"},
			ns: []string{"seen.example. 60 IN SVCB 1 . ech=" + echValue, "seen.example. 60 IN NS ns.seen.example."}, extra: []string{"ns.seen.example. 60 IN A 192.0.2.7"}, removed: true},
		{what: "asked for A", asked: "seen.example", typ: dns.TypeA, answer: []string{"@ 60 IN A 192.0.2.1"}, extra: []string{"seen.example. 60 IN HTTPS 1 . ech=" + echValue}, removed: true},
		{what: "ANY", asked: "seen.example", typ: dns.TypeANY, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue, "@ 60 IN A 192.0.2.1"}, removed: true},
		{what: "mandatory", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . mandatory=alpn,ech,port alpn=h2 port=8443 ech=" + echValue}, removed: true},
		{what: "alone mandatory", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . mandatory=ech alpn=h2 ech=" + echValue}, removed: true},
		{what: "something else mandatory", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . mandatory=alpn alpn=h2 ech=" + echValue}, removed: true},
		{what: "other parameters", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . alpn=h2 ech=" + echValue + " dohpath=/q{?dns} key65280=x key65533=y"}, removed: true},
		{what: "DO, not signed", asked: "seen.example", typ: dns.TypeHTTPS, do: true, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue, "@ 60 IN RRSIG A 13 2 60 20300101000000 20200101000000 1 example. c2lnbmF0dXJl"}, removed: true},
		{what: "signed, without DO", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue, "@ 60 IN RRSIG HTTPS 13 2 60 20300101000000 20200101000000 1 example. c2lnbmF0dXJl"}, removed: true},

		{what: "signed, with DO", asked: "seen.example", typ: dns.TypeHTTPS, do: true, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue, "@ 60 IN RRSIG HTTPS 13 2 60 20300101000000 20200101000000 1 example. c2lnbmF0dXJl"}},
		{what: "signed SVCB, with DO", asked: "seen.example", typ: dns.TypeSVCB, do: true, answer: []string{"@ 60 IN SVCB 1 . ech=" + echValue, "@ 60 IN RRSIG SVCB 13 2 60 20300101000000 20200101000000 1 example. c2lnbmF0dXJl"}},
		{what: "a rule that need not", asked: "plain.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}},
		{what: "no rule", asked: "other.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 seen.example. ech=" + echValue}},
		{what: "two labels for a wildcard", asked: "a.b.seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}},
		{what: "a label that is no service", asked: "8443.b.seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . ech=" + echValue}},
		{what: "without it", asked: "seen.example", typ: dns.TypeHTTPS, answer: []string{"@ 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1"}},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			b := echBench(t)
			q := query(c.asked, c.typ)
			if c.do {
				q.SetEdns0(4096, true)
			}
			b.ask(q)
			_, up := b.last()
			r := reply(t, up, c.answer...)
			with(t, r, "ns", c.ns...)
			with(t, r, "extra", c.extra...)
			r.AuthenticatedData = true
			m := unpack(t, b.answer(pack(t, r)))
			if m.Rcode != 0 || m.AuthenticatedData == c.removed || (b.p.c.ECHRemoved == 1) != c.removed || b.p.c.Malformed != 0 {
				t.Fatalf("the client gets %v", m)
			}
			want := keys(r)
			for i, got := range keys(m) {
				w := want[i]
				if c.removed && w[keyECH] != "" {
					delete(w, keyECH)
					if l := strings.Split(w[keyMandatory], ","); w[keyMandatory] != "" {
						w[keyMandatory] = strings.Join(slices.DeleteFunc(l, func(s string) bool { return s == "ech" }), ",")
						if w[keyMandatory] == "" {
							delete(w, keyMandatory)
						}
					}
					if _, ok := got[keyFill]; !ok {
						t.Errorf("nothing is in its place: %v", got)
					}
					delete(got, keyFill)
				}
				for k, v := range w {
					if got[k] != v {
						t.Errorf("key %d is %q, want %q", k, got[k], v)
					}
				}
				if len(got) != len(w) {
					t.Errorf("the client gets %v, want %v", got, w)
				}
			}
			// Records without parameters are as they were, names that are
			// compressed among them.
			for i, rr := range slices.Concat(r.Answer, r.Ns) {
				got := slices.Concat(m.Answer, m.Ns)[i]
				switch rr.Header().Rrtype {
				case dns.TypeHTTPS, dns.TypeSVCB:
					if got.Header().Name != rr.Header().Name && !strings.EqualFold(got.Header().Name, rr.Header().Name) {
						t.Errorf("%v, want %v", got, rr)
					}
				default:
					if !strings.EqualFold(got.String(), rr.String()) {
						t.Errorf("%v, want %v", got, rr)
					}
				}
			}
			if strings.Contains(strings.Join(c.answer, ""), "ipv4hint") && b.ids("192.0.2.1") == 0 {
				t.Error("the hint is not bound")
			}
		})
	}
}

// TestECHThatCannotBeRemoved: without a key for the padding the client gets
// SERVFAIL; pointers into what was removed are followed as the client will follow
// them.
func TestECHThatCannotBeRemoved(t *testing.T) {
	give := func(an int, body string) (*bench, *dns.Msg) {
		b := echBench(t)
		b.ask(query("seen.example", dns.TypeHTTPS))
		s, _ := b.last()
		m := slices.Clone(s.msg[:headerLen+len("\x04seen\x07example\x00")+4])
		m[2], m[7], m[11] = m[2]|0x80, byte(an), 0
		return b, unpack(t, b.answer(append(m, body...)))
	}
	for _, last := range []string{"\xff\xfe", "\xff\xff"} {
		if b, m := give(1, rawRR(pointer(headerLen), typeHTTPS, "\x00\x01\x00\x00\x05\x00\x04abcd"+last+"\x00\x00")); m.Rcode != dns.RcodeServerFailure || b.p.c.Malformed != 1 || b.done[0].Outcome != verdict.DNSOther {
			t.Errorf("%x: %v", last, m)
		}
	}
	// The value of ech is a name, and the next record's owner points to it.
	const at = headerLen + len("\x04seen\x07example\x00") + 4
	value := "\x05plain\x07example\x00"
	service := rawRR(pointer(headerLen), typeHTTPS, "\x00\x01\x00\x00\x05\x00"+string([]byte{byte(len(value))})+value)
	hidden := at + 12 + 3 + 4
	b, _ := give(3, service+rawRR(pointer(headerLen), typeCNAME, pointer(hidden))+rawRR(pointer(hidden), typeHTTPS, "\x00\x01\x00\x00\x04\x00\x04\xc0\x00\x02\x01"))
	if got := b.names("192.0.2.1"); slices.Contains(got, "plain.example") {
		t.Errorf("bound to %v, which the client does not read", got)
	}
	// Where the parameter's key was, of which a pointer may have made the root.
	if b, m := give(2, service+rawRR(pointer(hidden-4), 16, "\x01x")); m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 || b.p.c.Malformed != 1 {
		t.Errorf("the client gets %v", m)
	}
}

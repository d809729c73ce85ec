package dnsproxy

import (
	"testing"

	"github.com/miekg/dns"
)

// TestScanSections: an OPT record belongs in the additional section, once (RFC 6891
// section 6.1.1); records behind the authority section count as additional, and no others.
func TestScanSections(t *testing.T) {
	rr := func(s string) dns.RR {
		r, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: 1232}}
	a, ns, glue := rr("a.example. 60 IN A 192.0.2.1"), rr("example. 60 IN NS ns.example."), rr("ns.example. 60 IN A 192.0.2.2")
	for _, c := range []struct {
		what                string
		answer, auth, extra []dns.RR
		ok                  bool
		n                   int // additional records
	}{
		{"no OPT", []dns.RR{a}, []dns.RR{ns}, []dns.RR{glue}, true, 1},
		{"one", []dns.RR{a}, []dns.RR{ns}, []dns.RR{glue, opt}, true, 1},
		{"one alone", []dns.RR{a}, []dns.RR{ns}, []dns.RR{opt}, true, 0},
		{"two", []dns.RR{a}, []dns.RR{ns}, []dns.RR{opt, opt}, false, 0},
		{"in the authority section", []dns.RR{a}, []dns.RR{opt}, nil, false, 0},
		{"last in the authority section", []dns.RR{a}, []dns.RR{ns, opt}, nil, false, 0},
		{"in the answer section", []dns.RR{opt}, []dns.RR{ns}, nil, false, 0},
		{"two of the authority", []dns.RR{a, a}, []dns.RR{ns, ns}, []dns.RR{glue, glue, glue}, true, 3},
		{"authority alone", nil, []dns.RR{ns, ns}, nil, true, 0},
	} {
		m := new(dns.Msg)
		m.SetQuestion("a.example.", dns.TypeA)
		m.Response, m.Answer, m.Ns, m.Extra = true, c.answer, c.auth, c.extra
		raw, err := m.Pack()
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		r := response{private: newBench(t, nil).p.resp.private}
		if ok := r.scan(raw, headerLen+len("\x01a\x07example\x00")+4, dns.TypeA, dns.ClassINET); ok != c.ok || ok && int(r.extra) != c.n {
			t.Errorf("%s: well formed %v, %d additional records; want %v, %d", c.what, ok, r.extra, c.ok, c.n)
		}
	}
}

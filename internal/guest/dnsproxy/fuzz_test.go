package dnsproxy

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// FuzzAnswer sends arbitrary responses with the right header and question. The reply
// must be well formed, and bound addresses must be in the answer section.
func FuzzAnswer(f *testing.F) {
	b := newBench(f, nil)
	b.ask(query("a.example", dns.TypeA))
	_, up := b.last()
	const n = headerLen + 11 + 4
	for _, rrs := range [][]string{
		{"@ 60 IN A 192.0.2.1"}, {"@ 60 IN CNAME b.example.", "b.example. 5 IN A 192.0.2.1"}, {"@ 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1"},
		{"@ 60 IN SOA a. b. 1 2 3 4 5"}, {"@ 60 IN TXT x"},
	} {
		raw := pack(f, reply(f, up, rrs...))
		f.Add(raw[n:], uint16(len(rrs)), uint16(0), uint16(1), uint16(0x8180), uint16(dns.TypeA))
		f.Add(raw[n:], uint16(len(rrs)), uint16(0), uint16(1), uint16(0x8180), uint16(dns.TypeHTTPS))
	}
	for _, p := range places {
		for _, n := range []string{"\x00", pointer(headerLen), pointer(bodyAt + 12 + len(p.before)), long(255) + "\x00"} {
			f.Add([]byte(rawRR(pointer(headerLen), uint16(p.typ), p.before+n+p.after)), uint16(1), uint16(0), uint16(0), uint16(0x8180), uint16(dns.TypeANY))
		}
	}
	for _, rr := range []string{rawRR(pointer(headerLen), typeA, "\x0a\x00\x00\x01"), rawRR(pointer(headerLen), typeAAAA, "\xfd"+strings.Repeat("\x00", 15)),
		rawRR(pointer(headerLen), typeHTTPS, "\x00\x01\x00\x00\x04\x00\x04\x0a\x00\x00\x01\x00\x05\x00\x02ec")} {
		f.Add([]byte(rr), uint16(1), uint16(0), uint16(0), uint16(0x8180), uint16(dns.TypeHTTPS))
		f.Add([]byte(rr), uint16(0), uint16(0), uint16(1), uint16(0x8180), uint16(dns.TypeA))
		f.Add([]byte(rr), uint16(1), uint16(0), uint16(0), uint16(0x8190), uint16(dns.TypeHTTPS))
	}
	for _, n := range badNames(bodyAt) {
		f.Add([]byte(rawRR(n, 1, "\xc0\x00\x02\x01")), uint16(1), uint16(0), uint16(0), uint16(0x8180), uint16(dns.TypeA))
	}
	f.Fuzz(func(t *testing.T, body []byte, an, ns, ar, flags, typ uint16) {
		if len(body) > 60000 {
			return
		}
		b := newBench(t, func(p *ruleset.Policy) {
			p.Blocked = append(p.Blocked, name(p, "blocked.test"))
			if flags&16 != 0 {
				p.Rules = []ruleset.Rule{{SNI: 1}}
				p.Matches = []ruleset.Match{{Name: 1}}
			}
		})
		q := query("a.example", typ)
		if flags&1 != 0 {
			q.SetEdns0(4096, true)
		}
		b.p.Query(&Client{Addr: client1, Conn: uint32(flags & 2)}, pack(t, q), b.now)
		if len(b.sent) == 0 {
			return // a type that is not asked for
		}
		s, _ := b.last()
		m := append([]byte(nil), s.msg[:n]...)
		m[2], m[3] = byte(flags>>8)|0x80&^0x78, byte(flags)
		m[2] &^= 0x78
		m[2] |= 0x80
		m[6], m[7], m[8], m[9], m[10], m[11] = byte(an>>8), byte(an), byte(ns>>8), byte(ns), byte(ar>>8), byte(ar)
		m = append(m, body...)
		b.p.UDPResponse(s.to, s.toPort, s.myPort, m, b.now)
		if b.set.Len() > 0 && an == 0 {
			t.Fatal("bound what is not in the answer section")
		}
		for _, raw := range b.got {
			a := response{private: b.p.resp.private}
			if raw[0] != 0 || raw[1] != 77 || be16(raw[4:]) != 1 || !a.scan(raw, n, typ, 1) {
				t.Fatalf("the client gets %x", raw)
			}
			if a.ech && flags&16 != 0 && !(a.signed && flags&1 != 0) {
				t.Fatalf("the client is told to hide the name by %x", raw)
			}
			if a.privateFound || a.privateExtra {
				t.Fatalf("the client is led inside by %x", raw)
			}
			if b.p.resp.opt && flags&1 == 0 && a.opt {
				t.Fatalf("a client without EDNS gets %x", raw)
			}
		}
		b.finishAll()
	})
}

// FuzzQuery sends arbitrary messages of a client. Queries to upstreams must have one
// question and one OPT record.
func FuzzQuery(f *testing.F) {
	q := query("a.example", dns.TypeA)
	f.Add(pack(f, q))
	q.SetEdns0(4096, true)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: 8, Family: 1, SourceNetmask: 8, Address: []byte{10, 0, 0, 0}}, &dns.EDNS0_NSID{Code: 3})
	f.Add(pack(f, q))
	f.Fuzz(func(t *testing.T, msg []byte) {
		b := newBench(t, nil)
		b.p.Query(&Client{Addr: client1}, msg, b.now)
		for _, s := range b.sent {
			var q question
			if !parseQuery(s.msg, &q, make([]byte, 0, 100)) || !q.wellFormed || q.ednsMalformed || !q.edns || be16(s.msg[10:]) != 1 || be16(s.msg[6:])|be16(s.msg[8:]) != 0 {
				t.Fatalf("the upstream gets %x", s.msg)
			}
			for o := q.opts; len(o) > 0; o = o[4+int(be16(o[2:])):] {
				if !forwardOption(be16(o)) {
					t.Fatalf("the upstream gets option %d", be16(o))
				}
			}
		}
		if len(b.sent)+len(b.got) > 1 {
			t.Fatalf("%d queries and %d answers", len(b.sent), len(b.got))
		}
		b.finishAll()
	})
}

// FuzzExpand compares the parsing of names with another library's.
func FuzzExpand(f *testing.F) {
	const head = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	f.Add([]byte(head+"\x01a\x07example\x00\x03www\xc0\x0c"), 23)
	for _, n := range badNames(headerLen) {
		f.Add([]byte(head+n), headerLen)
	}
	for _, n := range goodNames() {
		f.Add([]byte(head+askedName+"\x00\x00\x00\x00"+n), bodyAt)
	}
	f.Fuzz(func(t *testing.T, m []byte, off int) {
		if off < 0 || off >= len(m) {
			return
		}
		var buf [maxName]byte
		n := expand(m, off, &buf)
		want, _, err := dns.UnpackDomainName(m, off)
		if n == 0 && err == nil && !pointsOddly(m, off) {
			t.Fatalf("%x at %d is %q, and was not read", m, off, want)
		}
		if n > 0 && err != nil {
			t.Fatalf("read %q, and the other: %v", buf[:n], err)
		}
		if n > 0 {
			w := make([]byte, 300)
			k, err := dns.PackDomainName(dns.CanonicalName(want), w, 0, nil, false)
			if err != nil || string(w[:k]) != string(buf[:n]) {
				t.Fatalf("%q, want %q (%v)", buf[:n], w[:k], err)
			}
		}
	})
}

// pointsOddly reports whether a name has a pointer that the other library follows
// and the proxy does not: forwards, into the header, or to a name that does not end
// before.
func pointsOddly(m []byte, off int) bool {
	for start, stop := off, len(m); off < stop; {
		switch c := int(m[off]); {
		case c == 0:
			return false
		case c < 64:
			off += 1 + c
		default:
			if off+2 > stop {
				return true
			}
			to := (c&0x3f)<<8 | int(m[off+1])
			if to < headerLen || to >= start {
				return true
			}
			off, stop, start = to, start, to
		}
	}
	return true
}

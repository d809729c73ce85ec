package dnsproxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// privateBench has a firewall at 198.51.100.1/25 and 203.0.113.10/26, with further
// external addresses, a published server with a public address, and two private
// names.
func privateBench(t testing.TB, how string) *bench {
	as16 := func(s string) ruleset.Addr { return ip(s).To16() }
	return newBench(t, func(p *ruleset.Policy) {
		overOf(how)(p)
		p.Interfaces = []ruleset.Interface{{Role: ruleset.LAN, Address: as16("198.51.100.1"), PrefixLen: 25}, {Role: ruleset.WAN, Address: as16("203.0.113.10"), PrefixLen: 26}}
		p.SNAT = []ruleset.SNAT{{}, {External: as16("192.0.2.7")}}
		p.DNAT = []ruleset.DNAT{{External: as16("192.0.2.8"), To: as16("192.0.2.9")}}
		p.Private = []ruleset.Name{name(p, "nas.example"), name(p, "*.corp.example"), name(p, "_8443._https.nas.example")}
	})
}

// insideAddrs are addresses that names of others must not lead to, each the first
// or the last of its network; outsideAddrs are those beside them.
var (
	insideAddrs = []string{"0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.255",
		"169.254.0.0", "169.254.169.254", "169.254.255.255", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.255", "192.168.0.0", "192.168.255.255",
		"198.18.0.0", "198.19.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.255",
		"198.51.100.0", "198.51.100.1", "198.51.100.127", "203.0.113.0", "203.0.113.10", "203.0.113.63", "192.0.2.7", "192.0.2.8", "192.0.2.9",
		"::", "::1", "::7f00:1", "::ffff:10.0.0.1", "::ffff:203.0.113.10", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "64:ff9b:1:ffff:ffff:ffff:808:808",
		"2002:a00:1::1", "2002:c0a8:ffff::", "fc00::", "fd00::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::1", "febf:ffff::", "fec0::1", "feff::1", "ff00::", "ff02::1"}
	outsideAddrs = []string{"1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0",
		"172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
		"198.51.100.128", "203.0.113.64", "203.0.112.255", "192.0.2.6", "192.0.2.10",
		"::808:808", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "::1:0:0:a00:1", "64:ff9b::8.8.8.8", "64:ff9b::1:a00:1", "64:ff9b:0:1::a00:1", "64:ff9b:2::1", "2002:808:808::1", "2001:a00:1::1",
		"fbff::", "fe00::1", "fe7f::1", "2001:db8::1", "2606:4700::1111"}
)

func record4or6(owner, a string) string {
	if strings.Contains(a, ":") {
		return owner + " 60 IN AAAA " + a
	}
	return owner + " 60 IN A " + a
}

// private sends a query and returns the reply.
func (b *bench) private(asked string, typ uint16, answer, ns, extra []string) *dns.Msg {
	b.t.Helper()
	q := query(asked, typ)
	q.SetEdns0(1232, false)
	b.ask(q)
	_, up := b.last()
	r := reply(b.t, up, answer...)
	with(b.t, r, "ns", ns...)
	with(b.t, r, "extra", extra...)
	return unpack(b.t, b.answer(pack(b.t, r)))
}

// wantRefused checks that a response was refused because of an address, and had no
// other effect.
func (b *bench) wantRefused(m *dns.Msg, addr string) {
	b.t.Helper()
	d := b.done[len(b.done)-1]
	if m.Rcode != dns.RcodeRefused || len(m.Answer)+len(m.Ns) != 0 || len(m.IsEdns0().Option) != 1 || m.IsEdns0().Option[0].(*dns.EDNS0_EDE).InfoCode != dns.ExtendedErrorCodeBlocked {
		b.t.Errorf("%s: the client gets %v", addr, m)
	}
	if b.set.Len() != 0 || d.Outcome != verdict.DNSBlockedPrivate || b.p.c.Outcomes[verdict.DNSBlockedPrivate] != 1 || netip.AddrFrom16(d.Private).Unmap() != netip.MustParseAddr(addr).Unmap() {
		b.t.Errorf("%s: %d bound, told %v of %v", addr, b.set.Len(), d.Outcome, netip.AddrFrom16(d.Private))
	}
	if b.p.up[0].failures != 0 || b.p.Outstanding() != 0 {
		b.t.Errorf("%s: the upstream is blamed", addr)
	}
}

// TestRebinding: a response with a private address for a name that is not private is
// refused, and nothing is bound.
func TestRebinding(t *testing.T) {
	for _, a := range insideAddrs {
		typ := dns.TypeA
		if strings.Contains(a, ":") {
			typ = dns.TypeAAAA
		}
		b := privateBench(t, "UDP")
		b.wantRefused(b.private("evil.example", typ, []string{record4or6("@", a)}, nil, nil), a)
		b = privateBench(t, "UDP")
		if m := b.private("nas.example", typ, []string{record4or6("@", a)}, nil, nil); m.Rcode != 0 || len(m.Answer) != 1 || typ == dns.TypeA && b.ids(a) == 0 {
			t.Errorf("%s for a name that is listed: %v", a, m)
		}
	}
	for _, a := range outsideAddrs {
		typ := dns.TypeA
		if strings.Contains(a, ":") {
			typ = dns.TypeAAAA
		}
		b := privateBench(t, "UDP")
		if m := b.private("honest.example", typ, []string{record4or6("@", a)}, nil, nil); m.Rcode != 0 || len(m.Answer) != 1 || typ == dns.TypeA && b.ids(a) == 0 {
			t.Errorf("%s: %v", a, m)
		}
	}
}

// TestRebindingAnywhere: a private address counts in any record that a client could
// use; the queried name decides, not the record's owner.
func TestRebindingAnywhere(t *testing.T) {
	const good, bad, bad6 = "192.0.2.1", "10.0.0.9", "fd00::9"
	for _, c := range []struct {
		what       string
		asked      string
		typ        uint16
		answer, ns []string
		refused    bool
	}{
		{"one of two", "evil.example", dns.TypeA, []string{"@ 60 IN A " + good, "@ 60 IN A " + bad}, nil, true},
		{"behind an alias", "evil.example", dns.TypeA, []string{"@ 60 IN CNAME b.example.", "b.example. 60 IN A " + bad}, nil, true},
		{"behind an alias of a listed name", "evil.example", dns.TypeA, []string{"@ 60 IN CNAME nas.example.", "nas.example. 60 IN A " + bad}, nil, true},
		{"of another owner", "evil.example", dns.TypeA, []string{"@ 60 IN A " + good, "nas.example. 60 IN A " + bad}, nil, true},
		{"not what was asked", "evil.example", dns.TypeTXT, []string{"@ 60 IN TXT x", "@ 60 IN A " + bad}, nil, true},
		{"ANY", "evil.example", dns.TypeANY, []string{"@ 60 IN A " + bad}, nil, true},
		{"in the authority section", "evil.example", dns.TypeA, []string{"@ 60 IN A " + good}, []string{"evil.example. 60 IN A " + bad}, true},
		{"hint", "evil.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 1 . ipv4hint=" + good + "," + bad}, nil, true},
		{"hint of SVCB", "evil.example", dns.TypeSVCB, []string{"@ 60 IN SVCB 1 . alpn=h2 ipv4hint=" + bad}, nil, true},
		{"hint of an alias", "evil.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 0 b.example. ipv4hint=" + bad}, nil, true},
		{"hint for the target", "evil.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 1 nas.example. ipv4hint=" + bad}, nil, true},
		{"hint, asked for A", "evil.example", dns.TypeA, []string{"@ 60 IN A " + good, "@ 60 IN HTTPS 1 . ipv4hint=" + bad}, nil, true},
		{"hint in the authority section", "evil.example", dns.TypeHTTPS, nil, []string{"evil.example. 60 IN HTTPS 1 . ipv4hint=" + bad}, true},
		{"hint of IPv6", "evil.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 1 . ipv6hint=2001:db8::1," + bad6}, nil, true},
		{"hint behind another parameter", "evil.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 1 . alpn=h2 port=443 ipv4hint=" + good + " ipv6hint=" + bad6}, nil, true},
		{"service of a port", "_8443._https.evil.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 1 nas.example. ipv4hint=" + bad}, nil, true},
		{"below a listed name", "x.nas.example", dns.TypeA, []string{"@ 60 IN A " + bad}, nil, true},
		{"above a wildcard", "corp.example", dns.TypeA, []string{"@ 60 IN A " + bad}, nil, true},
		{"two labels for a wildcard", "a.b.corp.example", dns.TypeA, []string{"@ 60 IN A " + bad}, nil, true},
		{"not an address", "evil.example", dns.TypeTXT, []string{"@ 60 IN TXT " + bad}, nil, false},
		{"another class", "evil.example", dns.TypeA, []string{"@ 60 IN A " + good, "@ 60 HS A " + bad}, nil, false},

		{"a listed name", "nas.example", dns.TypeA, []string{"@ 60 IN A " + good, "@ 60 IN A " + bad}, nil, false},
		{"in capitals", "NAS.Example", dns.TypeA, []string{"@ 60 IN A " + bad}, nil, false},
		{"a wildcard", "files.corp.example", dns.TypeA, []string{"@ 60 IN A " + bad}, nil, false},
		{"a listed name with an alias", "nas.example", dns.TypeA, []string{"@ 60 IN CNAME b.example.", "b.example. 60 IN A " + bad}, nil, false},
		{"a listed name's service", "nas.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 1 . ipv4hint=" + bad + " ipv6hint=fd00::1"}, nil, false},
		{"a listed service of a port", "_8443._https.nas.example", dns.TypeHTTPS, []string{"@ 60 IN HTTPS 1 nas.example. ipv4hint=" + bad}, nil, false},
	} {
		t.Run(strings.ReplaceAll(c.what, " ", "_"), func(t *testing.T) {
			b := privateBench(t, "UDP")
			m := b.private(c.asked, c.typ, c.answer, c.ns, nil)
			addr := bad
			if strings.Contains(strings.Join(c.answer, ""), bad6) {
				addr = bad6
			}
			if c.refused {
				b.wantRefused(m, addr)
			} else if m.Rcode != 0 || len(m.Answer) != len(c.answer) || b.p.c.Outcomes[verdict.DNSBlockedPrivate] != 0 {
				t.Errorf("the client gets %v", m)
			}
		})
	}
	for _, how := range ways { // and however the upstream was asked, and whatever it says beside it
		for _, rcode := range []byte{0, 2, 3, 5} {
			b := privateBench(t, how)
			b.code = rcode
			b.through(how, rawRR(pointer(headerLen), typeA, "\x0a\x00\x00\x09"), [3]int{1})
			if len(b.got) != 1 || b.got[0][3]&15 != rcodeRefused || len(b.got[0]) != bodyAt || b.set.Len() != 0 {
				t.Errorf("%s, code %d: %x", how, rcode, b.got)
			}
		}
	}
}

// TestAdditionalPrivate: a response with a private address in its additional section
// only is relayed without that section.
func TestAdditionalInside(t *testing.T) {
	for _, extra := range []string{"ns.example. 60 IN A 192.168.1.1", "ns.example. 60 IN AAAA fd00::1", "ns.example. 60 IN HTTPS 1 . ipv4hint=192.168.1.1"} {
		b := privateBench(t, "UDP")
		other := "other.example. 60 IN A 192.0.2.1"
		ns := []string{"example. 60 IN NS ns.example."}
		m := b.private("honest.example", dns.TypeA, []string{"@ 60 IN A 192.0.2.1"}, ns, []string{extra, other})
		if m.Rcode != 0 || len(m.Answer) != 1 || len(m.Ns) != 1 || len(m.Extra) != 1 || m.IsEdns0() == nil || b.p.c.AdditionalRemoved != 1 || b.ids("192.0.2.1") == 0 {
			t.Errorf("%s: %v", extra, m)
		}
		b = privateBench(t, "UDP")
		if m := b.private("nas.example", dns.TypeA, []string{"@ 60 IN A 192.0.2.1"}, ns, []string{extra, other}); len(m.Extra) != 3 || b.p.c.AdditionalRemoved != 0 {
			t.Errorf("%s, of a listed name: %v", extra, m)
		}
		b = privateBench(t, "UDP")
		if m := b.private("honest.example", dns.TypeA, []string{"@ 60 IN A 192.0.2.1"}, ns, []string{other, other}); len(m.Extra) != 3 || b.p.c.AdditionalRemoved != 0 {
			t.Errorf("without it: %v", m)
		}
	}
}

// TestPrivateIsThatOfTheLibrary: addresses that net/netip calls private, loopback,
// link-local, multicast or unspecified are private.
func TestInsideIsThatOfTheLibrary(t *testing.T) {
	in := newPrivateNets(&ruleset.Policy{})
	b := newBench(t, nil)
	for range 200000 {
		r := b.rnd.Uint64()
		var a16 [16]byte
		for i := range a16 {
			a16[i] = byte(b.rnd.Uint32() >> (b.rnd.Uint32() % 9))
		}
		a16[0] = [...]byte{0, 0xfc, 0xfd, 0xfe, 0xff, 0x20, a16[0], a16[0]}[r%8]
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{[...]byte{0, 10, 100, 127, 169, 172, 192, 224, byte(r >> 40)}[r%9], byte(r >> 8), byte(r >> 16), byte(r >> 24)}), netip.AddrFrom16(a16)} {
			private := a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
			has := false
			if a.Is4() {
				x := a.As4()
				has = in.has(packet.Addr(be32(x[:])))
			} else {
				x := a.As16()
				has = in.has6(x[:])
			}
			if private && !has {
				t.Fatalf("%v is not inside", a)
			}
		}
	}
	if in.has(ip("8.8.8.8")) || newPrivateNets(&ruleset.Policy{Interfaces: []ruleset.Interface{{Address: ip("192.0.2.1").To16()}}}).has(ip("8.8.8.8")) {
		t.Fatal("everything is inside")
	}
	// No address, one of another family, and impossible prefixes add nothing.
	for what, i := range map[string]ruleset.Interface{
		"no address":      {PrefixLen: 1},
		"IPv6":            {Address: ruleset.Addr{0x20, 1}, PrefixLen: 1},
		"a prefix of 0":   {Address: ip("192.0.2.1").To16()},
		"one of 33 bits":  {Address: ip("8.8.8.8").To16(), PrefixLen: 33},
		"one of 255 bits": {Address: ip("8.8.8.8").To16(), PrefixLen: 255},
	} {
		if in := newPrivateNets(&ruleset.Policy{Interfaces: []ruleset.Interface{i}}); in.has(ip("8.8.8.8")) || in.has(ip("1.1.1.1")) || len(in.own) != 0 {
			t.Errorf("%s: %+v", what, in.own)
		}
	}
}

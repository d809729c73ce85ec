package nat

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	second = packet.Addr(0xcb00710b) // another external address
	web    = packet.Addr(0x0a000005) // a server
	mail   = packet.Addr(0x0a000006)
	peer   = packet.Addr(0xc6336407)
)

func dnat(proto uint8, ext packet.Addr, lo, hi uint16, to packet.Addr, port uint16) ruleset.DNAT {
	return ruleset.DNAT{External: ext.To16(), To: to.To16(), Proto: proto, PortLo: lo, PortHi: hi, ToPort: port}
}

func maskOf(bits int) (m ruleset.Addr) {
	for i := range m {
		m[i] = 0xff
	}
	v := uint32(uint64(0xffffffff) << (32 - bits))
	m[12], m[13], m[14], m[15] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	return m
}

func natOf(t *testing.T, dnats ...ruleset.DNAT) *NAT {
	t.Helper()
	return natWith(t, ruleset.SNAT{Interface: 1, PortLo: 1024, PortHi: 65535}, dnats...)
}

func natWith(t *testing.T, snat ruleset.SNAT, dnats ...ruleset.DNAT) *NAT {
	t.Helper()
	p := policyWith(snat)
	p.DNAT = dnats
	return newNAT(t, p)
}

// TestForward: which server a packet to an external endpoint goes to: the right
// one of two ports, of two addresses, of two protocols, and none beside them.
func TestForward(t *testing.T) {
	n := natOf(t,
		dnat(packet.TCP, external, 443, 443, web, 8443),
		dnat(packet.TCP, external, 25, 25, mail, 2525),
		dnat(packet.TCP, second, 443, 443, mail, 443),
		dnat(packet.UDP, external, 443, 443, mail, 4433),
		dnat(packet.TCP, external, 8000, 8009, web, 9000),
		dnat(packet.TCP, external, 65535, 65535, mail, 1),
	)
	for _, c := range []struct {
		proto uint8
		dst   packet.Addr
		port  uint16
		to    packet.Addr // 0: none
		at    uint16
		entry uint32
	}{
		{packet.TCP, external, 443, web, 8443, 0},
		{packet.TCP, external, 25, mail, 2525, 1},
		{packet.TCP, second, 443, mail, 443, 2},
		{packet.UDP, external, 443, mail, 4433, 3},
		{packet.TCP, external, 8000, web, 9000, 4},
		{packet.TCP, external, 8009, web, 9009, 4},
		{packet.TCP, external, 65535, mail, 1, 5},
		{packet.TCP, external, 7999, 0, 0, 0},
		{packet.TCP, external, 8010, 0, 0, 0},
		{packet.TCP, external, 442, 0, 0, 0},
		{packet.TCP, second, 25, 0, 0, 0},
		{packet.UDP, external, 25, 0, 0, 0},
		{packet.UDP, second, 443, 0, 0, 0},
		{packet.ICMP, external, 443, 0, 0, 0},
		{132, external, 443, 0, 0, 0},
		{packet.TCP, external + 2, 443, 0, 0, 0},
	} {
		got, ok := n.Forward(c.proto, peer, c.dst, c.port)
		if ok != (c.to != 0) || ok && (got.Addr != c.to || got.Port != c.at || got.Entry != c.entry || got.Hairpin) {
			t.Errorf("protocol %d, %x:%d: %+v, %v", c.proto, c.dst, c.port, got, ok)
		}
	}
}

// TestForwardFrom: the first entry whose sources cover the packet's decides, with
// prefixes of any length.
func TestForwardFrom(t *testing.T) {
	var ds []ruleset.DNAT
	for i, bits := range []int{32, 24, 15, 8, 1, 0} {
		d := dnat(packet.TCP, external, 443, 443, web+packet.Addr(i), 443)
		m := packet.Mask(maskOf(bits))
		d.From, d.FromMask = (packet.Addr(0x0b16212c) & m).To16(), maskOf(bits)
		ds = append(ds, d)
	}
	ds[1].Hairpin = 1
	n := natOf(t, ds...)
	for src, want := range map[packet.Addr]int{
		0x0b16212c: 0, 0x0b16212d: 1, 0x0b162200: 2, 0x0b17ffff: 2, 0x0b180000: 3, 0x0b150000: 3, 0x0c000000: 4, 0x7fffffff: 4, 0x80000000: 5, 0xffffffff: 5,
	} {
		got, ok := n.Forward(packet.TCP, src, external, 443)
		if !ok || int(got.Entry) != want || got.Addr != web+packet.Addr(want) || got.Hairpin != (want == 1) {
			t.Errorf("from %x: %+v, %v, want entry %d", src, got, ok, want)
		}
	}
}

// TestServersOwnFlows: a server's own flow from a published port has the external endpoint
// of just that port: the right one of two, and the first of two for the same; another host
// with the same port has one from the pool, and no host gets a published port.
func TestServersOwnFlows(t *testing.T) {
	n := natOf(t,
		dnat(packet.TCP, external, 2000, 2000, web, 443),
		dnat(packet.TCP, external, 3000, 3000, web, 444),
		dnat(packet.TCP, second, 4000, 4000, web, 443), // the same port by another address
		dnat(packet.UDP, external, 5000, 5009, web, 443),
		dnat(packet.TCP, external, 2000, 2000, mail, 443), // for other sources: the first entry owns it
		dnat(packet.TCP, second, 6000, 6000, mail, 25),
		dnat(packet.TCP, external, 30000, 30001, mail, 10000),
	)
	outside := func(proto uint8, addr packet.Addr, port uint16, ext packet.Addr, eport uint16) {
		t.Helper()
		m, o := n.Map(proto, addr, port, 77)
		if o != Mapped || m.Addr != ext || m.Port != eport || m.Pool != NoPool {
			t.Errorf("%x:%d leaves as %+v, %d, want %x:%d", addr, port, m, o, ext, eport)
		}
	}
	outside(packet.TCP, web, 443, external, 2000)
	outside(packet.TCP, web, 444, external, 3000)
	outside(packet.UDP, web, 443, external, 5000)
	outside(packet.UDP, web, 452, external, 5009)
	outside(packet.TCP, mail, 25, second, 6000)
	outside(packet.TCP, mail, 10000, external, 30000)
	outside(packet.TCP, mail, 10001, external, 30001)
	for _, c := range []struct {
		proto uint8
		addr  packet.Addr
		port  uint16
	}{
		{packet.TCP, web + 9, 443}, // another host with the server's port
		{packet.TCP, web + 9, 2000},
		{packet.TCP, web, 445},
		{packet.TCP, web, 442},
		{packet.UDP, web, 453},
		{packet.UDP, web, 442},
		{packet.TCP, mail, 443}, // its external port is the first entry's server's
		{packet.UDP, mail, 25},
		{packet.ICMP, web, 443},
	} {
		m, o := n.Map(c.proto, c.addr, c.port, 77)
		if o != Mapped || m.Pool == NoPool || c.proto == packet.TCP && (m.Port == 2000 || m.Port == 3000) || c.proto == packet.UDP && m.Port >= 5000 && m.Port <= 5009 {
			t.Errorf("protocol %d, %x:%d leaves as %+v, %d", c.proto, c.addr, c.port, m, o)
		}
	}
}

// TestPublishedPortsAreReserved: not to hosts, nor to the firewall, at either end
// of a range and for its protocol only.
func TestPublishedPortsAreReserved(t *testing.T) {
	n := natOf(t, dnat(packet.UDP, external, 5000, 5063, web, 443))
	p := n.pools[0]
	if p.Size(packet.UDP) != 64512-64 || p.Size(packet.TCP) != 64512 {
		t.Fatalf("%d ports of UDP, %d of TCP", p.Size(packet.UDP), p.Size(packet.TCP))
	}
	for port := uint16(4998); port < 5066; port++ {
		got, ok := p.Take(packet.UDP, mail, port, uint64(port)<<48)
		if published := port >= 5000 && port <= 5063; !ok || (got == port) == published || got >= 5000 && got <= 5063 {
			t.Errorf("port %d: %d, %v", port, got, ok)
		}
		if got, ok := p.Take(packet.TCP, mail, port, 1); !ok || got != port {
			t.Errorf("port %d of TCP: %d, %v", port, got, ok)
		}
	}
	for i := range uint64(2000) {
		if got, ok := n.Own().Take(packet.UDP, i*0xd1342543de82ef95); !ok || got >= 5000 && got <= 5063 {
			t.Fatalf("the firewall has port %d, %v", got, ok)
		}
	}
	// Twice is once, and what lies outside of a pool takes nothing from it.
	n = natOf(t, dnat(packet.UDP, external, 5000, 5001, web, 443), dnat(packet.UDP, external, 5001, 5002, mail, 443), dnat(packet.UDP, second, 5100, 5200, mail, 443),
		dnat(packet.UDP, external, 1, 1023, mail, 1))
	if got := n.pools[0].Size(packet.UDP); got != 64512-3 {
		t.Fatalf("%d ports", got)
	}
	// Without a pool of the address the firewall keeps off them all the same.
	pol := policyWith()
	pol.DNAT = []ruleset.DNAT{dnat(packet.TCP, external, 1024, 65534, web, 1)}
	pol.DNAT = append(pol.DNAT, dnat(packet.TCP, second, 65535, 65535, web, 1)) // another's
	m := newNAT(t, pol)
	if got, ok := m.Own().Take(packet.TCP, 12345); !ok || got != 65535 {
		t.Fatalf("port %d, %v", got, ok)
	}
}

// TestStaticModel compares both ways with a plain search through the entries, for
// random entries of few addresses and ports.
func TestStaticModel(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 11))
	pick := func(as ...packet.Addr) packet.Addr { return as[r.IntN(len(as))] }
	for range 150 {
		var ds []ruleset.DNAT
		for range 1 + r.IntN(8) {
			lo := uint16(1000 + r.IntN(12))
			d := dnat([]uint8{packet.TCP, packet.UDP}[r.IntN(2)], pick(external, second), lo, lo+uint16(r.IntN(4)), pick(web, mail), uint16(1000+r.IntN(12)))
			if bits := r.IntN(4) * 8; bits > 0 {
				d.From, d.FromMask = (peer & packet.Mask(maskOf(bits))).To16(), maskOf(bits)
			}
			ds = append(ds, d)
		}
		n := natWith(t, ruleset.SNAT{Interface: 1, PortLo: 990, PortHi: 1030}, ds...)
		for port := uint16(998); port < 1020; port++ {
			for _, proto := range []uint8{packet.TCP, packet.UDP} {
				for _, ext := range []packet.Addr{external, second, second + 1} {
					for _, src := range []packet.Addr{peer, peer ^ 1, peer ^ 1<<9, peer ^ 1<<17, peer ^ 1<<25} {
						want, found := Target{}, false
						for i, d := range ds {
							from, _ := packet.AddrFrom16(d.From)
							m := packet.Addr(0)
							if d.FromMask != (ruleset.Addr{}) {
								m = packet.Mask(d.FromMask)
							} else {
								from = 0
							}
							to, _ := packet.AddrFrom16(d.To)
							if e, _ := packet.AddrFrom16(d.External); d.Proto == proto && e == ext && port >= d.PortLo && port <= d.PortHi && src&m == from {
								want, found = Target{Addr: to, Port: d.ToPort + port - d.PortLo, Entry: uint32(i)}, true
								break
							}
						}
						if got, ok := n.Forward(proto, src, ext, port); ok != found || got != want {
							t.Fatalf("%x > %x:%d protocol %d: %+v, %v, want %+v, %v; entries %+v", src, ext, port, proto, got, ok, want, found, ds)
						}
					}
				}
				for _, srv := range []packet.Addr{web, mail} {
					ext, eport, ok := n.static.outside(proto, srv, port)
					wantExt, wantPort, found := packet.Addr(0), uint16(0), false
					for i := range ds {
						d := &ds[i]
						to, _ := packet.AddrFrom16(d.To)
						if d.Proto != proto || to != srv || port < d.ToPort || port > d.ToPort+d.PortHi-d.PortLo {
							continue
						}
						p := d.PortLo + port - d.ToPort
						first := -1
						for j := range ds {
							if o := &ds[j]; o.Proto == proto && o.External == d.External && p >= o.PortLo && p <= o.PortHi {
								first = j
								break
							}
						}
						if first == i {
							wantExt, _ = packet.AddrFrom16(d.External)
							wantPort, found = p, true
							break
						}
					}
					if ok != found || ext != wantExt || eport != wantPort {
						t.Fatalf("%x:%d protocol %d leaves as %x:%d, %v, want %x:%d, %v; entries %+v", srv, port, proto, ext, eport, ok, wantExt, wantPort, found, ds)
					}
				}
			}
		}
	}
}

// TestStaticErrors: invalid entries are refused, at each bound.
func TestStaticErrors(t *testing.T) {
	six := ruleset.Addr{0x20, 1}
	for _, c := range []struct {
		want string
		edit func(d *ruleset.DNAT)
	}{
		{"an address of a dnat entry is not IPv4", func(d *ruleset.DNAT) { d.External = six }},
		{"an address of a dnat entry is not IPv4", func(d *ruleset.DNAT) { d.To = six }},
		{"sources of a dnat entry are not IPv4", func(d *ruleset.DNAT) { d.From, d.FromMask = six, maskOf(8) }},
		{"neither for TCP nor for UDP", func(d *ruleset.DNAT) { d.Proto = packet.ICMP }},
		{"neither for TCP nor for UDP", func(d *ruleset.DNAT) { d.Proto = 0 }},
		{"ports of a dnat entry are not ranges", func(d *ruleset.DNAT) { d.PortLo = 0 }},
		{"ports of a dnat entry are not ranges", func(d *ruleset.DNAT) { d.PortHi = d.PortLo - 1 }},
		{"ports of a dnat entry are not ranges", func(d *ruleset.DNAT) { d.PortHi, d.ToPort = 10, 100 }},
		{"ports of a dnat entry are not ranges", func(d *ruleset.DNAT) { d.ToPort = 0 }},
		{"ports of a dnat entry are not ranges", func(d *ruleset.DNAT) { d.PortHi, d.ToPort = d.PortLo+10, 65526 }},
	} {
		p := policyWith(ruleset.SNAT{Interface: 1, PortLo: 1024, PortHi: 65535})
		d := dnat(packet.TCP, external, 443, 443, web, 443)
		p.DNAT = []ruleset.DNAT{d}
		if _, err := New(p, 1); err != nil {
			t.Fatal(err)
		}
		c.edit(&p.DNAT[0])
		if _, err := New(p, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	// Up to 65535 is a port.
	natOf(t, dnat(packet.TCP, external, 443, 453, web, 65525))
}

// TestSourcePrefixes: the first entry that covers a source decides, with prefixes
// of any length, shorter ones than /16 among them.
func TestSourcePrefixes(t *testing.T) {
	var ss []ruleset.SNAT
	bits := []int{32, 24, 20, 15, 12, 8, 1}
	for i, b := range bits {
		m := packet.Mask(maskOf(b))
		ss = append(ss, ruleset.SNAT{Interface: 1, PortLo: 1024, PortHi: 65535, Source: (packet.Addr(0x0ab3c4d5) & m).To16(), SourceMask: maskOf(b), External: (second + packet.Addr(i)).To16()})
	}
	n := newNAT(t, policyWith(ss...))
	for i, b := range bits {
		low := packet.Addr(0x0ab3c4d5) & packet.Mask(maskOf(b))
		high := low | ^packet.Mask(maskOf(b))
		for _, a := range []packet.Addr{low, high} {
			first := 0 // the first that covers it, by hand
			for first < i && (a^0x0ab3c4d5)>>(32-bits[first]) != 0 {
				first++
			}
			if m, o := n.Map(packet.TCP, a, 4000, 1); o != Mapped || m.Addr != second+packet.Addr(first) {
				t.Errorf("%x leaves as %x, %d, want entry %d", a, m.Addr, o, first)
			}
		}
	}
	if _, o := n.Map(packet.TCP, 0x80000000, 4000, 1); o != Untranslated || n.Translates(0x80000000) || !n.Translates(0x7fffffff) {
		t.Error("what no entry covers is translated")
	}
}

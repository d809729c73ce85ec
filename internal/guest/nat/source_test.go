package nat

import (
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

func snat(ext packet.Addr, lo, hi uint16, source packet.Addr, bits int) ruleset.SNAT {
	s := ruleset.SNAT{Interface: 1, PortLo: lo, PortHi: hi}
	if ext != 0 {
		s.External = ext.To16()
	}
	if bits > 0 {
		s.Source, s.SourceMask = source.To16(), maskOf(bits)
	}
	return s
}

// TestSourceErrors: invalid entries are refused, each for its reason, and those at the
// bounds are not.
func TestSourceErrors(t *testing.T) {
	six := ruleset.Addr{0x20, 1}
	ok := snat(second, 1, 65535, web, 32)
	newNAT(t, policyWith(ok))
	for _, c := range []struct {
		want string
		edit func(p *ruleset.Policy, s *ruleset.SNAT)
	}{
		{"an snat entry is not for the WAN interface", func(_ *ruleset.Policy, s *ruleset.SNAT) { s.Interface = 0 }},
		{"an snat entry is not for the WAN interface", func(_ *ruleset.Policy, s *ruleset.SNAT) { s.Interface = 2 }},
		{"an snat entry is not for the WAN interface", func(_ *ruleset.Policy, s *ruleset.SNAT) { s.Interface = 3 }},
		{"ports of an snat entry are not a range from 1 to 65535", func(_ *ruleset.Policy, s *ruleset.SNAT) { s.PortLo = 0 }},
		{"ports of an snat entry are not a range from 1 to 65535", func(_ *ruleset.Policy, s *ruleset.SNAT) { s.PortLo, s.PortHi = 5, 4 }},
		{"the external address of an snat entry is not IPv4", func(_ *ruleset.Policy, s *ruleset.SNAT) { s.External = six }},
		{"the external address of an snat entry is not IPv4", func(p *ruleset.Policy, s *ruleset.SNAT) {
			s.External, p.Interfaces[1].Address = ruleset.Addr{}, six
		}},
		{"the source of an snat entry is not IPv4", func(_ *ruleset.Policy, s *ruleset.SNAT) { s.Source = six }},
	} {
		p := policyWith(ok, ok)
		c.edit(p, &p.SNAT[1])
		if n, err := New(p, 1); err == nil || n != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	// One port is a range, and the source address of an entry for all is ignored.
	p := policyWith(snat(0, 7, 7, 0, 0))
	p.SNAT[0].Source = six
	if m, o := newNAT(t, p).Map(packet.UDP, web, 9, 1); o != Mapped || m != (Mapping{external, 7, 0}) {
		t.Errorf("%+v, %d", m, o)
	}
}

// TestPoolsAreFew: as many external addresses as there may be, and one more.
func TestPoolsAreFew(t *testing.T) {
	var ss []ruleset.SNAT
	for i := range packet.Addr(257) {
		ss = append(ss, snat(second+i, 5000, 5000, 0, 0))
	}
	ss[256].External = second.To16() // the first again
	n := newNAT(t, policyWith(ss...))
	if len(n.Pools()) != 256 || n.Pools()[255].Addr != second+255 {
		t.Fatalf("%d pools", len(n.Pools()))
	}
	ss[256].External = (second + 256).To16()
	if _, err := New(policyWith(ss...), 1); err == nil || !strings.Contains(err.Error(), "more than 256 external addresses") {
		t.Fatalf("257 addresses: %v", err)
	}
}

// TestEntriesShareAPool: two entries for one external address have one pool, from
// the lowest of their ports to the highest, and each its own part of it; the same
// twice is once; one for another address has another.
func TestEntriesShareAPool(t *testing.T) {
	n := newNAT(t, policyWith(
		snat(0, 3000, 3003, web, 32),
		snat(external, 2000, 2001, mail, 32),
		snat(external, 3002, 3009, peer, 32),
		snat(second, 4000, 4000, 0x0a000100, 24),
		snat(second, 9000, 9000, 0x0a000100, 24), // of the same sources: the first decides on the ports
	))
	ps := n.Pools()
	if len(ps) != 2 || ps[0].Addr != external || ps[0].Lo != 2000 || ps[0].Hi != 3009 || ps[1].Addr != second || ps[1].Lo != 4000 || ps[1].Hi != 9000 {
		t.Fatalf("%d pools, %+v", len(ps), ps)
	}
	for _, c := range []struct {
		addr   packet.Addr
		lo, hi uint16
		pool   int16
	}{{mail, 2000, 2001, 0}, {web, 3000, 3003, 0}, {peer, 3004, 3009, 0}} {
		got := map[uint16]bool{}
		for port := range uint16(c.hi - c.lo + 1) {
			m, o := n.Map(packet.UDP, c.addr, 50000+port, uint64(port)<<55)
			if o != Mapped || m.Pool != c.pool || m.Port < c.lo || m.Port > c.hi || got[m.Port] {
				t.Fatalf("%x: %+v, %d", c.addr, m, o)
			}
			got[m.Port] = true
		}
		if m, o := n.Map(packet.UDP, c.addr, 49999, 1); o != Exhausted || m != (Mapping{external, 0, c.pool}) {
			t.Fatalf("%x: %+v, %d from a part that is used up", c.addr, m, o)
		}
	}
	if m, o := n.Map(packet.UDP, 0x0a000199, 4000, 1); o != Mapped || m != (Mapping{second, 4000, 1}) {
		t.Fatalf("%+v, %d", m, o)
	}
	if m, o := n.Map(packet.UDP, 0x0a000198, 4000, 1); o != Exhausted || m != (Mapping{second, 0, 1}) {
		t.Fatalf("%+v, %d", m, o)
	}
	if m, o := n.Map(packet.UDP, web+0x1000000, 4000, 1); o != Untranslated || m != (Mapping{Pool: NoPool}) {
		t.Fatalf("%+v, %d", m, o)
	}
}

// TestSourcesAreTheirPrefix: entries for the same address with other prefixes are
// not one.
func TestSourcesAreTheirPrefix(t *testing.T) {
	n := newNAT(t, policyWith(snat(second, 1024, 65535, 0x0a000000, 24), snat(second+1, 1024, 65535, 0x0a000000, 8), snat(second+2, 1024, 65535, 0x0a010000, 24)))
	for a, want := range map[packet.Addr]packet.Addr{0x0a0000ff: second, 0x0a000100: second + 1, 0x0affffff: second + 1, 0x0a010001: second + 1} {
		if m, o := n.Map(packet.UDP, a, 4000, 1); o != Mapped || m.Addr != want {
			t.Errorf("%x leaves as %+v, %d, want %x", a, m, o, want)
		}
	}
}

// TestOneAddressForAHost: of an entry's external addresses a host has always the
// same, hosts are spread over all of them, and which one a host has depends on the
// key.
func TestOneAddressForAHost(t *testing.T) {
	for _, n := range []packet.Addr{2, 5} {
		oneAddress(t, n)
	}
}

func oneAddress(t *testing.T, addresses packet.Addr) {
	t.Helper()
	const sources = 2000
	var ss []ruleset.SNAT
	for i := range addresses {
		ss = append(ss, snat(second+i, 1024, 65535, 0x0a000000, 8), snat(second+i, 1024, 65535, 0x0b000000, 8))
	}
	last := map[packet.Addr]packet.Addr{}
	for _, key := range []uint64{0, 1, 2, 0x123456789abcdef0} {
		n, err := New(policyWith(ss...), key)
		if err != nil {
			t.Fatal(err)
		}
		count, moved := map[packet.Addr]int{}, 0
		for i := range packet.Addr(sources) {
			a := 0x0a000100 + i
			m, o := n.Map(packet.TCP, a, 4000, 1)
			if o != Mapped || m.Addr != n.Pools()[m.Pool].Addr {
				t.Fatalf("%+v, %d", m, o)
			}
			if again, _ := n.Map(packet.UDP, a, uint16(5000+i), 2); again.Addr != m.Addr || again.Pool != m.Pool {
				t.Fatalf("key %#x: %x has %x and %x", key, a, m.Addr, again.Addr)
			}
			count[m.Addr]++
			if last[a] != m.Addr {
				moved++
			}
			last[a] = m.Addr
		}
		for i := range addresses {
			if c := count[second+i]; c < sources/int(addresses)*7/10 || c > sources/int(addresses)*13/10 {
				t.Errorf("key %#x: address %d has %d hosts of %d", key, i, c, sources)
			}
		}
		if moved < sources/3 {
			t.Errorf("key %#x: %d hosts of %d have another address than with the last key", key, moved, sources)
		}
		if m, _ := n.Map(packet.TCP, 0x0b000001, 4000, 1); m.Addr < second || m.Addr >= second+addresses {
			t.Errorf("another entry's host has %x", m.Addr)
		}
	}
}

// TestServersAddressIsPaired: a server that is reached by one of its entry's
// external addresses uses that for its other flows; the first of two; one that is
// not of its entry it does not use.
func TestServersAddressIsPaired(t *testing.T) {
	var ss []ruleset.SNAT
	for i := range packet.Addr(8) {
		ss = append(ss, snat(second+i, 1024, 65535, 0x0a000000, 24))
	}
	ss = append(ss, snat(second+20, 1024, 65535, 0x0a000100, 24))
	var ds []ruleset.DNAT
	for i := range packet.Addr(16) { // in the reverse order of addresses
		ds = append(ds, dnat(packet.TCP, second+i%8, 443+uint16(i), 443+uint16(i), 0x0a000080-i, 443))
	}
	ds = append(ds,
		dnat(packet.TCP, second+7, 80, 80, web, 80),
		dnat(packet.TCP, second+3, 81, 81, web, 81),
		dnat(packet.TCP, second+20, 82, 82, mail, 82),
		dnat(packet.TCP, second+5, 83, 83, 0x0c000001, 83))
	p := policyWith(ss...)
	p.DNAT = ds
	for key := range uint64(8) {
		n, err := New(p, key)
		if err != nil {
			t.Fatal(err)
		}
		is := func(a, want packet.Addr) {
			t.Helper()
			m, o := n.Map(packet.UDP, a, 4000, 1)
			if o != Mapped || m.Addr != want || n.Pools()[m.Pool].Addr != want {
				t.Errorf("key %d: %x leaves as %+v, %d, want %x", key, a, m, o, want)
			}
		}
		for i := range packet.Addr(16) {
			is(0x0a000080-i, second+i%8)
		}
		is(web, second+7)
		is(0x0a000105, second+20)
		if m, o := n.Map(packet.UDP, mail, 4000, 1); o != Mapped || m.Addr == second+20 {
			t.Errorf("%+v, %d: an address that its entry does not offer", m, o)
		}
		if _, o := n.Map(packet.UDP, 0x0c000001, 4000, 1); o != Untranslated {
			t.Errorf("a server that no entry covers: %d", o)
		}
	}
}

// TestNoSuchPool: what names no pool gives nothing back and finds nothing.
func TestNoSuchPool(t *testing.T) {
	n := newNAT(t, policyWith(snat(0, 2000, 2009, 0, 0)))
	m, _ := n.Map(packet.TCP, web, 2005, 1)
	n.Bind(m, packet.TCP, 41)
	for _, pool := range []int16{NoPool, 1, 2, -2, 32767, -32768} {
		n.Give(pool, packet.TCP, 2005)
		n.Bind(Mapping{Pool: pool, Port: 2005}, packet.TCP, 77)
		if flow, share, ok := n.Lone(pool, packet.TCP); flow != 0 || share != 0 || ok {
			t.Errorf("pool %d: %d, %d, %v", pool, flow, share, ok)
		}
		if s := n.Share(pool, packet.TCP, web); s != 0 {
			t.Errorf("pool %d: share %d", pool, s)
		}
	}
	for _, proto := range []uint8{0, 2, 132, 255} { // nor what has no ports
		n.Give(0, proto, 2005)
		n.pools[0].Give(proto, 2005)
		n.Bind(m, proto, 77)
		n.Own().Give(proto, 2005)
		if flow, share, ok := n.Lone(0, proto); flow != 0 || share != 0 || ok {
			t.Errorf("protocol %d: %d, %d, %v", proto, flow, share, ok)
		}
		p := n.pools[0]
		if n.Share(0, proto, web) != 0 || p.InUse(proto) != 0 || p.HighWater(proto) != 0 || p.Size(proto) != 0 {
			t.Errorf("protocol %d has ports", proto)
		}
		if _, ok := n.Own().Take(proto, 1); ok {
			t.Errorf("an own port of protocol %d", proto)
		}
		if port, ok := n.pools[0].Take(proto, web, 2005, 1); ok || port != 0 {
			t.Errorf("port %d of protocol %d", port, proto)
		}
		if m, o := n.Map(proto, web, 2005, 1); o != Exhausted {
			t.Errorf("protocol %d: %+v, %d", proto, m, o)
		}
	}
	if n.pools[0].InUse(packet.TCP) != 1 || n.Share(0, packet.TCP, web) != 1 {
		t.Fatal("something was given back")
	}
	for i := range 10 {
		flow, share, ok := n.Lone(0, packet.TCP)
		if want := (i+1)%10 == 5; ok != want || ok && (flow != 41 || share != 1) {
			t.Errorf("look %d: flow %d, share %d, %v", i, flow, share, ok)
		}
	}
}

// TestKinds: their names in metrics.
func TestKinds(t *testing.T) {
	for k, want := range map[Kind]string{SNAT: "snat", DNAT: "dnat", Hairpin: "hairpin", NumKinds: "invalid", 255: "invalid"} {
		if k.String() != want {
			t.Errorf("%d: %q", k, k)
		}
	}
}

// TestBytesOfAPolicy: the reported memory of a translation is what it allocates, and what
// is refused takes nothing more.
func TestBytesOfAPolicy(t *testing.T) {
	p := policyWith(snat(0, 1024, 65535, web, 32), snat(second, 1024, 65535, mail, 32), snat(second, 2000, 3000, peer, 32))
	for i := range 4000 {
		p.DNAT = append(p.DNAT, dnat(packet.TCP, second+9, 1+uint16(i), 1+uint16(i), web, 1+uint16(i)))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := newNAT(t, p)
	runtime.GC()
	runtime.ReadMemStats(&after)
	got, want := int(after.HeapAlloc)-int(before.HeapAlloc), Bytes(p)
	if got < want*9/10 || got > want*12/10 {
		t.Errorf("it takes %d bytes, Bytes says %d", got, want)
	}
	runtime.KeepAlive(n)
	if one, two := Bytes(policyWith(snat(0, 1024, 65535, 0, 0))), Bytes(policyWith(snat(0, 1024, 65535, web, 32), snat(second, 1024, 65535, mail, 32))); two != 2*one || one != poolBytes(1024, 65535) {
		t.Errorf("one pool %d bytes, two %d", one, two)
	}
	p = policyWith()
	if Bytes(p) != 0 {
		t.Errorf("nothing takes %d bytes", Bytes(p))
	}
	p.DNAT = make([]ruleset.DNAT, 3)
	if Bytes(p) != 3*staticBytes {
		t.Errorf("3 entries take %d bytes", Bytes(p))
	}
	for _, r := range [][2]uint16{{1, 1}, {1, 2}, {1, 100}, {1, 65535}} {
		q := NewPool(1, r[0], r[1], 1)
		want := 0
		for _, s := range q.space {
			want += int(unsafe.Sizeof(*s)) + len(s.byExt)*int(unsafe.Sizeof(s.byExt[0])) + len(s.index)*int(unsafe.Sizeof(s.index[0]))
		}
		if got := poolBytes(r[0], r[1]); got != want {
			t.Errorf("ports %v: %d bytes, want %d", r, got, want)
		}
	}
}

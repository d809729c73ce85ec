package ruleset_test

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/compile"
	. "github.com/thurward/thurward/internal/shared/ruleset"
)

// TestAddressBoundaries: each condition of the addresses at its last good value
// and at its first bad one.
func TestAddressBoundaries(t *testing.T) {
	wan := func(a Addr, bits uint8, gw Addr) func(p *Policy) {
		return func(p *Policy) {
			p.Interfaces[1].Address, p.Interfaces[1].PrefixLen, p.Interfaces[1].Gateway = a, bits, gw
		}
	}
	mac := func(m byte, mtu uint16) func(p *Policy) {
		return func(p *Policy) { p.Interfaces[1].HasMAC, p.Interfaces[1].MAC[0], p.Interfaces[1].MTU = 1, m, mtu }
	}
	from := func(a, m Addr) func(p *Policy) {
		return func(p *Policy) { p.SNAT[0].Source, p.SNAT[0].SourceMask = a, m }
	}
	holes := mask24
	holes[13] = 0xfe
	short := mask24
	short[11] = 0xfe
	second := mask24
	second[15] = 0x80
	const none, edge, gate, hard = "no IPv4 address of a network", "address of its network", "no gateway", "hardware address or an MTU"
	for _, c := range []struct {
		what      string
		good, bad func(p *Policy)
		want      string
	}{
		{"family", wan(v4(203, 0, 113, 10), 24, v4(203, 0, 113, 1)), wan(Addr{9: 1, 10: 0xff, 11: 0xff, 12: 203, 14: 113, 15: 10}, 24, v4(203, 0, 113, 1)), none},
		{"first byte of the family", wan(v4(203, 0, 113, 10), 24, v4(203, 0, 113, 1)), wan(Addr{0: 1, 10: 0xff, 11: 0xff, 12: 203, 14: 113, 15: 10}, 24, v4(203, 0, 113, 1)), none},
		{"ones of the family", wan(v4(203, 0, 113, 10), 24, v4(203, 0, 113, 1)), wan(Addr{11: 0xff, 12: 203, 14: 113, 15: 10}, 24, v4(203, 0, 113, 1)), none},
		{"more ones of the family", wan(v4(203, 0, 113, 10), 24, v4(203, 0, 113, 1)), wan(Addr{10: 0xff, 12: 203, 14: 113, 15: 10}, 24, v4(203, 0, 113, 1)), none},
		{"1/8", wan(v4(1, 0, 0, 1), 24, v4(1, 0, 0, 2)), wan(v4(0, 255, 255, 1), 24, v4(0, 255, 255, 2)), none},
		{"126/8", wan(v4(126, 255, 255, 1), 24, v4(126, 255, 255, 2)), wan(v4(127, 0, 0, 1), 24, v4(127, 0, 0, 2)), none},
		{"128/8", wan(v4(128, 0, 0, 1), 24, v4(128, 0, 0, 2)), wan(v4(127, 255, 255, 1), 24, v4(127, 255, 255, 2)), none},
		{"223/8", wan(v4(223, 255, 255, 1), 24, v4(223, 255, 255, 2)), wan(v4(224, 0, 0, 1), 24, v4(224, 0, 0, 2)), none},
		{"a short prefix", wan(v4(203, 0, 113, 10), 1, v4(203, 0, 113, 1)), wan(v4(203, 0, 113, 10), 0, v4(203, 0, 113, 1)), none},
		{"a long prefix", wan(v4(203, 0, 113, 10), 31, v4(203, 0, 113, 11)), wan(v4(203, 0, 113, 10), 32, v4(203, 0, 113, 11)), none},
		{"a network's address", wan(v4(203, 0, 113, 8), 31, v4(203, 0, 113, 9)), wan(v4(203, 0, 113, 8), 30, v4(203, 0, 113, 9)), edge},
		{"a broadcast address", wan(v4(203, 0, 113, 11), 31, v4(203, 0, 113, 10)), wan(v4(203, 0, 113, 11), 30, v4(203, 0, 113, 10)), edge},
		{"a host of a small network", wan(v4(203, 0, 113, 9), 30, v4(203, 0, 113, 10)), wan(v4(203, 0, 113, 9), 30, v4(203, 0, 113, 12)), gate},
		{"a gateway that it is itself", wan(v4(203, 0, 113, 9), 24, v4(203, 0, 113, 10)), wan(v4(203, 0, 113, 9), 24, v4(203, 0, 113, 9)), gate},
		{"no gateway", wan(v4(203, 0, 113, 9), 24, v4(203, 0, 113, 10)), wan(v4(203, 0, 113, 9), 24, Addr{}), gate},
		{"a gateway on the LAN", func(p *Policy) { p.Interfaces[0].Gateway = Addr{} }, func(p *Policy) { p.Interfaces[0].Gateway = v4(10, 0, 0, 2) }, gate},
		{"two on a side", func(p *Policy) {}, func(p *Policy) { p.Interfaces[0].Role, p.Interfaces[0].Gateway = WAN, v4(10, 0, 0, 2) }, "a second one on its side"},
		{"one side alone", func(p *Policy) {}, func(p *Policy) { p.Interfaces, p.SNAT, p.DNAT = p.Interfaces[:1], nil, nil }, "not one interface on each side"},
		{"the other side alone", func(p *Policy) {}, func(p *Policy) { p.Interfaces, p.SNAT, p.DNAT = p.Interfaces[1:], nil, nil }, "not one interface on each side"},
		{"neighbours", wan(v4(10, 0, 1, 2), 24, v4(10, 0, 1, 1)), wan(v4(10, 0, 0, 2), 24, v4(10, 0, 0, 3)), "overlap"},
		{"one in the other", wan(v4(10, 0, 1, 2), 24, v4(10, 0, 1, 1)), wan(v4(10, 0, 1, 2), 23, v4(10, 0, 1, 1)), "overlap"},
		{"a hardware address that is not used", func(p *Policy) { p.Interfaces[1].HasMAC, p.Interfaces[1].MAC[0] = 0, 1 }, mac(1, 0), hard},
		{"hardware address", mac(0xfe, 0), mac(1, 0), hard},
		{"small MTU", mac(2, 576), mac(2, 575), hard},
		{"large MTU", mac(2, MaxMTU), mac(2, MaxMTU+1), hard},
		{"all sources", from(Addr{}, Addr{}), from(v4(10, 0, 0, 1), mask24), "snat entry 0"},
		{"a source's mask", from(v4(10, 0, 0, 128), second), from(v4(10, 0, 0, 0), holes), "snat entry 0"},
		{"a source's mask's family", from(v4(10, 0, 0, 0), mask24), from(v4(10, 0, 0, 0), short), "snat entry 0"},
		{"a source's family", from(v4(10, 0, 0, 0), mask24), from(Addr{0: 0x20}, mask24), "snat entry 0"},
		{"an external address", func(p *Policy) { p.SNAT[0].External = v4(203, 0, 113, 11) }, func(p *Policy) { p.SNAT[0].External = Addr{15: 1} }, "snat entry 0"},
		{"snat on the LAN", func(p *Policy) { p.SNAT[0].Interface = 1 }, func(p *Policy) { p.SNAT[0].Interface = 0 }, "snat entry 0"},
		{"dnat's address", func(p *Policy) { p.DNAT[0].External = v4(203, 0, 113, 11) }, func(p *Policy) { p.DNAT[0].External = Addr{} }, "dnat entry 0"},
		{"dnat's server", func(p *Policy) { p.DNAT[0].To = v4(10, 0, 0, 6) }, func(p *Policy) { p.DNAT[0].To = Addr{} }, "dnat entry 0"},
		{"dnat's sources", func(p *Policy) { p.DNAT[0].From, p.DNAT[0].FromMask = v4(8, 8, 8, 0), mask24 }, func(p *Policy) { p.DNAT[0].From, p.DNAT[0].FromMask = v4(8, 8, 8, 8), mask24 }, "dnat entry 0"},
		{"an upstream", func(p *Policy) { p.Upstreams[0].Address = v4(1, 1, 1, 1) }, func(p *Policy) { p.Upstreams[0].Address = Addr{15: 1} }, "upstream 0 has no"},
		{"a resolver", func(p *Policy) { p.Resolvers[0].Address = v4(10, 0, 0, 8) }, func(p *Policy) { p.Resolvers[0].Address = Addr{15: 1} }, "resolver 0 has no"},
	} {
		p := sample()
		c.good(p)
		if _, err := Open(aligned(compile.Encode(p))); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		p = sample()
		c.bad(p)
		if _, err := Open(aligned(compile.Encode(p))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.what, err, c.want)
		}
	}
}

// TestAddressValues: an address and a mask as numbers, every byte in its place,
// and 0 for what is no address.
func TestAddressValues(t *testing.T) {
	a := v4(1, 2, 3, 4)
	if v, ok := a.IPv4(); v != 0x01020304 || !ok {
		t.Errorf("%#x, %v", v, ok)
	}
	for i := range 10 {
		b := a
		b[i] = 1
		if v, ok := b.IPv4(); v != 0 || ok {
			t.Errorf("%v: %#x, %v", b, v, ok)
		}
	}
	for bits := range 33 {
		v := uint32(uint64(0xffffffff) << (32 - bits))
		m := v4(byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
		for i := range 12 {
			m[i] = 0xff
		}
		if got, ok := m.Mask(); got != v || !ok {
			t.Errorf("/%d: %#x, %v", bits, got, ok)
		}
		for i := range 12 {
			n := m
			n[i] = 0xfe
			if got, ok := n.Mask(); got != 0 || ok {
				t.Errorf("%v: %#x, %v", n, got, ok)
			}
		}
	}
}

package ruleset_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/host/policy/compile"
	. "github.com/thurward/thurward/internal/shared/ruleset"
)

func v4(a, b, c, d byte) Addr {
	return Addr{10: 0xff, 11: 0xff, 12: a, 13: b, 14: c, 15: d}
}

var mask24 = func() (m Addr) {
	for i := range 15 {
		m[i] = 0xff
	}
	return m
}()

func sample() *Policy {
	return &Policy{
		Digest:     [32]byte{1, 2, 3},
		Settings:   Settings{DefaultAction: Deny, MaxFlows: 65536, TCPEstablished: 7440},
		Interfaces: []Interface{{Role: LAN, Address: v4(10, 0, 0, 1), PrefixLen: 24, Name: Text{0, 4}}, {Role: WAN, Address: v4(203, 0, 113, 10), Gateway: v4(203, 0, 113, 1), PrefixLen: 24, Name: Text{4, 4}}},
		SNAT:       []SNAT{{Source: v4(10, 0, 0, 0), SourceMask: mask24, Interface: 1, PortLo: 1024, PortHi: 65535}},
		DNAT:       []DNAT{{External: v4(203, 0, 113, 10), To: v4(10, 0, 0, 5), PortLo: 443, PortHi: 443, ToPort: 443, Proto: 6}},
		Names:      []Name{{Text: Text{8, 3}, Wildcard: 1}},
		Upstreams:  []Upstream{{Address: v4(192, 0, 2, 53), Port: 53}},
		Resolvers:  []Resolver{{Address: v4(10, 0, 0, 9)}},
		Blocked:    []Name{{Text: Text{8, 3}}},
		Private:    []Name{{Text: Text{0, 3}, Wildcard: 1}},
		Rules:      []Rule{{ID: Text{8, 3}, Action: Accept}},
		Matches:    []Match{{Action: Accept, PortHi: 65535, Proto: 6}},
		Strings:    []byte("lan0wan0web"),
		Classifier: Classifier{
			Roots:   []Root{{Trees: 1}, {Tree: 1}},
			Trees:   []Tree{{Ref: 0}},
			Nodes:   []Node{{Parts: 1, Field: FieldPort, Level: 2}, {Cell: 2, Level: 1}},
			Cells:   []Cell{1, LeafBit, Cell(EmptyLeaf)},
			Entries: []Entry{{PortSpan: 65535, Match: Last, Rule: uint32(Accept) << ActionShift}},
		},
	}
}

// aligned copies b to 8-byte aligned memory, as the image has it.
func aligned(b []byte) []byte {
	w := make([]uint64, (len(b)+7)/8+1)
	a := unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), len(b))
	copy(a, b)
	return a
}

func TestRoundTrip(t *testing.T) {
	b := compile.Encode(sample())
	if !bytes.Equal(b, compile.Encode(sample())) {
		t.Fatal("encoding the same policy twice gave different bytes")
	}
	p, err := Open(aligned(b))
	if err != nil {
		t.Fatal(err)
	}
	if p.Digest != sample().Digest || p.Settings != sample().Settings || p.Matches[0] != sample().Matches[0] ||
		p.Text(p.Rules[0].ID) != "web" || p.Interface(WAN) != &p.Interfaces[1] || p.SNAT[0] != sample().SNAT[0] ||
		p.DNAT[0] != sample().DNAT[0] || p.Names[0] != sample().Names[0] ||
		p.Upstreams[0] != sample().Upstreams[0] || p.Resolvers[0] != sample().Resolvers[0] || p.Blocked[0] != sample().Blocked[0] || p.Private[0] != sample().Private[0] {
		t.Fatalf("got %+v", p)
	}
	if p.Text(Text{9, 3}) != "" {
		t.Error("a text beyond the table is not empty")
	}
}

// TestLayout pins the sizes that compiled policies depend on.
func TestLayout(t *testing.T) {
	for name, c := range map[string][2]uintptr{
		"Settings":  {unsafe.Sizeof(Settings{}), 96},
		"Interface": {unsafe.Sizeof(Interface{}), 56},
		"SNAT":      {unsafe.Sizeof(SNAT{}), 56},
		"DNAT":      {unsafe.Sizeof(DNAT{}), 80},
		"Name":      {unsafe.Sizeof(Name{}), 16},
		"Upstream":  {unsafe.Sizeof(Upstream{}), 40},
		"Resolver":  {unsafe.Sizeof(Resolver{}), 16},
		"Rule":      {unsafe.Sizeof(Rule{}), 24},
		"Match":     {unsafe.Sizeof(Match{}), 80},
		"Root":      {unsafe.Sizeof(Root{}), 16},
		"Tree":      {unsafe.Sizeof(Tree{}), 8},
		"Node":      {unsafe.Sizeof(Node{}), 16},
		"Cell":      {unsafe.Sizeof(Cell(0)), 4},
		"Entry":     {unsafe.Sizeof(Entry{}), 32},
	} {
		if c[0] != c[1] {
			t.Errorf("%s takes %d bytes, want %d: a changed layout needs a new Version", name, c[0], c[1])
		}
	}
	x := uint16(1)
	if *(*byte)(unsafe.Pointer(&x)) != 1 {
		t.Error("Encode writes memory as it is and needs a little-endian host")
	}
}

func TestOpenRefuses(t *testing.T) {
	edit := func(f func(p *Policy)) []byte { p := sample(); f(p); return compile.Encode(p) }
	flip := func(i int) []byte { b := compile.Encode(sample()); b[i] ^= 1; return b }
	good := compile.Encode(sample())
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"empty", "too few", nil},
		{"truncated", "its header says", good[:len(good)-1]},
		{"magic", "wrong magic", flip(0)},
		{"version", "layout version 7,", flip(8)},
		{"corrupted", "digest mismatch", flip(len(good) - 1)},
		{"corrupted digest", "digest mismatch", flip(OffBody)},
		{"table outside", "outside of it", flip(OffTables + 8 + 3)},
		{"no action", "no default action", edit(func(p *Policy) { p.Settings.DefaultAction = 0 })},
		{"flows", "flow table", edit(func(p *Policy) { p.Settings.MaxFlows = 1 })},
		{"interface", "interface 1", edit(func(p *Policy) { p.Interfaces[1].Role = 9 })},
		{"IPv6 interface", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].Address = Addr{0: 0x20, 1: 1} })},
		{"no address", "interface 1 has no IPv4", edit(func(p *Policy) { p.Interfaces[1].Address = Addr{} })},
		{"almost mapped", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].Address[9] = 1 })},
		{"almost mapped too", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].Address[11] = 0xfe })},
		{"loopback", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].Address = v4(127, 0, 0, 1) })},
		{"multicast", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].Address = v4(224, 0, 0, 1) })},
		{"everything", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].PrefixLen = 0 })},
		{"no room", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].PrefixLen = 32 })},
		{"IPv6 length", "interface 0 has no IPv4", edit(func(p *Policy) { p.Interfaces[0].PrefixLen = 120 })},
		{"network's address", "interface 0 has the address", edit(func(p *Policy) { p.Interfaces[0].Address = v4(10, 0, 0, 0) })},
		{"broadcast", "interface 0 has the address", edit(func(p *Policy) { p.Interfaces[0].Address = v4(10, 0, 0, 255) })},
		{"two on one side", "interface 1 is a second", edit(func(p *Policy) { p.Interfaces[1].Role = LAN })},
		{"one interface", "not one interface on each side", edit(func(p *Policy) { p.Interfaces = p.Interfaces[:1]; p.SNAT = nil })},
		{"no interface", "not one interface on each side", edit(func(p *Policy) { p.Interfaces = nil; p.SNAT = nil })},
		{"gateway elsewhere", "gateway", edit(func(p *Policy) { p.Interfaces[1].Gateway = v4(203, 0, 114, 1) })},
		{"gateway itself", "gateway", edit(func(p *Policy) { p.Interfaces[1].Gateway = p.Interfaces[1].Address })},
		{"no gateway", "gateway", edit(func(p *Policy) { p.Interfaces[1].Gateway = Addr{} })},
		{"gateway on the LAN", "gateway", edit(func(p *Policy) { p.Interfaces[0].Gateway = v4(10, 0, 0, 2) })},
		{"IPv6 gateway", "gateway", edit(func(p *Policy) { p.Interfaces[1].Gateway = Addr{15: 1} })},
		{"group's hardware address", "hardware address", edit(func(p *Policy) { p.Interfaces[0].HasMAC, p.Interfaces[0].MAC[0] = 1, 3 })},
		{"MTU below", "MTU", edit(func(p *Policy) { p.Interfaces[0].MTU = 575 })},
		{"MTU above", "MTU", edit(func(p *Policy) { p.Interfaces[0].MTU = MaxMTU + 1 })},
		{"overlap", "overlap", edit(func(p *Policy) { p.Interfaces[0].Address = v4(203, 0, 113, 200) })},
		{"overlap of a wider one", "overlap", edit(func(p *Policy) { p.Interfaces[0].Address, p.Interfaces[0].PrefixLen = v4(203, 0, 1, 1), 16 })},
		{"snat on the LAN", "snat entry 0", edit(func(p *Policy) { p.SNAT[0].Interface = 0 })},
		{"snat to IPv6", "snat entry 0", edit(func(p *Policy) { p.SNAT[0].External = Addr{0: 0x20} })},
		{"snat of IPv6", "snat entry 0", edit(func(p *Policy) { p.SNAT[0].Source = Addr{0: 0x20} })},
		{"snat of a mask with holes", "snat entry 0", edit(func(p *Policy) { p.SNAT[0].SourceMask[13] = 0 })},
		{"snat of a wide mask", "snat entry 0", edit(func(p *Policy) { p.SNAT[0].SourceMask[11] = 0 })},
		{"snat of bits beyond the mask", "snat entry 0", edit(func(p *Policy) { p.SNAT[0].Source[15] = 1 })},
		{"dnat to IPv6", "dnat entry 0", edit(func(p *Policy) { p.DNAT[0].To = Addr{0: 0x20} })},
		{"dnat of IPv6", "dnat entry 0", edit(func(p *Policy) { p.DNAT[0].External = Addr{} })},
		{"dnat from IPv6", "dnat entry 0", edit(func(p *Policy) { p.DNAT[0].From, p.DNAT[0].FromMask = Addr{0: 0x20}, mask24 })},
		{"IPv6 upstream", "upstream 0", edit(func(p *Policy) { p.Upstreams[0].Address = Addr{15: 1} })},
		{"IPv6 resolver", "resolver 0", edit(func(p *Policy) { p.Resolvers[0].Address = Addr{15: 2} })},
		{"snat", "snat entry 0", edit(func(p *Policy) { p.SNAT[0].Interface = 2 })},
		{"dnat ports", "dnat entry 0", edit(func(p *Policy) { p.DNAT[0].PortHi = 442 })},
		{"dnat end", "dnat entry 0", edit(func(p *Policy) { p.DNAT[0].PortHi, p.DNAT[0].ToPort = 444, 65535 })},
		{"dnat protocol", "dnat entry 0", edit(func(p *Policy) { p.DNAT[0].Proto = 1 })},
		{"name", "name 0", edit(func(p *Policy) { p.Names[0].Text.Len = 100 })},
		{"blocked name", "name 0", edit(func(p *Policy) { p.Blocked[0].Text.Len = 0 })},
		{"private name", "name 0", edit(func(p *Policy) { p.Private[0].Text.Len = 0 })},
		{"upstream with TLS and no name", "upstream 0", edit(func(p *Policy) { p.Upstreams[0].TLS = 1 })},
		{"upstream's certificates", "upstream 0", edit(func(p *Policy) { p.Upstreams[0].CA = Text{0, 1 << 20} })},
		{"too many upstreams with TLS", "upstream 8", edit(func(p *Policy) {
			u := Upstream{Port: 853, TLS: 1, ServerName: Text{0, 1}}
			p.Upstreams = []Upstream{u, u, u, u, u, u, u, u, u}
		})},
		{"upstream port", "upstream 0", edit(func(p *Policy) { p.Upstreams[0].Port = 0 })},
		{"settings", "settings out of range", edit(func(p *Policy) { p.Settings.Flags = 1 << 31 })},
		{"sni", "rule 0", edit(func(p *Policy) { p.Rules[0].SNI = 2 })},
		{"match name", "match 0", edit(func(p *Policy) { p.Matches[0].Name = 2 })},
		{"mode", "rule 0", edit(func(p *Policy) { p.Rules[0].Mode = 2 })},
		{"rule text", "rule 0", edit(func(p *Policy) { p.Rules[0].ID.Off = 1 << 30 })},
		{"match rule", "match 0", edit(func(p *Policy) { p.Matches[0].Rule = 1 })},
		{"roots", "root for each name", edit(func(p *Policy) { p.Classifier.Roots = p.Classifier.Roots[:1] })},
		{"no roots", "root for each name", edit(func(p *Policy) { p.Classifier.Roots = nil })},
		{"root", "a root", edit(func(p *Policy) { p.Classifier.Roots[1].Trees = 1 })},
		{"shadow root", "a root", edit(func(p *Policy) { p.Classifier.Roots[0].ShadowTree = 2 })},
		{"many trees", "a root", edit(func(p *Policy) { p.Classifier.Trees = make([]Tree, 9); p.Classifier.Roots[0].Trees = 9 })},
		{"tree", "a tree", edit(func(p *Policy) { p.Classifier.Trees[0].Ref = 2 })},
		{"field", "a node", edit(func(p *Policy) { p.Classifier.Nodes[0].Field = NumFields })},
		{"shift", "a node", edit(func(p *Policy) { p.Classifier.Nodes[0].Shift = 32 })},
		{"level", "a node", edit(func(p *Policy) { p.Classifier.Nodes[0].Level = MaxLevel + 1 })},
		{"parts", "a node", edit(func(p *Policy) { p.Classifier.Nodes[1].Parts = ^uint32(0) })},
		{"cells that overlap", "a node", edit(func(p *Policy) { p.Classifier.Nodes[1].Cell = 1 })},
		{"circle", "a cell", edit(func(p *Policy) { p.Classifier.Cells[2] = 0 })},
		{"cell", "a cell", edit(func(p *Policy) { p.Classifier.Cells[0] = 2 })},
		{"entry", "an entry", edit(func(p *Policy) { p.Classifier.Entries[0].Match = 1 })},
		{"entry rule", "an entry", edit(func(p *Policy) { p.Classifier.Entries[0].Rule++ })},
		{"match ports", "match 0", edit(func(p *Policy) { p.Matches[0].PortLo, p.Matches[0].PortHi = 2, 1 })},
	} {
		if _, err := Open(aligned(c.b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(compile.Encode(sample()))
	f.Add([]byte(Magic))
	for _, b := range edited() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// A wrong digest would stop everything at once; give it the right one.
		if len(b) > HeaderSize {
			b = aligned(b)
			fix(b)
		}
		if p, err := Open(aligned(b)); err == nil {
			for _, r := range p.Rules {
				_ = p.Text(r.ID)
			}
			for _, m := range p.Matches {
				_ = p.Rules[m.Rule]
			}
			for _, s := range p.SNAT {
				_ = p.Interfaces[s.Interface]
			}
			for i := range p.Interfaces {
				// What programs on the host make of it.
				f := &p.Interfaces[i]
				a := netip.AddrFrom16(f.Address).Unmap()
				_ = a.As4()
				if n := netip.PrefixFrom(a, int(f.PrefixLen)); !n.IsValid() || !n.Masked().Addr().Next().IsValid() {
					t.Fatalf("network %v", n)
				}
			}
		}
	})
}

// TestActionNames: the words of policies, and the ids of the default action, by
// which events and the command line name it.
func TestActionNames(t *testing.T) {
	for a, want := range map[Action][2]string{Accept: {"accept", "default-accept"}, Deny: {"deny", "default-deny"}, Reject: {"reject", "default-reject"}, 0: {"invalid", "default-deny"}, 9: {"invalid", "default-deny"}} {
		if a.String() != want[0] || a.DefaultRuleID() != want[1] {
			t.Errorf("%d: %q, %q", a, a.String(), a.DefaultRuleID())
		}
	}
}

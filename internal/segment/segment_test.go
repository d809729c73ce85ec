package segment

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"
)

func sample() *Policy {
	return &Policy{
		Digest:     [32]byte{1, 2, 3},
		Settings:   Settings{DefaultAction: Deny, MaxFlows: 65536, TCPEstablished: 7440},
		Interfaces: []Interface{{Role: LAN, PrefixLen: 24, Name: Text{0, 4}}, {Role: WAN, PrefixLen: 24, Name: Text{4, 4}}},
		SNAT:       []SNAT{{Interface: 1, PortLo: 1024, PortHi: 65535}},
		DNAT:       []DNAT{{PortLo: 443, PortHi: 443, ToPort: 443, Proto: 6}},
		Names:      []Name{{Text: Text{8, 3}, Wildcard: 1}},
		Upstreams:  []Upstream{{Address: Addr{15: 1}, Port: 53}},
		Resolvers:  []Resolver{{Address: Addr{15: 2}}},
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
	b := Encode(sample())
	if !bytes.Equal(b, Encode(sample())) {
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
	edit := func(f func(p *Policy)) []byte { p := sample(); f(p); return Encode(p) }
	flip := func(i int) []byte { b := Encode(sample()); b[i] ^= 1; return b }
	good := Encode(sample())
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"empty", "too few", nil},
		{"truncated", "its header says", good[:len(good)-1]},
		{"magic", "wrong magic", flip(0)},
		{"version", "layout version 7,", flip(8)},
		{"corrupted", "digest mismatch", flip(len(good) - 1)},
		{"corrupted digest", "digest mismatch", flip(offBody)},
		{"table outside", "outside the segment", flip(offTables + 8 + 3)},
		{"no action", "no default action", edit(func(p *Policy) { p.Settings.DefaultAction = 0 })},
		{"flows", "flow table", edit(func(p *Policy) { p.Settings.MaxFlows = 1 })},
		{"interface", "interface 1", edit(func(p *Policy) { p.Interfaces[1].Role = 9 })},
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
	f.Add(Encode(sample()))
	f.Add([]byte(Magic))
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
		}
	})
}

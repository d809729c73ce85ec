package ruleset_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/host/policy/compile"
	. "github.com/thurward/thurward/internal/shared/ruleset"
)

// filled returns n entries of which no two bytes of named fields are alike, so
// that what lands in another's place shows.
func filled[T any](n int, seed byte) []T {
	s := make([]T, n)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
	for i := range b {
		b[i] = byte(i)*31 + byte(i>>8) + seed
	}
	return s
}

// TestTablesKeepTheirPlace: every entry of every table comes back as it was, two
// and more of each, also where a table's length is no multiple of the alignment.
func TestTablesKeepTheirPlace(t *testing.T) {
	p := &Policy{
		Digest: [32]byte{9, 31: 8}, Settings: filled[Settings](1, 1)[0],
		Interfaces: filled[Interface](3, 2), SNAT: filled[SNAT](3, 3), DNAT: filled[DNAT](2, 4), Names: filled[Name](3, 5),
		Upstreams: filled[Upstream](3, 6), Resolvers: filled[Resolver](2, 7), Blocked: filled[Name](2, 8), Private: filled[Name](4, 9),
		Rules: filled[Rule](3, 10), Matches: filled[Match](2, 11), Strings: filled[byte](21, 12),
		Classifier: Classifier{Roots: filled[Root](2, 13), Trees: filled[Tree](3, 14), Nodes: filled[Node](2, 15), Cells: filled[Cell](7, 16), Entries: filled[Entry](2, 17)},
	}
	b := aligned(compile.Encode(p))
	le := binary.LittleEndian
	if string(b[:8]) != Magic || le.Uint32(b[8:]) != Version || int(le.Uint32(b[12:])) != len(b) {
		t.Fatalf("header %x", b[:16])
	}
	q := &Policy{Digest: [32]byte(b[OffPolicy:])}
	s, ok := Table[Settings](b, TabSettings)
	if !ok || len(s) != 1 {
		t.Fatal("no settings")
	}
	q.Settings = s[0]
	if !q.Tables(b) {
		t.Fatal("a table is refused")
	}
	if !reflect.DeepEqual(p, q) {
		t.Fatalf("got  %+v\nwant %+v", q, p)
	}
	for i := range NumTables {
		if off := le.Uint32(b[OffTables+8*i:]); off%16 != 0 || off < HeaderSize {
			t.Errorf("table %d at %d", i, off)
		}
	}
	if end := OffTables + 8*NumTables; end > HeaderSize {
		t.Errorf("the tables' places end at %d, behind the header", end)
	}
}

// TestTableLimits: a table may have as many entries as is said, and lie where
// its last byte is the ruleset's, but no more and not elsewhere.
func TestTableLimits(t *testing.T) {
	// Memory that nobody writes to takes none.
	const room = HeaderSize + 80<<22 + 1<<20
	big, err := syscall.Mmap(-1, 0, room, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(big) }()
	le := binary.LittleEndian
	put := func(b []byte, i int, off, n uint32) []byte {
		le.PutUint32(b[OffTables+8*i:], off)
		le.PutUint32(b[OffTables+8*i+4:], n)
		return b
	}
	for _, c := range []struct {
		i    int
		most uint32
		has  func(b []byte, i int) (int, bool)
		size int
	}{
		{TabSettings, 1, has[Settings], 96}, {TabInterfaces, 16, has[Interface], 56}, {TabSNAT, 1 << 20, has[SNAT], 56},
		{TabRules, 1 << 20, has[Rule], 24}, {TabMatches, 1 << 22, has[Match], 80}, {TabDNAT, 1 << 20, has[DNAT], 80},
		{TabNames, 1 << 22, has[Name], 16}, {TabUpstreams, 64, has[Upstream], 40}, {TabResolvers, 64, has[Resolver], 16},
		{TabBlocked, 1 << 22, has[Name], 16}, {TabPrivate, 1 << 22, has[Name], 16}, {TabRoots, 1<<22 + 1, has[Root], 16},
	} {
		if n, ok := c.has(put(big, c.i, HeaderSize, c.most), c.i); !ok || n != int(c.most) {
			t.Errorf("table %d: %d entries: %d, %v", c.i, c.most, n, ok)
		}
		if _, ok := c.has(put(big, c.i, HeaderSize, c.most+1), c.i); ok {
			t.Errorf("table %d: more than %d entries", c.i, c.most)
		}
		// One entry, in memory that ends with it.
		b := big[:HeaderSize+32+c.size]
		for _, p := range []struct {
			off, n uint32
			ok     bool
		}{
			{HeaderSize + 32, 1, true}, {HeaderSize, 1, true}, {HeaderSize - 16, 1, false}, {0, 0, false}, {HeaderSize + 48, 1, false},
			{HeaderSize + 40, 0, false}, {HeaderSize + 8, 1, false}, {HeaderSize + 1, 1, false}, {uint32(len(b)+15) &^ 15, 0, len(b)%16 == 0}, {uint32(len(b)+31) &^ 15, 0, false}, {^uint32(15), 1, false},
		} {
			if n, ok := c.has(put(b, c.i, p.off, p.n), c.i); ok != p.ok || ok && n != int(p.n) {
				t.Errorf("table %d at %d with %d entries of %d bytes, ruleset of %d: %d, %v", c.i, p.off, p.n, c.size, len(b), n, ok)
			}
		}
		if c.most > 1 {
			if _, ok := c.has(put(big[:HeaderSize+2*c.size-1], c.i, HeaderSize, 2), c.i); ok {
				t.Errorf("table %d: the last entry ends behind the ruleset", c.i)
			}
		}
		clear(big[OffTables:HeaderSize])
	}
	// The classifier's tables are the largest there are: 1 GB of cells.
	for _, i := range []int{TabTrees, TabNodes, TabCells, TabEntries} {
		if Limits[i] != 1<<28 {
			t.Errorf("table %d: limit %d", i, Limits[i])
		}
	}
	if n, ok := has[byte](put(big[:HeaderSize+5], TabStrings, HeaderSize, 5), TabStrings); !ok || n != 5 {
		t.Errorf("strings up to the end: %d, %v", n, ok)
	}
	if _, ok := has[byte](put(big[:HeaderSize+5], TabStrings, HeaderSize, 6), TabStrings); ok {
		t.Error("strings behind the end")
	}
}

func has[T any](b []byte, i int) (int, bool) {
	s, ok := Table[T](b, i)
	return len(s), ok
}

// TestEachTableIsLookedAt: whichever table lies outside, the ruleset is refused.
func TestEachTableIsLookedAt(t *testing.T) {
	for i := range NumTables {
		b := aligned(compile.Encode(sample()))
		binary.LittleEndian.PutUint32(b[OffTables+8*i:], uint32(len(b)+15)&^15+16)
		fix(b)
		if _, err := Open(b); err == nil || !strings.Contains(err.Error(), "outside") && !(i == TabSettings && strings.Contains(err.Error(), "no settings")) {
			t.Errorf("table %d: %v", i, err)
		}
	}
}

// TestOpenSays pins the words about the header whole: their numbers tell what to
// do.
func TestOpenSays(t *testing.T) {
	good := aligned(compile.Encode(sample()))
	edit := func(f func(b []byte)) []byte { b := aligned(good); f(b); return b }
	le := binary.LittleEndian
	right := hex.EncodeToString(good[OffBody : OffBody+32])
	last := good[OffBody+31] ^ 1
	other := right[:62] + hex.EncodeToString([]byte{last})
	none := make([]uint64, 40)
	off := unsafe.Slice((*byte)(unsafe.Pointer(&none[0])), 320)[4:]
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{aligned(good[:255]), "ruleset: 255 bytes are too few for a header of 256"},
		{aligned(good[:256]), "ruleset: its header says " + itoa(len(good)) + " bytes, there are 256 (corrupted image)"},
		{off, "ruleset: not aligned to 8 bytes"},
		{edit(func(b []byte) { b[7] = 'X' }), "ruleset: wrong magic (not a policy, or a corrupted image)"},
		{edit(func(b []byte) { le.PutUint32(b[8:], 5) }), "ruleset: layout version 5, this program reads version 6 (build the image anew)"},
		{edit(func(b []byte) { b[OffBody+31] ^= 1 }), "ruleset: digest mismatch: want sha256:" + other + ", got sha256:" + right + " (corrupted image)"},
		{edit(func(b []byte) { le.PutUint32(b[OffTables+4:], 0); fix(b) }), "ruleset: no settings"},
		{edit(func(b []byte) { le.PutUint32(b[OffTables+4:], 2); fix(b) }), "ruleset: no settings"},
	} {
		if _, err := Open(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if _, err := Open(good); err != nil {
		t.Error(err)
	}
	if again := compile.Encode(sample()); !bytes.Equal(good, again) {
		t.Error("Open has changed the ruleset")
	}
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{'0' + byte(n%10)}, b...)
	}
	return string(b)
}

// TestText: texts end where the table does, and no sum of two 32-bit numbers
// comes round to its beginning.
func TestText(t *testing.T) {
	p := &Policy{Strings: []byte("lan0wan0web")}
	for _, c := range []struct {
		t    Text
		ok   bool
		want string
	}{
		{Text{0, 0}, true, ""}, {Text{0, 11}, true, "lan0wan0web"}, {Text{8, 3}, true, "web"}, {Text{11, 0}, true, ""}, {Text{10, 1}, true, "b"},
		{Text{0, 12}, false, ""}, {Text{8, 4}, false, ""}, {Text{12, 0}, false, ""}, {Text{11, 1}, false, ""},
		{Text{^uint32(0), 1}, false, ""}, {Text{4, ^uint32(0) - 2}, false, ""},
	} {
		if got := p.Text(c.t); got != c.want || p.IsText(c.t) != c.ok {
			t.Errorf("%+v: %q, %v", c.t, got, p.IsText(c.t))
		}
	}
	if s := new(Policy).Text(Text{}); s != "" {
		t.Errorf("of no table: %q", s)
	}
}

// TestInterfaceByRole: the first of a role, and none where there is none.
func TestInterfaceByRole(t *testing.T) {
	p := &Policy{Interfaces: []Interface{{Role: LAN}, {Role: LAN}}}
	if p.Interface(LAN) != &p.Interfaces[0] || p.Interface(WAN) != nil || new(Policy).Interface(LAN) != nil {
		t.Error("another interface")
	}
	if p.Rules = make([]Rule, 3); p.DefaultRule() != 3 {
		t.Errorf("the default's rule is %d", p.DefaultRule())
	}
}

// TestClassifierSize: what the tables take, and their longest leaf.
func TestClassifierSize(t *testing.T) {
	for _, c := range []struct {
		c       Classifier
		bytes   int
		longest int
	}{
		{Classifier{}, 0, 0},
		{Classifier{Roots: make([]Root, 3)}, 48, 0},
		{Classifier{Trees: make([]Tree, 3)}, 24, 0},
		{Classifier{Nodes: make([]Node, 3)}, 48, 0},
		{Classifier{Cells: make([]Cell, 3)}, 12, 0},
		{Classifier{Entries: []Entry{{Match: 7 | Last}}}, 32, 1},
		{Classifier{make([]Root, 1), make([]Tree, 1), make([]Node, 1), make([]Cell, 1), []Entry{{Match: 7}, {Match: 9 | Last}, {Match: 0}, {Match: 1}, {Match: 8 | Last}, {Match: Last}}}, 44 + 6*32, 3},
		{Classifier{Entries: []Entry{{Match: 1}, {Match: 2}, {Match: 3 | Last}, {Match: 1 | Last}}}, 4 * 32, 3},
	} {
		if b, l := c.c.Bytes(), c.c.Longest(); b != c.bytes || l != c.longest {
			t.Errorf("%+v: %d bytes, longest %d", c.c, b, l)
		}
	}
}

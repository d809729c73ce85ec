package mp

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/shared/abi"
)

// A cpu is an entry for a table.
type cpu struct {
	id      uint32
	enabled bool
}

func flag(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}

func madt(entries ...[]byte) []byte {
	t := make([]byte, madtEntries)
	copy(t, "APIC")
	binary.LittleEndian.PutUint32(t[madtAPIC:], abi.LAPICPhys)
	for _, e := range entries {
		t = append(t, e...)
	}
	return t
}

func local(c cpu) []byte {
	return binary.LittleEndian.AppendUint32([]byte{typeLocal, 8, 0, byte(c.id)}, flag(c.enabled))
}

func localX2(c cpu) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{typeLocalX2, 16, 0, 0}, c.id)
	b = binary.LittleEndian.AppendUint32(b, flag(c.enabled))
	return append(b, 0, 0, 0, 0)
}

func override(at uint64) []byte {
	return binary.LittleEndian.AppendUint64([]byte{typeOverride, 12, 0, 0}, at)
}

var other = []byte{1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0} // an I/O APIC

func TestReadMADT(t *testing.T) {
	many := []uint8{0, 1, 2, 3, 4, 5, 6, 7}
	var all [][]byte
	for i := range uint32(20) {
		all = append(all, local(cpu{i, true}))
	}
	for name, c := range map[string]struct {
		table  []byte
		want   []uint8
		listed int
		moved  bool
	}{
		"nothing":             {madt(), nil, 0, false},
		"one":                 {madt(local(cpu{0, true})), []uint8{0}, 1, false},
		"among others":        {madt(other, local(cpu{0, true}), other, local(cpu{3, true}), override(abi.LAPICPhys)), []uint8{0, 3}, 2, false},
		"disabled":            {madt(local(cpu{0, true}), local(cpu{1, false}), local(cpu{2, true})), []uint8{0, 2}, 2, false},
		"x2APIC":              {madt(localX2(cpu{0, true}), localX2(cpu{1, true}), localX2(cpu{2, false})), []uint8{0, 1}, 2, false},
		"both ways":           {madt(local(cpu{0, true}), localX2(cpu{0, true}), local(cpu{1, true})), []uint8{0, 1}, 2, false},
		"numbers too large":   {madt(local(cpu{0, true}), localX2(cpu{255, true}), localX2(cpu{1 << 20, true})), []uint8{0}, 3, false},
		"more than room":      {madt(all...), many, 20, false},
		"moved":               {madt(local(cpu{0, true}), override(0xfed00000)), []uint8{0}, 1, true},
		"moved far":           {madt(local(cpu{0, true}), override(1<<32|abi.LAPICPhys)), []uint8{0}, 1, true},
		"an entry of nothing": {madt(local(cpu{0, true}), []byte{0, 0}, local(cpu{1, true})), []uint8{0}, 1, false},
		"one byte too short":  {madt(local(cpu{0, true}), local(cpu{1, true})[:7]), []uint8{0}, 1, false},
		"short of its fields": {madt([]byte{typeLocal, 4, 0, 9}, local(cpu{1, true})), []uint8{1}, 1, false},
		"a short table":       {madt()[:43], nil, 0, false},
		"no table":            {nil, nil, 0, false},
	} {
		var l List
		l.add(99) // what was there before
		ReadMADT(c.table, &l)
		if got := l.APIC[:l.N]; !slices.Equal(got, c.want) || l.Listed != c.listed || l.Moved != c.moved {
			t.Errorf("%s: %v, %d listed, moved %v; want %v, %d, %v", name, got, l.Listed, l.Moved, c.want, c.listed, c.moved)
		}
	}
}

func checksum(b []byte, at int) {
	b[at] = 0
	b[at] = -sum(b)
}

// low makes memory below 1 MiB with a table at an address and its pointer at another.
func low(pointer, at int, cpus []cpu, change func(p, t []byte)) []byte {
	m := make([]byte, 1<<20)
	t := make([]byte, tableBytes)
	copy(t, "PCMP")
	binary.LittleEndian.PutUint32(t[36:], abi.LAPICPhys)
	entries := 0
	for _, c := range cpus {
		e := make([]byte, processorBytes)
		e[0], e[1], e[3] = typeProcessor, byte(c.id), byte(flag(c.enabled))
		t = append(t, e...)
		t = append(t, 1, 0, 0, 0, 0, 0, 0, 0) // a bus
		entries += 2
	}
	binary.LittleEndian.PutUint16(t[4:], uint16(len(t)))
	binary.LittleEndian.PutUint16(t[34:], uint16(entries))
	p := make([]byte, pointerBytes)
	copy(p, "_MP_")
	binary.LittleEndian.PutUint32(p[4:], uint32(at))
	p[8], p[9] = 1, 4
	checksum(p, 10)
	checksum(t, 7)
	if change != nil {
		change(p, t)
	}
	copy(m[pointer:], p)
	copy(m[at:], t)
	return m
}

func TestReadTable(t *testing.T) {
	two := []cpu{{0, true}, {1, true}}
	for name, c := range map[string]struct {
		low    []byte
		want   []uint8
		listed int
		moved  bool
	}{
		"Firecracker's":          {low(0x9fc00, 0x9fc10, two, nil), []uint8{0, 1}, 2, false},
		"in the BIOS":            {low(0xf5a30, 0xf5a40, []cpu{{0, true}, {2, false}, {4, true}}, nil), []uint8{0, 4}, 2, false},
		"the last paragraph":     {low(0xffff0, 0xf0000, two, nil), []uint8{0, 1}, 2, false},
		"elsewhere":              {low(0x80000, 0x9fc10, two, nil), nil, 0, false},
		"not aligned":            {low(0x9fc08, 0x9fd00, two, nil), nil, 0, false},
		"none":                   {make([]byte, 1<<20), nil, 0, false},
		"little memory":          {make([]byte, 100), nil, 0, false},
		"the pointer's checksum": {low(0x9fc00, 0x9fc10, two, func(p, _ []byte) { p[11]++ }), nil, 0, false},
		"the table's checksum":   {low(0x9fc00, 0x9fc10, two, func(_, t []byte) { t[20]++ }), nil, 0, false},
		"the table's name":       {low(0x9fc00, 0x9fc10, two, func(_, t []byte) { t[0]++; checksum(t, 7) }), nil, 0, false},
		"moved":                  {low(0x9fc00, 0x9fc10, two, func(_, t []byte) { t[36]++; checksum(t, 7) }), []uint8{0, 1}, 2, true},
		"no number of entries":   {low(0x9fc00, 0x9fc10, two, func(_, t []byte) { t[34] = 0; checksum(t, 7) }), []uint8{0, 1}, 2, false},
		"half an entry": {low(0x9fc00, 0x9fc10, two, func(_, t []byte) {
			binary.LittleEndian.PutUint16(t[4:], tableBytes+processorBytes+otherBytes+10)
			t[7] = 0
			t[7] = -sum(t[:tableBytes+processorBytes+otherBytes+10])
		}), []uint8{0}, 1, false},
		"shorter than its header": {low(0x9fc00, 0x9fc10, two, func(_, t []byte) { t[4], t[5] = 43, 0 }), nil, 0, false},
		"beyond memory":           {low(0x9fc00, 0xfffe0, two, nil), nil, 0, false},
		"a table far away": {low(0x9fc00, 0x9fc10, two, func(p, _ []byte) {
			binary.LittleEndian.PutUint32(p[4:], 0xfffffff0)
			checksum(p, 10)
		}), nil, 0, false},
	} {
		var l List
		l.add(99)
		ReadTable(c.low, &l)
		if got := l.APIC[:l.N]; !slices.Equal(got, c.want) || l.Listed != c.listed || l.Moved != c.moved {
			t.Errorf("%s: %v, %d listed, moved %v; want %v, %d, %v", name, got, l.Listed, l.Moved, c.want, c.listed, c.moved)
		}
	}
}

// check asserts what holds for every list.
func check(t *testing.T, l *List) {
	t.Helper()
	if l.N < 0 || l.N > len(l.APIC) || l.Listed < l.N {
		t.Fatalf("%d of %d", l.N, l.Listed)
	}
	seen := map[uint8]bool{}
	for _, id := range l.APIC[:l.N] {
		if seen[id] || id == unreachable {
			t.Fatalf("%v", l.APIC[:l.N])
		}
		seen[id] = true
	}
}

func FuzzMADT(f *testing.F) {
	f.Add(madt(local(cpu{0, true}), localX2(cpu{1, true}), other, override(1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l List
		ReadMADT(b, &l)
		check(t, &l)
	})
}

func FuzzMPTable(f *testing.F) {
	m := low(0x9fc00, 0x9fc10, []cpu{{0, true}, {1, true}}, nil)
	f.Add(m[0x9fc00:0x9fd00], uint8(0))
	f.Add([]byte("PCMP"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, where uint8) {
		var l List
		m := make([]byte, 1<<20)
		copy(m[[...]int{0x9fc00, 0xf0000, 0xffff0, 0x9fff0}[where%4]:], b)
		ReadTable(m[:len(m)-int(where)], &l)
		check(t, &l)
		l = List{}
		readTable(b, &l) // without a pointer to it
		check(t, &l)
	})
}

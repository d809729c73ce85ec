package acpi

import (
	"strings"
	"testing"
)

// large is a large descriptor, small a small one (ACPI 6.4, 6.4.2 and 6.4.3).
func large(tag byte, content string) string {
	return string([]byte{tag, byte(len(content)), byte(len(content) >> 8)}) + content
}

func small(tag byte, content string) string {
	return string([]byte{tag | byte(len(content))}) + content
}

// TestRegisters: of each kind of resource the first counts, whatever stands around
// it; a list ends at its end tag, or with its buffer.
func TestRegisters(t *testing.T) {
	mem, irq := memory32(0xfeb00000), interrupt(40)
	good := Device{0xfeb00000, 40}
	io := small(0x40, "\x01\xf8\x03\xf8\x03\x00\x08")
	for name, c := range map[string]struct {
		list string
		want Device
	}{
		"both":                      {mem + irq, good},
		"interrupt first":           {irq + mem, good},
		"small ones around":         {io + mem + small(0x20, "\x10\x00") + irq + small(0x30, ""), good},
		"an end in a small one":     {small(0x20, "\x79") + mem + small(0x20, "ab\x79") + irq, good},
		"a long one before":         {large(0x84, strings.Repeat("\x86", 0x105)) + mem + irq, good},
		"first memory":              {mem + memory32(0xc0000000) + irq, good},
		"first interrupt":           {mem + irq + interrupt(41), good},
		"two interrupts in one":     {mem + "\x89\x0a\x00\x01\x02" + le(40, 41), good},
		"lowest address":            {memory32(1<<20) + irq, Device{1 << 20, 40}},
		"below it":                  {memory32(1<<20-4) + irq, Device{}},
		"misaligned by 2":           {memory32(0xfeb00002) + irq, Device{}},
		"no interrupt":              {mem, Device{}},
		"no memory":                 {irq, Device{}},
		"memory cut":                {large(tagMemory32, "\x01"+le(0xfeb00000)+"\x00\x02\x00") + irq, Device{}},
		"memory cut, whole after":   {large(tagMemory32, "\x01"+le(0xc0000000)+"\x00\x02\x00") + mem + irq, good},
		"interrupt cut":             {mem + large(tagInterrupt, "\x01\x01\x28\x00\x00"), Device{}},
		"no numbers":                {mem + large(tagInterrupt, "\x01\x00"+le(40)), Device{}},
		"memory in another's place": {large(0x85, "\x01"+le(0xc0000000, 0x200, 0)) + irq, Device{}},
		"interrupt in another's":    {mem + large(0x88, "\x01\x01"+le(40)), Device{}},
		"end before":                {"\x79\x00" + mem + irq, Device{}},
		"end between":               {mem + "\x79\x00" + irq, Device{}},
		"end without checksum":      {mem + irq + "\x78", good},
		"last one too long":         {mem + irq + "\x86\x0a\x00" + strings.Repeat("\x00", 9), good},
		"header alone":              {mem + irq + "\x86\x00", good},
		"small one too long":        {mem + irq + "\x47\x00", good},
		"nothing":                   {"", Device{}},
	} {
		d, ok := registers([]byte(c.list))
		if ok != (c.want != Device{}) || ok && d != c.want {
			t.Errorf("%s: %+v, %v", name, d, ok)
		}
	}
}

// TestWindow: of the memory that a bridge passes on the largest counts.
func TestWindow(t *testing.T) {
	a, b := space32(0, 0xc0000000, 0xcfffffff), space32(0, 0xe0000000, 0xe0ffffff)
	for name, c := range map[string]struct {
		list       string
		start, end uint64
	}{
		"one":               {a, 0xc0000000, 0xd0000000},
		"larger first":      {a + b, 0xc0000000, 0xd0000000},
		"larger last":       {b + a, 0xc0000000, 0xd0000000},
		"two alike":         {a + space32(0, 0x80000000, 0x8fffffff), 0xc0000000, 0xd0000000},
		"one page more":     {a + space32(0, 0x80000000, 0x90000fff), 0x80000000, 0x90001000},
		"one byte more":     {a + space32(0, 0x80000000, 0x90000000), 0x80000000, 0x90000001},
		"to the end":        {space32(0, 0xf0000000, 0xffffffff), 0xf0000000, 1 << 32},
		"lowest":            {space32(0, 1<<20, 1<<20+1), 1 << 20, 1<<20 + 2},
		"below the lowest":  {space32(0, 1<<20-1, 1<<21), 0, 0},
		"one byte":          {space32(0, 0xc0000000, 0xc0000000), 0, 0},
		"upside down":       {space32(0, 0xc0000000, 0xbfffffff), 0, 0},
		"ports":             {space32(1, 0xc0000000, 0xcfffffff), 0, 0},
		"buses":             {space32(2, 0xc0000000, 0xcfffffff), 0, 0},
		"cut":               {large(tagDWordSpace, a[3:len(a)-1]), 0, 0},
		"of another kind":   {large(0x8a, a[3:]), 0, 0},
		"after the end":     {"\x79\x00" + a, 0, 0},
		"after other kinds": {interrupt(3) + memory32(0xfeb00000) + a, 0xc0000000, 0xd0000000},
	} {
		var f Found
		f.window([]byte(c.list))
		if f.Start != c.start || f.End != c.end {
			t.Errorf("%s: %#x to %#x", name, f.Start, f.End)
		}
	}
}

// TestPkg: lengths of one to four bytes, which include themselves.
func TestPkg(t *testing.T) {
	body := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		b    string
		want int // length of the body; -1: refused
	}{
		"one byte":             {"\x05" + body(4), 4},
		"more behind it":       {"\x05" + body(9), 4},
		"nothing in it":        {"\x01", 0},
		"63":                   {"\x3f" + body(62), 62},
		"less than itself":     {"\x00" + body(4), -1},
		"too long":             {"\x05" + body(3), -1},
		"two bytes":            {"\x45\x01" + body(19), 19},
		"two, no more than it": {"\x42\x00", 0},
		"two, less than it":    {"\x41\x00" + body(9), -1},
		"two, high bits":       {"\x70\x01" + body(14), 14},
		"three bytes":          {"\x80\x00\x01" + body(4093), 4093},
		"four bytes":           {"\xc4\x00\x00\x01" + body(1<<20), 1 << 20},
		"four, cut":            {"\xc4\x00\x00", -1},
		"empty":                {"", -1},
	} {
		got, ok := pkg([]byte(c.b))
		if ok != (c.want >= 0) || ok && len(got) != c.want {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(got), ok, c.want)
		}
	}
}

// TestBuffers: the size of a buffer is written in four ways, and is not looked at.
func TestBuffers(t *testing.T) {
	for name, c := range map[string]struct{ b, want string }{
		"one byte of it": {"\x11\x03\x01a", "a"},
		"zero":           {"\x11\x05\x00abc", "abc"},
		"one":            {"\x11\x05\x01abc", "abc"},
		"byte":           {"\x11\x06\x0a\x03abc", "abc"},
		"word":           {"\x11\x07\x0b\x03\x00abc", "abc"},
		"double word":    {"\x11\x09\x0c\x03\x00\x00\x00abc", "abc"},
		"word, cut":      {"\x11\x03\x0b\x03", ""},
		"double, cut":    {"\x11\x04\x0c\x03\x00", ""},
		"of a variable":  {"\x11\x06\x60abcd", ""},
		"no buffer":      {"\x12\x05\x00abc", ""},
		"no size":        {"\x11\x01", ""},
		"nothing":        {"\x11", ""},
		"more behind":    {"\x11\x05\x00abcdef", "abc"},
	} {
		if got := string(resources([]byte(c.b))); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestManyDevices: a table with more devices than are looked at ends the search.
func TestManyDevices(t *testing.T) {
	none := device("NONE")
	good := device("GOOD", virtio, crs(memory32(0xfeb00000), interrupt(5)))
	var f Found
	if ReadDSDT(dsdt(strings.Repeat(none, maxScanned-1), good), &f); f.N != 1 {
		t.Errorf("%d devices", f.N)
	}
	if ReadDSDT(dsdt(strings.Repeat(none, maxScanned), good), &f); f.N != 0 {
		t.Errorf("%d devices beyond the bound", f.N)
	}
}

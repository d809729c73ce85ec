package pci

import (
	"encoding/binary"
	"testing"
)

// A model is a configuration space under construction.
type model struct {
	Config
	last uint8 // the last capability
	next uint8 // where the next one goes
}

func newModel(device uint16) *model {
	m := &model{last: capPointer - 1, next: firstCap}
	m.SetWord(ID, vendorVirtio|uint32(device)<<16)
	m.SetWord(Command, statusHasCaps<<16)
	return m
}

// capability appends a capability of n bytes.
func (m *model) capability(id uint8, n uint8, body ...byte) *model {
	m.Config[m.last+1] = m.next
	m.Config[m.next] = id
	copy(m.Config[m.next+2:], body)
	m.last = m.next
	m.next += (n + 3) &^ 3
	return m
}

func (m *model) virtio(kind, bar uint8, off, length uint32, multiplier ...uint32) *model {
	n := uint8(16 + 4*len(multiplier))
	b := []byte{n, kind, bar, 0, 0, 0}
	b = binary.LittleEndian.AppendUint32(b, off)
	b = binary.LittleEndian.AppendUint32(b, length)
	for _, x := range multiplier {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return m.capability(capVendor, n, b...)
}

func (m *model) msiX(entries uint16, table uint32) *model {
	b := binary.LittleEndian.AppendUint16(nil, entries-1)
	b = binary.LittleEndian.AppendUint32(b, table)
	return m.capability(capMSIX, 12, append(b, 0, 8, 0, 0)...)
}

// qemu is what QEMU's virtio-net-pci says of itself.
func qemu() *model {
	return newModel(0x1041).virtio(1, 4, 0, 0x1000).virtio(3, 4, 0x1000, 0x1000).virtio(4, 4, 0x2000, 0x1000).
		virtio(2, 4, 0x3000, 0x1000, 4).virtio(5, 0, 0, 0, 0).msiX(4, 1)
}

func TestDevice(t *testing.T) {
	var d Device
	if p := qemu().Virtio(&d); p != OK {
		t.Fatal(p)
	}
	want := Device{Type: 1, Common: Window{4, 0, 0x38}, Notify: Window{4, 0x3000, 0x1000}, Config: Window{4, 0x2000, 0x1000},
		Table: Window{1, 0, 64}, Multiplier: 4, MSIX: 0x98}
	if d != want {
		t.Errorf("%+v, want %+v", d, want)
	}
	for dev, typ := range map[uint16]uint32{0x1000: 1, 0x1005: 4, 0x1012: 19, 0x1044: 4, 0x1053: 19} {
		m := qemu()
		m.SetWord(ID, vendorVirtio|uint32(dev)<<16)
		m.SetWord(0x2c, 19<<16|0x1af4)
		if p := m.Virtio(&d); p != OK || d.Type != typ {
			t.Errorf("device %#x: %v, type %d, want %d", dev, p, d.Type, typ)
		}
	}
}

// TestProblems: devices that cannot be used, honest and not.
func TestProblems(t *testing.T) {
	edit := func(f func(m *model)) *model { m := qemu(); f(m); return m }
	for name, c := range map[string]struct {
		m    *model
		want Problem
	}{
		"not virtio":          {edit(func(m *model) { m.SetWord(ID, 0x10ec8086) }), NotVirtio},
		"a device below":      {edit(func(m *model) { m.SetWord(ID, 0x0fff1af4) }), NotVirtio},
		"a device above":      {edit(func(m *model) { m.SetWord(ID, 0x10801af4) }), NotVirtio},
		"a bridge":            {edit(func(m *model) { m.SetWord(Header, HeaderBridge<<16) }), NotVirtio},
		"legacy":              {newModel(0x1000).msiX(3, 1), Legacy},
		"no list":             {edit(func(m *model) { m.SetWord(Command, 0) }), NoCommon},
		"loop":                {edit(func(m *model) { m.Config[m.last+1] = firstCap }), BadList},
		"loop of one":         {edit(func(m *model) { m.Config[firstCap+1] = firstCap }), BadList},
		"into the header":     {edit(func(m *model) { m.Config[m.last+1] = 0x10 }), BadList},
		"no common":           {newModel(0x1041).virtio(2, 4, 0x3000, 0x1000, 4).msiX(4, 1), NoCommon},
		"short common":        {newModel(0x1041).virtio(1, 4, 0, 0x37).virtio(2, 4, 0x3000, 0x1000, 4).msiX(4, 1), NoCommon},
		"common misaligned":   {newModel(0x1041).virtio(1, 4, 2, 0x38).virtio(2, 4, 0x3000, 0x1000, 4).msiX(4, 1), NoCommon},
		"common in BAR 6":     {newModel(0x1041).virtio(1, 6, 0, 0x38).virtio(2, 4, 0x3000, 0x1000, 4).msiX(4, 1), NoCommon},
		"no notify":           {newModel(0x1041).virtio(1, 4, 0, 0x38).msiX(4, 1), NoNotify},
		"odd multiplier":      {newModel(0x1041).virtio(1, 4, 0, 0x38).virtio(2, 4, 0x3000, 0x1000, 3).msiX(4, 1), NoNotify},
		"one byte to notify":  {newModel(0x1041).virtio(1, 4, 0, 0x38).virtio(2, 4, 0x3000, 1, 4).msiX(4, 1), NoNotify},
		"no MSI-X":            {newModel(0x1041).virtio(1, 4, 0, 0x38).virtio(2, 4, 0x3000, 0x1000, 4), NoMSIX},
		"one vector":          {newModel(0x1041).virtio(1, 4, 0, 0x38).virtio(2, 4, 0x3000, 0x1000, 4).msiX(1, 1), FewVectors},
		"table in BAR 7":      {newModel(0x1041).virtio(1, 4, 0, 0x38).virtio(2, 4, 0x3000, 0x1000, 4).msiX(4, 7), FewVectors},
		"two vectors":         {newModel(0x1041).virtio(1, 4, 0, 0x38).virtio(2, 4, 0x3000, 0x1000, 4).msiX(2, 1), OK},
		"common in I/O space": {edit(func(m *model) { m.SetWord(BAR0+16, 0xc001) }), NoCommon},
	} {
		var d Device
		if p := c.m.Virtio(&d); p != c.want {
			t.Errorf("%s: %v, want %v", name, p, c.want)
		}
	}
}

// TestFirstCounts: of two windows of a kind the first that can be used counts.
func TestFirstCounts(t *testing.T) {
	m := newModel(0x1041).virtio(1, 6, 0, 0x38).virtio(1, 2, 8, 0x40).virtio(1, 4, 0, 0x38).virtio(2, 4, 0x3000, 0x1000, 4).msiX(4, 1)
	var d Device
	if p := m.Virtio(&d); p != OK || d.Common != (Window{2, 8, 0x38}) {
		t.Errorf("%v, %+v", p, d.Common)
	}
}

func TestBAR(t *testing.T) {
	for name, c := range map[string]struct {
		reg, next, lo, hi uint32
		i                 uint32
		want              BAR
	}{
		"32 bits":          {0xfebf1000, 0, 0xfffff000, 0, 1, BAR{0xfebf1000, 0x1000, false}},
		"64 bits":          {0xc, 0x40, 0xfff8000c, 0xffffffff, 0, BAR{0x40_0000_0000, 0x80000, true}},
		"64 bits, 4 GiB":   {0xc, 0x40, 0xc, 0xffffffff, 0, BAR{0x40_0000_0000, 1 << 32, true}},
		"64 bits, unset":   {0xc, 0, 0xffffc00c, 0xffffffff, 4, BAR{0, 0x4000, true}},
		"64 bits in BAR 5": {0xc, 0, 0xffffc00c, 0xffffffff, 5, BAR{}},
		"I/O":              {0xc001, 0, 0xffffffe1, 0, 0, BAR{}},
		"none":             {0, 0, 0, 0, 0, BAR{}},
		"no size":          {0xfebf1000, 0, 0, 0, 0, BAR{}},
		"holes":            {0xfebf1000, 0, 0xfff0f000, 0, 0, BAR{}},
		"number 6":         {0, 0, 0xfffff000, 0, 6, BAR{}},
	} {
		var cfg Config
		if c.i < NumBARs {
			cfg.SetWord(BAR0+4*uint8(c.i), c.reg)
			cfg.SetWord(BAR0+4*uint8(c.i)+4, c.next)
		}
		if got := cfg.BAR(c.i, c.lo, c.hi); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestPlace(t *testing.T) {
	for name, c := range map[string]struct {
		w    Window
		b    BAR
		pa   uint64
		want Problem
	}{
		"inside":            {Window{0, 0x3000, 0x1000}, BAR{0xfebf0000, 0x4000, true}, 0xfebf3000, OK},
		"beyond":            {Window{0, 0x3000, 0x1001}, BAR{0xfebf0000, 0x4000, true}, 0, Outside},
		"far beyond":        {Window{0, 0xffffffff, 0xffffffff}, BAR{0xfebf0000, 0x4000, true}, 0, Outside},
		"no BAR":            {Window{0, 0, 0x38}, BAR{}, 0, Outside},
		"no address":        {Window{0, 0, 0x38}, BAR{0, 0x4000, false}, 0, NoAddress},
		"misaligned":        {Window{0, 0, 0x38}, BAR{0xfebf1000, 0x4000, false}, 0, Outside},
		"misaligned by one": {Window{0, 0, 0x38}, BAR{0xfebf0001, 0x4000, false}, 0, Outside},
		"nothing of none":   {Window{}, BAR{}, 0, Outside},
		"all of one byte":   {Window{0, 0, 1}, BAR{0xfebf0001, 1, false}, 0xfebf0001, OK},
		"around the end":    {Window{0, 0, 0x38}, BAR{1<<64 - 0x4000, 0x4000, true}, 0, Outside},
		"beyond 52 bits":    {Window{0, 0, 0x38}, BAR{1 << 52, 0x4000, true}, 0, Outside},
		"at the very top":   {Window{0, 0, 0x38}, BAR{1<<52 - 0x4000, 0x4000, true}, 1<<52 - 0x4000, OK},
		"larger than space": {Window{0, 0, 0x38}, BAR{1 << 63, 1 << 63, true}, 0, Outside},
	} {
		if pa, p := c.w.Place(c.b); p != c.want || pa != c.pa {
			t.Errorf("%s: %#x, %v, want %#x, %v", name, pa, p, c.pa, c.want)
		}
	}
}

func TestProblemText(t *testing.T) {
	seen := map[string]bool{}
	for p := OK; p <= InMemory; p++ {
		if s := p.String(); s == "" || seen[s] {
			t.Errorf("problem %d says %q", p, s)
		} else {
			seen[s] = true
		}
	}
}

// FuzzVirtio: whatever a device says, a window that is used has a sane size and
// lies within a BAR that is one.
func FuzzVirtio(f *testing.F) {
	q := qemu()
	f.Add(q.Config[:], uint32(0xffffc00c), uint32(0xffffffff))
	loop := qemu()
	loop.Config[loop.last+1] = firstCap
	f.Add(loop.Config[:], uint32(0xfffff000), uint32(0))
	end := newModel(0x1041)
	end.next = 0xfc
	end.capability(capVendor, 4, 0xff, 1)
	f.Add(end.Config[:], uint32(0), uint32(0))
	end = newModel(0x1041)
	end.next = 0xf8
	end.capability(capMSIX, 4, 0xff, 0xff)
	f.Add(end.Config[:], uint32(1), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, lo, hi uint32) {
		var c Config
		copy(c[:], b)
		var d Device
		if p := c.Virtio(&d); p != OK {
			if p.String() == "" {
				t.Fatal(p)
			}
			return
		}
		if d.Common.Length != commonBytes || d.Notify.Length < 2 || d.Notify.Length > notifyBytes || d.Config.Length > configBytes || d.Table.Length < 2*msixEntryBytes || d.Table.Length > MaxEntries*msixEntryBytes || d.Table.Length%msixEntryBytes != 0 ||
			d.MSIX < firstCap || d.MSIX > 256-12 || d.Multiplier&1 != 0 {
			t.Fatalf("%+v", d)
		}
		for _, w := range []Window{d.Common, d.Notify, d.Config, d.Table} {
			if w.BAR >= NumBARs {
				t.Fatalf("%+v", d)
			}
			bar := c.BAR(w.BAR, lo, hi)
			pa, p := w.Place(bar)
			if p == OK && (pa < bar.Address || pa+uint64(w.Length) > bar.Address+bar.Size || bar.Address == 0 || bar.Size&(bar.Size-1) != 0 || pa >= 1<<52) {
				t.Fatalf("window %+v of BAR %+v at %#x", w, bar, pa)
			}
		}
	})
}

// TestWords: what is copied of a configuration space is what is looked at, of the
// honest and of those that are not, and of a loop only so much.
func TestWords(t *testing.T) {
	loop := qemu()
	loop.Config[loop.last+1] = firstCap
	end := newModel(0x1041)
	end.next = 0xfc
	end.capability(capVendor, 4, 0xff, 1)
	for name, m := range map[string]*model{"qemu": qemu(), "loop": loop, "at the end": end, "none": newModel(0x1041)} {
		var c Config
		words := 0
		read := func(off uint8) { c.SetWord(off, m.Word(off)); words++ }
		for _, off := range HeaderWords {
			read(off)
		}
		p := c.Next(0)
		for n := 0; p != 0 && n < MaxCaps; n++ {
			read(p)
			for i := uint8(1); i < c.Words(p); i++ {
				read(p + 4*i)
			}
			p = c.Next(p)
		}
		var full, part Device
		if a, b := m.Virtio(&full), c.Virtio(&part); a != b || full != part {
			t.Errorf("%s: %v %+v, of the copy %v %+v", name, a, full, b, part)
		}
		if name == "qemu" && words != 28 {
			t.Errorf("%d words are read", words)
		}
	}
}

func TestWide(t *testing.T) {
	var c Config
	for i := range uint32(NumBARs) {
		c.SetWord(BAR0+4*uint8(i), 0xc)
	}
	if !c.Wide(0) || !c.Wide(4) || c.Wide(5) || c.Wide(6) || c.Wide(1<<31) {
		t.Error("which BARs have 64 bits")
	}
	for _, v := range []uint32{0, 8, 0xd, 5} {
		if c.SetWord(BAR0, v); c.Wide(0) {
			t.Errorf("%#x has 64 bits", v)
		}
	}
}

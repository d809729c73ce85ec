package pci

import "testing"

// TestWindows: which windows are taken, and how much of them.
func TestWindows(t *testing.T) {
	common := func(m *model) *model { return m.virtio(1, 4, 0, 0x38) }
	notify := func(m *model) *model { return m.virtio(2, 4, 0x3000, 0x1000, 4) }
	base := func() *model { return notify(common(newModel(0x1041))).msiX(4, 1) }
	for name, c := range map[string]struct {
		m    *model
		want Device
	}{
		"as they are":           {base(), Device{}},
		"notify of 2 bytes":     {common(newModel(0x1041)).virtio(2, 4, 0x3000, 2, 4).msiX(4, 1), Device{Notify: Window{4, 0x3000, 2}}},
		"notify of 128 KB":      {common(newModel(0x1041)).virtio(2, 4, 0x3000, 128<<10, 4).msiX(4, 1), Device{Notify: Window{4, 0x3000, 64 << 10}}},
		"no multiplier":         {common(newModel(0x1041)).virtio(2, 4, 0x3002, 0x1000, 0).msiX(4, 1), Device{Notify: Window{4, 0x3002, 0x1000}, Multiplier: 1 << 31}},
		"two of notify":         {base().virtio(2, 5, 0, 0x1000, 8), Device{}},
		"odd notify, then even": {notify(common(newModel(0x1041)).virtio(2, 4, 0x3001, 0x1000, 4)).msiX(4, 1), Device{}},
		"short notify":          {notify(common(newModel(0x1041)).virtio(2, 5, 0, 0x1000)).msiX(4, 1), Device{}},
		"two of common":         {base().virtio(1, 5, 0, 0x38), Device{}},
		"two of MSI-X":          {base().msiX(2, 0x2003), Device{}},
		"configuration":         {base().virtio(4, 0, 0x2000, 12), Device{Config: Window{0, 0x2000, 12}}},
		"two of configuration":  {base().virtio(4, 0, 0x2000, 12).virtio(4, 1, 0, 8), Device{Config: Window{0, 0x2000, 12}}},
		"8 KB of configuration": {base().virtio(4, 0, 0x2000, 8<<10), Device{Config: Window{0, 0x2000, 4 << 10}}},
		"misaligned by 1":       {base().virtio(4, 0, 1, 12), Device{}},
		"misaligned by 2":       {base().virtio(4, 0, 2, 12), Device{}},
		"table elsewhere":       {notify(common(newModel(0x1041))).msiX(4, 0x8005), Device{Table: Window{5, 0x8000, 64}}},
		"two entries":           {notify(common(newModel(0x1041))).msiX(2, 1), Device{Table: Window{1, 0, 32}}},
		"all entries":           {notify(common(newModel(0x1041))).msiX(9, 1), Device{Table: Window{1, 0, 144}}},
		"one more":              {notify(common(newModel(0x1041))).msiX(10, 1), Device{Table: Window{1, 0, 144}}},
		"2,048 entries":         {notify(common(newModel(0x1041))).msiX(2048, 1), Device{Table: Window{1, 0, 144}}},
		"another kind":          {base().virtio(8, 0, 0, 0x38).virtio(3, 0, 0, 1), Device{}},
	} {
		want := Device{Type: 1, Common: Window{4, 0, 0x38}, Notify: Window{4, 0x3000, 0x1000}, Multiplier: 4, Table: Window{1, 0, 64}}
		if c.want.Notify.Length != 0 {
			want.Notify = c.want.Notify
		}
		if c.want.Config.Length != 0 {
			want.Config = c.want.Config
		}
		if c.want.Table.Length != 0 {
			want.Table = c.want.Table
		}
		if c.want.Multiplier != 0 {
			want.Multiplier = 0
		}
		got := Device{Type: 9, Config: Window{1, 1, 1}} // what was there before is gone
		if p := c.m.Virtio(&got); p != OK {
			t.Errorf("%s: %v", name, p)
			continue
		}
		if want.MSIX = got.MSIX; got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// TestEndOfSpace: capabilities that end with the configuration space are read,
// those that do not fit are not.
func TestEndOfSpace(t *testing.T) {
	at := func(p uint8, add func(m *model)) Device {
		m := newModel(0x1041)
		m.next = p
		add(m)
		var d Device
		m.Virtio(&d)
		return d
	}
	for p, want := range map[uint8]bool{0xec: true, 0xf0: false} {
		if d := at(p, func(m *model) { m.virtio(1, 4, 0, 0x38) }); (d.Common.Length != 0) != want {
			t.Errorf("a window's capability at %#x: %+v", p, d)
		}
	}
	for p, want := range map[uint8]bool{0xf4: true, 0xf8: false} {
		if d := at(p, func(m *model) { m.capability(capMSIX, 8, 3, 0, 1) }); (d.MSIX != 0) != want {
			t.Errorf("MSI-X at %#x: %+v", p, d)
		}
	}
	// A whole list of the smallest capabilities has no loop.
	m := newModel(0x1041)
	for range MaxCaps - 1 {
		m.capability(1, 4)
	}
	m.Config[m.last+1], m.Config[0xfc] = 0xfc, 1
	var d Device
	if p := m.Virtio(&d); p != NoCommon {
		t.Error(p)
	}
}

// TestPointers: their lower bits are reserved.
func TestPointers(t *testing.T) {
	m := qemu()
	for p := uint8(capPointer - 1); ; {
		q := p + 1
		if m.Config[q] == 0 {
			break
		}
		p = m.Config[q]
		m.Config[q] |= 3
	}
	var d Device
	if p := m.Virtio(&d); p != OK || d.MSIX != 0x98 {
		t.Errorf("%v, %+v", p, d)
	}
	if first := m.Next(0); first != firstCap || m.Next(first) != 0x50 {
		t.Errorf("the first at %#x, the second at %#x", first, m.Next(first))
	}
	m.SetWord(Command, 0)
	if m.Next(0) != 0 {
		t.Error("capabilities of a function without any")
	}
	m.Config[firstCap+1] = 0x3c
	if m.Next(firstCap) != 0 {
		t.Error("a capability in the header")
	}
}

func TestIsVirtio(t *testing.T) {
	for id, want := range map[uint32]bool{0x10001af4: true, 0x103f1af4: true, 0x10401af4: true, 0x107f1af4: true,
		0x0fff1af4: false, 0x10801af4: false, 0x10411af5: false, 0x10418086: false, 0xffffffff: false, 0: false} {
		if IsVirtio(id) != want {
			t.Errorf("%#x: %v", id, !want)
		}
	}
	m := qemu()
	m.SetWord(ID, 0x10401af4)
	var d Device
	if p := m.Virtio(&d); p != OK || d.Type != 0 {
		t.Errorf("%v, type %d", p, d.Type)
	}
	for name, c := range map[string]struct {
		m    *model
		want Problem
	}{
		"transitional, common alone": {newModel(0x1000).virtio(1, 4, 0, 0x38).msiX(4, 1), NoNotify},
		"transitional, notify alone": {newModel(0x1000).virtio(2, 4, 0, 0x1000, 4).msiX(4, 1), NoCommon},
	} {
		if p := c.m.Virtio(&d); p != c.want {
			t.Errorf("%s: %v, want %v", name, p, c.want)
		}
	}
}

// TestEveryBAR: each register is read in its own place.
func TestEveryBAR(t *testing.T) {
	for i := range uint32(NumBARs) {
		var c Config
		c.SetWord(BAR0+4*uint8(i), 0xfeb0000a|i<<16) // flags: below 1 MB, prefetchable
		if b := c.BAR(i, 0xffff000a, 0); b != (BAR{0xfeb00000 | uint64(i)<<16, 0x10000, false}) {
			t.Errorf("BAR %d: %+v", i, b)
		}
		if i == NumBARs-1 {
			continue
		}
		c.SetWord(BAR0+4*uint8(i), 0xfeb0000c|i<<16)
		c.SetWord(BAR0+4*uint8(i)+4, 0x40+i)
		want := BAR{uint64(0x40+i)<<32 | 0xfeb00000 | uint64(i)<<16, 0x10000, true}
		if b := c.BAR(i, 0xffff000c, 0xffffffff); b != want || !c.Wide(i) || c.Wide(i+1) && i+1 < NumBARs-1 && c.Word(BAR0+4*uint8(i)+4)&barType != bar64 {
			t.Errorf("BAR %d: %+v, want %+v", i, b, want)
		}
		// In I/O space, by what it reads as before or after.
		c.SetWord(BAR0+4*uint8(i), 0xc001)
		if b := c.BAR(i, 0xffff0000, 0); b != (BAR{}) {
			t.Errorf("BAR %d in I/O space: %+v", i, b)
		}
		c.SetWord(BAR0+4*uint8(i), 0xfeb00000)
		if b := c.BAR(i, 0xffff0001, 0); b != (BAR{}) {
			t.Errorf("BAR %d that becomes I/O: %+v", i, b)
		}
		var d Device
		m := qemu()
		for j := range uint32(NumBARs) {
			m.SetWord(BAR0+4*uint8(j), 1)
		}
		if m.SetWord(BAR0+4*uint8(i), 0); m.Virtio(&d) == OK != (i == 4) {
			t.Errorf("all in I/O space but BAR %d: %+v", i, d)
		}
	}
	var c Config
	for _, lo := range []uint32{0, 15, 8} {
		if b := c.BAR(0, lo, 0); b.Size != 0 {
			t.Errorf("size of %#x: %+v", lo, b)
		}
	}
	if b := c.BAR(0, 0x80000000, 0); b.Size != 1<<31 {
		t.Errorf("2 GB: %+v", b)
	}
	c.SetWord(BAR0, 0xc)
	if b := c.BAR(0, 0xc, 0); b.Size != 0 {
		t.Errorf("64 bits without a size: %+v", b)
	}
	if b := c.BAR(0, 0xc, 0x80000000); b.Size != 1<<63 {
		t.Errorf("the largest: %+v", b)
	}
}

// TestWordsAtTheEnd: nothing is read beyond the configuration space.
func TestWordsAtTheEnd(t *testing.T) {
	var c Config
	for p := firstCap; p < 256; p += 4 {
		for kind := range uint8(10) {
			for _, id := range []uint8{capVendor, capMSIX, 1} {
				c[p], c[p+3] = id, kind
				n := int(c.Words(uint8(p)))
				if n < 1 || p+4*n > 256 {
					t.Fatalf("%d words of capability %#x, kind %d, at %#x", n, id, kind, p)
				}
				want := 1
				switch {
				case id == capMSIX && p <= 0xf4:
					want = 2
				case id == capVendor && kind == cfgNotify && p <= 0xec:
					want = 5
				case id == capVendor && (kind == cfgCommon || kind == cfgDevice) && p <= 0xec:
					want = 4
				}
				if n != want {
					t.Errorf("%d words of capability %#x, kind %d, at %#x; want %d", n, id, kind, p, want)
				}
				c[p], c[p+3] = 0, 0
			}
		}
	}
}

package pci

import "testing"

// TestOffsets: words and halves lie where their offset says, whose lower bits are not looked
// at.
func TestOffsets(t *testing.T) {
	var c Config
	for i := range c {
		c[i] = byte(i*7 + 1)
	}
	for off := range 256 {
		w, h := off&^3, off&^1
		if got, want := c.Word(uint8(off)), uint32(c[w])|uint32(c[w+1])<<8|uint32(c[w+2])<<16|uint32(c[w+3])<<24; got != want {
			t.Errorf("word %#x: %#x, want %#x", off, got, want)
		}
		if got, want := c.half(uint8(off)), uint16(c[h])|uint16(c[h+1])<<8; got != want {
			t.Errorf("half %#x: %#x, want %#x", off, got, want)
		}
		d := c
		d.SetWord(uint8(off), 0x04030201)
		for i := range d {
			if want := byte(i - w + 1); i/4 == w/4 && d[i] != want || i/4 != w/4 && d[i] != c[i] {
				t.Fatalf("word %#x was set: byte %#x is %#x", off, i, d[i])
			}
		}
	}
}

// TestModernFirst: the first of the modern numbers says its own type, and none before it.
func TestModernFirst(t *testing.T) {
	for dev, want := range map[uint32]uint32{0x1040: 0, 0x103f: 19} {
		m := qemu()
		m.SetWord(ID, vendorVirtio|dev<<16)
		m.SetWord(0x2c, 19<<16|0x1af4)
		var d Device
		if p := m.Virtio(&d); p != OK || d.Type != want {
			t.Errorf("%#x: %v, type %d", dev, p, d.Type)
		}
	}
}

// TestStatus: a list is there if that one bit of the status says so.
func TestStatus(t *testing.T) {
	for bit := range 16 {
		m := qemu()
		m.SetWord(Command, 1<<(16+bit)|0xffff)
		var d Device
		want := uint32(1)<<bit == statusHasCaps
		if got := m.Virtio(&d) == OK; got != want || (m.Next(0) != 0) != want {
			t.Errorf("bit %d: used %v, the first capability at %#x", bit, got, m.Next(0))
		}
	}
}

// TestShortOrMisaligned: a capability that is too short for what it is, or whose window is
// not aligned, is passed over for the next of its kind, whatever stands behind it.
func TestShortOrMisaligned(t *testing.T) {
	common := func(m *model) *model { return m.virtio(1, 4, 0, 0x38) }
	notify := func(m *model) *model { return m.virtio(2, 4, 0x3000, 0x1000, 4) }
	short := common(newModel(0x1041)).virtio(2, 5, 0, 0x1000).capability(0x10, 4)
	tiny := newModel(0x1041).virtio(1, 5, 0, 0x38)
	tiny.Config[tiny.last+2] = 15
	for name, m := range map[string]*model{
		"a notification without a multiplier": notify(short).msiX(4, 1),
		"15 bytes for a window":               notify(common(tiny)).msiX(4, 1),
		"common at 1":                         notify(common(newModel(0x1041).virtio(1, 5, 1, 0x38))).msiX(4, 1),
		"common at 2":                         notify(common(newModel(0x1041).virtio(1, 5, 2, 0x38))).msiX(4, 1),
		"a multiplier of 1":                   notify(common(newModel(0x1041)).virtio(2, 5, 0, 0x1000, 1)).msiX(4, 1),
	} {
		var d Device
		if p := m.Virtio(&d); p != OK || d.Common.BAR != 4 || d.Notify.BAR != 4 || d.Multiplier != 4 {
			t.Errorf("%s: %v, %+v", name, p, d)
		}
	}
	var d Device
	if p := common(newModel(0x1041)).virtio(2, 4, 0, 0x1000, 2).msiX(4, 1).Virtio(&d); p != OK || d.Multiplier != 2 {
		t.Errorf("a multiplier of 2: %v, %+v", p, d)
	}
	for bar := range uint32(8) {
		want := OK
		if bar >= NumBARs {
			want = FewVectors
		}
		if p := notify(common(newModel(0x1041))).msiX(4, bar).Virtio(&d); p != want || p == OK && d.Table.BAR != bar {
			t.Errorf("table in BAR %d: %v, %+v", bar, p, d.Table)
		}
	}
}

// TestKindsOfBARs: which kinds have 64 bits, in each register's own place; of one without a
// size nothing is left.
func TestKindsOfBARs(t *testing.T) {
	for i := range uint32(NumBARs - 1) {
		var c Config
		c.SetWord(BAR0+4*uint8(i), 0xfeb0000c)
		for j := range uint32(NumBARs) {
			if c.Wide(j) != (j == i) {
				t.Errorf("with BAR %d of 64 bits BAR %d is one: %v", i, j, c.Wide(j))
			}
		}
	}
	for flags, want := range map[uint32]BAR{0x0: {0xfeb00000, 0x10000, false}, 0x2: {0xfeb00000, 0x10000, false}, 0x4: {0x40_feb00000, 0x10000, true},
		0x6: {0xfeb00000, 0x10000, false}, 0x8: {0xfeb00000, 0x10000, false}, 0xc: {0x40_feb00000, 0x10000, true}, 0x1: {}, 0x5: {}} {
		var c Config
		c.SetWord(BAR0, 0xfeb00000|flags)
		c.SetWord(BAR0+4, 0x40)
		if b := c.BAR(0, 0xffff0000|flags, 0xffffffff); b != want {
			t.Errorf("flags %#x: %+v, want %+v", flags, b, want)
		}
		if b := c.BAR(0, flags, 0); b != (BAR{}) {
			t.Errorf("flags %#x, without a size: %+v", flags, b)
		}
	}
}

package acpi

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// TestWhatIsADevice: both bytes of the operator count, from the header's end on, and what
// has no length is not counted.
func TestWhatIsADevice(t *testing.T) {
	good := device("GOOD", virtio, crs(memory32(0xfeb00000), interrupt(5)))
	header := dsdt()
	header[HeaderSize-1] = opExt
	for name, c := range map[string]struct {
		table []byte
		want  int
	}{
		"as it is":                        {dsdt(good), 1},
		"another prefix":                  {dsdt("\x5a" + good[1:]), 0},
		"another operator":                {dsdt("\x5b\x83" + good[2:]), 0},
		"one that begins in the header":   {append(header, good[1:]...), 0},
		"behind as many without a length": {dsdt(strings.Repeat("\x5b\x82\x00", maxScanned), good), 1},
		"operator at the end":             {dsdt(good, "\x5b\x82"), 1},
		"prefix at the end":               {dsdt(good, "\x5b"), 1},
	} {
		var f Found
		if ReadDSDT(slices.Clip(c.table), &f); f.N != c.want {
			t.Errorf("%s: %d devices, want %d", name, f.N, c.want)
		}
	}
}

// TestNamesAtTheEnd: a device's name may be the last that it says, and is read no further
// than it goes.
func TestNamesAtTheEnd(t *testing.T) {
	of := func(hid string, list ...string) (f Found) {
		ReadDSDT(slices.Clip(dsdt(device("LAST", crs(list...), "\x08_HID"+hid))), &f)
		return f
	}
	mmio := []string{memory32(0xfeb00000), interrupt(5)}
	for hid, want := range map[string]int{"\x0dLNRO0005\x00": 1, "\x0dLNRO0005": 0, "\x0dLNRO000": 0, "\x0dLNRO": 0, "\x0d": 0, "": 0,
		"\x0cLNRO0005\x00": 0, "\x0eLNRO0005\x00": 0, "\x0dLNRO0005x": 0, "\x0dLNRO0006\x00": 0} {
		if f := of(hid, mmio...); f.N != want {
			t.Errorf("%q: %d devices", hid, f.N)
		}
	}
	for hid, want := range map[string]uint64{"\x0c\x41\xd0\x0a\x08": 0xc0000000, "\x0c\x41\xd0\x0a\x03": 0xc0000000,
		"\x0d\x41\xd0\x0a\x08": 0, "\x0e\x41\xd0\x0a\x08\x00\x00\x00\x00": 0, "\x0c\x41\xd0\x0a": 0} {
		if f := of(hid, space32(0, 0xc0000000, 0xdfffffff)); f.Start != want {
			t.Errorf("%q: %#x", hid, f.Start)
		}
	}
}

// TestValue: what stands behind a Name of a name, if anything does.
func TestValue(t *testing.T) {
	for b, want := range map[string]string{"\x08_HIDx": "x", "\x08_HIDxyz": "xyz", "abc\x08_HIDx": "x", "\x08_HID": "-", "\x09_HIDx": "-", "_HIDxyz": "-",
		"\x08_HIExyz": "-", "\x08_HIDx\x08_HIDy": "x\x08_HIDy", "": "-"} {
		got := value([]byte(b), nameHID)
		if want == "-" && got != nil || want != "-" && string(got) != want {
			t.Errorf("%q: %q, want %q", b, got, want)
		}
	}
}

// TestMethodsThatReturn: a bridge's configuration space is where a method says that returns
// a constant and nothing else; what is said otherwise, or cut off, is not there at all.
func TestMethodsThatReturn(t *testing.T) {
	const low, high = 0xe0000000, 0x40
	for body, want := range map[string]Space{
		"_CBA\x00\xa4\x0c" + le(low):                   {low, 0, 255}, // at the very start
		"\x14\x0c_CBA\x00\xa4\x0c" + le(low):           {low, 0, 255},
		"\x14\x10_CBA\x00\xa4\x0e" + le(low, high):     {high<<32 | low, 0, 255},
		"\x14\x0c_CBA\x00\xa5\x0c" + le(low):           {},
		"\x14\x0c_CBA\x00\xa4\x0d" + le(low):           {},
		"\x14\x10_CBA\x00\xa4\x0f" + le(low, high):     {},
		"\x14\x0c_CBA\x00\xa4\x0c" + le(low+1):         {},
		"\x14\x0c_CBA\x00\xa4\x0c" + le(0):             {},
		"\x14\x10_CBA\x00\xa4\x0e" + le(0, 0):          {},
		"\x14\x10_CBA\x00\xa4\x0e" + le(low, high)[:7]: {},
		"\x14\x10_CBA\x00\xa4\x0e" + le(low, high)[:4]: {},
		"\x14\x10_CBA\x00\xa4\x0e" + le(low)[:3]:       {},
		"\x14\x10_CBA\x00\xa4\x0e":                     {},
		"\x14\x10_CBA\x00\xa4\x0c" + le(low)[:3]:       {},
		"\x14\x0c_CBA\x00\xa4\x0c":                     {},
		"\x14\x0c_CBA\x00\xa4":                         {},
		"\x14\x0c_CBA\x00":                             {},
	} {
		var f Found
		if f.config(slices.Clip([]byte(body))); f.Config != want {
			t.Errorf("%q: %+v, want %+v", body, f.Config, want)
		}
	}
}

// TestEntriesOfMCFG: each condition of an entry, by itself.
func TestEntriesOfMCFG(t *testing.T) {
	for name, c := range map[string]struct {
		base        uint64
		segment     uint16
		first, last byte
		ok          bool
	}{
		"all buses":             {0xb0000000, 0, 0, 255, true},
		"one bus":               {0xb0000000, 0, 0, 0, true},
		"one bus in the middle": {0xb0000000, 0, 7, 7, true},
		"segment 1":             {0xb0000000, 1, 0, 255, false},
		"segment 256":           {0xb0000000, 256, 0, 255, false},
		"misaligned by a byte":  {0xb0000001, 0, 0, 255, false},
		"misaligned by half":    {0xb0080000, 0, 0, 255, false},
		"the highest":           {1<<46 - 1<<20, 0, 0, 255, true},
		"buses the wrong way":   {0xb0000000, 0, 1, 0, false},
		"nowhere":               {0, 0, 0, 255, false},
		"the lowest":            {1 << 20, 0, 0, 255, true},
	} {
		b := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint64(nil, c.base), c.segment)
		s, ok := ReadMCFG(slices.Clip(mcfg(string(append(b, c.first, c.last, 0xff, 0xff, 0xff, 0xff)))))
		if ok != c.ok || ok && s != (Space{c.base, uint32(c.first), uint32(c.last)}) || !ok && s != (Space{}) {
			t.Errorf("%s: %+v, %v", name, s, ok)
		}
	}
}

// TestPair: two halves of an address in a package of two, and in nothing else.
func TestPair(t *testing.T) {
	halves := "\x02\x0c" + le(0x1000) + "\x0a\x02"
	for b, want := range map[string]uint64{"\x12" + pkgLength(halves): 0x2_0000_1000, "\x11" + pkgLength(halves): 0, "\x13" + pkgLength(halves): 0,
		"\x12" + pkgLength("\x01"+halves[1:]): 0, "\x12": 0, "": 0} {
		if got := pair(slices.Clip([]byte(b))); got != want {
			t.Errorf("%q: %#x, want %#x", b, got, want)
		}
	}
}

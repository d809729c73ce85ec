package acpi

import (
	"encoding/binary"
	"strings"
	"testing"
)

// pkgLength puts a PkgLength before a body.
func pkgLength(body string) string {
	n := len(body)
	if n+1 < 64 {
		return string([]byte{byte(n + 1)}) + body
	}
	n += 3
	return string([]byte{2<<6 | byte(n&15), byte(n >> 4), byte(n >> 12)}) + body
}

func device(name string, content ...string) string {
	return "\x5b\x82" + pkgLength(name+strings.Join(content, ""))
}

func crs(descriptors ...string) string {
	b := strings.Join(descriptors, "") + "\x79\x00"
	return "\x08_CRS\x11" + pkgLength("\x0a"+string([]byte{byte(len(b))})+b)
}

func le(v ...uint32) string {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, x)
	}
	return string(b)
}

func memory32(a uint32) string { return "\x86\x09\x00\x01" + le(a, 0x200) }
func interrupt(n uint32) string {
	return "\x89\x06\x00\x01\x01" + le(n)
}

func space32(typ byte, start, last uint32) string {
	return "\x87\x17\x00" + string([]byte{typ}) + "\x0c\x01" + le(0, start, last, 0, last-start+1)
}

const virtio = "\x08_HID\x0dLNRO0005\x00"

func dsdt(body ...string) []byte {
	return []byte("DSDT" + strings.Repeat("\x00", HeaderSize-4) + strings.Join(body, ""))
}

// microvm is a table as QEMU writes it.
func microvm() []byte {
	return dsdt(
		device("COM1", "\x08_HID\x0c\x41\xd0\x05\x01", crs("\x47\x01\xf8\x03\xf8\x03\x00\x08", "\x22\x10\x00")),
		device("VR22", virtio, "\x08_UID\x0a\x16", "\x08_CCA\x01", crs(memory32(0xfeb02c00), interrupt(46))),
		device("VR23", virtio, crs(memory32(0xfeb02e00), interrupt(47))),
		device("PCI0", "\x08_HID\x0dPNP0A08\x00", "\x08_CID\x0dPNP0A03\x00", device("GSI0", "\x08_HID\x0dPNP0C0F\x00", crs(interrupt(16))), "\x14\x0c_CBA\x00\xa4\x0c"+le(0xe0000000),
			crs(space32(1, 0, 0xffff), space32(0, 0xe0000000, 0xe0000fff), space32(0, 0xc0000000, 0xdfffffff), space32(2, 0, 255))))
}

func TestDSDT(t *testing.T) {
	var f Found
	ReadDSDT(microvm(), &f)
	want := Found{N: 2, Start: 0xc0000000, End: 0xe0000000, Config: Space{0xe0000000, 0, 255}}
	want.Devices[0], want.Devices[1] = Device{0xfeb02c00, 46}, Device{0xfeb02e00, 47}
	if f != want {
		t.Errorf("%+v", f)
	}
	// Firecracker: a word for the buffer's size, an interrupt of edges.
	ReadDSDT(dsdt(device("V000", virtio, "\x08_CRS\x11"+pkgLength("\x0b\x17\x00"+memory32(0xc0001000)+"\x89\x06\x00\x0b\x01"+le(5)+"\x79\x00"))), &f)
	if f.N != 1 || f.Devices[0] != (Device{0xc0001000, 5}) || f.End != 0 {
		t.Errorf("%+v", f)
	}
}

// TestDSDTPassesOver: what does not fit is no device, and does not hide others.
func TestDSDTPassesOver(t *testing.T) {
	good := device("GOOD", virtio, crs(memory32(0xfeb00000), interrupt(5)))
	for name, bad := range map[string]string{
		"another name":      device("BAD_", "\x08_HID\x0dLNRO0006\x00", crs(memory32(0xc0001000), interrupt(6))),
		"a longer name":     device("BAD_", "\x08_HID\x0dLNRO00055\x00", crs(memory32(0xc0001000), interrupt(6))),
		"no name":           device("BAD_", crs(memory32(0xc0001000), interrupt(6))),
		"no memory":         device("BAD_", virtio, crs(interrupt(6))),
		"no interrupt":      device("BAD_", virtio, crs(memory32(0xc0001000))),
		"zero interrupts":   device("BAD_", virtio, crs(memory32(0xc0001000), "\x89\x06\x00\x01\x00"+le(6))),
		"low memory":        device("BAD_", virtio, crs(memory32(0xff000), interrupt(6))),
		"misaligned":        device("BAD_", virtio, crs(memory32(0xc0001001), interrupt(6))),
		"no resources":      device("BAD_", virtio),
		"resources by code": device("BAD_", virtio, "\x08_CRS\x0a\x05"),
		"too long a list":   device("BAD_", virtio, crs("\x86\xff\xff\x01")),
		"behind the end":    device("BAD_", virtio, crs("\x79\x00", memory32(0xc0001000), interrupt(6))),
		"a device too long": "\x5b\x82\xff\xff\xff\xff",
		"a device of none":  "\x5b\x82\x00",
	} {
		var f Found
		ReadDSDT(dsdt(bad, good), &f)
		if f.N != 1 || f.Devices[0] != (Device{0xfeb00000, 5}) {
			t.Errorf("%s: %+v", name, f.Devices[:f.N])
		}
	}
	var f Found
	if ReadDSDT(dsdt(strings.Repeat(good, MaxDevices+5)), &f); f.N != MaxDevices {
		t.Errorf("%d devices", f.N)
	}
	for i := range microvm() { // cut anywhere
		ReadDSDT(microvm()[:i], &f)
	}
	if ReadDSDT(nil, &f); f.N != 0 {
		t.Error("devices in nothing")
	}
}

// TestBridges: a bridge of either kind, by either way to write its name.
func TestBridges(t *testing.T) {
	for hid, want := range map[string]uint64{"\x0c\x41\xd0\x0a\x08": 0xc0000000, "\x0c\x41\xd0\x0a\x03": 0xc0000000, "\x0dPNP0A08\x00": 0xc0000000,
		"\x0dPNP0A03\x00": 0xc0000000, "\x0dPNP0A04\x00": 0, "\x0c\x41\xd0\x0a\x04": 0} {
		var f Found
		ReadDSDT(dsdt(device("PCI0", "\x08_HID"+hid, crs(space32(0, 0xc0000000, 0xdfffffff)))), &f)
		if f.Start != want {
			t.Errorf("%q: %#x", hid, f.Start)
		}
	}
}

func TestConfigSpaceOfBridge(t *testing.T) {
	for method, want := range map[string]uint64{
		"\x14\x0c_CBA\x00\xa4\x0c" + le(0xe0000000):            0xe0000000,
		"\x14\x10_CBA\x00\xa4\x0e" + le(0, 0x40):               0x40_0000_0000,
		"\x14\x0c_CBA\x00\xa4\x0c" + le(0xe0001000):            0, // not on a bus's boundary
		"\x14\x10_CBA\x00\xa4\x0e" + le(0, 0x4000):             0, // too far
		"\x14\x08_CBA\x00\xa4\x60":                             0, // computed
		"\x14\x09_CBA\x00\xa4\x0c\x00\x00":                     0, // cut
		"\x14\x0c_CBB\x00\xa4\x0c" + le(0xe0000000):            0,
		"\x14\x0d_CBA\x00\xa0\xa4\x0c" + le(0xe0000000) + "__": 0, // under a condition
	} {
		var f Found
		ReadDSDT(dsdt(device("PCI0", "\x08_HID\x0c\x41\xd0\x0a\x08", method)), &f)
		if f.Config.Base != want {
			t.Errorf("%q: %#x, want %#x", method, f.Config.Base, want)
		}
	}
}

func mcfg(entries ...string) []byte {
	return []byte("MCFG" + strings.Repeat("\x00", HeaderSize+4) + strings.Join(entries, ""))
}

func TestMCFG(t *testing.T) {
	entry := func(base uint64, segment uint16, first, last byte) string {
		b := binary.LittleEndian.AppendUint64(nil, base)
		b = binary.LittleEndian.AppendUint16(b, segment)
		return string(append(b, first, last, 0, 0, 0, 0))
	}
	good := entry(0xb0000000, 0, 0, 255)
	for name, c := range map[string]struct {
		table []byte
		ok    bool
	}{
		"one":               {mcfg(good), true},
		"second":            {mcfg(entry(0xa0000000, 1, 0, 255), good), true},
		"none":              {mcfg(), false},
		"cut":               {mcfg(good[:15]), false},
		"no address":        {mcfg(entry(0, 0, 0, 255)), false},
		"misaligned":        {mcfg(entry(0xb0001000, 0, 0, 255)), false},
		"far away":          {mcfg(entry(1<<46, 0, 0, 255)), false},
		"buses upside down": {mcfg(entry(0xb0000000, 0, 2, 1)), false},
	} {
		s, ok := ReadMCFG(c.table)
		if ok != c.ok || ok && s != (Space{0xb0000000, 0, 255}) {
			t.Errorf("%s: %+v, %v", name, s, ok)
		}
	}
}

// FuzzTables: whatever a table holds, what is found in it is sane.
func FuzzTables(f *testing.F) {
	f.Add(microvm())
	f.Add(dsdt(device("V000", virtio, crs("\x86\xff\xff\x01"))))
	f.Add(dsdt("\x5b\x82\xc0", "\x5b\x82\x3f"))
	f.Add(mcfg(strings.Repeat("\xff", 16)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Found
		ReadDSDT(b, &x)
		for _, d := range x.Devices[:x.N] {
			if d.Address < 1<<20 || d.Address&3 != 0 {
				t.Fatalf("%+v", d)
			}
		}
		if x.End != 0 && (x.Start >= x.End || x.Start < 1<<20 || x.End > 1<<32) {
			t.Fatalf("%#x to %#x", x.Start, x.End)
		}
		if s, ok := ReadMCFG(b); ok && (s.First > s.Last || s.Last > 255 || s.Base&(1<<20-1) != 0) {
			t.Fatalf("%+v", s)
		}
	})
}

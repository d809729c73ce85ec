package acpi

import (
	"encoding/binary"
	"strings"
	"testing"
)

// fcGen is Firecracker's device, with an address in two halves.
func fcGen(low, high string) string {
	return device("VGEN", "\x08_HID\x0dVMGENCTR\x00", "\x08_CID\x0dVM_Gen_Counter\x00", "\x08_DDN\x0dVM_Gen_Counter\x00", "\x08ADDR\x12"+pkgLength("\x02"+low+high))
}

// qemuGen is QEMU's table: a method computes the address from VGIA.
func qemuGen(vgia string) []byte {
	return dsdt("\x08VGIA"+vgia, "\x10"+pkgLength("\\_SB_"+device("VGEN", "\x08_HID\x0dQEMUVGID\x00", "\x08_CID\x0dVM_Gen_Counter\x00", "\x14\x0aADDR\x00\x70\x12\x02\x02\x60")))
}

func qword(typ byte, start, last uint64) string {
	b := []byte{0x8a, 43, 0, typ, 0x0c, 0x03}
	for _, v := range []uint64{0, start, last, 0, last - start + 1} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return string(b)
}

func clockDevice(resource string) string {
	return device("VCLK", "\x08_HID\x0dAMZNC10C\x00", "\x08_CID\x0dVMCLOCK\x00", "\x14\x08_STA\x00\xa4\x0a\x0f", crs(resource))
}

func TestGenerations(t *testing.T) {
	dword := func(v uint32) string { return "\x0c" + le(v) }
	for name, c := range map[string]struct {
		table []byte
		want  Generations
	}{
		"Firecracker":                {dsdt(fcGen(dword(0xdfff0), "\x00")), Generations{ID: 0xdfff0}},
		"both of Firecracker":        {dsdt(fcGen(dword(0xdefe8), "\x00"), clockDevice(qword(0, 0xdf000, 0xdffff))), Generations{ID: 0xdefe8, Clock: 0xdf000}},
		"above 4 GiB":                {dsdt(fcGen(dword(0x1000), "\x0a\x02")), Generations{ID: 0x2_0000_1000}},
		"a word, a byte of one":      {dsdt(fcGen("\x0b\x08\x90", "\x01")), Generations{ID: 0x1_0000_9008}},
		"QEMU":                       {qemuGen(dword(0x3fff000)), Generations{ID: 0x3fff028}},
		"QEMU, not filled in":        {qemuGen(dword(0)), Generations{}},
		"the first counts":           {dsdt(fcGen(dword(0xdfff0), "\x00"), fcGen(dword(0xd0000), "\x00")), Generations{ID: 0xdfff0}},
		"no address":                 {dsdt(fcGen("\x00", "\x00")), Generations{}},
		"misaligned":                 {dsdt(fcGen(dword(0xdfff4), "\x00")), Generations{}},
		"over the end of a page":     {dsdt(fcGen(dword(0xdfff8), "\x00")), Generations{}},
		"too far":                    {dsdt(fcGen("\x00", dword(1<<14))), Generations{}},
		"a half of 64 bits":          {dsdt(fcGen("\x0e\x00\x00\x0d\x00\x01\x00\x00\x00", "\x00")), Generations{}},
		"an expression":              {dsdt(fcGen("\x72", "\x00")), Generations{}},
		"one half":                   {dsdt(device("VGEN", "\x08_CID\x0dVM_Gen_Counter\x00", "\x08ADDR\x12\x08\x02"+dword(0xd0000))), Generations{}},
		"three halves":               {dsdt(device("VGEN", "\x08_CID\x0dVM_Gen_Counter\x00", "\x08ADDR\x12\x09\x03"+dword(0xd0000)+"\x00\x00")), Generations{}},
		"another device":             {dsdt(strings.Replace(fcGen(dword(0xd0000), "\x00"), "\x08_CID\x0dVM_Gen_Counter", "\x08_CID\x0dVM_Gen_Kounter", 1)), Generations{}},
		"a clock in ports":           {dsdt(clockDevice(qword(1, 0xdf000, 0xdffff))), Generations{}},
		"a clock not on a page":      {dsdt(clockDevice(qword(0, 0xdf008, 0xe0007))), Generations{}},
		"a clock of less than one":   {dsdt(clockDevice(qword(0, 0xdf000, 0xdfffe))), Generations{}},
		"a clock at the end of time": {dsdt(clockDevice(qword(0, 1<<46, 1<<46+4095))), Generations{}},
		"a clock by 32 bits":         {dsdt(clockDevice(space32(0, 0xdf000, 0xdffff))), Generations{}},
		"nothing":                    {dsdt(), Generations{}},
	} {
		var g Generations
		if g.Read(c.table); g != c.want {
			t.Errorf("%s: %+v, want %+v", name, g, c.want)
		}
	}
	// What one table says stays when the next says nothing, and another's is not taken for it.
	var g Generations
	g.Read(dsdt(fcGen("\x0c"+le(0xdfff0), "\x00")))
	g.Read(microvm())
	g.Read(nil)
	g.Read(dsdt(clockDevice(qword(0, 0xdf000, 0xdffff))))
	if g != (Generations{0xdfff0, 0xdf000}) {
		t.Errorf("after four tables: %+v", g)
	}
	whole := dsdt(fcGen("\x0c"+le(0xdfff0), "\x00"), clockDevice(qword(0, 0xdf000, 0xdffff)))
	for i := range whole { // cut anywhere
		g = Generations{}
		if g.Read(whole[:i]); g.ID != 0 && g.ID != 0xdfff0 {
			t.Fatalf("cut at %d: %+v", i, g)
		}
	}
}

// FuzzGenerations: whatever a table holds, the addresses are ones that can be mapped.
func FuzzGenerations(f *testing.F) {
	f.Add(dsdt(fcGen("\x0c"+le(0xdfff0), "\x00"), clockDevice(qword(0, 0xdf000, 0xdffff))))
	f.Add(qemuGen("\x0c" + le(0x3fff000)))
	f.Add(microvm())
	f.Fuzz(func(t *testing.T, b []byte) {
		var g Generations
		g.Read(b)
		if g.ID&7 != 0 || g.ID>>46 != 0 || g.ID&4095 > 4096-GenIDSize || g.Clock&4095 != 0 || g.Clock>>46 != 0 {
			t.Fatalf("%+v", g)
		}
	})
}

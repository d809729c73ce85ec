package acpi

import (
	"strings"
	"testing"
)

func edge(n uint32) string { return "\x89\x06\x00\x03\x01" + le(n) }

func ged(descriptors ...string) string {
	return device("GED_", "\x08_HID\x0dACPI0013\x00", "\x08_UID\x0dGED\x00", crs(descriptors...))
}

func region(name, offset string) string { return "\x5b\x80" + name + "\x00" + offset + "\x0a\x04" }

func TestEvents(t *testing.T) {
	qemu := ged(edge(9)) + region("EREG", "\x0c"+le(0xfea00000)) + "\x5b\x81\x0bEREG\x03ESEL\x20" + device("PWRB", "\x08_HID\x0dPNP0C0C\x00")
	ch := device("GEC_", "\x08_HID\x0c\x41\xd0\x0a\x06", region("GDST", "\x0e"+le(0xe8002000, 0))) + ged(edge(5))
	for name, c := range map[string]struct {
		table []byte
		want  Events
	}{
		"QEMU":             {dsdt(qemu), Events{GSI: [MaxEvents]uint32{9}, N: 1, Register: 0xfea00000, Width: 4, Button: 2}},
		"cloud-hypervisor": {dsdt(ch), Events{GSI: [MaxEvents]uint32{5}, N: 1, Register: 0xe8002000, Width: 1, Button: 8}},
		"Firecracker":      {dsdt(ged(edge(5), edge(6))), Events{GSI: [MaxEvents]uint32{5, 6}, N: 2}},
		"too many":         {dsdt(ged(edge(1), edge(2), edge(3), edge(4), edge(5))), Events{GSI: [MaxEvents]uint32{1, 2, 3, 4}, N: 4}},
		"no device":        {dsdt(region("EREG", "\x0c"+le(0xfea00000))), Events{}},
		"another region":   {dsdt(ged(edge(9)), region("EREH", "\x0c"+le(0xfea00000))), Events{GSI: [MaxEvents]uint32{9}, N: 1}},
		"in ports":         {dsdt(ged(edge(9)), strings.Replace(region("EREG", "\x0c"+le(0xfea00000)), "EREG\x00", "EREG\x01", 1)), Events{GSI: [MaxEvents]uint32{9}, N: 1}},
		"low memory":       {dsdt(ged(edge(9)), region("EREG", "\x0c"+le(0xff000))), Events{GSI: [MaxEvents]uint32{9}, N: 1}},
		"misaligned":       {dsdt(ged(edge(9)), region("EREG", "\x0c"+le(0xfea00001))), Events{GSI: [MaxEvents]uint32{9}, N: 1}},
		"computed":         {dsdt(ged(edge(9)), region("EREG", "\x60")), Events{GSI: [MaxEvents]uint32{9}, N: 1}},
		"nothing":          {dsdt(), Events{}},
	} {
		var e Events
		if e.Read(c.table); e != c.want {
			t.Errorf("%s: %+v, want %+v", name, e, c.want)
		}
	}
	whole := dsdt(qemu)
	for i := range whole { // cut anywhere
		var e Events
		if e.Read(whole[:i]); e.N == 0 && e != (Events{}) {
			t.Fatalf("cut at %d: %+v", i, e)
		}
	}
}

// FuzzEvents: whatever a table holds, the register is one that can be mapped.
func FuzzEvents(f *testing.F) {
	f.Add(dsdt(ged(edge(9)), region("EREG", "\x0c"+le(0xfea00000))))
	f.Add(dsdt(ged(edge(5), edge(6))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Events
		e.Read(b)
		if e.N < 0 || e.N > MaxEvents || e.Register&3 != 0 || e.Register>>46 != 0 || e.Register != 0 && (e.N == 0 || e.Width != 1 && e.Width != 4) {
			t.Fatalf("%+v", e)
		}
	})
}

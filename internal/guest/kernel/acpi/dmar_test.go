package acpi

import (
	"encoding/binary"
	"slices"
	"testing"
)

// unit is a DMAR structure of a remapping unit.
func unit(segment uint16, registers uint64, scopes ...byte) []byte {
	b := []byte{dmarUnit, 0, 0, 0, 1, 0}
	b = binary.LittleEndian.AppendUint16(b, segment)
	b = append(binary.LittleEndian.AppendUint64(b, registers), scopes...)
	binary.LittleEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func dmar(structures ...[]byte) []byte {
	return slices.Clip(slices.Concat(append([][]byte{make([]byte, dmarStructures)}, structures...)...))
}

func TestReadDMAR(t *testing.T) {
	const at = 0xfed90000
	other := []byte{1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0x1f, 0, 0, 0, 0, 0} // reserved memory
	for _, c := range []struct {
		name  string
		table []byte
		want  uint64
	}{
		{"QEMU's", dmar(unit(0, at, 3, 8, 0, 0, 0, 0xff, 0, 0)), at},
		{"behind another structure", dmar(other, unit(0, at)), at},
		{"before another structure", dmar(unit(0, at), other), at},
		{"before that of another segment", dmar(unit(0, at), unit(1, at+4096)), at},
		{"behind that of another segment", dmar(unit(256, at+4096), unit(0, at)), at},
		{"the lowest", dmar(unit(0, 4096)), 4096},
		{"the highest", dmar(unit(0, 1<<32-4096)), 1<<32 - 4096},
		{"two", dmar(unit(0, at), unit(0, at+4096)), 0},
		{"none", dmar(other), 0},
		{"of another segment only", dmar(unit(1, at)), 0},
		{"of no address", dmar(unit(0, 0)), 0},
		{"of no page", dmar(unit(0, at+8)), 0},
		{"beyond 4 GiB", dmar(unit(0, 1<<32)), 0},
		{"of another type", dmar(append([]byte{0, 1}, unit(0, at)[2:]...)), 0},
		{"cut", dmar(unit(0, at))[:dmarStructures+15], 0},
		{"that is too short for its address", dmar(append([]byte{0, 0, 15, 0}, unit(0, at)[4:15]...)), 0},
		{"that ends beyond the table", dmar(append([]byte{0, 0, 17, 0}, unit(0, at)[4:]...)), 0},
		{"behind a structure of no length", dmar([]byte{1, 0, 0, 0}, unit(0, at)), 0},
		{"behind a structure of 3 bytes", dmar([]byte{1, 0, 3}, unit(0, at)), 0},
		{"behind a structure of 4 bytes", dmar([]byte{1, 0, 4, 0}, unit(0, at)), at},
		{"behind a long structure", dmar(append([]byte{1, 0, 0, 1}, make([]byte, 252)...), unit(0, at)), at},
		{"nothing", nil, 0},
		{"a header", make([]byte, HeaderSize), 0},
	} {
		got, ok := ReadDMAR(c.table)
		if ok != (c.want != 0) || ok && got != c.want {
			t.Errorf("%s: %#x, %v; want %#x", c.name, got, ok, c.want)
		}
	}
}

func FuzzDMAR(f *testing.F) {
	f.Add(dmar(unit(0, 0xfed90000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, ok := ReadDMAR(b); ok && (r == 0 || r&4095 != 0 || r >= 1<<32) {
			t.Errorf("%#x", r)
		}
	})
}

package kernel

import (
	"bytes"
	"debug/elf"
	"slices"
	"testing"
)

// code returns the bytes of one of the kernel's routines, up to the next one.
func code(t *testing.T, f *elf.File, name string) []byte {
	t.Helper()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	at := func(s elf.Symbol) bool { return s.Name == "main."+name || s.Name == "main."+name+".abi0" }
	i := slices.IndexFunc(syms, at)
	if i < 0 {
		t.Fatalf("the kernel has no %s", name)
	}
	start, end := syms[i].Value, ^uint64(0)
	for _, s := range syms {
		if s.Value > start && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			end = min(end, s.Value)
		}
	}
	text := f.Section(".text")
	b, err := text.Data()
	if err != nil {
		t.Fatal(err)
	}
	return b[start-text.Addr : end-text.Addr]
}

// TestWindowOfTheReturn: from where the kernel says that it is left until it is, or until it says
// that it was entered again, no instruction lies outside of the window in which the monitor
// makes an interrupt look again. One did: an interrupt before it overwrote the thread's frame, so
// that the thread ran nowhere for ever (in 7 of 107 boots that raced for it).
func TestWindowOfTheReturn(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(bytesOf(t, "kernel.elf")))
	if err != nil {
		t.Fatal(err)
	}
	b := code(t, f, "leaveKernel")
	set := b[:7] // MOVL $n, inKernel without its immediate
	if !bytes.Equal(b[:3], []byte{0xc7, 0x04, 0x25}) || !bytes.Equal(b[7:11], make([]byte, 4)) {
		t.Fatalf("leaveKernel does not begin with a clear of inKernel: % x", b[:11])
	}
	if b[19] != 0x75 || !bytes.Equal(b[21:23], []byte{0x48, 0xcf}) {
		t.Fatalf("no conditional jump and IRETQ after the look at pending: % x", b[11:23])
	}
	look := 21 + int(int8(b[20]))
	end := look + len(set) + 4
	if look < 0 || end > len(b) || !bytes.Equal(b[look:look+7], set) || b[look+7] != 1 {
		t.Fatalf("what follows where something is pending is not, inside of leaveKernel, an entry of the kernel: % x", b[look:])
	}
	m := code(t, f, "interrupt")
	compare := []byte{0x48, 0x83, 0xf8} // CMPQ AX, $n
	i := bytes.Index(m, compare)
	if i < 0 || bytes.Count(m, compare) != 1 {
		t.Fatalf("the monitor's interrupt does not compare with a window: % x", m)
	}
	if w := int(m[i+3]); w < end || w > len(b) {
		t.Errorf("the window has %d bytes; leaveKernel is left at %d, and the next routine begins at %d", w, end, len(b))
	}
}

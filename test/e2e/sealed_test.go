package e2e

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// memory is a machine's physical memory.
type memory []byte

func (m memory) word(pa uint64) uint64 { return binary.LittleEndian.Uint64(m[pa:]) }

// A mapped page, and what all levels of the tables together allow.
type mapped struct {
	va, pa, size         uint64
	write, user, execute bool
}

// pages returns every page that the tables map.
func (m memory) pages() (l []mapped) {
	const present, write, user, large, nx, addr = 1, 2, 4, 1 << 7, 1 << 63, 0x000ffffffffff000
	var walk func(table uint64, level int, up mapped)
	walk = func(table uint64, level int, up mapped) {
		for i := range uint64(512) {
			e := m.word(table + 8*i)
			if e&present == 0 {
				continue
			}
			p := mapped{up.va | i<<(12+9*level), e & addr, 1 << (12 + 9*level), up.write && e&write != 0, up.user && e&user != 0, up.execute && e&nx == 0}
			if level > 0 && e&large == 0 {
				walk(p.pa, level-1, p)
				continue
			}
			l = append(l, p)
		}
	}
	walk(abi.Tables, 3, mapped{write: true, user: true, execute: true})
	return l
}

// dump returns the memory of the product's image on a machine, as it is when the
// rules are live.
func dump(t *testing.T, args []string) memory {
	t.Helper()
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "monitor"), filepath.Join(dir, "memory")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var err error
	out := consoleUntil(ctx, t, func() {
		err = saveMemory(socket, file)
		cancel()
	}, append(args, "-monitor", "unix:"+socket+",server=on,wait=off")...)
	if err != nil || !strings.Contains(out, "thurward: ready ") {
		t.Fatalf("%v; console:\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil || len(b) != 64<<20 {
		t.Fatalf("%d bytes of memory: %v", len(b), err)
	}
	return b
}

// saveMemory has QEMU's monitor write the machine's memory to a file.
func saveMemory(socket, file string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	fmt.Fprintf(c, "stop\npmemsave 0 0x4000000 %q\ninfo version\n", file)
	for r := bufio.NewReader(c); ; {
		l, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if l[0] >= '0' && l[0] <= '9' { // the version: the file is written
			return nil
		}
	}
}

// TestSealed looks at the memory of the product from outside, when its rules are
// live: the tables are closed and the ports are the final ones; nothing can be
// written and executed; ring 3 can write neither what is read-only at another
// address nor what is ring 0's, and reaches no interrupt controller.
func TestSealed(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	for name, args := range map[string][]string{
		"microvm": append(nics("virtio-net-device"), "-M", "microvm", "-global", "virtio-mmio.force-legacy=false"),
		"q35":     append(nics("virtio-net-pci"), "-M", "q35", "-device", "vmgenid"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := dump(t, args)
			if e := m.word(abi.Tables + 8*abi.RootWindow); e&7 != 5 {
				t.Errorf("the window's entry of the root table is %#x: not closed", e)
			}
			if at := binary.LittleEndian.Uint16(m[abi.DescPage+abi.TSSOff+0x66:]); at != abi.IOFinal {
				t.Errorf("the I/O bitmap is at %d, want %d: not sealed", at, abi.IOFinal)
			}
			in, err := parts()
			if err != nil {
				t.Fatal(err)
			}
			auditPages(t, m, in.Program)
		})
	}
}

func auditPages(t *testing.T, m memory, program []byte) {
	guarded := map[uint64]string{}
	l := m.pages()
	inWindow := func(va uint64) bool {
		return va>>39 == abi.RootWindow || va>>39 == abi.RootRing0
	}
	for _, p := range l {
		switch {
		case p.pa == abi.SharedPage: // both rings'
		case inWindow(p.va):
			guarded[p.pa] = "ring 0's"
		case p.va < 1<<30 && (!p.write || !p.user):
			guarded[p.pa] = fmt.Sprintf("guarded at %#x", p.va)
		}
	}
	// The program's text and constants are in memory as in the file.
	f, err := elf.NewFile(strings.NewReader(string(program)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD || s.Flags&elf.PF_W != 0 {
			continue
		}
		b := make([]byte, s.Filesz)
		if _, err := s.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if got := m[s.Vaddr : s.Vaddr+s.Filesz]; string(got) != string(b) { // at its own address
			t.Errorf("the program's part at %#x has changed", s.Vaddr)
		}
	}
	general := false
	for _, p := range l {
		if p.write && p.execute {
			t.Errorf("%#x can be written and executed", p.va)
		}
		if p.user && (p.pa>>12 == abi.LAPICPhys>>12 || p.pa>>12 == 0xfec00 || p.pa>>12 == 0xfec10) {
			t.Errorf("%#x shows ring 3 an interrupt controller", p.va)
		}
		if p.user && p.write && inWindow(p.va) {
			t.Errorf("%#x of the window can be written", p.va)
		}
		if !p.user || !p.write {
			continue
		}
		general = general || p.size > abi.PageSize
		for a := p.pa; a < p.pa+p.size; a += abi.PageSize {
			if why := guarded[a]; why != "" {
				t.Errorf("%#x writes to %#x, which is %s", p.va, a, why)
			}
		}
	}
	if len(l) < 500 || len(guarded) < 300 || !general {
		t.Errorf("%d pages, %d guarded: the walk does not see the tables", len(l), len(guarded))
	}
}

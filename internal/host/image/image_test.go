package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/shared/abi"
)

// inputs builds the kernel and a small program, once.
var inputs = sync.OnceValues(func() (in Input, err error) {
	dir, err := os.MkdirTemp("", "image-test")
	if err != nil {
		return in, err
	}
	defer os.RemoveAll(dir)
	if err := kernelbuild.Kernel(filepath.Join(dir, "k")); err != nil {
		return in, err
	}
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\nvar big [1<<24]byte\nfunc main() { println(len(big), big[5]) }\n"), 0o644); err != nil {
		return in, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "p"), src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return in, &os.PathError{Op: string(b), Path: src, Err: err}
	}
	if in.Kernel, err = os.ReadFile(filepath.Join(dir, "k")); err != nil {
		return in, err
	}
	in.Program, err = os.ReadFile(filepath.Join(dir, "p"))
	in.Policy = []byte("a policy of some length")
	in.Cmdline = "thurward.events=none"
	return in, err
})

func mustInputs(t *testing.T) Input {
	t.Helper()
	in, err := inputs()
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func link(t *testing.T) []byte {
	t.Helper()
	b, err := Link(mustInputs(t))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLinkIsDeterministic(t *testing.T) {
	if !bytes.Equal(link(t), link(t)) {
		t.Fatal("the same input gave two images")
	}
}

// TestELF: the requirements of QEMU's and Firecracker's loaders.
func TestELF(t *testing.T) {
	b := link(t)
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if f.Entry < 0x100000 || f.Type != elf.ET_EXEC || f.Machine != elf.EM_X86_64 {
		t.Errorf("entry %#x, %v, %v", f.Entry, f.Type, f.Machine)
	}
	notes := 0
	var phys [][2]uint64
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_NOTE:
			notes++
			n := make([]byte, p.Filesz)
			if _, err := p.ReadAt(n, 0); err != nil {
				t.Fatal(err)
			}
			le := binary.LittleEndian
			if p.Align != 4 || le.Uint32(n) != 4 || le.Uint32(n[4:]) != 8 || le.Uint32(n[8:]) != 18 || string(n[12:16]) != "Xen\x00" || le.Uint32(n[16:]) != abi.EntryPage {
				t.Errorf("note % x, alignment %d", n, p.Align)
			}
		case elf.PT_LOAD:
			if p.Paddr < 1<<20 || p.Filesz == 0 || (p.Off-p.Vaddr)%abi.PageSize != 0 {
				t.Errorf("segment %+v", p.ProgHeader)
			}
			for _, q := range phys {
				if p.Paddr < q[1] && q[0] < p.Paddr+p.Memsz {
					t.Errorf("segments overlap in memory: %#x", p.Paddr)
				}
			}
			phys = append(phys, [2]uint64{p.Paddr, p.Paddr + p.Memsz})
		default:
			t.Errorf("segment of type %v", p.Type)
		}
	}
	if notes != 1 {
		t.Errorf("%d PT_NOTE segments, want exactly one", notes)
	}
	if bytes.Contains(b[:8192], []byte{0x02, 0xb0, 0xad, 0x1b}) {
		t.Error("a multiboot header, which makes QEMU refuse the file")
	}
	for _, h := range phys {
		if h[1] > 8<<20 {
			t.Errorf("loaded up to %#x: zeroed data must take no memory", h[1])
		}
	}
}

// TestPageTables walks the tables as the CPU does.
func TestPageTables(t *testing.T) {
	b := link(t)
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	mem := func(pa uint64) uint64 {
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && pa >= p.Paddr && pa < p.Paddr+p.Filesz {
				var v [8]byte
				if _, err := p.ReadAt(v[:], int64(pa-p.Paddr)); err != nil {
					t.Fatal(err)
				}
				return binary.LittleEndian.Uint64(v[:])
			}
		}
		t.Fatalf("table at %#x is not loaded", pa)
		return 0
	}
	pages, user, exec := 0, 0, 0
	var walk func(table uint64, level int, va uint64)
	walk = func(table uint64, level int, va uint64) {
		for i := uint64(0); i < 512; i++ {
			e := mem(table + 8*i)
			if e == 0 {
				continue
			}
			a := va | i<<(12+9*level)
			if level > 0 && e&pLarge == 0 {
				walk(e&pAddr, level-1, a)
				continue
			}
			pages++
			w, x := e&pWrite != 0, e&pNX == 0
			if w && x {
				t.Errorf("page %#x is writable and executable", a)
			}
			if x {
				exec++
			}
			if e&pUser != 0 {
				user++
			}
			if a < abi.EntryPage {
				t.Errorf("page %#x is mapped", a)
			}
			if a >= abi.DirectBase && x {
				t.Errorf("page %#x of the direct map is executable", a)
			}
		}
	}
	walk(abi.Tables, 3, 0)
	if pages < 300 || exec < 20 || user == pages {
		t.Fatalf("%d pages, %d executable, %d of ring 3: the walk does not see the tables", pages, exec, user)
	}
	at := func(va uint64) uint64 {
		table := uint64(abi.Tables)
		for s := uint(39); s > 12; s -= 9 {
			e := mem(table + va>>s&511*8)
			if e == 0 || e&pLarge != 0 {
				return e
			}
			table = e & pAddr
		}
		return mem(table + va>>12&511*8)
	}
	for name, a := range map[string]uint64{"below the kernel stack": abi.KernelStack - 1, "above it": abi.KernelStackTop,
		"below the fault stack": abi.FaultStack - 1, "below the crash stack": abi.CrashStack - 1, "below the trap page": abi.TrapPage - 1,
		"above the trap page": abi.TrapPage + abi.PageSize, "below the user stack": abi.UserStack - 1, "null": 0} {
		if at(a) != 0 {
			t.Errorf("%s (%#x) there is no guard", name, a)
		}
	}
	kern, err := loadELF("kernel", mustInputs(t).Kernel)
	if err != nil {
		t.Fatal(err)
	}
	// Ring 0's pages belong to ring 0, and the kernel's window shows what it may
	// read: all but the local APIC and what it shares with the monitor.
	ring0 := map[string]uint64{"entry": abi.EntryPage, "descriptors": abi.DescPage, "monitor": abi.MonitorPage, "traps": abi.TrapPage,
		"local APIC": ring0Base + abi.LAPICSlot, "shared": ring0Base + abi.SharedPage}
	for name, a := range kern.syms {
		if monitorFunc.MatchString(name) {
			ring0[name] = a
		}
	}
	if len(ring0) < 60 {
		t.Fatalf("%d pages and functions of ring 0", len(ring0))
	}
	for name, a := range ring0 {
		if e := at(a); e == 0 || e&pUser != 0 {
			t.Errorf("%s: page %#x belongs to ring 3, or to nobody: entry %#x", name, a, e)
		}
	}
	root := func(i uint64) uint64 { return mem(abi.Tables + 8*i) }
	if root(abi.RootRing0)&pUser != 0 || root(abi.RootRing0)&pAddr != root(abi.RootWindow)&pAddr || root(abi.RootWindow)&(pUser|pWrite) != pUser|pWrite {
		t.Errorf("the root table has %#x for ring 0 and %#x for the window", root(abi.RootRing0), root(abi.RootWindow))
	}
	for _, pa := range []uint64{abi.Tables, abi.TablesEnd - abi.PageSize, abi.DescPage, abi.TrapPage, abi.MonitorPage} {
		if e := at(abi.TableWindow + pa); e&pAddr != pa || e&pUser == 0 || e != at(ring0Base+pa) {
			t.Errorf("the window shows %#x in place of %#x", e, pa)
		}
	}
}

// TestMonitorAlone: code of ring 3 on the monitor's pages, or the monitor's code on
// another page, is refused.
func TestMonitorAlone(t *testing.T) {
	for name, sym := range map[string]string{"the monitor elsewhere": "main.setPages", "the kernel among it": "main.start"} {
		k, err := loadELF("kernel", mustInputs(t).Kernel)
		if err != nil {
			t.Fatal(err)
		}
		if k.syms[sym] == 0 || k.syms["main.interrupt"] == 0 {
			t.Fatalf("no %s", sym)
		}
		k.syms[sym] = map[bool]uint64{true: abi.KernelBase + abi.PageSize, false: k.syms["main.interrupt"]}[sym == "main.setPages"]
		if err := k.splitMonitor(); err == nil || !strings.Contains(err.Error(), sym) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVDSO reads the vDSO as a dynamic linker does.
func TestVDSO(t *testing.T) {
	b := vdso(abi.KernelBase + 0x1234)
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Progs) != 2 || f.Type != elf.ET_DYN {
		t.Errorf("%v, %d segments", f.Type, len(f.Progs))
	}
	if h := elfHash("LINUX_2.6"); h != 0x3ae75f6 {
		t.Errorf("hash of LINUX_2.6 is %#x", h)
	}
	if !strings.Contains(string(b), "__vdso_clock_gettime\x00LINUX_2.6\x00") {
		t.Error("names are missing")
	}
}

func TestLinkRefuses(t *testing.T) {
	good, err := inputs()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		edit       func(in *Input)
	}{
		{"no program", "program: not a readable ELF", func(in *Input) { in.Program = nil }},
		{"text file", "program: not a readable ELF", func(in *Input) { in.Program = []byte("#!/bin/sh\n") }},
		{"truncated program", "program:", func(in *Input) { in.Program = in.Program[:len(in.Program)/2] }},
		{"stripped kernel", "no symbol", func(in *Input) { in.Kernel = in.Program }},
		{"no policy", "policy: empty", func(in *Input) { in.Policy = nil }},
		{"huge policy", "policy: ruleset of", func(in *Input) { in.Policy = make([]byte, abi.MaxPolicySize+1) }},
		{"long arguments", "boot arguments", func(in *Input) { in.Cmdline = strings.Repeat("x", abi.MaxCmdline) }},
		{"32-bit program", "want a static", func(in *Input) { in.Program = bytes.Clone(in.Program); in.Program[18] = 3 }},
	} {
		in := good
		c.edit(&in)
		if _, err := Link(in); err == nil || !strings.Contains(err.Error(), c.want) && c.name != "stripped kernel" {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// FuzzLinkProgram: no program, however broken, makes the linker panic.
func FuzzLinkProgram(f *testing.F) {
	in, err := inputs()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(in.Program[:4096])
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := in
		c.Program = b
		Link(c)
	})
}

// TestSymbols: the image names the kernel's functions and where the program's are named, in
// sections that are not loaded and take less than 20 KB.
func TestSymbols(t *testing.T) {
	b := link(t)
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]elf.Symbol{}
	for _, s := range syms {
		found[s.Name] = s
	}
	kern, err := loadELF("kernel", mustInputs(t).Kernel)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"main.kmain", "main.kfault", "main.monitorCall"} {
		if s := found[n]; s.Value == 0 || s.Value != kern.funcs[n][0] && s.Value != kern.syms[n] || elf.ST_TYPE(s.Info) != elf.STT_FUNC {
			t.Errorf("%s: %+v", n, s)
		}
	}
	if found[SymbolText].Value == 0 || found[SymbolTable].Size == 0 {
		t.Errorf("%+v, %+v", found[SymbolText], found[SymbolTable])
	}
	loaded := uint64(0)
	for _, p := range f.Progs {
		loaded = max(loaded, p.Off+p.Filesz)
	}
	if n := uint64(len(b)) - loaded; n > 20<<10 {
		t.Errorf("%d bytes of symbols", n)
	}
}

// TestRuntimeIsLeftOut: the kernel's part of the image has no page that is Go's runtime alone,
// and all of those that the kernel calls.
func TestRuntimeIsLeftOut(t *testing.T) {
	k, err := loadELF("kernel", mustInputs(t).Kernel)
	if err != nil {
		t.Fatal(err)
	}
	there := func(a uint64) bool {
		return slices.ContainsFunc(k.parts, func(p part) bool { return p.flags&permX != 0 && a >= p.addr && a < p.end() })
	}
	for _, n := range []string{"runtime.mallocgc", "runtime.schedule", "runtime.gcStart", "runtime.newproc1"} {
		if f, ok := k.funcs[n]; !ok || there(f[0]) {
			t.Errorf("%s is in the image, or not even in the kernel", n)
		}
	}
	pages, code := uint64(0), uint64(0)
	for n, f := range k.funcs {
		if OfKernel(n) || KernelCalls[n] != "" {
			code += f[1]
			if !there(f[0]) || !there(f[0]+max(f[1], 1)-1) {
				t.Errorf("%s is left out", n)
			}
		}
	}
	for _, p := range k.parts {
		if p.flags&permX != 0 {
			pages += p.size
		}
	}
	if pages > code+code/2 || code < 50_000 {
		t.Errorf("%d bytes of code on pages of %d", code, pages)
	}
}

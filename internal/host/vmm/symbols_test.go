package vmm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/kernelbuild"
)

// linkedImage is an image with the real kernel and a small program, made once.
var linkedImage = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "symbols-test")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	kernel, source, program := filepath.Join(dir, "k"), filepath.Join(dir, "main.go"), filepath.Join(dir, "p")
	if err := kernelbuild.Kernel(kernel); err != nil {
		return nil, err
	}
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(len(os())) }\n\n//go:noinline\nfunc os() string { return \"x\" }\n"), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, b)
	}
	in := image.Input{Policy: []byte("a policy of some length"), Cmdline: "a"}
	if in.Kernel, err = os.ReadFile(kernel); err != nil {
		return nil, err
	}
	if in.Program, err = os.ReadFile(program); err != nil {
		return nil, err
	}
	return image.Link(in)
})

// TestSymbols: an address of the kernel and one of the stripped program have their functions'
// names, those of a report are named in their order, by processor, and no other.
func TestSymbols(t *testing.T) {
	b, err := linkedImage()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "i.img")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSymbols(path)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]uint64{}
	for _, f := range s.funcs {
		at[f.Name] = f.Value
	}
	for _, n := range []string{"main.kfault", "main.syscallEntry", "main.setPages"} {
		if at[n] == 0 || s.Name(at[n]+1) != "kernel "+n+"+0x1" {
			t.Errorf("%s at %#x is %q", n, at[n], s.Name(at[n]+1))
		}
	}
	fn := s.table.LookupFunc("main.os")
	if fn == nil {
		t.Fatal("the program has no main.os")
	}
	if n := s.Name(fn.Entry); !strings.HasPrefix(n, "main.os+0x0 ") || !strings.HasSuffix(n, "main.go:6") {
		t.Errorf("main.os is %q", n)
	}
	for _, a := range []uint64{0, 1, 0x100000, 1 << 40, ^uint64(0)} {
		if n := s.Name(a); n != "" {
			t.Errorf("%#x is %q", a, n)
		}
	}
	r := reporter{path: path}
	var named []string
	for _, l := range []string{
		"goroutine 1 [running]:", fmt.Sprintf("rip=%#x rsp=0x1 rflags=0x2", fn.Entry), "rax=0x1 rbx=0x2",
		fmt.Sprintf("stack: %#x 0x7", at["main.kfault"]+5), "thurward: event {}", fmt.Sprintf("called at rip=%#x", fn.Entry),
		fmt.Sprintf("processor 1: rip=%#x rsp=0x400000 thread=5", fn.Entry), fmt.Sprintf("stack: %#x", at["main.kfault"]+5),
		"processor 2 does not stop", "processor 3 is tired", "processor 1000: rip=0x1",
		fmt.Sprintf("thread 3 waits for its time, due_us=59820305: rip=%#x", fn.Entry), fmt.Sprintf("stack: %#x", at["main.kfault"]+5),
		"thread 4 waits for Godot: rip=0x1", "thread 5 waits for a futex, due: rip=0x1",
	} {
		named = append(named, r.line(l)...)
	}
	want := fmt.Sprintf("  %#x main.os+0x0 |  %#x kernel main.kfault+0x4|  0x7 not in the image|  %#x main.os+0x0 |  %#x main.os+0x0 |  %#x kernel main.kfault+0x4|  %#x main.os+0x0 |  %#x kernel main.kfault+0x4",
		fn.Entry, at["main.kfault"]+5, fn.Entry, fn.Entry, at["main.kfault"]+5, fn.Entry, at["main.kfault"]+5)
	for i, w := range strings.Split(want, "|") {
		if i >= len(named) || !strings.HasPrefix(named[i], w) {
			t.Errorf("named %q, want line %d like %q", named, i, w)
		}
	}
	if len(named) != 8 || len(r.lines) != 9 {
		t.Errorf("%d named, %d lines", len(named), len(r.lines))
	}
	if len(r.names) != 11 || r.names[4] != "processor 1:" || r.names[7] != "processor 2:" || r.names[8] != "thread 3 waits for its time, due_us=59820305:" {
		t.Errorf("names %q", r.names)
	}
	// A guest that prints reports without end.
	for range 1000 {
		r.line("stack:" + strings.Repeat(" 0xdead", 1000))
	}
	if len(r.lines) > maxReportLines || len(r.names) > maxReportNames {
		t.Errorf("%d lines, %d names are kept", len(r.lines), len(r.names))
	}
}

// TestNoSymbols: an image without symbols, or none at all, leaves addresses without names.
func TestNoSymbols(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "i.img")
	if err := os.WriteFile(path, makeELF(prog{4, note(18, "Xen\x00", 4)}), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Join(dir, "none")} {
		r := reporter{path: p}
		if n := r.line("rip=0x401000 rsp=0x1"); len(n) != 1 || n[0] != "  0x401000 not in the image" || r.err == nil {
			t.Errorf("%s: %q, %v", p, n, r.err)
		}
	}
}

// FuzzSymbols: no image, however damaged, makes naming addresses panic.
func FuzzSymbols(f *testing.F) {
	b, err := linkedImage()
	if err != nil {
		f.Fatal(err)
	}
	s, err := readSymbols(b)
	if err != nil {
		f.Fatal(err)
	}
	addr := s.table.LookupFunc("main.main").Entry
	f.Add(uint32(0), []byte{1}, addr)
	f.Add(uint32(len(b)-200), []byte{0xff, 0xff, 0xff, 0xff}, addr)
	f.Add(uint32(bytes.Index(b, []byte{0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8})+8), []byte{0xff, 0xff, 0xff, 0xff}, addr)
	f.Fuzz(func(t *testing.T, at uint32, with []byte, addr uint64) {
		c := bytes.Clone(b)
		copy(c[int(at)%len(c):], with)
		if s, _ := readSymbols(c); s != nil {
			s.Name(addr)
		}
	})
}

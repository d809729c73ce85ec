package image

import (
	"debug/elf"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/abi"
)

// Go's linker puts all of Go's runtime into the kernel, which does not run it: of the
// kernel's code four fifths. The image has the pages of what the kernel's own code calls.

// KernelCalls names what the kernel's code may call beside its own, and why. Leaves need no
// g; the others are not on any way that is taken.
var KernelCalls = map[string]string{
	"runtime.morestack_noctxt.abi0":  "never taken: the fake g's stack limit is 0; the stacks have guard pages",
	"runtime.panicBounds":            "a bug in the kernel; it faults on the fake g, or where its callees are not, and the fault is reported",
	"runtime.panicdivide":            "as panicBounds",
	"runtime.panicoverflow":          "as panicBounds",
	"runtime.panicshift":             "as panicBounds",
	"runtime.panicunsafeslicelen":    "as panicBounds",
	"runtime.panicunsafeslicenilptr": "as panicBounds",
	"runtime.panicunsafestringlen":   "as panicBounds",
	"runtime.memmove":                Leaf,
	"runtime.memequal":               Leaf,
	"memeqbody":                      Leaf,
	"runtime.memclrNoHeapPointers":   Leaf,
	"runtime.duffzero":               Leaf,
	"runtime.duffcopy":               Leaf,
}

// Leaf marks a function that calls nothing but others like it.
const Leaf = "leaf, needs no g"

// OfKernel reports whether a function is the kernel's own.
func OfKernel(name string) bool {
	return strings.HasPrefix(name, "main.") || strings.HasPrefix(name, "github.com/thurward/thurward/internal/guest/kernel/")
}

// dropRuntimeTables cuts the kernel's read-only segment to what it uses: behind .rodata
// are tables of Go's runtime, and before its strings types.
func (p *program) dropRuntimeTables(f *elf.File) {
	ro := f.Section(".rodata")
	if ro == nil {
		return
	}
	for i := range p.parts {
		q := &p.parts[i]
		if ro.Addr < q.addr || ro.Addr+ro.Size > q.addr+uint64(len(q.data)) {
			continue
		}
		q.size = ro.Addr + ro.Size - q.addr
		q.data = q.data[:q.size]
		types, ok1 := p.syms["runtime.types"]
		text, ok2 := p.syms["go:string.*"]
		if n := text&^(abi.PageSize-1) - q.addr; ok1 && ok2 && types == q.addr && n < q.size {
			q.addr, q.data, q.size = q.addr+n, q.data[n:], q.size-n
		}
	}
}

// dropRuntimeCode cuts the kernel's code to the pages that have something of it.
func (p *program) dropRuntimeCode() {
	used := map[uint64]bool{}
	for name, f := range p.funcs {
		if OfKernel(name) || KernelCalls[name] != "" {
			for a := f[0] &^ (abi.PageSize - 1); a < f[0]+max(f[1], 1); a += abi.PageSize {
				used[a] = true
			}
		}
	}
	var parts []part
	for _, q := range p.parts {
		if q.flags&permX == 0 {
			parts = append(parts, q)
			continue
		}
		for a := q.addr; a < q.end(); {
			b := a
			for b < q.end() && used[b] == used[a] {
				b += abi.PageSize
			}
			if end := min(b, q.end()); used[a] {
				parts = append(parts, part{addr: a, data: q.data[a-q.addr : min(end-q.addr, uint64(len(q.data)))], size: end - a, flags: q.flags})
			}
			a = b
		}
	}
	p.parts = slices.Clip(parts)
}

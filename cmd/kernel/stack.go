package main

import "github.com/thurward/thurward/internal/shared/abi"

// maxCallers bounds how many callers a report names.
const maxCallers = 32

// putStack prints the callers of where a frame was interrupted, by Go's chain of frame
// pointers (the saved RBP, and above it the return address). What is no stack ends
// it: an address is read only where a page is mapped, and the chain goes upwards.
func putStack(f *frame) {
	puts("stack:")
	bp := f.rbp
	for i := 0; i < maxCallers; i++ {
		if bp&7 != 0 || !onStack(bp) || !onStack(bp+8) {
			break
		}
		ret := *at[uint64](bp + 8)
		if ret == 0 {
			break
		}
		puts(" ")
		putx(ret)
		next := *at[uint64](bp)
		if next <= bp {
			break
		}
		bp = next
	}
	putc('\n')
}

// onStack reports whether a word can be read where stacks lie: the program's and the
// kernel's memory, not device registers or tables.
func onStack(a uint64) bool {
	return a >= abi.EntryPage && a < abi.UserMax && mapped(a) != 0
}

// putCallers prints the stack of a report, and where in the program the kernel was
// called, if it was.
func putCallers(f *frame) {
	putStack(f)
	if shared().InKernel&1 == 0 || cur() == noThread || cur() >= maxThreads {
		return
	}
	t := &threads[cur()].f
	if t == f {
		return
	}
	putRegister("called at rip=", t.rip)
	putc('\n')
	putStack(t)
}

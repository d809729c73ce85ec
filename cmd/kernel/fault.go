package main

import "github.com/thurward/thurward/internal/shared/abi"

const abi4K = abi.PageSize

// A trapFrame is what the CPU pushes for an exception, the error code (where
// there is one) first.
type trapFrame struct{ err, rip, cs, rflags, rsp, ss uint64 }

// kfault handles an exception; g is the interrupted state. It returns 0
// when the interrupted code can go on, or 1 when the current thread's frame
// has been completed and a signal is due.
func kfault(g *frame) uint64 {
	if shared().InKernel&1 != 0 {
		return fault(g) // the kernel touched the program's memory, and has the lock
	}
	enter()
	r := fault(g)
	leave()
	return r
}

func fault(g *frame) uint64 {
	g.vec = trap().Vector
	if g.vec == 14 && pageFault(trap().CR2, g.err) {
		return 0
	}
	if shared().InKernel&1 != 0 || cur() == noThread {
		crashRegisters("fault in the kernel", g)
	}
	f := &threads[cur()].f
	*f = *g
	if !hasErrorCode(f.vec) {
		f.err = 0
	}
	return 1
}

func hasErrorCode(v uint64) bool {
	return v == 8 || v >= 10 && v <= 14 || v == 17 || v == 21
}

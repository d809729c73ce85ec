package main

import "github.com/thurward/thurward/internal/shared/abi"

const abi4K = abi.PageSize

// A trapFrame is what the CPU pushes for an exception, the error code (where
// there is one) first.
type trapFrame struct{ err, rip, cs, rflags, rsp, ss uint64 }

// kfault handles an exception; g holds the integer registers. It returns 0
// when the interrupted code can go on, or 1 when the current thread's frame
// has been completed and a signal is due.
func kfault(g *frame) uint64 {
	tf := at[trapFrame](abi.TrapTop - 48)
	if trapVector == 14 && pageFault(trapCR2, tf.err) {
		return 0
	}
	if inKernel&1 != 0 || cur == noThread {
		g.vec, g.err = uint64(trapVector), tf.err
		g.rip, g.cs, g.rflags, g.rsp, g.ss = tf.rip, tf.cs, tf.rflags, tf.rsp, tf.ss
		crashRegisters("fault in the kernel", g)
	}
	f := &threads[cur].f
	*f = *g
	f.vec, f.err = uint64(trapVector), 0
	if hasErrorCode(trapVector) {
		f.err = tf.err
	}
	f.rip, f.cs, f.rflags, f.rsp, f.ss = tf.rip, tf.cs, tf.rflags, tf.rsp, tf.ss
	return 1
}

func hasErrorCode(v uint32) bool {
	return v == 8 || v >= 10 && v <= 14 || v == 17 || v == 21
}

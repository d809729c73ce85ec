package main

import (
	"math/bits"

	"github.com/thurward/thurward/internal/shared/abi"
)

// Linux signal numbers and codes that the kernel raises or treats specially.
const (
	sigILL  = 4
	sigTRAP = 5
	sigBUS  = 7
	sigFPE  = 8
	sigSEGV = 11
	sigCHLD = 17
	sigURG  = 23
	sigWNCH = 28
	nsig    = 64

	saOnStack = 0x08000000
	saNoDefer = 0x40000000

	siTkill  = -6
	siKernel = 0x80
)

// A sigaction is Linux's struct kernel_sigaction.
type sigaction struct{ handler, flags, _, mask uint64 } // the third is Linux's restorer

var (
	actions   [nsig + 1]sigaction
	xsaveSize uint64 // bytes of a signal frame's XSAVE area
	xsaveHave uint64 // the components that it can have
)

// initXSave finds how much XSAVE writes of the components that are kept (SDM
// volume 1, 13.5: CPUID leaf 13). The whole's size, which the CPU names too, may
// be the host's, with components that are not.
func initXSave() {
	xsaveSize = 512 + 64
	have, _, _, _ := cpuid(13, 0)
	xsaveHave = uint64(have) & xFeatures
	for i := uint32(2); i < 8; i++ {
		if have&xFeatures>>i&1 != 0 {
			size, offset, _, _ := cpuid(13, i)
			xsaveSize = max(xsaveSize, uint64(offset)+uint64(size))
		}
	}
	if xsaveSize > abi.PageSize {
		refuse("the CPU's vector registers take more than a page")
	}
}

// The layout of what a handler gets: siginfo, then ucontext with sigcontext
// (Linux uapi asm/ucontext.h, asm/sigcontext.h), as 64-bit words.
const (
	siginfoSize  = 128
	ucontextSize = 304
	ucStack      = 2 // words: uc_flags, uc_link, ss_sp, ss_flags, ss_size, sigcontext
	ucRegs       = 5
	ucMask       = 37
)

type ucontext [ucontextSize / 8]uint64

// deliver makes thread t enter its handler for a signal when it next runs.
// code and fault are siginfo's si_code and si_addr.
func deliver(t *thread, sig uint64, code int32, fault uint64) {
	a := &actions[sig]
	if a.handler == 1 { // SIG_IGN
		return
	}
	if a.handler == 0 {
		if sig == sigURG || sig == sigCHLD || sig == sigWNCH {
			return
		}
		crashSignal(t, sig, fault)
	}
	f := &t.f
	sp := f.rsp - 128
	if a.flags&saOnStack != 0 && t.altSize != 0 && sp-t.altStack >= t.altSize {
		sp = t.altStack + t.altSize
	}
	xs := (sp - xsaveSize) &^ 63
	si := xs - siginfoSize
	uc := (si - ucontextSize) &^ 15
	if !writable(uc, sp-uc) {
		crashSignal(t, sig, fault)
	}
	stats.Signals++
	w := at[ucontext](uc)
	*w = ucontext{}
	w[ucStack], w[ucStack+2] = t.altStack, t.altSize
	g := w[ucRegs : ucRegs+24]
	g[0], g[1], g[2], g[3] = f.r8, f.r9, f.r10, f.r11
	g[4], g[5], g[6], g[7] = f.r12, f.r13, f.r14, f.r15
	g[8], g[9], g[10], g[11] = f.rdi, f.rsi, f.rbp, f.rbx
	g[12], g[13], g[14], g[15] = f.rdx, f.rax, f.rcx, f.rsp
	g[16], g[17], g[18], g[19] = f.rip, f.rflags, userCS, f.err
	g[20], g[21], g[22], g[23] = f.vec, t.mask, fault, xs
	w[ucMask] = t.mask
	clear(bytesAt(si, siginfoSize))
	*at[uint32](si) = uint32(sig)
	*at[uint32](si + 8) = uint32(code)
	*at[uint64](si + 16) = fault
	t.mask |= a.mask
	if a.flags&saNoDefer == 0 {
		t.mask |= 1 << (sig - 1)
	}
	// See signalEntry.
	f.rax, f.rbx, f.rdi, f.rsi, f.rdx = a.handler, xs, sig, si, uc
	f.rsp, f.rip, f.rflags = uc, uint64(signalEntryAddr()), 0x202
}

// deliverPending delivers the lowest of t's pending signals.
func deliverPending(t *thread) {
	s := uint64(bits.TrailingZeros64(t.pending&^t.mask)) + 1
	t.pending &^= 1 << (s - 1)
	deliver(t, s, siTkill, 0)
}

// sysSigreturn restores what a handler was given, changed as it may be.
func sysSigreturn() uint64 {
	t := &threads[cur()]
	f := &t.f
	if !readable(f.rsp, ucontextSize) {
		crashSignal(t, sigSEGV, f.rsp)
	}
	w := at[ucontext](f.rsp)
	g := w[ucRegs : ucRegs+24]
	f.r8, f.r9, f.r10, f.r11 = g[0], g[1], g[2], g[3]
	f.r12, f.r13, f.r14, f.r15 = g[4], g[5], g[6], g[7]
	f.rdi, f.rsi, f.rbp, f.rbx = g[8], g[9], g[10], g[11]
	f.rdx, f.rax, f.rcx, f.rsp = g[12], g[13], g[14], g[15]
	f.rip = g[16]
	f.rflags = g[17]&0xcd5 | 0x202 // the arithmetic flags and DF; always IF
	t.mask = w[ucMask]
	// The vector registers, from where signalEntry saved them: they are live
	// where the thread was interrupted, and the kernel's own code has used
	// them since. What XRSTOR would refuse is cleared.
	xs := g[23]
	if xs&63 != 0 || !readable(xs, xsaveSize) {
		crashSignal(t, sigSEGV, xs)
	}
	copy(bytesAt(uint64(my().curXS), xsaveSize), bytesAt(xs, xsaveSize))
	*at[uint64](uint64(my().curXS) + 512) &= xsaveHave
	clear(bytesAt(uint64(my().curXS)+520, 56))
	*at[uint32](uint64(my().curXS) + 24) &= 0xffbf // MXCSR: reserved bits
	my().resumeXS = my().curXS
	return returnTo(t)
}

// sysSigaction reads and sets a signal's action.
func sysSigaction(sig, act, old, size uint64) uint64 {
	if sig < 1 || sig > nsig || size != 8 {
		return errno(eINVAL)
	}
	if act != 0 && !readable(act, 32) || old != 0 && !writable(old, 32) {
		return errno(eFAULT)
	}
	prev := actions[sig]
	if act != 0 {
		actions[sig] = *at[sigaction](act)
	}
	if old != 0 {
		*at[sigaction](old) = prev
	}
	return 0
}

// sysSigprocmask changes the current thread's mask.
func sysSigprocmask(how, set, old, size uint64) uint64 {
	if size != 8 {
		return errno(eINVAL)
	}
	if set != 0 && !readable(set, 8) || old != 0 && !writable(old, 8) {
		return errno(eFAULT)
	}
	t := &threads[cur()]
	prev := t.mask
	if set != 0 {
		m := *at[uint64](set)
		switch how {
		case 0:
			t.mask |= m
		case 1:
			t.mask &^= m
		case 2:
			t.mask = m
		default:
			return errno(eINVAL)
		}
	}
	if old != 0 {
		*at[uint64](old) = prev
	}
	return 0
}

// sysSigaltstack sets the stack on which handlers run (struct stack_t).
func sysSigaltstack(ss, old uint64) uint64 {
	if ss != 0 && !readable(ss, 24) || old != 0 && !writable(old, 24) {
		return errno(eFAULT)
	}
	t := &threads[cur()]
	sp, size := t.altStack, t.altSize
	if ss != 0 {
		t.altStack, t.altSize = *at[uint64](ss), *at[uint64](ss + 16)
		if *at[uint32](ss + 8)&2 != 0 { // SS_DISABLE
			t.altSize = 0
		}
	}
	if old != 0 {
		*at[uint64](old), *at[uint64](old + 16) = sp, size
		*at[uint64](old + 8) = 2
		if size != 0 {
			*at[uint64](old + 8) = 0
		}
	}
	return 0
}

// sysTgkill marks a signal pending for a thread; it is delivered when the
// thread next returns from the kernel.
func sysTgkill(tid, sig uint64) uint64 {
	if sig > nsig {
		return errno(eINVAL)
	}
	if tid < 1 || tid >= maxThreads || threads[tid].state == free {
		return errno(eSRCH)
	}
	if sig != 0 {
		threads[tid].pending |= 1 << (sig - 1)
		if processors != 1 && threads[tid].state == running {
			interruptThread(uint32(tid))
		}
	}
	return 0
}

// raise delivers the signal of an exception. A thread that blocks it is in the handler
// already, which has failed too, or must not have one: it would raise it for ever.
func raise(t *thread, sig uint64, code int32, fault uint64) {
	if t.mask>>(sig-1)&1 != 0 {
		crashSignal(t, sig, fault)
	}
	deliver(t, sig, code, fault)
}

// ksignal turns the exception in the current thread's frame into a signal.
// Its vector registers are in the fault handler's area.
func ksignal() uint64 {
	enter()
	frame := signal()
	leave()
	return frame
}

func signal() uint64 {
	t := &threads[cur()]
	copy(bytesAt(uint64(my().curXS), abi4K), bytesAt(faultXS, abi4K))
	my().resumeXS = my().curXS
	switch t.f.vec {
	case 0:
		raise(t, sigFPE, 1, t.f.rip) // FPE_INTDIV
	case 3:
		raise(t, sigTRAP, siKernel, 0)
	case 6:
		raise(t, sigILL, 2, t.f.rip) // ILL_ILLOPN
	case 14:
		code := int32(1) // SEGV_MAPERR
		if t.f.err&1 != 0 {
			code = 2 // SEGV_ACCERR
		}
		raise(t, sigSEGV, code, trap().CR2)
	case 16, 19:
		raise(t, sigFPE, 0, t.f.rip)
	case 17:
		raise(t, sigBUS, 1, trap().CR2)
	default:
		raise(t, sigSEGV, siKernel, 0)
	}
	return returnTo(t)
}

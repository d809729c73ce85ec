package main

import "github.com/thurward/thurward/internal/shared/abi"

// maxCallers bounds how many callers a report names.
const maxCallers = 32

// putStack prints the callers of code that processor n ran with frame pointer bp, by Go's chain
// of them (the saved RBP, and above it the return address). What is no stack ends it, and the
// chain goes upwards.
func putStack(bp uint64, n uint32) {
	puts("stack:")
	for i := 0; i < maxCallers; i++ {
		next, ok := word(bp, n)
		ret, ok2 := word(bp+8, n)
		if !ok || !ok2 || ret == 0 {
			break
		}
		puts(" ")
		putx(ret)
		if next <= bp {
			break
		}
		bp = next
	}
	putc('\n')
}

// word returns a word of memory as processor n sees it, and whether it can be read: where stacks
// lie, the program's and the kernel's memory, not device registers or tables.
func word(a uint64, n uint32) (v uint64, ok bool) {
	if a&7 != 0 || a < abi.EntryPage || a >= abi.UserMax {
		return 0, false
	}
	if n != my().number && a < abi.CrashStackTop {
		if a = ofProcessor(a, n); a == 0 {
			return 0, false
		}
		return *at[uint64](a), true
	}
	if mapped(a) == 0 {
		return 0, false
	}
	return *at[uint64](a), true
}

// ofProcessor returns where this processor sees address a of processor n, which is in one of the
// kernel's stacks there; 0: nowhere, as the first processor's, which lie in the image.
func ofProcessor(a uint64, n uint32) uint64 {
	if n == 0 || a < abi.KernelStack || a >= abi.CrashStackTop {
		return 0
	}
	t := mon().Roots[n%abi.MaxProcessors]
	for range 3 { // the first entry of each leads to these pages
		t = *tableAt(t, 0) & pAddr
	}
	e := *tableAt(t, a>>12&511)
	if e&pPresent == 0 {
		return 0
	}
	return abi.DirectBase + e&pAddr + a&0xfff
}

// putCallers prints the stack of a report, and where in the program the kernel was
// called, if it was.
func putCallers(f *frame) {
	putStack(f.rbp, my().number)
	if shared().InKernel&1 != 0 && cur() < maxThreads && &threads[cur()].f != f {
		putCalled(cur())
	}
}

// putCalled prints where in the program the kernel was called by thread n.
func putCalled(n uint32) {
	if n == noThread || n >= maxThreads {
		return
	}
	t := &threads[n].f
	putRegister("called at rip=", t.rip)
	putc('\n')
	putStack(t.rbp, my().number)
}

// A place is where a processor was.
type place struct{ rip, rsp, rbp uint64 }

// own are the places of processors that began a report, which another one may have begun before:
// the frame that stopped them says nothing then.
var own [abi.MaxProcessors]place

// noteOwn keeps where this processor was when it begins a report.
func noteOwn(f *frame) {
	own[my().number%abi.MaxProcessors] = place{f.rip, f.rsp, f.rbp}
}

// putOthers prints where the other processors were stopped.
func putOthers() {
	for i := range processors {
		if i == my().number {
			continue
		}
		puts("processor ")
		putu(uint64(i))
		if mon().StoppedAt[i%abi.MaxProcessors] == 0 {
			puts(" does not stop\n")
			continue
		}
		p := own[i%abi.MaxProcessors]
		if p.rip == 0 {
			f := at[trapFrame](abi.TableWindow + cpus[i%abi.MaxProcessors].trapPage + abi.AbortTop - abi.TrapPage - 48)
			p = place{f.rip, f.rsp, f.err} // vector2 puts RBP there
		}
		n := cpus[i%abi.MaxProcessors].thread
		putRegister(": rip=", p.rip)
		putRegister(" rsp=", p.rsp)
		puts(" thread=")
		putu(uint64(n))
		putc('\n')
		putStack(p.rbp, i)
		if p.rip >= abi.KernelBase && p.rip < abi.KernelEnd {
			putCalled(n)
		}
	}
}

// mostWaiting bounds how many threads putWaiting names.
const mostWaiting = 16

// putWaiting prints what threads that no processor runs wait for, for how long still in
// microseconds, and where: the processors of a firewall that waits for what does not come only
// sleep.
func putWaiting() {
	t, left := now(), mostWaiting
	for n := range uint32(maxThreads) {
		w := &threads[n]
		if w.state == free || w.state == running || left == 0 {
			continue
		}
		left--
		puts("thread ")
		putu(uint64(n))
		switch w.state {
		case waitFutex:
			puts(" waits for a futex")
		case waitTime:
			puts(" waits for its time")
		case waitEpoll:
			puts(" waits for a file")
		case waitDevice:
			puts(" waits for devices")
		default:
			puts(" waits for a processor")
		}
		switch {
		case w.deadline == never:
		case w.deadline <= t:
			puts(", late_us=")
			putu((t - w.deadline) / 1000)
		default:
			puts(", due_us=")
			putu((w.deadline - t) / 1000)
		}
		putRegister(": rip=", w.f.rip)
		putc('\n')
		putStack(w.f.rbp, my().number)
	}
}

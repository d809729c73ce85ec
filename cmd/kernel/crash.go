package main

import "github.com/thurward/thurward/internal/shared/abi"

// A crash is reported on the console and resets the machine, so that whoever
// runs it can start it again. Nothing is forwarded any more: the program that
// did it does not run.

// reports counts the crash reports begun, with the present one.
var reports uint32

// beginReport comes first in every report. A report that fails begins another;
// that one is a last word, and the one after it not even that.
func beginReport() {
	if reports == 0 {
		stopOthers()
	}
	switch reports++; reports {
	case 1:
	case 2:
		lastWord()
	default:
		monitor(monReset, 0, 0, 0, 0)
	}
}

// lastWord ends the machine when the crash report itself has failed. It uses
// as little of the kernel as possible.
func lastWord() {
	const s = "\nthurward: crash: the crash report failed too\n"
	for i := 0; i < len(s); i++ {
		outb(com1, s[i])
	}
	outb(0x64, 0xfe)
	outb(0xcf9, 6)
	resetReg.write(resetValue)
	monitor(monReset, 0, 0, 0, 0)
}

// crash reports what the kernel itself found wrong.
func crash(what string) {
	beginReport()
	puts("\nthurward: crash: ")
	puts(what)
	putc('\n')
	power(abi.PowerReset)
}

// refuse reports a machine that cannot run the firewall, and powers it off.
func refuse(why string) {
	puts("thurward: refusing to start: ")
	puts(why)
	putc('\n')
	power(abi.PowerOff)
}

func crashSignal(t *thread, sig, fault uint64) {
	noteOwn(&t.f)
	beginReport()
	puts("\nthurward: crash: signal ")
	putu(sig)
	puts(" at ")
	putx(fault)
	puts(", which the program does not handle\n")
	putRegisters(&t.f)
	power(abi.PowerReset)
}

func crashRegisters(what string, f *frame) {
	noteOwn(f)
	beginReport()
	puts("\nthurward: crash: ")
	puts(what)
	puts(": exception ")
	putu(f.vec)
	puts(", error code ")
	putx(f.err)
	putc('\n')
	putRegisters(f)
	if f.vec == 2 {
		putWaiting()
	}
	power(abi.PowerReset)
}

// reportAll reports where all processors are, for a program that has said what is wrong.
func reportAll() {
	noteOwn(&threads[cur()].f)
	beginReport()
	putRegisters(&threads[cur()].f)
	putWaiting()
	power(abi.PowerReset)
}

// kabort reports an exception from which there is no return: NMI, double
// fault, machine check, or a fault in the fault handler.
func kabort(g *frame) {
	top, v := uint64(abi.AbortTop), trap().Vector
	if v != 2 && v != 8 && v != 18 {
		top = abi.TrapTop
	}
	tf := at[trapFrame](abi.TableWindow + top - 48)
	g.vec, g.err = v, tf.err
	if v == 2 {
		g.err = 0 // what lies there is no error code
	}
	g.rip, g.cs, g.rflags, g.rsp, g.ss = tf.rip, tf.cs, tf.rflags, tf.rsp, tf.ss
	if shared().InKernel&8 != 0 {
		crashRegisters("fault in the monitor, called from here", g)
	}
	if v == 2 {
		crashRegisters("interrupted by an NMI, which the host sends to a firewall that hangs", g)
	}
	crashRegisters("unrecoverable exception", g)
}

func putRegister(name string, v uint64) {
	puts(name)
	putx(v)
}

// putRegisters prints a frame and its callers. Addresses in [KernelBase, KernelEnd)
// belong to build/kernel.elf, others to build/firewall.elf: the launcher names them.
func putRegisters(f *frame) {
	putRegister("rip=", f.rip)
	putRegister(" rsp=", f.rsp)
	putRegister(" rflags=", f.rflags)
	putRegister(" cs=", f.cs)
	putRegister(" cr2=", trap().CR2)
	putRegister("\nrax=", f.rax)
	putRegister(" rbx=", f.rbx)
	putRegister(" rcx=", f.rcx)
	putRegister(" rdx=", f.rdx)
	putRegister(" rsi=", f.rsi)
	putRegister(" rdi=", f.rdi)
	putRegister(" rbp=", f.rbp)
	putRegister("\nr8=", f.r8)
	putRegister(" r9=", f.r9)
	putRegister(" r10=", f.r10)
	putRegister(" r11=", f.r11)
	putRegister(" r12=", f.r12)
	putRegister(" r13=", f.r13)
	putRegister(" r14=", f.r14)
	putRegister(" r15=", f.r15)
	puts("\nin_kernel=")
	putu(uint64(shared().InKernel))
	puts(" thread=")
	putu(uint64(cur()))
	puts(" free_frames=")
	putu(frames.Free())
	if processors > 1 {
		puts(" processor=")
		putu(uint64(my().number))
	}
	putc('\n')
	putCallers(f)
	putOthers()
}

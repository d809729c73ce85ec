package main

import (
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

func instruction(name string, c code, r regs) attempt {
	return attempt{name, func() outcome { return faults(c, r) }}
}

var descriptor [16]byte // for LGDT, LIDT, SGDT and SIDT

func instructions() []attempt {
	d := uint64(uintptr(unsafe.Pointer(&descriptor)))
	l := []attempt{
		instruction("LGDT", doLGDT, regs{di: d}),
		instruction("LIDT", doLIDT, regs{di: d}),
		instruction("LLDT", doLLDT, regs{}),
		instruction("LTR", doLTR, regs{}),
		instruction("read CR0", doReadCR0, regs{}),
		instruction("read CR3", doReadCR3, regs{}),
		instruction("read CR4", doReadCR4, regs{}),
		instruction("write CR0", doWriteCR0, regs{}),
		instruction("write CR3", doWriteCR3, regs{di: data()}),
		instruction("write CR4", doWriteCR4, regs{}),
		instruction("write CR8", doWriteCR8, regs{}),
		instruction("write DR0", doWriteDR0, regs{di: monitorCall}),
		instruction("write DR7", doWriteDR7, regs{di: 0x403}),
		instruction("read DR7", doReadDR7, regs{}),
		instruction("RDMSR of EFER", doRDMSR, regs{cx: 0xc0000080}),
		instruction("WRMSR of EFER", doWRMSR, regs{cx: 0xc0000080, ax: 0x501}),
		instruction("WRMSR of LSTAR", doWRMSR, regs{cx: 0xc0000082, ax: uint64(code2addr[reachedCode])}),
		instruction("WRMSR of the APIC's base", doWRMSR, regs{cx: 0x1b, ax: 0xfee00800}),
		instruction("CLI", doCLI, regs{}),
		instruction("STI", doSTI, regs{}),
		instruction("HLT", doHLT, regs{}),
		instruction("INVD", doINVD, regs{}),
		instruction("WBINVD", doWBINVD, regs{}),
		instruction("INVLPG", doINVLPG, regs{di: policy()}),
		instruction("CLTS", doCLTS, regs{}),
		instruction("LMSW", doLMSW, regs{}),
		instruction("XSETBV", doXSETBV, regs{}),
		instruction("SWAPGS", doSWAPGS, regs{}),
		instruction("RDPMC", doRDPMC, regs{}),
		instruction("SYSRET", doSYSRET, regs{}),
		instruction("SYSEXIT", doSYSEXIT, regs{}),
		instruction("SYSENTER", doSYSENTER, regs{}),
		instruction("IRET to ring 0", doIRET, regs{di: 8, si: 0x10}),
		instruction("IRET to ring 0's code in ring 3", doIRET, regs{di: 0xb, si: 0x2b}),
		instruction("IRET to the task's segment", doIRET, regs{di: 0x38, si: 0x2b}),
		instruction("IRET to a non-canonical address", doIRETRIP, regs{di: 1 << 47}),
		instruction("far return to ring 0", doRETF, regs{di: 8}),
		instruction("ring 0's data segment as stack", doLoadSS, regs{di: 0x10}),
		instruction("no segment as stack", doLoadSS, regs{di: 0}),
		instruction("ring 0's data segment", doLoadDS, regs{di: 0x10}),
		instruction("INT 0", doINTDivide, regs{}),
		instruction("INT 1", doINTDebug, regs{}),
		instruction("INT 2", doINTNMI, regs{}),
		instruction("INT 6", doINTUndefined, regs{}),
		instruction("INT 8", doINTDouble, regs{}),
		instruction("INT 14", doINTPage, regs{}),
		instruction("INT 32", doINTTimer, regs{}),
		instruction("INT 63", doINTSpurious, regs{}),
		instruction("INT 128", doINTLinux, regs{}),
		instruction("INT3", doINT3, regs{}),
		instruction("ICEBP", doICEBP, regs{}),
		instruction("single step", doFlags, regs{di: 0x302}),
		{"IOPL 3 by POPF", func() outcome { return flagsKept(doFlags, 0x3202) }},
		{"interrupts off by POPF", func() outcome { return flagsKept(doFlags, 0x2) }},
		{"IOPL 3 by IRET", func() outcome { return flagsKept(doIRETFlags, 0x3202) }},
		{"interrupts off by IRET", func() outcome { return flagsKept(doIRETFlags, 0x2) }},
	}
	if umip() {
		l = append(l,
			instruction("SGDT", doSGDT, regs{di: d}),
			instruction("SIDT", doSIDT, regs{di: d}),
			instruction("STR", doSTR, regs{}),
		)
	}
	return l
}

// umip reports whether the CPU can keep SGDT and the like from ring 3 (CPUID leaf
// 7, ECX bit 2).
func umip() bool {
	r := regs{ax: 7}
	do(doCPUID, &r)
	return r.cx&4 != 0
}

func flagsKept(c code, flags uint64) outcome {
	var before regs
	before.di = 0x202
	do(doFlags, &before)
	r := regs{di: flags}
	if s := do(c, &r); s != 0 {
		return refused("signal %d", s)
	}
	if (r.flags^before.flags)&0x3200 != 0 {
		return succeeded("flags %#x", r.flags)
	}
	return refused("flags %#x", r.flags)
}

// stays is the outcome of what must end in ring 3, by a signal or not, with the
// tables, the descriptors and the policy as they were.
func stays(c code, r regs) outcome {
	reachedCS = 0
	s := do(c, &r)
	if r.cs&3 != 3 || reachedCS != 0 && reachedCS&3 != 3 {
		return succeeded("ring %d", r.cs&3)
	}
	return refused("signal %d, ring 3", s)
}

// stacks takes traps and system calls with stack pointers that lead elsewhere.
func stacks() []attempt {
	var l []attempt
	for _, p := range []struct {
		name string
		rsp  uint64
	}{{"0", 0}, {"1", 1}, {"a non-canonical address", 1 << 47}, {"the last byte", ^uint64(0)}, {"the trap frames", abi.TrapTop},
		{"the page tables", abi.Tables + 2048}, {"the descriptors", abi.DescPage + 2048}, {"the policy", policy()}, {"ring 0's tables", 0xffffffff80120800}} {
		l = append(l,
			attempt{"SYSCALL with the stack at " + p.name, func() outcome { return stays(doSyscallRSP, regs{ax: 39, di: p.rsp}) }},
			attempt{"exception with the stack at " + p.name, func() outcome { return stays(doDivideRSP, regs{di: p.rsp}) }},
		)
	}
	for _, f := range []struct {
		name  string
		flags uint64
	}{{"single step", 0x302}, {"NT", 0x4202}, {"AC", 0x40202}, {"DF", 0x602}, {"NT, AC, DF and single step", 0x44702}} {
		l = append(l,
			attempt{"SYSCALL with " + f.name, func() outcome { return stays(doSyscallFlags, regs{ax: 39, di: f.flags}) }},
			attempt{"exception with " + f.name, func() outcome { return stays(doUndefinedFlags, regs{di: f.flags}) }},
			attempt{"monitor call with " + f.name, func() outcome { return stays(doCallFlags, regs{ax: 0x55, si: monitorCall, di: f.flags}) }},
		)
	}
	return append(l,
		attempt{"fault with the stack at page zero", func() outcome { return stays(doFaultRSP, regs{di: 8}) }},
		attempt{"fault with the stack in the trap frames", func() outcome { return stays(doFaultRSP, regs{di: abi.TrapTop - 8}) }},
		attempt{"breakpoint with the stack in the trap frames", func() outcome { return stays(doInt3RSP, regs{di: abi.TrapTop}) }},
		attempt{"undefined instruction with the stack in the tables", func() outcome { return stays(doUndefinedRSP, regs{di: abi.Tables + 4096}) }},
		attempt{"monitor call with the stack at a non-canonical address", func() outcome { return stays(doCallRSP, regs{ax: 0x55, si: monitorCall, di: 1 << 47}) }},
	)
}

// ports are some of the ports that nothing in ring 3 may use.
func ports() []attempt {
	var l []attempt
	for _, p := range []struct {
		name string
		port uint64
	}{{"master 8259", 0x20}, {"master 8259's mask", 0x21}, {"slave 8259", 0xa0}, {"PIT channel 0", 0x40}, {"the PIT gate, once sealed", 0x61}, {"POST code", 0x80},
		{"fast A20", 0x92}, {"DMA controller", 0xd0}, {"COM2", 0x2f8}, {"fw_cfg", 0x510}, {"the address of fw_cfg's DMA", 0x514}, {"the doorbell of fw_cfg's DMA", 0x518}, {"the SMI command", 0xb2}, {"ACPI events", 0xb000}, {"the first port of all", 0},
		{"the first port beyond the bitmap", abi.IOMax}, {"the last port", 0xffff}} {
		l = append(l,
			instruction("IN from "+p.name, doIN, regs{di: p.port}),
			instruction("OUT to "+p.name, doOUT, regs{di: p.port, si: 0xff}))
	}
	return append(l,
		instruction("IN across the end of COM1", doIN32, regs{di: 0x3fd}),
		instruction("IN across the end of the bitmap", doIN32, regs{di: abi.IOMax - 2}),
		instruction("OUT across the beginning of COM1", doOUT32, regs{di: 0x3f6}),
		instruction("OUT across the end of ports", doOUT32, regs{di: 0xfffe}),
	)
}

// forgeries change the frames by which the monitor returns to ring 3, and let
// it return.
func forgeries() []attempt {
	forge := func(offset uint64, c code, r regs) outcome {
		frame, ok := writable(abi.LocalPage + offset)
		if !ok {
			return refused("the frame cannot be written")
		}
		f := (*abi.Return)(unsafePointer(frame))
		old := *f
		reachedCS = 0
		*f = abi.Return{RIP: uint64(code2addr[reachedCode]), CS: abi.KernelCS, RFLAGS: 2, RSP: abi.TrapTop - 512, SS: abi.KernelDS}
		run(code2addr[c], &r)
		*f = old
		if reachedCS != 0 {
			return succeeded("code of ours ran in ring %d", reachedCS&3)
		}
		return refused("the frame was not used")
	}
	var m abi.Local
	irq, bounce := uint64(unsafe.Offsetof(m.Interrupt)), uint64(unsafe.Offsetof(m.Bounce))
	l := []attempt{
		{"forged return from #UD", func() outcome { return forge(0, doUndefined, regs{}) }},
		{"forged return from #DE", func() outcome { return forge(0, doDivide, regs{}) }},
		{"forged return from #PF", func() outcome { return forge(0, doNull, regs{}) }},
		{"forged return from #GP", func() outcome { return forge(0, doCLI, regs{}) }},
		{"forged return from an interrupt", func() outcome { return forge(irq, doSpin, regs{cx: 2_000_000_000}) }},
	}
	if !sys.Native() {
		l = append(l, attempt{"forged return from SYSCALL", func() outcome { return forge(bounce, doSyscall, regs{ax: 39}) }})
	}
	return l
}

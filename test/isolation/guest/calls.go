package main

import (
	"syscall"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

func call(nr, a, b, c, d uint64) (uint64, syscall.Errno) {
	v, _, e := syscall.RawSyscall6(uintptr(nr), uintptr(a), uintptr(b), uintptr(c), uintptr(d), 0, 0)
	return uint64(v), e
}

func mmap(a, n, prot, flags uint64) (uint64, syscall.Errno) { return call(9, a, n, prot, flags) }

// fails is the outcome of a system call that must return an error.
func fails(nr, a, b, c, d uint64) outcome {
	v, e := call(nr, a, b, c, d)
	if e != 0 {
		return refused("%v", e)
	}
	return succeeded("returned %#x", v)
}

func systemCall(name string, nr, a, b, c, d uint64) attempt {
	return attempt{name, func() outcome { return fails(nr, a, b, c, d) }}
}

// Numbers of system calls.
const (
	nMprotect  = 10
	nMunmap    = 11
	nMadvise   = 28
	nSigreturn = 15
)

func systemCalls() []attempt {
	const fixed = 0x32 // MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS
	l := []attempt{
		systemCall("mmap executable memory", 9, 0, page, 7, 0x22),
		systemCall("mmap execute-only memory", 9, 0, page, 4, 0x22),
		systemCall("mmap over page zero", 9, 0, page, 3, fixed),
		systemCall("mmap over the policy", 9, policy()&^(page-1), page, 3, fixed),
		systemCall("mmap over text", 9, text()&^(page-1), page, 3, fixed),
		systemCall("mmap over the kernel", 9, abi.KernelBase, page, 3, fixed),
		systemCall("mmap over the page tables", 9, abi.Tables, page, 3, fixed),
		systemCall("mmap over the direct map", 9, abi.DirectBase, page, 3, fixed),
		systemCall("mmap over devices", 9, abi.MMIOBase+0xfee00000, page, 3, fixed),
		systemCall("mmap up to the end of addresses", 9, abi.MmapBase, ^uint64(0)-abi.MmapBase, 3, fixed),
		systemCall("mprotect text writable", nMprotect, text()&^(page-1), page, 3, 0),
		systemCall("mprotect the policy writable", nMprotect, policy()&^(page-1), page, 3, 0),
		systemCall("mprotect the kernel writable", nMprotect, abi.KernelBase, page, 3, 0),
		systemCall("mprotect data executable", nMprotect, data(), page, 7, 0),
		systemCall("mprotect the page tables", nMprotect, abi.Tables, page, 3, 0),
		systemCall("munmap the policy", nMunmap, policy()&^(page-1), page, 0, 0),
		systemCall("munmap text", nMunmap, text()&^(page-1), page, 0, 0),
		systemCall("munmap over the end of addresses", nMunmap, abi.UserMax, ^uint64(0)-abi.UserMax+1, 0, 0),
		systemCall("munmap everything", nMunmap, abi.MmapBase, ^uint64(0), 0, 0),
		systemCall("munmap the direct map", nMunmap, abi.DirectBase, page, 0, 0),
		systemCall("madvise the policy away", nMadvise, policy()&^(page-1), page, 4, 0),
		systemCall("madvise the kernel away", nMadvise, abi.KernelBase, page, 4, 0),
		systemCall("madvise the page tables away", nMadvise, abi.Tables, page, 4, 0),
		systemCall("write out the descriptors", 1, 1, abi.DescPage, 8, 0),
		systemCall("getrandom into the policy", 318, policy(), 8, 0, 0),
		systemCall("getrandom into the page tables", 318, abi.Tables, 8, 0, 0),
		systemCall("getrandom into the trap frames", 318, abi.TrapPage, 8, 0, 0),
		systemCall("statistics into text", abi.SysStats, text(), 8, 0, 0),
		systemCall("nanosleep with a non-canonical pointer", 35, 1<<47, 0, 0, 0),
		systemCall("sigaltstack result into the policy", 131, 0, policy(), 0, 0),
		systemCall("load the local APIC as a device", abi.SysLoad, abi.MMIOBase+0xfee00020, 0, 0, 0),
		systemCall("store to the local APIC as a device", abi.SysStore, abi.MMIOBase+0xfee000f0, 0x1ff, 0, 0),
		systemCall("store to the I/O APIC as a device", abi.SysStore, abi.MMIOBase+0xfec00000, 0, 0, 0),
		systemCall("store to the policy as a device", abi.SysStore, policy()&^3, 0, 0, 0),
		systemCall("store to the page tables as a device", abi.SysStore, abi.Tables, 0, 0, 0),
		systemCall("all of memory for devices", abi.SysDMA, sys.MemoryBytes(), 1, 0, 0),
		systemCall("more than all memory for devices", abi.SysDMA, ^uint64(0), 1, 0, 0),
		systemCall("no memory for devices", abi.SysDMA, 0, 1, 0, 0),
		systemCall("a system call beyond all", ^uint64(0), 0, 0, 0, 0),
		systemCall("wait as the waiter after the last", abi.SysWait, 0, abi.MaxWaiters, 0, 0),
		systemCall("wait as waiter 2^32", abi.SysWait, 0, 1<<32, 0, 0),
		systemCall("wait as the waiter before the first", abi.SysWait, 0, ^uint64(0), 0, 0),
		systemCall("wake nobody", abi.SysWake, 0, 0, 0, 0),
		systemCall("wake the waiter after the last", abi.SysWake, 1<<abi.MaxWaiters, 0, 0, 0),
		systemCall("wake all that 64 bits name", abi.SysWake, ^uint64(0), 0, 0, 0),
		{"wait as every waiter, for every bit", func() outcome {
			for n := range uint64(abi.MaxWaiters) {
				for _, deadline := range []uint64{0, 1} {
					if v, e := call(abi.SysWait, deadline, n, ^uint64(0), 0); e != 0 || v>>(abi.WakeBit+1) != 0 {
						return succeeded("waiter %d: %#x, %v", n, v, e)
					}
				}
			}
			return refused("nothing came that there is not")
		}},
	}
	return append(l, sigreturns()...)
}

// removals unmap what the kernel does not know as the program's. One that
// succeeds takes along what the others need.
func removals() []attempt {
	var l []attempt
	for _, d := range []struct {
		name string
		va   uint64
	}{{"the kernel's data", 0x3ff000}, {"the vDSO", abi.VDSOPage}, {"the kernel's stack", abi.KernelStack}, {"the fault stack", abi.FaultStack},
		{"the boot record", abi.BootPage}, {"the trap frames", abi.TrapPage}, {"the kernel", abi.KernelBase + 0x1000}, {"the page tables", abi.Tables}} {
		l = append(l, attempt{"munmap " + d.name, func() outcome {
			if _, e := call(nMunmap, d.va, page, 0, 0); e != 0 {
				return refused("%v", e)
			}
			return succeeded("no error")
		}})
	}
	return l
}

// sigreturns forge the context that a signal handler returns to.
func sigreturns() []attempt {
	forge := func(cs, flags, rip uint64) outcome {
		// doFlags etc. are not needed: a context on the stack and the call.
		var uc struct {
			_ [64]byte
			w [64]uint64
			_ [64]byte
		}
		area := make([]byte, 2*page)
		xs := (uint64(uintptr(unsafe.Pointer(&area[0]))) + 63) &^ 63
		g := uc.w[5:]
		g[15] = 0 // filled in below
		g[16], g[17], g[18], g[23] = rip, flags, cs, xs
		reachedCS = 0
		sp := uint64(uintptr(unsafe.Pointer(&uc.w)))
		g[15] = sp - 64
		r := regs{di: sp, ax: nSigreturn}
		s := do(doSyscallRSP, &r)
		if s != 0 {
			return refused("signal %d", s)
		}
		if reachedCS != 0 && reachedCS&3 != 3 {
			return succeeded("reached ring %d", reachedCS&3)
		}
		if r.flags&0x3000 != 0 || r.flags&0x200 == 0 && !sys.Native() {
			return succeeded("flags %#x", r.flags)
		}
		return refused("ring 3, flags %#x", r.flags)
	}
	reached := uint64(code2addr[reachedCode])
	return []attempt{
		{"sigreturn to ring 0", func() outcome { return forge(8, 0x202, reached) }},
		{"sigreturn with IOPL 3", func() outcome { return forge(0x33, 0x3202, reached) }},
		{"sigreturn with interrupts off", func() outcome { return forge(0x33, 0x2, reached) }},
		{"sigreturn with NT and AC", func() outcome { return forge(0x33, 0x44202, reached) }},
		{"sigreturn to a non-canonical address", func() outcome { return forge(0x33, 0x202, 1<<47) }},
	}
}

func hex(v uint64) string {
	const digits = "0123456789abcdef"
	s := ""
	for ; v != 0 || s == ""; v >>= 4 {
		s = string(digits[v&15]) + s
	}
	return "0x" + s
}

package main

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/abi"
)

var stats abi.Stats

// unknownSeen marks the unknown system calls that have been reported.
var unknownSeen [8]uint64

// ksyscall executes the system call in f. It returns 0 to go straight back to
// the same thread, or the frame to continue with.
func ksyscall(f *frame) uint64 {
	enter()
	frame := systemCall(f)
	leave()
	return frame
}

func systemCall(f *frame) uint64 {
	stats.Syscalls++
	r, other := call(f)
	if other {
		return r
	}
	f.rax = r
	if cooperative && cooperate() {
		enqueue(cur())
		return schedule()
	}
	if runHead != noThread && !me().sliced {
		rearm()
	}
	if t := &threads[cur()]; t.pending&^t.mask != 0 {
		return returnTo(t)
	}
	return 0
}

// call returns a system call's result or, when other is true, the frame of
// the thread to run instead. The numbers are Linux's for amd64;
// docs/platform.md says which of them Go uses and how.
func call(f *frame) (result uint64, other bool) {
	a, b, c, d := f.rdi, f.rsi, f.rdx, f.r10
	switch f.rax {
	case 0: // read
		switch {
		case a == fdEvent && eventOpen:
			return eventRead(b, c), false
		case a == 0:
			return 0, false // end of file
		}
		return errno(eBADF), false
	case 1: // write
		switch {
		case a == fdEvent && eventOpen:
			return eventWrite(b, c), false
		case a == 1 || a == 2:
			if !readable(b, c) {
				return errno(eFAULT), false
			}
			touch(b, c)
			consoleWrite(b, c)
			return c, false
		}
		return errno(eBADF), false
	case 3: // close
		return 0, false
	case 9: // mmap
		return sysMmap(a, b, c, d), false
	case 10: // mprotect
		return sysMprotect(a, b, c), false
	case 11: // munmap
		return sysMunmap(a, b), false
	case 13: // rt_sigaction
		return sysSigaction(a, b, c, d), false
	case 14: // rt_sigprocmask
		return sysSigprocmask(a, b, c, d), false
	case 15: // rt_sigreturn
		return sysSigreturn(), true
	case 24: // sched_yield
		if cooperative {
			expire()
		}
		if runHead == noThread {
			return 0, false
		}
		f.rax = 0
		enqueue(cur())
		return schedule(), true
	case 28: // madvise
		return sysMadvise(a, b, c), false
	case 35: // nanosleep
		n, ok := timespec(a)
		if !ok {
			return errno(eFAULT), false
		}
		return block(waitTime, later(n)), true
	case 39: // getpid
		return 1, false
	case 56: // clone
		return sysClone(f, a, b, f.r8), false
	case 60: // exit
		return sysExit(), true
	case 72: // fcntl: F_GETFD, F_GETFL
		if a > 2 && a != fdEvent && a != fdEpoll {
			return errno(eBADF), false
		}
		if b == 3 {
			return 2, false // O_RDWR
		}
		return 0, false
	case 131: // sigaltstack
		return sysSigaltstack(a, b), false
	case 157: // prctl: names of mappings are not kept
		return errno(eINVAL), false
	case 158: // arch_prctl
		if a != 0x1002 { // ARCH_SET_FS
			return errno(eINVAL), false
		}
		threads[cur()].fsbase, my().userFS = b, b
		return 0, false
	case 186: // gettid
		return uint64(cur()), false
	case 202: // futex
		return sysFutex(a, b, c, d)
	case 204: // sched_getaffinity
		if b < 8 {
			return errno(eINVAL), false
		}
		if !writable(c, 8) {
			return errno(eFAULT), false
		}
		*at[uint64](c) = 1<<processors - 1
		return 8, false
	case 228: // clock_gettime
		return sysClockGettime(a, b), false
	case 231: // exit_group
		programExit(a)
	case 233: // epoll_ctl
		return sysEpollCtl(a, b, c, d), false
	case 234: // tgkill
		return sysTgkill(b, c), false
	case 257, 262, 267: // openat, newfstatat, readlinkat: there are no files
		return errno(eNOENT), false
	case 281: // epoll_pwait
		return sysEpollWait(a, b, c, d)
	case 290: // eventfd2
		return sysEventfd(a), false
	case 291: // epoll_create1
		return sysEpollCreate(), false
	case 302: // prlimit64: RLIMIT_NOFILE is asked for
		if d != 0 {
			if !writable(d, 16) {
				return errno(eFAULT), false
			}
			*at[uint64](d), *at[uint64](d + 8) = 1024, 1024
		}
		return 0, false
	case 318: // getrandom
		return sysGetrandom(a, b, c), false
	case abi.SysWait:
		return sysWait(a, b, c)
	case abi.SysWake:
		return sysWake(a), false
	case abi.SysDMA:
		return sysDMA(a, b), false
	case abi.SysLoad:
		return sysLoad(a, b), false
	case abi.SysStore:
		return sysStore(a, b, c), false
	case abi.SysCooperate:
		return sysCooperate(), false
	case abi.SysSeal:
		return monitor(monSeal, 0, 0, 0, 0), false
	case abi.SysClock:
		return sysClock(a, b), false
	case abi.SysPower:
		if a == abi.PowerReport {
			reportAll()
		}
		power(a)
	case abi.SysStats:
		return sysStats(a, b), false
	}
	unknown(f.rax)
	return errno(eNOSYS), false
}

// touch reads a byte of every page, so that a device-like instruction (OUTS)
// does not meet one that is not there yet.
func touch(a, n uint64) {
	var sum byte
	for p := a; p < a+n; p = p&^4095 + 4096 {
		sum += *at[byte](p)
	}
	touched = sum
}

// touched keeps the loads of touch.
//
//lint:ignore U1000 written so that it is not optimised away
var touched byte

// unknown reports a system call that the kernel does not know, once each.
func unknown(nr uint64) {
	if nr < 512 {
		if unknownSeen[nr/64]>>(nr%64)&1 != 0 {
			return
		}
		unknownSeen[nr/64] |= 1 << (nr % 64)
	}
	puts("thurward: kernel: unknown system call ")
	putu(nr)
	putc('\n')
}

// programExit ends the machine with the program.
func programExit(status uint64) {
	if status == 0 {
		power(abi.PowerOff)
	}
	beginReport()
	puts("thurward: crash: the program exited with status ")
	putu(status)
	putc('\n')
	power(abi.PowerReset)
}

func sysStats(p, n uint64) uint64 {
	n = min(n, uint64(unsafe.Sizeof(stats)))
	if !writable(p, n) {
		return errno(eFAULT)
	}
	lookForFaults()
	stats.FreeFrames, stats.TotalFrames = frames.Free(), totalFrames
	stats.Threads, stats.TableFrames = nThreads, tableFrames()
	copy(bytesAt(p, n), bytesAt(addr(&stats), n))
	return n
}

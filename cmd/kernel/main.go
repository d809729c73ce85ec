// Command kernel is the guest's kernel, an ELF of its own: the monitor
// (monitor_amd64.s, ring 0) and, in ring 3, the part of Linux's system call
// interface that a Go program needs. internal/host/image joins it with the program.
//
// It is ordinary compiled Go that runs without Go's runtime. Hence the rules,
// which a test checks on the machine code: no allocation, no maps, no
// interfaces, no defer, no pointers stored in memory (links are indexes and
// addresses are uintptr), no goroutines. There is one CPU and one kernel
// stack; the kernel is never preempted.
//
// The way through it: monitor_amd64.s (boot, traps), kernel_amd64.s (entries),
// boot.go, syscall.go, then by topic: pages.go, memory.go, thread.go,
// sched.go, futex.go, epoll.go, signal.go, time.go, device.go, acpi.go, pci.go, keyboard.go, random.go,
// console.go, power.go, crash.go.
//
//lint:file-ignore U1000 the assembly files use what Go code does not
package main

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/abi"
)

// main is never run: boot64 is the entry. It keeps the functions that only
// assembly calls.
func main() {
	kmain()
	ksyscall(nil)
	kpending()
	kfault(nil)
	ksignal()
	kabort(nil)
	anchor()
}

func anchor()

// Constants for the assembly files (go_asm.h).
const (
	bootPage    = abi.BootPage
	clockPage   = abi.ClockPage
	clockWall   = 80
	tables      = abi.Tables
	crashTop    = abi.CrashStackTop
	kernelTop   = abi.KernelStackTop
	faultTop    = abi.FaultStackTop
	faultXS     = abi.FaultXS
	trapFrameAt = abi.TrapTop - 40
	irqFrameAt  = abi.IRQTop - 40
	gdtr        = abi.DescPage + abi.GDTROff
	idtr        = abi.DescPage + abi.IDTROff
	kernelCS    = abi.KernelCS
	userCS      = abi.UserCS
	userDS      = abi.UserDS
	tssSel      = abi.TSS
	starHigh    = 0x20<<16 | abi.KernelCS
	bootLinux   = abi.BootLinux
	recStart    = 0
	recTSC      = 8
	recKind     = 16
	frameSize   = 176
	xFeatures   = abi.XFeatures

	monHalt  = 0
	monWRMSR = 1
	monFlush = 2
	monMask  = 3
	monReset = 4
	gdtStart = abi.DescPage + abi.GDTOff
)

// Variables shared with the assembly files.
var (
	inKernel      uint32 // see kernel_amd64.s
	pending       uint32 // bit i: vector TimerVector+i came
	inFault       uint32
	trapVector    uint32
	trapCR2       uint64
	r0AX          uint64
	saveAX        uint64
	saveSP        uint64
	syscallNative uint32
	curTop        uintptr // end of the current thread's frame
	curXS         uintptr // its XSAVE area
	resumeXS      uintptr // area to restore before returning; 0: none
	userFS        uint64  // its FS base
	exitSP        uint64  // see load32
	exitRIP       uint64
	faultFrame    [5]uint64
	crashFrame    [5]uint64
	irqFrame      [5]uint64
	bounceFrame   [5]uint64
	tls           [2]uintptr
	fakeG         [1024]byte
)

// Messages of the monitor, which runs before anything can format one.
var (
	msgXSave    = "thurward: refusing to start: the CPU has no XSAVE (QEMU: -cpu max)\n"
	msgFSGSBase = "thurward: refusing to start: the CPU has no FSGSBASE (QEMU: -cpu max)\n"
)

func rdtsc() uint64
func rdrand() (v uint64, ok bool)
func cpuid(leaf, sub uint32) (a, b, c, d uint32)
func outb(port uint16, v uint8)
func outw(port, v uint16)
func inb(port uint16) uint8
func outsb(port uint16, p uintptr, n uint64)
func inl(port uint16) uint32
func outl(port uint16, v uint32)
func load8(a uintptr) uint8
func load16(a uintptr) uint16
func load32(a uintptr) uint32
func store8(a uintptr, v uint8)
func store16(a uintptr, v uint16)
func store32(a uintptr, v uint32)
func monitor(op, arg uint64, msr uint32)
func signalEntryAddr() uintptr

// A frame is a thread's integer state, as kernel_amd64.s pushes it.
type frame struct {
	r15, r14, r13, r12, r11, r10, r9, r8 uint64
	rbp, rdi, rsi, rdx, rcx, rbx, rax    uint64
	vec, err                             uint64
	rip, cs, rflags, rsp, ss             uint64
}

// at returns the memory at an address as a *T. All the kernel's accesses to
// memory by address go through it.
func at[T any](a uint64) *T { return *(**T)(unsafe.Pointer(&a)) }

// addr returns the address of a variable of the kernel.
func addr[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// bytesAt returns n bytes at address a.
func bytesAt(a, n uint64) []byte { return unsafe.Slice(at[byte](a), n) }

func alignUp(v, a uint64) uint64 { return (v + a - 1) &^ (a - 1) }

// errno makes a system call's error result.
func errno(e uint64) uint64 { return -e }

// Linux error numbers.
const (
	eNOENT = 2
	eBADF  = 9
	eAGAIN = 11
	eNOMEM = 12
	eFAULT = 14
	eEXIST = 17
	eINVAL = 22
	eSRCH  = 3
	eNOSYS = 38
	eTIME  = 110
	eINTR  = 4
	ePERM  = 1
	eNODEV = 19
)

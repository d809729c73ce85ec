// Command kernel is the guest's kernel, an ELF of its own: the monitor
// (monitor_amd64.s, monitor_calls_amd64.s; ring 0) and, in ring 3, the part of Linux's system call
// interface that a Go program needs. internal/host/image joins it with the program.
//
// It is ordinary compiled Go that runs without Go's runtime. Hence the rules,
// which a test checks on the machine code: no allocation, no maps, no
// interfaces, no defer, no pointers stored in memory (links are indexes and
// addresses are uintptr), no goroutines. There is one CPU and one kernel
// stack; the kernel is never preempted.
//
// The way through it: monitor_amd64.s (boot, traps), monitor_calls_amd64.s (what
// only ring 0 can do), kernel_amd64.s (entries),
// boot.go, syscall.go, then by topic: pages.go, memory.go, thread.go,
// sched.go, futex.go, epoll.go, signal.go, time.go, device.go, acpi.go, generation.go,
// pci.go, iommu.go, keyboard.go, button.go, random.go, console.go, power.go, crash.go.
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
	kprocessor()
	anchor()
}

func anchor()

// Constants for the assembly files (go_asm.h).
const (
	bootPage  = abi.BootPage
	clockPage = abi.ClockPage
	clockWall = 80
	tables    = abi.Tables
	crashTop  = abi.CrashStackTop
	trapTop   = abi.TrapTop
	kernelTop = abi.KernelStackTop
	faultTop  = abi.FaultStackTop
	faultXS   = abi.FaultXS
	gdtr      = abi.DescPage + abi.GDTROff
	idtr      = abi.DescPage + abi.IDTROff
	gdtStart  = abi.DescPage + abi.GDTOff
	kernelCS  = abi.KernelCS
	userCS    = abi.UserCS
	userDS    = abi.UserDS
	tssSel    = abi.TSS
	starHigh  = 0x20<<16 | abi.KernelCS
	bootLinux = abi.BootLinux
	recStart  = 0
	recTSC    = 8
	recKind   = 16
	frameSize = 176
	frameErr  = 128
	xFeatures = abi.XFeatures

	// Ring 3's view of what it shares with the monitor.
	inKernel    = abi.SharedPage
	pending     = abi.SharedPage + 4
	trapFrameAt = abi.TableWindow + abi.TrapTop - 40
	irqFrameAt  = abi.TableWindow + abi.IRQTop - 40

	// Ring 0's. Its own pages lie at their physical addresses, the rest at
	// ring0 and the physical address.
	ring0         = abi.Ring0Base
	inKernel0     = ring0 + abi.SharedPage
	pending0      = inKernel0 + 4
	owesEOI0      = inKernel0 + 8
	trapVector    = abi.TrapPage
	trapCR2       = abi.TrapPage + 8
	faultFrame    = abi.LocalPage
	faultFlags    = faultFrame + 16
	crashFrame    = faultFrame + 40
	crashFlags    = crashFrame + 16
	irqFrame      = crashFrame + 40
	irqFlags      = irqFrame + 16
	bounceFrame   = irqFrame + 40
	bounceFlags   = bounceFrame + 16
	bounceSP      = bounceFrame + 24
	r0AX          = bounceFrame + 40
	number0       = r0AX + 8
	poolNext      = abi.MonitorPage
	poolEnd       = poolNext + 8
	zeroStart     = poolNext + 16
	zeroEnd       = poolNext + 24
	userStart     = poolNext + 32
	userEnd       = poolNext + 40
	lowStart      = poolNext + 48
	lowEnd        = poolNext + 56
	highStart     = poolNext + 64
	highEnd       = poolNext + 72
	hasClock      = poolNext + 80
	startCR4      = poolNext + 88
	startLSTAR    = poolNext + 96
	processors0   = poolNext + 104
	roots0        = poolNext + 112
	apic0         = roots0 + 8*abi.MaxProcessors
	flushed0      = apic0 + 4*abi.MaxProcessors
	stoppedAt0    = flushed0 + 4*abi.MaxProcessors
	tableLock     = stoppedAt0 + 4*abi.MaxProcessors
	stopping      = tableLock + 4
	sharedTables  = poolNext + unsafe.Offsetof(abi.Monitor{}.Shared)
	faultRecord   = poolNext + unsafe.Offsetof(abi.Monitor{}.Fault)
	faultStatus0  = ring0 + abi.IOMMUSlot + vtdFaultStatus
	tssType       = abi.DescPage + abi.GDTOff + abi.TSS + 5
	rootWindow0   = ring0 + abi.Tables + 8*abi.RootWindow
	lapicEOI0     = ring0 + abi.LAPICSlot + lapicEOI
	lapicInitial0 = ring0 + abi.LAPICSlot + lapicInitial
	lapicICR0     = ring0 + abi.LAPICSlot + lapicICR
	lapicICRHigh0 = ring0 + abi.LAPICSlot + lapicICRHigh
	icrWake       = icrFixed | abi.TimerVector
	icrFlush      = icrFixed | abi.FlushVector
	ioBase        = abi.DescPage + abi.TSSOff + 0x66
	ioFinal       = abi.IOFinal
	clockEnable   = abi.ClockPage | 1
	clockWallAt   = abi.ClockPage + 64
	pageBits      = uint64(pUser | pAccessed | pDirty | pNX)
	tableBits     = pTable
	shareBits     = vtdLarge | vtdWrite | vtdRead
	faultBit      = uint32(vtdFault)
	addressBits   = pAddr

	monSet       = abi.MonSet
	monHalt      = abi.MonHalt
	monTimer     = abi.MonTimer
	monEOI       = abi.MonEOI
	monFlush     = abi.MonFlush
	monCooperate = abi.MonCooperate
	monClock     = abi.MonClock
	monEnter     = abi.MonEnter
	monClose     = abi.MonClose
	monSeal      = abi.MonSeal
	monReset     = abi.MonReset
	monSend      = abi.MonSend
	monStop      = abi.MonStop
	monShare     = abi.MonShare
	monFaults    = abi.MonFaults
	monRefused   = abi.MonRefused
	monNoTable   = abi.MonNoTable
	setNothing   = abi.SetNothing
	setRead      = abi.SetRead
	setWrite     = abi.SetWrite
	sendWake     = abi.SendWake
	sendFlush    = abi.SendFlush
)

// A processor is what the kernel keeps for each processor at one address, which leads to
// memory of its own on each: behind what kernel and monitor share.
type processor struct {
	number   uint32 // among cpus
	inFault  uint32
	saveAX   uint64
	saveSP   uint64
	curTop   uintptr // end of the current thread's frame
	curXS    uintptr // its XSAVE area
	resumeXS uintptr // area to restore before returning; 0: none
	userFS   uint64  // its FS base
	exitSP   uint64  // see load32
	exitRIP  uint64
	tls      [2]uint64
	fakeG    [1024]byte
}

// Where the assembly files find it.
const (
	procAt   = abi.SharedPage + 64
	inFault  = procAt + unsafe.Offsetof(processor{}.inFault)
	saveAX   = procAt + unsafe.Offsetof(processor{}.saveAX)
	saveSP   = procAt + unsafe.Offsetof(processor{}.saveSP)
	curTop   = procAt + unsafe.Offsetof(processor{}.curTop)
	curXS    = procAt + unsafe.Offsetof(processor{}.curXS)
	resumeXS = procAt + unsafe.Offsetof(processor{}.resumeXS)
	userFS   = procAt + unsafe.Offsetof(processor{}.userFS)
	exitSP   = procAt + unsafe.Offsetof(processor{}.exitSP)
	exitRIP  = procAt + unsafe.Offsetof(processor{}.exitRIP)
	tls      = procAt + unsafe.Offsetof(processor{}.tls)
	tlsEnd   = tls + 8
	fakeG    = procAt + unsafe.Offsetof(processor{}.fakeG)
)

// my returns the present processor's.
func my() *processor { return at[processor](procAt) }

// syscallNative is 1 where SYSCALL stays in ring 3.
var syscallNative uint32

// shared is what kernel and monitor both write.
func shared() *abi.Shared { return at[abi.Shared](abi.SharedPage) }

// trap is what the monitor noted of the last exception. Ring 3 reads it.
func trap() *abi.Trap { return at[abi.Trap](abi.TableWindow + abi.TrapPage) }

// mon is the monitor's state, which the kernel fills in before it closes the
// window and reads afterwards.
func mon() *abi.Monitor { return at[abi.Monitor](abi.TableWindow + abi.MonitorPage) }

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
func inw(port uint16) uint16
func outsb(port uint16, p uintptr, n uint64)
func inl(port uint16) uint32
func outl(port uint16, v uint32)
func load8(a uintptr) uint8
func load16(a uintptr) uint16
func load32(a uintptr) uint32
func store8(a uintptr, v uint8)
func store16(a uintptr, v uint16)
func store32(a uintptr, v uint32)
func monitor(op, bx, cx, dx, si uint64) uint64
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

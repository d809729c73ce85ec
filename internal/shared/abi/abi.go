// Package abi fixes what the image linker, the kernel and the program agree
// on: where things lie in memory, what the kernel tells the program, and the
// system calls that are the kernel's own. It holds constants and plain
// structs only, so that each of the three can link it.
package abi

// Boot segment: guest-physical and virtual addresses are the same. Unlisted
// pages between the areas are never mapped; they guard the stacks.
const (
	PageSize = 4096

	EntryPage = 0x100000 // 32-bit PVH entry code; supervisor, read-execute
	APEntry   = 0x100800 // in it: the 32-bit entry code of further processors
	DescPage  = 0x101000 // GDT, IDT, TSS with its I/O bitmap; supervisor, read-write
	BootPage  = 0x102000 // BootRecord, written by the entry code
	ClockPage = 0x103000 // Clock, written by the host (kvmclock) or by the kernel
	VDSOPage  = 0x104000 // the vDSO ELF; read-only
	InfoPage  = 0x105000 // Info, what the program reads about its machine

	SharedPage  = 0x106000 // Shared, which monitor and kernel both write
	MonitorPage = 0x107000 // Monitor; supervisor, read-write

	KernelStack    = 0x109000 // kernel stack, ring 3
	KernelStackTop = 0x111000
	FaultStack     = 0x112000 // stack of the fault handler, ring 3
	FaultStackTop  = 0x118000
	CrashStack     = 0x119000 // stack of boot code and of the crash report
	CrashStackTop  = 0x11c000
	TrapPage       = 0x11d000 // Trap, and where the CPU pushes frames, one area per use; supervisor
	TrapTop        = 0x11d400 // RSP0: exceptions from ring 3
	IRQTop         = 0x11d800 // IST1: interrupts
	AbortTop       = 0x11dc00 // IST2: NMI, double fault, machine check
	FlushTop       = 0x11e000 // IST3: interrupts that never leave ring 0
	LocalPage      = 0x11f000 // Local; supervisor, read-write

	Tables    = 0x120000 // page tables made by the linker; Tables itself is the PML4. Not mapped here: see Ring0Base
	TablesEnd = 0x160000

	XFeatures = 0xe7     // the state components kept: x87, SSE, AVX, AVX-512 (SDM volume 1, 13.1); 2,688 bytes
	FaultXS   = 0x1a1000 // where the fault handler keeps them
	UserStack = 0x1b1000 // the program's first stack
	UserTop   = 0x1d0000 // ... ends here; argc lies at UserTop, strings above it
	UserEnd   = 0x1d2000

	KernelBase = 0x200000 // the kernel's ELF
	KernelEnd  = 0x400000 // ... must end below this; the program begins here
)

// StartupPage is the physical page in which a further processor begins, in real mode. It
// lies in memory of the loader, where the kernel gives none.
const StartupPage = 0x8000

// Offsets in StartupPage, which the kernel writes and APEntry's code reads.
const (
	StartupGDTR   = 0x38
	StartupGDT    = 0x40
	StartupTables = 0x60 // physical address of the processor's root table, 32 bits
)

// MaxProcessors is how many processors are used at most. These pages are each
// processor's own, at the same addresses: SharedPage, LocalPage, TrapPage, the stacks
// and FaultXS. So each has a root table of its own, and those tables below it that lead
// to these pages; all others are the same for all.
const MaxProcessors = 8

// Virtual windows beyond the image. User mappings end below DirectBase.
const (
	MmapBase   = 0x600000000000 // where mmap places what names no address
	UserMax    = 0x700000000000 // first address that mmap never gives
	DirectBase = 0x700000000000 // + physical address: free RAM, read-write, never executable
	MMIOBase   = 0x780000000000 // + physical address: device registers, uncached
	MMIOFar    = 0x7c0000000000 // device registers too far up for that, in order of mapping
	MMIOECAM   = 0x7d0000000000 // 2 MiB of PCI's configuration space, while devices are found
	GenPages   = 0x7d0000200000 // pages in which the host counts restores; read-only, cached
)

// What belongs to ring 0 (descriptors, Monitor, Trap, page tables and their
// pool) is mapped in one page directory pointer table that two entries of the
// PML4 lead to. Ring0Base is ring 0's, for reading and writing. TableWindow is
// ring 3's: the kernel writes there while it sets the machine up, and reads only
// once the monitor has closed it, which clears one bit of one entry. Both are
// followed by the physical address, below 2 GiB.
const (
	Ring0Base   = -0x80000000    // a sign-extended 32-bit address, as instructions hold it
	TableWindow = 0x7e7f80000000 // the same page directory pointer table's entry 510
	RootRing0   = 511            // entries of the PML4
	RootWindow  = TableWindow >> 39 & 511
	LAPICSlot   = 0x1000     // Ring0Base + LAPICSlot: the local APIC, for ring 0 alone
	TrapSlot    = 0x2000     // the first processor's TrapPage, for all of them
	IOMMUSlot   = 0x3000     // registers of the IOMMU, for ring 0 alone, where one is used
	LAPICPhys   = 0xfee00000 // its usual physical address
)

// Shared is the layout of SharedPage's beginning; what follows it is the kernel's. Ring 3 sees it there, ring 0 behind
// Ring0Base, so that it need not be allowed to touch pages of ring 3.
type Shared struct {
	InKernel uint32 // bit 0: the kernel runs, bit 1: the fault handler, bit 2: the crash report, bit 3: the monitor failed
	Pending  uint32 // bit i: vector TimerVector+i came
	OwesEOI  uint32 // the interrupt that entered the kernel has not been ended at the local APIC
}

// Trap is the layout of TrapPage's beginning: what the stubs note. Below the
// tops lie the frames that the CPU pushes.
type Trap struct {
	Vector uint64
	CR2    uint64
}

// Local is the layout of LocalPage: what the monitor keeps for each processor. Nothing in
// it changes after the monitor has closed but the flags of MonCooperate, Bounce's stack
// pointer and AX.
type Local struct {
	Fault, Crash, Interrupt, Bounce Return // where the stubs return to ring 3
	AX                              uint64 // saved while a stub works
	Number                          uint64 // of the processor
}

// Monitor is the layout of MonitorPage: what is the same for all processors. Nothing in it
// changes after the monitor has closed but PoolNext, Lock, Stopping, and what the
// processors count; and Shared, which MonSeal clears.
type Monitor struct {
	PoolNext, PoolEnd  uint64                // frames for new page tables, physical
	ZeroStart, ZeroEnd uint64                // the program's zeroed data: addresses that may be mapped
	UserStart, UserEnd uint64                // the program's other addresses that may be mapped
	LowStart, LowEnd   uint64                // frames that may be mapped there: RAM below 4 GiB
	HighStart, HighEnd uint64                // RAM above 4 GiB; HighStart is all ones when there is none
	HasClock           uint64                // 1: the MSRs of kvmclock exist
	CR4, LSTAR         uint64                // what MonEnter has set, for further processors
	Processors         uint64                // how many there are in what follows
	Roots              [MaxProcessors]uint64 // physical addresses of their root tables
	APIC               [MaxProcessors]uint32 // numbers of their local APICs, in the upper 8 bits
	Flushed, StoppedAt [MaxProcessors]uint32 // how often each has forgotten its translations; 1: it stands still
	Lock               uint32                // 1: a processor takes a table from the pool
	Stopping           uint32                // 1 + the number of the processor that has stopped the others; 0: none
	Shared             uint64                // the IOMMU's tables of 2 MiB pages, physical, one for each GiB of addresses; 0: none, or sealed
	Fault              uint64                // ring 0's address of the upper word of the IOMMU's fault record; 0: none
}

// Return is a frame for IRETQ.
type Return struct{ RIP, CS, RFLAGS, RSP, SS uint64 }

// Operations of the monitor, which ring 3 asks for with UD2 at the kernel's
// monitorCall: the operation in RAX, arguments in RBX, RCX, RDX, RSI. The result
// is in RAX: 0 when it was done.
const (
	MonSet       = 0 // map or unmap RDX pages at RBX to the frames from RCX on; RSI is a SetX
	MonHalt      = 1 // sleep until an interrupt, the timer set to RBX ticks unless that is 0
	MonTimer     = 2 // set the timer to RBX ticks
	MonEOI       = 3 // end of interrupt
	MonFlush     = 4 // forget cached translations
	MonCooperate = 5 // no more interrupts in ring 3
	MonClock     = 6 // have the host write kvmclock to ClockPage; BX other than 0: its wall clock only
	MonEnter     = 7 // choose SYSCALL's target: RBX is 1 where it stays in ring 3; set RCX's protections in CR4. Until closed
	MonClose     = 8 // what belongs to ring 0 becomes read-only to ring 3
	MonSeal      = 9 // and the ports that only starting needs are forbidden
	MonReset     = 10
	MonSend      = 11 // interrupt processor RBX: RCX is a SendX
	MonStop      = 12 // the other processors stand still for ever
	MonShare     = 13 // let devices reach the 2 MiB of memory at the physical address RBX. Until sealed
	MonFaults    = 14 // clear the IOMMU's fault record, so that it takes the next one

	SetNothing = 0
	SetRead    = 1
	SetWrite   = 3

	SendWake  = 0 // as its timer would
	SendFlush = 1 // it forgets cached translations, and counts that in Monitor.Flushed

	MonRefused = 1 // an argument breaks the operation's invariant
	MonNoTable = 2 // there is no frame left for a page table
)

// Segment selectors: the Linux layout, which keeps an IRETQ from ring 3 to
// ring 3 native on hypervisors that run the guest's ring 3 under host
// segments (docs/platform.md).
const (
	KernelCS = 0x08
	KernelDS = 0x10
	UserDS   = 0x2b
	UserCS   = 0x33
	TSS      = 0x38
)

// Layout of DescPage.
const (
	GDTOff  = 0x000
	GDTSize = 0x48
	GDTROff = 0x080 // pseudo-descriptor: limit u16, base u64
	IDTROff = 0x090
	IDTOff  = 0x100
	Vectors = 0x40 // entries of the IDT
	TSSOff  = 0x600
	IOMax   = 0xd00                // the TSS's I/O bitmaps cover the ports below this one
	IOBase  = 104                  // offset in the TSS of the bitmap that starting needs
	IOFinal = IOBase + IOMax/8 + 1 // and of the one that MonSeal puts in its place
	TSSSize = IOFinal + IOMax/8 + 1
)

// Ports is a range of ports that ring 3 may use.
type Ports struct {
	First, Last uint16
	Final       bool // also after MonSeal
}

// IOPorts lists them; the TSS forbids all others.
var IOPorts = [...]Ports{
	{0x42, 0x43, false},   // PIT
	{0x61, 0x61, false},   // PIT gate
	{0x60, 0x60, true},    // keyboard controller: keys
	{0x64, 0x64, true},    // and reset
	{0x70, 0x71, true},    // CMOS: the date
	{0x3f8, 0x3ff, true},  // COM1
	{0x600, 0x605, true},  // power off: cloud-hypervisor 0x600, QEMU pc and q35 0x604
	{0xcf8, 0xcff, false}, // PCI configuration
	{0xcf9, 0xcf9, true},  // reset (chip set)
}

// Interrupt vectors.
const (
	TimerVector  = 0x20
	DeviceVector = 0x21 // device i uses DeviceVector+i
	MaxDevices   = 13   // the vectors of one LAPIC priority class, less the timer and these two
	ConfigVector = 0x2e // a PCI device's configuration has changed
	KeyVector    = 0x2f // the keyboard controller or ACPI has something
	LastVector   = 0x2f
	FlushVector  = 0x30 // another processor has changed mappings; of a higher class, and with a stack of its own

	// Bits in the result of SysWait beside the devices'.
	ConfigBit = ConfigVector - DeviceVector
	KeyBit    = KeyVector - DeviceVector
	ButtonBit = KeyBit + 1 // it has KeyVector, too
	WakeBit   = KeyBit + 2 // SysWake
)

// How the loader entered.
const (
	BootPVH   = 1 // 32-bit, Start is a hvm_start_info
	BootLinux = 2 // 64-bit, Start is a struct boot_params
)

// BootRecord is what the entry code leaves at BootPage, and what the linker
// put there before it.
type BootRecord struct {
	Start     uint64 // physical address of the loader's structure
	EntryTSC  uint64 // TSC at the first instruction
	Kind      uint64 // BootPVH or BootLinux
	ImageEnd  uint64 // first physical byte after the image
	FreeStart uint64 // first byte of general RAM; [ImageEnd, FreeStart) holds page tables and is in the direct map
	Program   Segments
	Entry     uint64 // the program's entry point
	Policy    uint64 // the ruleset: address and length
	PolicyLen uint64
	Cmdline   uint64 // boot arguments that the linker put in: address and length
	CmdLen    uint64
}

// Segments describes the loaded parts of the program.
type Segments struct {
	N   uint64
	Seg [12]Segment
	End uint64 // first address after them
}

// A Segment is one part: its addresses, and its ELF p_flags (X=1, W=2, R=4)
// with SegmentZero.
type Segment struct{ Start, End, Flags uint64 }

// SegmentZero marks a part that is not loaded: zeroed memory, given when it is
// touched.
const SegmentZero = 1 << 8

// Clock is the layout of ClockPage: the kvmclock structures, which the kernel
// fills in itself where there is no kvmclock, so that everybody reads time in
// one way. Time since the clock's zero, in nanoseconds, is
//
//	SystemTime + ((tsc - TSC) << Shift) * Mul >> 32
//
// read again while Version is odd or has changed.
type Clock struct {
	Version    uint32
	_          uint32
	TSC        uint64
	SystemTime uint64
	Mul        uint32
	Shift      int8
	Flags      uint8
	_          [2]uint8
	_          [32]uint8

	WallVersion uint32 // offset 64: kvmclock's wall clock, the time at the clock's zero
	WallSec     uint32
	WallNsec    uint32
	_           uint32
	Wall        uint64 // offset 80: the same in nanoseconds since 1970, as CLOCK_REALTIME adds it; 0: unknown
}

// ClockStopped in Clock's flags: the hypervisor has stopped the machine (Linux,
// arch/x86/include/asm/pvclock-abi.h).
const ClockStopped = 1 << 1

// ClockStable in Clock's flags: all processors' clocks are in step (the same).
const ClockStable = 1 << 0

// Sources of time, as Info names them.
const (
	ClockNone     = 0 // monotonic time only: RTC absent or wrong
	ClockKVM      = 1
	ClockRTC      = 2
	InfoMagic     = 0x3164726177757274 // "truward1" read as a little-endian number
	MaxCmdline    = 2048
	MaxPolicySize = 64 << 20
)

// Info is what the program finds at InfoPage when it starts.
type Info struct {
	Magic       uint64
	EntryNS     int64  // clock (as in Clock) at the first instruction of the image
	MemoryBytes uint64 // RAM of the machine
	FreeBytes   uint64 // of it, what the kernel could give when the program started
	Policy      uint64
	PolicyLen   uint64
	CmdlineLen  uint32
	ClockSource uint32
	NumDevices  uint32
	Native      uint32 // 1 when SYSCALL stays in ring 3 (software KVM)
	Devices     [MaxDevices]Device
	Found       Found
	Generations [MaxGenerations]uint64 // addresses of words that change when the machine was restored; 0: none
	Watchdog    uint64                 // address of the 6300ESB's registers, uncached; 0: there is none
	Processors  uint32                 // how many are used
	Listed      uint32                 // how many the machine's tables list; 0: there are no such tables
	Bounded     uint32                 // of the devices, those that an IOMMU keeps to the memory that SysDMA gives
	_           uint32
	Cmdline     [MaxCmdline]byte
}

// Registers of the 6300ESB's watchdog timer in its window (data sheet 300641, 15.2): the
// preloads of the two stages, in ticks, of 32 bits at 0 and 4, and the reload register, of 16
// bits. Before each write there, but for these two, the two values are written to the reload
// register.
const (
	DogReload  = 0xc
	DogUnlock1 = 0x80
	DogUnlock2 = 0x86
	DogFeed    = 1 << 8 // in the reload register: the time begins anew
)

// MaxGenerations is how many words say that the machine was restored: two of VMGenID, one of
// VMClock.
const MaxGenerations = 3

// A Device is one virtio device that answered. Addresses are virtual, uncached.
type Device struct {
	Registers uint64 // MMIO: the register window; PCI: the common configuration
	Phys      uint64
	ID        uint32 // virtio device type: 1 net, 4 rng, 19 vsock
	Bit       uint32 // its bit in the result of SysWait

	// PCI only: see package kernel/pci.
	Notify     uint64 // 0: the device is on MMIO
	Config     uint64 // 0: the device has no configuration of its own
	NotifyLen  uint32 // bytes
	ConfigLen  uint32 // bytes
	Multiplier uint32 // of queue_notify_off, in bytes
	Function   uint32 // bus<<8 | device<<3 | function

	// Vectors is how many interrupts the device has for its queues, at least 1. On PCI a
	// queue whose MSI-X entry is 1+v, v below Vectors, interrupts processor v, and entry 0 is
	// the configuration's. On MMIO, and with one processor, there is one.
	Vectors uint32
}

// Found says how devices were looked for and what was seen that is none of
// Info.Devices, so that a firewall without a network can say what to change.
type Found struct {
	Sources   uint32 // bits: Source*
	Functions uint32 // PCI functions that answered
	Legacy    uint32 // virtio devices that speak only the version before 1
	Unusable  uint32 // virtio devices that cannot be used for another reason, which the console names
}

// Sources of devices.
const (
	SourceCmdline = 1 << iota // virtio_mmio.device= on the command line
	SourceACPI                // the DSDT
	SourceSlots               // the windows of QEMU's microvm
	SourceECAM                // PCI, by MCFG
	SourcePorts               // PCI, by ports 0xcf8 and 0xcfc
)

// The kernel's own system calls. All others are Linux's, by their Linux
// numbers.
const (
	// SysWait blocks until something comes for waiter arg 1 or CLOCK_MONOTONIC reaches
	// arg 0 (nanoseconds). It returns the bits of what came since the last call, of those
	// in arg 2 (0: of all); 0 on time-out. The others stay for a later call.
	//
	// A waiter is what one packet loop waits as; one thread at a time may: others get
	// -EAGAIN. An interrupt of a device by its vector v is for those waiters whose number
	// modulo Device.Vectors is v: for one where there are enough, for all where there is one.
	// Everything else is for waiter 0. What comes for a waiter other than 0 before its first
	// call is lost, but for SysWake. The thread is waiter's modulo the number of processors
	// from then on: it runs there when that processor is free. -EINVAL: arg 1 is
	// MaxWaiters or more.
	SysWait = 0x5400
	// SysWake sets WakeBit for the waiters whose bits are set in arg 0, and returns 0, or
	// -EINVAL where there are no such waiters.
	SysWake = 0x5409
	// SysDMA returns the address (in the direct map) of arg 0 bytes of
	// physically contiguous memory, aligned to a page, or to 2 MiB from that
	// size on; or -ENOMEM. It is never given back. It is zeroed unless arg 1
	// has DMAUncleared. Devices reach it unless arg 1 has DMAPrivate, which is so only
	// where Info.Bounded is not 0; there memory that they reach is given until SysSeal,
	// and -EPERM after it.
	SysDMA       = 0x5401
	DMAUncleared = 1
	DMAPrivate   = 2
	// SysPower ends the machine: arg 0 is PowerOff, PowerReset, or PowerReport: a reset after a
	// report of where all processors are.
	SysPower = 0x5402
	// SysLoad returns the device register at address arg 0, of arg 1 bytes (1,
	// 2 or 4), SysStore writes arg 1 to it, arg 2 bytes. Where Info.Native is set, the program must not
	// access devices itself: see load32 in the kernel.
	SysLoad  = 0x5404
	SysStore = 0x5405
	// SysCooperate turns interrupts of ring 3 off for good: see cooperate.go
	// in the kernel.
	SysCooperate = 0x5406
	// SysStats copies up to arg 1 bytes of Stats to arg 0.
	SysStats = 0x5403
	// SysSeal ends starting up: what only that needs is forbidden for good. See
	// MonSeal.
	SysSeal = 0x5407
	// SysClock reads the clock that keeps the date (arg 0: ClockRead) and returns
	// the time of day at which CLOCK_MONOTONIC was zero, in nanoseconds since 1970,
	// where Info.ClockSource is ClockKVM, and the time of day in whole seconds since
	// 1970 where it is ClockRTC; or -EINVAL when the clock cannot be read. Or it
	// sets Clock.Wall to arg 1 (ClockSet).
	SysClock = 0x5408
)

// MaxWaiters is how many packet loops can wait, each for its own.
const MaxWaiters = MaxProcessors

// Arguments of SysClock.
const (
	ClockRead = 0
	ClockSet  = 1
)

// RandomFresh is a flag of getrandom: the bytes do not depend on the machine's memory alone,
// so that after the restore of a snapshot they differ from those of another restore. The
// result is -EAGAIN when the source does not answer.
const RandomFresh = 1 << 30

// Arguments of SysPower.
const (
	PowerOff    = 0
	PowerReset  = 1
	PowerReport = 2
)

// Stats counts what the kernel did since boot.
type Stats struct {
	FreeFrames, TotalFrames uint64 // 4 KiB frames
	Faults                  uint64 // page faults resolved
	Interrupts              uint64 // interrupts taken
	Halts                   uint64 // times the CPU slept
	Switches                uint64 // thread switches
	Syscalls                uint64
	Signals                 uint64
	Threads                 uint64 // threads alive
	IdleNS                  uint64 // time slept
	TableFrames             uint64 // page-table frames in use
	MaxLateNS               uint64 // worst delay of a timed wait past its deadline
	Starved                 uint64 // times that the source of random numbers did not answer
	Shootdowns              uint64 // interrupts by which processors were made to forget mappings
	Moves                   uint64 // times that a thread went on on another processor than its own
	DMAFaults               uint64 // times that the IOMMU was seen to have refused accesses of devices
}

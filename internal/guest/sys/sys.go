// Package sys is the program's side of the kernel: what the machine is
// made of, memory that devices can reach, waiting for interrupts, the clock,
// and the end. It works in an image only; see Booted.
package sys

import (
	"errors"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/kernel/clock"
	"github.com/thurward/thurward/internal/shared/abi"
)

// at returns the memory at a fixed address.
func at[T any](a uintptr) *T { return *(**T)(unsafe.Pointer(&a)) }

func info() *abi.Info { return at[abi.Info](abi.InfoPage) }

// Policy returns the ruleset, which is mapped read-only.
func Policy() []byte {
	in := info()
	return unsafe.Slice(at[byte](uintptr(in.Policy)), in.PolicyLen)
}

// Cmdline returns the boot arguments, those of the image first.
func Cmdline() string {
	in := info()
	return unsafe.String(&in.Cmdline[0], min(int(in.CmdlineLen), len(in.Cmdline)))
}

// MemoryBytes returns the machine's RAM, FreeBytes what of it was free when
// the program started.
func MemoryBytes() uint64 { return info().MemoryBytes }

// FreeBytes: see MemoryBytes.
func FreeBytes() uint64 { return info().FreeBytes }

// Native reports whether system calls stay in ring 3, as they do on software
// KVM.
func Native() bool { return info().Native != 0 }

// Processors returns how many processors run the program, and how many the machine's
// tables list (0 where it has none). The kernel says on the console why some are not used.
func Processors() (used, listed int) {
	in := info()
	return int(in.Processors), int(in.Listed)
}

// A Device is a virtio device and its register windows, which are uncached.
type Device struct {
	ID        uint32         // virtio device type: 1 net, 4 rng, 19 vsock
	Registers unsafe.Pointer // MMIO: at least 0x200 bytes; PCI: the common configuration
	Bit       uint           // its bit in the result of Wait
	Vectors   uint32         // see abi.Device

	// PCI only.
	Notify, Config       unsafe.Pointer // Notify is nil on MMIO, Config where there is none
	NotifyLen, ConfigLen uint32         // bytes
	Multiplier           uint32         // of queue_notify_off, in bytes
}

// Bits in the result of Wait beside the devices'.
const (
	ConfigChanged = 1 << abi.ConfigBit // the configuration of some PCI device has changed
	CtrlAltDel    = 1 << abi.KeyBit    // was pressed: somebody wants the machine to end
	PowerButton   = 1 << abi.ButtonBit // the same
	Woken         = 1 << abi.WakeBit   // by Wake
)

// Bounded returns how many of the virtio devices an IOMMU keeps to the memory of DMA, and how
// many devices there are. Where it is none DMA and Memory give the same.
func Bounded() (bounded, devices int) {
	in := info()
	return int(in.Bounded), int(in.NumDevices)
}

// Found says how the kernel looked for devices, and what it saw beside them.
func Found() abi.Found { return info().Found }

// Devices returns the virtio devices of the given type, by address.
func Devices(id uint32) []Device {
	in := info()
	var ds []Device
	for i := uint32(0); i < min(in.NumDevices, abi.MaxDevices); i++ {
		if d := &in.Devices[i]; d.ID == id {
			ds = append(ds, Device{ID: d.ID, Registers: window(d.Registers), Bit: uint(d.Bit), Notify: window(d.Notify), Config: window(d.Config),
				NotifyLen: d.NotifyLen, ConfigLen: d.ConfigLen, Multiplier: d.Multiplier, Vectors: d.Vectors})
		}
	}
	return ds
}

func window(a uint64) unsafe.Pointer { return unsafe.Pointer(at[byte](uintptr(a))) }

// Registers are a device's, accessed by the kernel. Where Native is true they
// must be used in place of plain loads and stores: software KVM may lose a
// program's place in a device access, which only the kernel can mend.
type Registers struct{ base uintptr }

// NewRegisters returns the window at p.
func NewRegisters(p unsafe.Pointer) Registers { return Registers{uintptr(p)} }

func (r Registers) load(off uint32, width uintptr) uint32 {
	v, _, _ := syscall.RawSyscall(abi.SysLoad, r.base+uintptr(off), width, 0)
	return uint32(v)
}

func (r Registers) store(off, v uint32, width uintptr) {
	syscall.RawSyscall(abi.SysStore, r.base+uintptr(off), uintptr(v), width)
}

// Read8 reads a byte.
func (r Registers) Read8(off uint32) uint8 { return uint8(r.load(off, 1)) }

// Read16 reads 16 bits at an even offset.
func (r Registers) Read16(off uint32) uint16 { return uint16(r.load(off, 2)) }

// Read32 reads 32 bits at a multiple of 4.
func (r Registers) Read32(off uint32) uint32 { return r.load(off, 4) }

// Write8 writes a byte.
func (r Registers) Write8(off uint32, v uint8) { r.store(off, uint32(v), 1) }

// Write16 writes 16 bits at an even offset.
func (r Registers) Write16(off uint32, v uint16) { r.store(off, uint32(v), 2) }

// Write32 writes 32 bits at a multiple of 4.
func (r Registers) Write32(off, v uint32) { r.store(off, v, 4) }

// DMA returns n bytes of physically contiguous memory, page-aligned, and the
// address at which devices see them. There is no way to give it back. Where
// zeroed is false it may hold anything, and is not touched: on a hypervisor the
// first touch of a page costs a fault.
func DMA(n int, zeroed bool) (mem []byte, phys uint64, err error) { return memory(n, zeroed, 0) }

// Memory is DMA for what no device needs. Where an IOMMU keeps devices to the memory that
// they are given, they do not reach it.
func Memory(n int, zeroed bool) ([]byte, error) {
	mem, _, err := memory(n, zeroed, abi.DMAPrivate)
	return mem, err
}

func memory(n int, zeroed bool, flags uintptr) (mem []byte, phys uint64, err error) {
	if !zeroed {
		flags |= abi.DMAUncleared
	}
	va, _, e := syscall.Syscall(abi.SysDMA, uintptr(n), flags, 0)
	if e != 0 {
		return nil, 0, e
	}
	return unsafe.Slice(at[byte](va), n), uint64(va) - abi.DirectBase, nil
}

// Wait blocks until a device interrupts or Nanotime reaches deadline, and
// returns the bits of the devices that interrupted since the last call.
func Wait(deadline int64) uint64 {
	r, _, e := syscall.Syscall(abi.SysWait, uintptr(deadline), 0, 0)
	if e != 0 {
		return 0
	}
	return uint64(r)
}

// WaitAs is Wait for one of several packet loops, each of which waits as a waiter of its own,
// 0 to abi.MaxWaiters-1, on a thread of its own: see abi.SysWait. It returns bits of those
// given only, 0 being all, and keeps the others.
func WaitAs(waiter int, bits uint64, deadline int64) uint64 {
	r, _, e := syscall.Syscall(abi.SysWait, uintptr(deadline), uintptr(waiter), uintptr(bits))
	if e != 0 {
		return 0
	}
	return uint64(r)
}

// Wake ends the waits of the waiters whose bits are set, with Woken: at once, or their next
// one if they do not wait.
func Wake(waiters uint64) { syscall.RawSyscall(abi.SysWake, uintptr(waiters), 0, 0) }

// Random fills b from the machine's source of random numbers. (crypto/rand
// would do the same and reserve 32 MB of memory for its own generator.)
func Random(b []byte) error {
	for len(b) > 0 {
		n, _, e := syscall.Syscall(318, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0)
		if e != 0 {
			return e
		}
		b = b[n:]
	}
	return nil
}

// Fresh returns random bytes that do not depend on the machine's memory alone: after the
// restore of a snapshot they differ from those of another restore.
func Fresh() (b [32]byte, err error) {
	n, _, e := syscall.Syscall(318, uintptr(unsafe.Pointer(&b)), unsafe.Sizeof(b), abi.RandomFresh)
	if e != 0 {
		return b, e
	}
	if n != unsafe.Sizeof(b) {
		return b, errors.New("too few random bytes")
	}
	return b, nil
}

// WatchdogRegisters returns the registers of the machine's watchdog device (Intel 6300ESB),
// nil where there is none. They are accessed as devices' are.
func WatchdogRegisters() unsafe.Pointer {
	if a := info().Watchdog; a != 0 {
		return window(a)
	}
	return nil
}

// Cooperate asks the kernel to interrupt the program no more. Threads then
// share the CPU at system calls only: whoever computes for long calls Yield.
func Cooperate() { syscall.RawSyscall(abi.SysCooperate, 0, 0, 0) }

// Seal ends starting up: from now on nothing can do what only that needs, and
// policy, text and page tables are as they are until the machine ends. It may be
// called again, and cannot be undone.
func Seal() error {
	if r, _, e := syscall.RawSyscall(abi.SysSeal, 0, 0, 0); e != 0 || r != 0 {
		return errors.New("the monitor refused to seal the machine")
	}
	return nil
}

// Generations watches the words in which the host writes that the machine's state was
// restored. One goroutine may use it. The zero Generations sees nothing.
type Generations struct {
	word [abi.MaxGenerations]*uint64
	seen [abi.MaxGenerations]uint64
	n    int
}

// WatchGenerations returns a watch that reports restores from now on; on a machine that has
// no such words it sees nothing.
func WatchGenerations() (g Generations) {
	for _, a := range info().Generations {
		if a != 0 {
			g.word[g.n] = at[uint64](uintptr(a))
			g.n++
		}
	}
	g.Changed()
	return g
}

// Len returns how many words are watched.
func (g *Generations) Len() int { return g.n }

// Changed reports whether the machine was restored since the last call. It costs up to three
// loads from memory that nobody writes meanwhile.
func (g *Generations) Changed() bool {
	changed := false
	for i := range g.word[:g.n] {
		v := atomic.LoadUint64(g.word[i])
		changed = changed || v != g.seen[i]
		g.seen[i] = v
	}
	return changed
}

// Yield lets other threads run.
func Yield() { syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

// PowerOff ends the machine in good order.
func PowerOff() { syscall.Syscall(abi.SysPower, abi.PowerOff, 0, 0) }

// Reset ends the machine so that whoever runs it starts it again.
func Reset() { syscall.Syscall(abi.SysPower, abi.PowerReset, 0, 0) }

// ResetReporting is Reset after a report of where all processors are.
func ResetReporting() { syscall.Syscall(abi.SysPower, abi.PowerReport, 0, 0) }

// Stats returns the kernel's counters.
func Stats() (s abi.Stats) {
	syscall.Syscall(abi.SysStats, uintptr(unsafe.Pointer(&s)), unsafe.Sizeof(s), 0)
	return s
}

func rdtsc() uint64

// Nanotime returns the clock in nanoseconds; it never goes back. It is
// CLOCK_MONOTONIC, read without leaving the program.
func Nanotime() int64 {
	c := at[abi.Clock](abi.ClockPage)
	for {
		v := atomic.LoadUint32(&c.Version)
		t := c.SystemTime + clock.Scale(rdtsc()-c.TSC, c.Mul, c.Shift)
		if v&1 == 0 && v == atomic.LoadUint32(&c.Version) {
			return int64(t)
		}
	}
}

// EntryTime returns what Nanotime was at the image's first instruction.
func EntryTime() int64 { return info().EntryNS }

// WallBase returns the time of day at which Nanotime was zero, in nanoseconds
// since 1970, and where that is known from: "kvmclock", "rtc", or "none" when
// the base is zero because there is no clock.
func WallBase() (base int64, source string) {
	w := int64(atomic.LoadUint64(&at[abi.Clock](abi.ClockPage).Wall))
	switch info().ClockSource {
	case abi.ClockKVM:
		return w, "kvmclock"
	case abi.ClockRTC:
		return w, "rtc"
	}
	return 0, "none"
}

// Stopped reports whether the hypervisor says that it has stopped the machine meanwhile
// (kvmclock's PVCLOCK_GUEST_STOPPED), until ReadClock is called.
func Stopped() bool { return at[abi.Clock](abi.ClockPage).Flags&abi.ClockStopped != 0 }

// SetWallBase corrects the base that WallBase returns, in nanoseconds since 1970.
// CLOCK_REALTIME follows it.
func SetWallBase(base int64) {
	syscall.RawSyscall(abi.SysClock, abi.ClockSet, uintptr(base), 0)
}

// ReadClock reads the machine's clock that keeps the date. From kvmclock that is the base
// as WallBase returns it; from a real-time clock the time of day, in whole seconds since
// 1970. It returns false when there is no such clock, or it does not answer.
func ReadClock() (v int64, ok bool) {
	r, _, e := syscall.RawSyscall(abi.SysClock, abi.ClockRead, 0, 0)
	return int64(r), e == 0
}

package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/clock"
	"github.com/thurward/thurward/internal/shared/abi"
)

// Local APIC registers (Intel SDM vol. 3, 11.4), at their usual address. The
// x2APIC's MSRs would need ring 0 for every access.
const (
	lapicID      = 0x20
	lapicTPR     = 0x80
	lapicEOI     = 0xb0
	lapicSVR     = 0xf0
	lapicICR     = 0x300
	lapicICRHigh = 0x310
	lapicTimer   = 0x320
	lapicLINT0   = 0x350
	lapicLINT1   = 0x360
	lapicInitial = 0x380
	lapicCurrent = 0x390
	lapicDivide  = 0x3e0

	lvtMasked = 1 << 16
	lvtNMI    = 4 << 8

	icrFixed = 1 << 14 // and the vector; the bit asserts the level, as only INIT does not
	icrNMI   = icrFixed | 4<<8
	icrINIT  = icrFixed | 5<<8
	icrStart = icrFixed | 6<<8 // and the page's number
)

var (
	lapic       uintptr // where the kernel sees it while it starts
	lapicKHz    uint64  // rate of the APIC timer
	clockSource uint32
)

// page returns the clock page, in kvmclock's format whoever writes it.
func page() *abi.Clock { return at[abi.Clock](abi.ClockPage) }

// clockAt returns the clock's time at a TSC value, in nanoseconds.
func clockAt(tsc uint64) uint64 {
	c := page()
	for {
		v := load32(uintptr(abi.ClockPage))
		t := c.SystemTime
		if d := int64(tsc - c.TSC); d >= 0 {
			t += clock.Scale(uint64(d), c.Mul, c.Shift)
		} else {
			t -= clock.Scale(uint64(-d), c.Mul, c.Shift)
		}
		if v&1 == 0 && v == load32(uintptr(abi.ClockPage)) {
			return t
		}
	}
}

// now returns the clock's time, which is CLOCK_MONOTONIC.
func now() uint64 { return clockAt(rdtsc()) }

// later returns the time n nanoseconds from now.
func later(n uint64) uint64 {
	t := now()
	if n > 1<<62 {
		return never - 1
	}
	return t + n
}

// timespec reads a struct timespec as nanoseconds.
func timespec(p uint64) (ns uint64, ok bool) {
	if !readable(p, 16) {
		return 0, false
	}
	s, n := *at[uint64](p), *at[uint64](p + 8)
	if s > 1<<32 {
		s = 1 << 32
	}
	return s*1_000_000_000 + n, true
}

func sysClockGettime(id, p uint64) uint64 {
	if !writable(p, 16) {
		return errno(eFAULT)
	}
	t := now()
	switch id {
	case 0, 5: // CLOCK_REALTIME, _COARSE
		t += page().Wall
	case 1, 4, 6, 7: // CLOCK_MONOTONIC, _RAW, _COARSE, CLOCK_BOOTTIME
	default:
		return errno(eINVAL)
	}
	*at[uint64](p), *at[uint64](p + 8) = t/1_000_000_000, t%1_000_000_000
	return 0
}

// initIRQ brings the local APIC up. Once the machine runs it is the monitor's.
func initIRQ() {
	lapic = window(abi.LAPICPhys)
	startAPIC(lvtNMI)
}

// startAPIC brings the present processor's local APIC up; lint1 is what it does with the
// host's NMIs.
func startAPIC(lint1 uint32) {
	store32(lapic+lapicTPR, 0)
	store32(lapic+lapicLINT0, lvtMasked) // nothing from the old PIC
	store32(lapic+lapicDivide, 0xb)      // divide by 1
	store32(lapic+lapicTimer, lvtMasked)
	store32(lapic+lapicSVR, 0x100|abi.Vectors-1)
	// Where hosts send NMIs. It is written last: a disabled APIC masks them all.
	store32(lapic+lapicLINT1, lint1)
}

// ticks returns the timer's count for a time, or for somewhat before when that
// is far off.
func ticks(t uint64) uint64 {
	n := uint64(1000)
	if u := now(); t > u+n {
		n = min(t-u, 1<<32)
	}
	return min(n*lapicKHz/1_000_000+1, 1<<32-1)
}

// kvmFeatures is the CPUID leaf of kvmclock (Linux,
// Documentation/virt/kvm/x86/cpuid.rst).
const kvmFeatures = 0x40000001

// initClock finds the best source of time and the APIC timer's rate.
func initClock() {
	c := page()
	if kvmClock() {
		clockSource = abi.ClockKVM
		mon().HasClock = 1
		monitor(monClock, 0, 0, 0, 0)
		c.Wall = kvmWall()
	} else {
		calibrateTSC()
	}
	if c.Mul == 0 {
		refuse("no usable clock: the time-stamp counter does not advance")
	}
	calibrateAPIC()
}

// kvmWall returns what the host last wrote of the wall clock.
func kvmWall() uint64 {
	c := page()
	return uint64(load32(uintptr(addr(&c.WallSec))))*1_000_000_000 + uint64(load32(uintptr(addr(&c.WallNsec))))
}

// sysClock: see abi.SysClock. The host computes kvmclock's wall clock anew each
// time that it is asked, and from its own time of day. Its monotonic time is not
// asked for again: that may step.
func sysClock(op, v uint64) uint64 {
	switch {
	case op == abi.ClockSet:
		page().Wall = v
		return 0
	case op != abi.ClockRead:
	case clockSource == abi.ClockKVM:
		page().Flags &^= abi.ClockStopped
		if monitor(monClock, 1, 0, 0, 0) == 0 {
			return kvmWall()
		}
	case clockSource == abi.ClockRTC:
		if s, ok := readCMOS(); ok {
			return uint64(s)
		}
	}
	return errno(eINVAL)
}

func kvmClock() bool {
	a, b, cx, d := cpuid(0x40000000, 0)
	if b != 0x4b4d564b || cx != 0x564b4d56 || d != 0x4d || a != 0 && a < kvmFeatures {
		return false
	}
	a, _, _, _ = cpuid(kvmFeatures, 0)
	return a&(1<<3) != 0
}

// The PIT, channel 2 (Intel 8254): a clock of known rate on every platform
// that has no kvmclock.
const (
	pitHz      = 1193182
	pitData2   = 0x42
	pitControl = 0x43
	pitGate    = 0x61
)

func pitCount() uint64 {
	outb(pitControl, 0x80) // latch channel 2
	lo := inb(pitData2)
	return uint64(inb(pitData2))<<8 | uint64(lo)
}

// pitReading reads the PIT and the TSC together. The host may take the CPU away
// between the two; of a few readings the one that took the shortest is right.
func pitReading() (count, tsc uint64) {
	best := never
	for range 4 {
		t0 := rdtsc()
		n := pitCount()
		if d := rdtsc() - t0; d < best {
			best, count, tsc = d, n, t0+d/2
		}
	}
	return count, tsc
}

// calibrateTSC measures the TSC against the PIT five times for 0.4 ms and takes
// the median, since a host that is busy elsewhere for as long as the PIT's 16
// bits last, 55 ms, makes a measurement worthless. It reads the wall clock from
// the CMOS.
func calibrateTSC() {
	const span = pitHz / 2500
	outb(pitGate, inb(pitGate)&^2|1) // gate on, speaker off
	outb(pitControl, 0xb4)           // channel 2, low then high byte, rate generator
	outb(pitData2, 0xff)
	outb(pitData2, 0xff)
	var hz [clock.Samples]uint64
	for k := range hz {
		p0, t0 := pitReading()
		for range 200_000 {
			p1, t1 := pitReading()
			if n := (p0 - p1) & 0xffff; n >= span {
				hz[k] = (t1 - t0) * pitHz / n
				break
			}
		}
		if hz[k] == 0 {
			break // no PIT, or no TSC
		}
	}
	setScale(clock.Median(hz))
	c := page()
	c.TSC = record().EntryTSC
	clockSource = abi.ClockNone
	if s, ok := readCMOS(); ok {
		clockSource = abi.ClockRTC
		c.Wall = uint64(s)*1_000_000_000 - now()
	}
}

func setScale(hz uint64) {
	if hz == 0 {
		return // Mul stays 0, which initClock refuses
	}
	c := page()
	c.Mul, c.Shift = clock.ScaleFor(hz)
}

func cmos(r uint8) uint8 {
	outb(0x70, r)
	return inb(0x71)
}

// readCMOS reads the clock until two readings agree: it may change meanwhile,
// so that one that is no date is read again, and two such are no clock.
func readCMOS() (int64, bool) {
	prev, prevOK := int64(-1), false
	for i := 0; i < 10; i++ {
		s, ok := clock.CMOS{Sec: cmos(0), Min: cmos(2), Hour: cmos(4), Day: cmos(7),
			Month: cmos(8), Year: cmos(9), Century: cmos(0x32), StatusB: cmos(0xb)}.Unix()
		if !ok && !prevOK && i > 0 {
			return 0, false
		}
		if ok && prevOK && s == prev {
			return s, true
		}
		prev, prevOK = s, ok
	}
	return prev, prevOK
}

// apicReading reads the APIC timer and the clock together, as pitReading does.
func apicReading() (count, ns uint64) {
	best := never
	for range 3 {
		t0 := now()
		n := load32(lapic + lapicCurrent)
		if d := now() - t0; d < best {
			best, count, ns = d, uint64(n), t0+d/2
		}
	}
	return count, ns
}

// calibrateAPIC measures the APIC timer against the clock, as calibrateTSC does.
// Deadlines are checked against the clock when it fires, so that a small error
// only costs another interrupt.
func calibrateAPIC() {
	const span = 40_000
	store32(lapic+lapicInitial, 0xffffffff)
	var khz [clock.Samples]uint64
	for k := range khz {
		c0, t0 := apicReading()
		for now()-t0 < span {
		}
		c1, t1 := apicReading()
		khz[k] = (c0 - c1) * 1_000_000 / (t1 - t0)
	}
	store32(lapic+lapicInitial, 0)
	lapicKHz = clock.Median(khz)
	if lapicKHz == 0 {
		refuse("the local APIC's timer does not run")
	}
	store32(lapic+lapicTimer, abi.TimerVector)
}

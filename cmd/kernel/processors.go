package main

import (
	"sync/atomic"

	"github.com/thurward/thurward/internal/guest/kernel/mp"
	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// Further processors are started while the machine is set up, before the page tables are
// closed, one after the other (Intel SDM vol. 3, 9.4): INIT, then SIPI with the page where
// the processor begins in real mode. It gets page tables and pages of its own first: see
// abi.MaxProcessors. It waits in ring 3 until the program starts.

// What the machine's tables list.
var (
	listed   mp.List
	madtRead bool
)

// States of a further processor.
const (
	cpuAbsent = iota
	cpuAsked  // it was told to start
	cpuThere  // it did
	cpuLeft   // it did not within startWithin
)

const (
	startWithin = 1_000_000_000 // nanoseconds that a processor has to start
	startAgain  = 10_000_000    // after which it is told a second time, as the manual has it
	tscWithin   = 1_000_000     // how long time-stamp counters are compared
	tscRounds   = 16            // at most
)

// minFree is how many frames must be free for further processors: each takes some 30.
const minFree = 2048

// tablesEach is how many page tables and pages of ring 0 a further processor takes, and
// tablesAll how many the program's zeroed data does: see prepareStart.
const (
	tablesEach = 9
	tablesAll  = 32
)

// startCode is what a further processor runs in real mode, at the beginning of
// abi.StartupPage: it loads the descriptor table there and goes to abi.APEntry in 32-bit mode.
const startCode = "\xfa\xfc" + // cli; cld
	"\x8c\xc8\x8e\xd8" + // mov ax, cs; mov ds, ax
	"\x66\x0f\x01\x16\x38\x00" + // lgdt [abi.StartupGDTR]
	"\x0f\x20\xc0\x66\x83\xc8\x01\x0f\x22\xc0" + // mov eax, cr0; or eax, 1; mov cr0, eax
	"\x66\xea\x00\x08\x10\x00\x08\x00" // jmp 8:abi.APEntry

// released lets the processors that were started go on.
var released uint32

// readProcessors notes which processors there are, while the loader's memory is mapped.
// ACPI's tables were read by then.
func readProcessors() {
	if !madtRead {
		mp.ReadTable(bytesAt(abi.DirectBase, lowMax), &listed)
	}
}

// startProcessors starts the others, and says which are not used.
func startProcessors() {
	in := info()
	in.Processors, in.Listed = 1, uint32(listed.Listed)
	if listed.Listed <= 1 {
		return
	}
	own := load32(lapic+lapicID) >> 24
	cpus[0].trapPage, mon().APIC[0] = abi.TrapSlot, own<<24
	why := whyOne()
	if why == "" || hasPrefix("smp=try") {
		prepareStart()
		for i := range listed.N {
			if id := uint32(listed.APIC[i]); id != own && in.Processors < abi.MaxProcessors {
				startProcessor(in.Processors, id)
			}
		}
		if why == "" {
			why = "the others did not start, or there is no room for them"
		} else {
			stopStarted()
		}
	}
	if in.Processors < in.Listed {
		puts("thurward: kernel: ")
		putu(uint64(in.Processors))
		puts(" of ")
		putu(uint64(in.Listed))
		puts(" processors used: ")
		puts(why)
		putc('\n')
	}
}

// stopStarted resets the processors that were started only to find out whether they start.
func stopStarted() {
	n := info().Processors - 1
	for i := uint32(1); i <= n; i++ {
		command(mon().APIC[i]>>24, icrINIT)
	}
	mon().Processors, info().Processors = 1, 1
	puts("thurward: kernel: smp=try: others that start: ")
	putu(uint64(n))
	putc('\n')
}

// whyOne says why only one processor can be used; "" where more can.
func whyOne() string {
	switch {
	case hasPrefix("smp=off"):
		return "smp=off"
	case syscallNative != 0:
		return "the hypervisor emulates ring 0, where an interrupt can make a thread go on in another's place"
	case listed.Moved:
		return "the local APICs are not at their usual address"
	case clockSource == abi.ClockKVM && page().Flags&abi.ClockStable == 0:
		return "the hypervisor says that their clocks are not in step"
	}
	if frames.Free() < minFree {
		return "there is too little memory for more"
	}
	for i := 0; i < loaded.nram; i++ {
		if loaded.ram[i].start <= abi.StartupPage && loaded.ram[i].end >= abi.StartupPage+abi.PageSize {
			return ""
		}
	}
	return "there is no memory in which they could start"
}

// prepareStart writes the start-up page, and makes those page tables that all processors
// must share before each gets its own root.
func prepareStart() {
	p := uint64(window(abi.StartupPage))
	for i := range uint64(len(startCode)) { // Go 1.26 cannot compile a copy of constant size to an address
		*at[byte](p + i) = startCode[i]
	}
	*at[uint16](p + abi.StartupGDTR) = 3*8 - 1
	*at[uint32](p + abi.StartupGDTR + 2) = abi.StartupPage + abi.StartupGDT
	*at[uint64](p + abi.StartupGDT + 8) = 0x00cf9b000000ffff  // ring 0, 32-bit code
	*at[uint64](p + abi.StartupGDT + 16) = 0x00cf93000000ffff // and data
	s := &record().Program
	for i := uint64(0); i < s.N && i < uint64(len(s.Seg)); i++ {
		if g := &s.Seg[i]; g.Flags&abi.SegmentZero != 0 {
			for va := g.Start; va < g.End; va = va&^(large-1) + large {
				entry(va)
			}
		}
	}
}

// copyTable returns a copy of a page table.
func copyTable(pa uint64) uint64 {
	n := newTable()
	copy(bytesAt(abi.TableWindow+n, vm.FrameSize), bytesAt(abi.TableWindow+pa, vm.FrameSize))
	return n
}

// copyBelow replaces the table that an entry leads to by a copy.
func copyBelow(table, i uint64) uint64 {
	e := tableAt(table, i)
	n := copyTable(*e & pAddr)
	*e = n | *e&^pAddr
	return n
}

// newRoot returns a root table for processor n, with pages of its own: see
// abi.MaxProcessors. What is ring 0's is read-only to ring 3 there from the beginning.
func newRoot(n uint32) uint64 {
	root := copyTable(abi.Tables)
	low := copyBelow(copyBelow(copyBelow(root, 0), 0), 0)
	own := copyBelow(root, abi.RootRing0)
	*tableAt(root, abi.RootWindow) = own | *tableAt(root, abi.RootWindow)&^pAddr&^pWrite
	ring0 := copyBelow(copyBelow(own, abi.TableWindow>>30&511), 0)
	put := func(table, va, pa uint64) {
		e := tableAt(table, va>>12&511)
		*e = pa | *e&^pAddr
	}
	for _, s := range [...][2]uint64{{abi.KernelStack, abi.KernelStackTop}, {abi.FaultStack, abi.FaultStackTop},
		{abi.CrashStack, abi.CrashStackTop}, {abi.FaultXS, abi.FaultXS + abi.PageSize}} {
		for va := s[0]; va < s[1]; va += vm.FrameSize {
			put(low, va, takeFrame("a processor"))
		}
	}
	shared := takeFrame("a processor")
	put(low, abi.SharedPage, shared)
	put(ring0, abi.SharedPage, shared)
	at[abi.Shared](abi.DirectBase + shared).InKernel = 1
	p := at[processor](abi.DirectBase + shared + procAt - abi.SharedPage)
	p.number, p.tls[0] = n, uint64(fakeG)
	local, trap := copyTable(abi.LocalPage), newTable()
	put(low, abi.LocalPage, local)
	put(ring0, abi.LocalPage, local)
	put(low, abi.TrapPage, trap)
	put(ring0, abi.TrapPage, trap)
	at[abi.Local](abi.TableWindow + local).Number = uint64(n)
	cpus[n].trapPage = trap
	return root
}

// command writes to the local APIC's command register.
func command(id, what uint32) {
	store32(lapic+lapicICRHigh, id<<24)
	store32(lapic+lapicICR, what)
}

// startProcessor starts the processor with the given local APIC as number n. One that does
// not answer in time is reset, so that it waits for good, and left out.
func startProcessor(n, id uint32) {
	m, c := mon(), &cpus[n]
	m.Roots[n], m.APIC[n] = newRoot(n), id<<24
	c.armed, c.thread = never, noThread
	*at[uint32](uint64(window(abi.StartupPage)) + abi.StartupTables) = uint32(m.Roots[n])
	atomic.StoreUint32(&c.state, cpuAsked)
	atomic.StoreUint32(&tscTurn, 0)
	command(id, icrINIT)
	t := now()
	for now()-t < 10_000 { // all that a virtual one needs
	}
	command(id, icrStart|abi.StartupPage>>12)
	for again := false; atomic.LoadUint32(&c.state) != cpuThere; pause() {
		d := now() - t
		if d > startAgain && !again {
			again = true
			command(id, icrStart|abi.StartupPage>>12)
		}
		if d > startWithin && atomic.CompareAndSwapUint32(&c.state, cpuAsked, cpuLeft) {
			command(id, icrINIT)
			leftOut(id, "it did not start within a second")
			return
		}
	}
	if !inStep() {
		command(id, icrINIT)
		leftOut(id, "its time-stamp counter is not in step")
		return
	}
	m.Processors, info().Processors = uint64(n)+1, n+1
}

func leftOut(id uint32, why string) {
	puts("thurward: kernel: the processor with APIC ")
	putu(uint64(id))
	puts(" is not used: ")
	puts(why)
	putc('\n')
}

// Time-stamp counters are compared by passing a turn to and fro.
var (
	tscTurn  uint32 // odd: the other processor reads its counter next
	tscOther uint64
)

// inStep reports whether the other processor's counter lies between two readings of this
// one's, as often as there is time.
func inStep() bool {
	began := now()
	for r := uint32(0); r < 2 || r < tscRounds && now()-began < tscWithin; r++ {
		t := rdtscInOrder()
		atomic.StoreUint32(&tscTurn, 2*r+1)
		for atomic.LoadUint32(&tscTurn) != 2*r+2 {
			if now()-began > startWithin {
				return false
			}
			pause()
		}
		if v := atomic.LoadUint64(&tscOther); v < t || v > rdtscInOrder() {
			return false
		}
	}
	return true
}

// rdtscInOrder reads the counter after what comes before, and before what follows.
func rdtscInOrder() uint64

// kprocessor is where a further processor begins in ring 3. It returns the frame of the first
// thread that it runs.
func kprocessor() uint64 {
	startAPIC(lvtMasked) // the host's NMIs are the first processor's
	store32(lapic+lapicTimer, abi.TimerVector)
	if !atomic.CompareAndSwapUint32(&me().state, cpuAsked, cpuThere) {
		for {
			monitor(monHalt, 0, 0, 0, 0)
			atomic.SwapUint32(&shared().Pending, 0)
		}
	}
	for atomic.LoadUint32(&released) == 0 {
		if turn := atomic.LoadUint32(&tscTurn); turn&1 != 0 && my().number == atomic.LoadUint32(&info().Processors) {
			atomic.StoreUint64(&tscOther, rdtscInOrder())
			atomic.StoreUint32(&tscTurn, turn+1)
		}
		pause()
	}
	atomic.SwapUint32(&shared().Pending, 0)
	enter()
	monitor(monFlush, 0, 0, 0, 0)
	frame := schedule()
	leave()
	return frame
}

// releaseProcessors lets the started processors go on. The boot processor has the kernel's
// lock until the program starts.
func releaseProcessors() {
	processors = info().Processors
	atomic.StoreUint32(&released, 1)
}

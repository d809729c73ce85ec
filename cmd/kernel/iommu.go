package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// The IOMMU: Intel's VT-d (Architecture Specification 3.3) in legacy mode, as QEMU's
// intel-iommu has it. One table, by which addresses are the same on both sides, is for all
// devices that were found; all others reach nothing. It has what SysDMA gives to devices, in
// pages of 2 MiB, each shared by the monitor (MonShare). The tables lie among the page tables
// and belong to ring 0 with them; the registers are ring 0's but for reading. Interrupts are
// not remapped.

// Registers (11.4) and bits in them.
const (
	vtdCapability    = 0x08
	vtdExtended      = 0x10
	vtdCommand       = 0x18
	vtdStatus        = 0x1c
	vtdRoot          = 0x20
	vtdContext       = 0x28
	vtdFaultStatus   = 0x34
	vtdTranslate     = 1 << 31 // of the command and the status: translation is on
	vtdSetRoot       = 1 << 30
	vtdInvalidate    = 1 << 31 // in the upper word: of the context cache, or of translations
	vtdAllContexts   = 1 << 29
	vtdAllPages      = 1 << 28
	vtdFaultOverflow = 1
	vtdFaultPending  = 2
	vtdFault         = 1 << 31 // in a fault record's last word
	vtdFaultRead     = 1 << 30
	vtdBytes         = 4096 // of registers, at most

	vtd3Levels    = 1 << 9  // of the capabilities: addresses of 39 bits
	vtd4Levels    = 1 << 10 // of 48
	vtdCaching    = 1 << 7
	vtdLargePages = 1 << 34

	// Entries of the tables (9.1, 9.3, 9.8).
	vtdPresent = 1
	vtdRead    = 1
	vtdWrite   = 2
	vtdLarge   = 1 << 7
	vtdDomain  = 1 << 8 // in a context entry's second word: domain 1
)

const (
	gib       = 1 << 30
	vtdWithin = 1_000_000_000 // nanoseconds that a command may take
	vtdTold   = 8             // faults that are all told; later ones when their number doubles
)

var (
	iommuAt     uint64  // physical address of the registers, from ACPI; 0: none
	iommuRegs   uintptr // where they are mapped, 0 unless the IOMMU is used
	iommuRecord uintptr // offset of its fault record
	sharedNext  uint64  // the rest of a shared page that nobody has been given
	sharedEnd   uint64
)

// iommuTables returns how many tables there are at most where RAM ends at top.
func iommuTables(top uint64) uint64 { return 4 + (top+gib-1)/gib }

// startIOMMU has an IOMMU keep devices to the memory that they are given, where there is one
// and a device goes through it.
func startIOMMU() {
	if iommuAt == 0 || devices == 0 {
		return
	}
	bounded := uint32(0)
	for i := uint32(0); i < devices; i++ {
		if throughPlatform(&info().Devices[i]) {
			bounded++
		}
	}
	if bounded == 0 {
		return
	}
	if why := setIOMMU(); why != "" {
		iommuRegs, mon().Shared, mon().Fault = 0, 0, 0
		puts("thurward: kernel: the IOMMU is not used: ")
		puts(why)
		putc('\n')
		return
	}
	info().Bounded = bounded
	puts("thurward: kernel: an IOMMU keeps ")
	putu(uint64(bounded))
	puts(" of ")
	putu(uint64(devices))
	puts(" devices to the memory that they are given")
	if bounded < devices {
		puts("; the others reach all of it (QEMU needs iommu_platform=on for each)")
	}
	putc('\n')
}

// throughPlatform reports whether a device's accesses go through the IOMMU: it offers
// VIRTIO_F_ACCESS_PLATFORM (virtio 1.2, 6).
func throughPlatform(d *abi.Device) bool {
	r, l := uintptr(d.Registers), &layouts[0]
	if d.Notify != 0 {
		l = &layouts[1]
	}
	store32(r+l.featSel, 1)
	return load32(r+l.feat)&2 != 0
}

// setIOMMU makes the tables, and turns translation on. It returns why it cannot.
func setIOMMU() string {
	if !poolInRAM() || iommuAt < lowMax || iommuAt == abi.LAPICPhys || iommuAt == ioapic1 || iommuAt == ioapic2 {
		return "its registers lie where others are"
	}
	for i := 0; i < loaded.nram; i++ {
		if iommuAt < loaded.ram[i].end && iommuAt+vtdBytes > loaded.ram[i].start {
			return "its registers lie in memory"
		}
	}
	r := window(iommuAt)
	what, more := load64(r+vtdCapability), load64(r+vtdExtended)
	record, caches := uintptr(what>>24&0x3ff*16), uintptr(more>>8&0x3ff*16)
	switch {
	case what&(vtd3Levels|vtd4Levels) == 0 || what&vtdLargePages == 0:
		return "it has no pages of 2 MiB"
	case what&vtdCaching != 0:
		return "it caches what is absent (QEMU needs caching-mode=off)"
	case what>>40&0xff != 0 || record+16 > vtdBytes || caches+16 > vtdBytes:
		return "it has other registers than QEMU's"
	}
	root, contexts := newTable(), newTable()
	upper, depth := newTable(), uint64(1) // 3 levels
	first := upper
	if what&vtd3Levels == 0 {
		first, depth = newTable(), 2
		*tableAt(first, 0) = upper | vtdRead | vtdWrite
	}
	for a := uint64(0); a < top(); a += gib {
		t := newTable() // one behind the other
		if a == 0 {
			mon().Shared = t
		}
		*tableAt(upper, a/gib) = t | vtdRead | vtdWrite
	}
	for i := uint32(0); i < devices; i++ {
		if d := &info().Devices[i]; d.Notify != 0 {
			*tableAt(root, uint64(d.Function>>8*2)) = contexts | vtdPresent
			*tableAt(contexts, uint64(d.Function&0xff*2)) = first | vtdPresent
			*tableAt(contexts, uint64(d.Function&0xff*2+1)) = depth | vtdDomain
		}
	}
	setEntry(entry(abi.TableWindow+abi.IOMMUSlot), iommuAt|pDevice&^pUser)
	ring0Slot := uint64(ring0 + abi.IOMMUSlot + 1<<64)
	mon().Fault = ring0Slot + uint64(record) + 12
	iommuRegs, iommuRecord = r, record
	rngMem, _ = takeShared(abi.PageSize) // while it is possible
	if rngMem == 0 {
		return "there is no memory for devices"
	}
	store64(r+vtdRoot, root)
	store32(r+vtdCommand, vtdSetRoot)
	if !settled(r+vtdStatus, vtdSetRoot, vtdSetRoot) {
		return "it takes no table"
	}
	store64(r+vtdContext, (vtdInvalidate|vtdAllContexts)<<32)
	if !settled(r+vtdContext+4, vtdInvalidate, 0) {
		return "its cache does not answer"
	}
	store64(r+caches+8, (vtdInvalidate|vtdAllPages)<<32)
	if !settled(r+caches+12, vtdInvalidate, 0) {
		return "its cache does not answer"
	}
	store32(r+vtdCommand, vtdTranslate)
	if !settled(r+vtdStatus, vtdTranslate, vtdTranslate) {
		return "it does not begin"
	}
	return ""
}

// settled waits until the bits of a register under the mask are as wanted.
func settled(r uintptr, mask, want uint32) bool {
	for t := now(); load32(r)&mask != want; {
		if now()-t > vtdWithin {
			return false
		}
	}
	return true
}

func load64(r uintptr) uint64 { return uint64(load32(r)) | uint64(load32(r+4))<<32 }

func store64(r uintptr, v uint64) {
	store32(r, uint32(v))
	store32(r+4, uint32(v>>32))
}

// takeShared returns n bytes, whole pages, that devices reach. Those of less than 2 MiB
// share one page of the IOMMU's.
func takeShared(n uint64) (pa uint64, ok bool) {
	if n <= sharedEnd-sharedNext && n < large {
		pa = sharedNext
		sharedNext += n
		return pa, true
	}
	size := alignUp(n, large)
	if pa, ok = frames.TakeRun(size/vm.FrameSize, large/vm.FrameSize); !ok {
		return 0, false
	}
	for p := pa; p < pa+size; p += large {
		if monitor(monShare, p, 0, 0, 0) != 0 {
			crash("the monitor refused to share memory with devices")
		}
	}
	if size-n > sharedEnd-sharedNext {
		sharedNext, sharedEnd = pa+n, pa+size
	}
	return pa, true
}

// lookForFaults counts and tells what the IOMMU has refused since it was last called. One
// access is recorded; others before the next look are counted as one.
func lookForFaults() {
	if iommuRegs == 0 {
		return
	}
	status := load32(iommuRegs + vtdFaultStatus)
	if status&(vtdFaultPending|vtdFaultOverflow) == 0 {
		return
	}
	r := iommuRegs + iommuRecord
	at, source, why := load64(r), load32(r+8), load32(r+12)
	monitor(monFaults, 0, 0, 0, 0)
	stats.DMAFaults++
	if status&vtdFaultOverflow != 0 {
		stats.DMAFaults++
	}
	if n := stats.DMAFaults; n > vtdTold && n&(n-1) != 0 {
		return
	}
	puts("thurward: kernel: the IOMMU refused an access of the device at PCI ")
	putFunction(source & 0xffff)
	if why&vtdFaultRead != 0 {
		puts(": reading ")
	} else {
		puts(": writing ")
	}
	putx(at)
	puts(" (reason ")
	putx(uint64(why & 0xff))
	puts("; ")
	putu(stats.DMAFaults)
	puts(" so far)\n")
}

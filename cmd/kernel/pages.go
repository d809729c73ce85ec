package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// The page tables belong to ring 0. While the machine is set up the kernel
// writes them itself, through the window that the monitor then closes; from then
// on the program's memory is mapped by the monitor's MonSet: see mapping.go.

// Bits of a page-table entry (Intel SDM vol. 3, 4.5). Accessed and dirty are
// preset, so that the CPU never has to write to a table.
const (
	pPresent  = 1 << 0
	pWrite    = 1 << 1
	pUser     = 1 << 2
	pWT       = 1 << 3
	pCD       = 1 << 4
	pAccessed = 1 << 5
	pDirty    = 1 << 6
	pLarge    = 1 << 7
	pNX       = 1 << 63
	pAddr     = 0x000ffffffffff000

	pTable  = pPresent | pWrite | pUser | pAccessed
	pData   = pPresent | pWrite | pUser | pAccessed | pDirty | pNX
	pDevice = pData | pWT | pCD

	large = 2 << 20
)

var (
	frames      vm.Frames
	totalFrames uint64
)

// tableAt returns entry i of the table at physical address pa.
func tableAt(pa, i uint64) *uint64 { return at[uint64](abi.TableWindow + pa + i*8) }

// newTable returns the physical address of an empty page table.
func newTable() uint64 {
	m := mon()
	if m.PoolNext >= m.PoolEnd {
		refuse("no memory for page tables")
	}
	pa := m.PoolNext
	m.PoolNext += vm.FrameSize
	clear(bytesAt(abi.TableWindow+pa, vm.FrameSize)) // before zeroPool
	return pa
}

// tableFrames returns how many page tables have been made since the start.
func tableFrames() uint64 { return (mon().PoolNext - record().ImageEnd) / vm.FrameSize }

// setEntry writes to a page table, which the kernel can do until closeTables.
func setEntry(e *uint64, v uint64) { *e = v }

// next returns the table below an entry, which it makes when there is none.
func next(e *uint64) uint64 {
	if *e&pPresent == 0 {
		setEntry(e, newTable()|pTable)
	}
	return *e & pAddr
}

// directory returns the page-directory entry (2 MiB) for a virtual address.
func directory(va uint64) *uint64 {
	p3 := next(tableAt(abi.Tables, va>>39&511))
	p2 := next(tableAt(p3, va>>30&511))
	return tableAt(p2, va>>21&511)
}

// entry returns the page-table entry (4 KiB) for a virtual address.
func entry(va uint64) *uint64 { return tableAt(next(directory(va)), va>>12&511) }

// mapLarge maps 2 MiB of physical memory for reading and writing.
func mapLarge(va, pa uint64) { setEntry(directory(va), pa|pData|pLarge) }

// mapDevice maps one page of device registers, uncached, and returns the
// virtual address of pa.
func mapDevice(pa uint64) uintptr {
	va := abi.MMIOBase + pa
	setEntry(entry(va), pa&^4095|pDevice)
	return uintptr(va)
}

// general is the RAM that is given out: up to one stretch below 4 GiB and one
// above. Start and end are page-aligned; an absent stretch has no length.
var general [2]ram

const fourGiB = 4 << 30

// findGeneral chooses general RAM from what the loader listed: all behind the
// image and the pool of page tables, which it makes large enough for all RAM.
func findGeneral() {
	r, m := record(), mon()
	start := r.FreeStart
	for i := 0; i < loaded.nram; i++ {
		s, e := alignUp(loaded.ram[i].start, vm.FrameSize), min(loaded.ram[i].end&^(vm.FrameSize-1), maxRAM)
		if g := &general[0]; s <= start && e > start {
			*g = ram{start, e}
		} else if g := &general[1]; s >= fourGiB && e > s && e-s > g.end-g.start {
			*g = ram{s, e}
		}
	}
	// One table maps 2 MiB; the upper levels and what is mapped sparsely, as
	// Go's reservations are, take some dozens.
	end := r.ImageEnd + (loaded.total/large+96)*vm.FrameSize
	if listed.N > 1 {
		end += uint64(tablesAll+tablesEach*(listed.N-1)) * vm.FrameSize
	}
	if iommuAt != 0 {
		end += iommuTables(top()) * vm.FrameSize
	}
	g := &general[0]
	for ; g.start < end && g.start+2*large < g.end; g.start += large {
		mapLarge(abi.TableWindow+g.start, g.start)
	}
	m.PoolEnd = min(end, g.start)
	m.LowStart, m.LowEnd = general[0].start, general[0].end
	m.HighStart = never
	if general[1].end != 0 {
		m.HighStart, m.HighEnd = general[1].start, general[1].end
	}
}

// top returns the end of general RAM.
func top() uint64 { return max(general[0].end, general[1].end) }

// zeroPool makes empty tables of what is left of the pool: memory keeps its
// contents over a reset, and ring 0 would take much longer.
func zeroPool() {
	m := mon()
	clear(bytesAt(abi.TableWindow+m.PoolNext, m.PoolEnd-m.PoolNext))
}

// mapDirect maps all general RAM, writable and never executable. The image,
// the page tables and all below stay out: what is read-only must have no
// writable twin.
func mapDirect() {
	for i := range general {
		for pa := general[i].start &^ (large - 1); pa < general[i].end; pa += large {
			mapLarge(abi.DirectBase+pa, pa)
		}
	}
}

// dropLow unmaps the first 2 MiB of the direct map, through which the loader's
// structures were read.
func dropLow() {
	setEntry(directory(abi.DirectBase), 0)
	flushTLB()
}

// closeTables gives the page tables to ring 0 for good. What the program may ask to
// have mapped, and where, is fixed by then.
func closeTables() {
	m, s := mon(), &record().Program
	for i := uint64(0); i < s.N && i < uint64(len(s.Seg)); i++ {
		if g := &s.Seg[i]; g.Flags&abi.SegmentZero != 0 && g.Flags&elfW != 0 {
			m.ZeroStart, m.ZeroEnd = g.Start, g.End
		}
	}
	m.UserStart, m.UserEnd = userFrom(), abi.UserMax
	dropWindows()
	zeroPool()
	monitor(monClose, 0, 0, 0, 0)
}

// flushTLB makes removed mappings take effect, on all processors.
func flushTLB() {
	monitor(monFlush, 0, 0, 0, 0)
	if processors != 1 {
		shootdown()
	}
}

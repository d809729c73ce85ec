package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// This file holds every write to a page table. Sealing them (ADR 0002) means
// to send setEntry through the monitor and to map the tables for ring 0 only.

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
	tableNext   uint64 // next free frame of the pool of page tables behind the image
	tableFrames uint64
)

func setEntry(e *uint64, v uint64) { *e = v }

// tableAt returns entry i of the table at physical address pa. The linker's
// tables are mapped at their own addresses, all others in the direct map.
func tableAt(pa, i uint64) *uint64 {
	if pa >= record().ImageEnd {
		pa += abi.DirectBase
	}
	return at[uint64](pa + i*8)
}

// newTable returns the physical address of an empty page table.
func newTable() uint64 {
	r := record()
	if tableNext == 0 {
		tableNext = r.ImageEnd
	}
	tableFrames++
	pa := tableNext
	if pa < r.FreeStart {
		tableNext += vm.FrameSize
		clear(bytesAt(abi.DirectBase+pa, vm.FrameSize))
		return pa
	}
	return takeFrame("page tables")
}

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

// present returns the entry for va, or nil where there is no table yet.
func present(va uint64) *uint64 {
	t := uint64(abi.Tables)
	for s := uint(39); s > 12; s -= 9 {
		e := *tableAt(t, va>>s&511)
		if e&pPresent == 0 || e&pLarge != 0 {
			return nil
		}
		t = e & pAddr
	}
	return tableAt(t, va>>12&511)
}

// mapLarge maps 2 MiB of physical memory for reading and writing.
func mapLarge(va, pa uint64) { setEntry(directory(va), pa|pData|pLarge) }

// mapPage maps one frame for reading and writing.
func mapPage(va, pa uint64) { setEntry(entry(va), pa|pData) }

// mapDevice maps one page of device registers, uncached, and returns the
// virtual address of pa.
func mapDevice(pa uint64) uintptr {
	va := abi.MMIOBase + pa
	setEntry(entry(va), pa&^4095|pDevice)
	return uintptr(va)
}

// mapFirst maps the memory from start on in the direct map, as the first use
// of it, and reports whether it is RAM.
func mapFirst(start, n uint64) bool {
	for i := 0; i < loaded.nram; i++ {
		if loaded.ram[i].start <= start && start+n <= loaded.ram[i].end {
			for pa := start &^ (large - 1); pa < start+n; pa += large {
				mapLarge(abi.DirectBase+pa, pa)
			}
			return true
		}
	}
	return false
}

// mapDirect maps all general RAM, writable and never executable. The image
// and all below it stay out: its read-only parts must have no writable twin.
func mapDirect() {
	start := record().FreeStart
	for i := 0; i < loaded.nram; i++ {
		s, e := max(loaded.ram[i].start, start), min(loaded.ram[i].end, maxRAM)
		if s >= e {
			continue
		}
		for pa := s &^ (large - 1); pa < e; pa += large {
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

// unmapPage removes a mapping and returns the frame that was there.
func unmapPage(va uint64) (pa uint64, ok bool) {
	e := present(va)
	if e == nil || *e&pPresent == 0 {
		return 0, false
	}
	pa = *e & pAddr
	setEntry(e, 0)
	return pa, true
}

// protectPage takes the permission to write from a mapping, or gives it back.
func protectPage(va uint64, write bool) {
	e := present(va)
	if e == nil || *e&pPresent == 0 {
		return
	}
	v := *e &^ pWrite
	if write {
		v |= pWrite
	}
	setEntry(e, v)
}

// flushTLB makes removed mappings take effect.
func flushTLB() { monitor(monFlush, 0, 0) }

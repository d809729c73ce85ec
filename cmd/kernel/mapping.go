package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// The program's memory is mapped by the monitor. A call costs more than what it
// writes, on hosts that emulate ring 0 some 100 microseconds, so that pages are
// collected into runs. Reading the tables costs nothing.

// A batch is a run of pages that one call of the monitor maps: consecutive
// addresses in one page table, to consecutive frames.
type batch struct{ va, pa, n, how uint64 }

// add appends a page, after having done what it does not continue.
func (b *batch) add(va, pa, how uint64) {
	if b.n > 0 && (va != b.va+b.n*vm.FrameSize || va&(large-1) == 0 || pa != b.pa+b.n*vm.FrameSize || how != b.how) {
		b.do()
	}
	if b.n == 0 {
		b.va, b.pa, b.how = va, pa, how
	}
	b.n++
}

// do has the monitor map what was collected.
func (b *batch) do() {
	if b.n == 0 {
		return
	}
	switch monitor(monSet, b.va, b.pa, b.n, b.how) {
	case 0:
	case abi.MonNoTable:
		outOfMemory("page tables")
	default:
		crash("the monitor refused to map memory")
	}
	b.n = 0
}

// unmap removes the mappings of n pages from va on, all in one page table.
func unmap(va, n uint64) {
	if monitor(monSet, va, 0, n, abi.SetNothing) != 0 {
		crash("the monitor refused to unmap memory")
	}
}

// tableOf returns the physical address of the page table for va, or the size of
// the largest aligned stretch around va that has none.
func tableOf(va uint64) (table, empty uint64) {
	t := uint64(abi.Tables)
	for s := uint(39); s > 12; s -= 9 {
		e := *tableAt(t, va>>s&511)
		if e&pPresent == 0 || e&pLarge != 0 {
			return 0, 1 << s
		}
		t = e & pAddr
	}
	return t, 0
}

// mapped returns the entry for va, 0 where nothing is mapped.
func mapped(va uint64) uint64 {
	t, empty := tableOf(va)
	if empty != 0 {
		return 0
	}
	if e := *tableAt(t, va>>12&511); e&pPresent != 0 {
		return e
	}
	return 0
}

// setting returns MonSet's argument for a protection that allows reading.
func setting(prot uint32) uint64 {
	if prot&vm.Write != 0 {
		return abi.SetWrite
	}
	return abi.SetRead
}

// populate gives the page at va memory, and those around it in the same area
// while memory is plentiful.
func populate(va uint64, a vm.Area) {
	var b batch
	va &^= vm.FrameSize - 1
	s, e := va, va+vm.FrameSize
	if frames.Free() >= 256 {
		s = max(va&^(faultAround-1), a.Start)
		e = min(va&^(faultAround-1)+faultAround, a.End)
	}
	for p := s; p < e; p += vm.FrameSize {
		if mapped(p) == 0 {
			b.add(p, takeFrame("the program"), setting(a.Prot))
		}
	}
	b.do()
}

// protect changes what may be done with the pages of [a, e) that are there.
func protect(a, e uint64, how uint64) {
	var b batch
	for p := a; p < e; {
		t, empty := tableOf(p)
		if empty != 0 {
			p = (p | (empty - 1)) + 1
			continue
		}
		if v := *tableAt(t, p>>12&511); v&pPresent != 0 {
			b.add(p, v&pAddr, how)
		}
		p += vm.FrameSize
	}
	b.do()
	flushTLB()
}

// release unmaps [a, e) and frees its frames. Stretches without page tables
// are skipped as a whole: Go reserves far more than it uses.
func release(a, e uint64) {
	flushed := true
	for p := a; p < e; {
		t, empty := tableOf(p)
		if empty != 0 {
			p = (p | (empty - 1)) + 1
			continue
		}
		end := min(e, p&^(large-1)+large)
		first, n := p, uint64(0) // up to the last page that is there
		for ; p < end; p += vm.FrameSize {
			if v := *tableAt(t, p>>12&511); v&pPresent != 0 {
				frames.Give(v&pAddr, 1)
				if n == 0 {
					first = p
				}
				n = (p-first)/vm.FrameSize + 1
			}
		}
		if n > 0 {
			unmap(first, n)
			flushed = false
		}
	}
	if !flushed {
		flushTLB()
	}
}

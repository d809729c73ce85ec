package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// areas is the program's address space.
var areas vm.Areas

// faultAround is how much memory a page fault populates: a fault costs more
// than the pages beside it (docs/platform.md).
const faultAround = 64 << 10

// ELF's p_flags.
const (
	elfX = 1
	elfW = 2
	elfR = 4
)

// initAreas notes the image's own parts, so that system calls accept pointers
// into them and faults in them are told apart.
func initAreas() {
	s := &record().Program
	for i := uint64(0); i < s.N && i < uint64(len(s.Seg)); i++ {
		g := &s.Seg[i]
		prot := uint32(vm.Read)
		if g.Flags&elfW != 0 {
			prot |= vm.Write
		}
		if g.Flags&elfX != 0 {
			prot |= vm.Exec
		}
		areas.Set(g.Start, g.End, prot, g.Flags&abi.SegmentZero == 0)
	}
	r := record()
	areas.Set(r.Policy, alignUp(r.Policy+r.PolicyLen, abi.PageSize), vm.Read, true)
	areas.Set(abi.UserStack, abi.UserEnd, vm.Read|vm.Write, true)
}

// takeFrame returns a zeroed frame of general memory, or ends the machine with
// a report when there is none: the program has been promised this memory.
func takeFrame(what string) uint64 {
	pa, ok := frames.Take()
	if !ok {
		outOfMemory(what)
	}
	clear(bytesAt(abi.DirectBase+pa, vm.FrameSize))
	return pa
}

func outOfMemory(what string) {
	beginReport()
	puts("\nthurward: crash: out of memory for ")
	puts(what)
	puts(": all ")
	putu(loaded.total >> 20)
	puts(" MB are in use (give the machine more: --memory)\n")
	power(abi.PowerReset)
}

// pageFault tries to resolve a fault at va with the CPU's error code.
func pageFault(va, code uint64) bool {
	a, ok := areas.Find(va)
	if !ok || a.Fixed || a.Prot == 0 || code&1 != 0 { // bit 0: the page was there, access is forbidden
		return false
	}
	if code&2 != 0 && a.Prot&vm.Write == 0 || code&16 != 0 {
		return false
	}
	populate(va, a)
	stats.Faults++
	return true
}

// readable reports whether the program may read, writable whether it may
// write, n bytes at a. Pages that are not there yet come by a fault.
func readable(a, n uint64) bool { return areas.Covered(a, a+n, vm.Read) }
func writable(a, n uint64) bool { return areas.Covered(a, a+n, vm.Read|vm.Write) }

// Linux's mmap flags and madvise advice.
const (
	mapFixed        = 0x10
	mapAnonymous    = 0x20
	mapFixedNoRep   = 0x100000
	madvDontNeed    = 4
	madvFree        = 8
	madvHugePage    = 14
	madvNoHugePage  = 15
	madvPopulate    = 23
	madvCollapse    = 25
	madvPopulateEnd = 24
)

// sysMmap maps anonymous memory; there are no files.
func sysMmap(a, n, prot, flags uint64) uint64 {
	if flags&mapAnonymous == 0 {
		return errno(eNODEV)
	}
	if n == 0 || n > abi.UserMax || prot&^(vm.Read|vm.Write) != 0 {
		return errno(eINVAL) // also for executable memory: nothing is made executable at run time
	}
	n = alignUp(n, vm.FrameSize)
	fixed := flags&(mapFixed|mapFixedNoRep) != 0
	if fixed && a&(vm.FrameSize-1) != 0 {
		return errno(eINVAL)
	}
	a &^= vm.FrameSize - 1
	inside := a >= userFrom() && a+n > a && a+n <= abi.UserMax
	switch {
	case fixed:
		if !inside || areas.HasFixed(a, a+n) {
			return errno(eNOMEM)
		}
		if flags&mapFixedNoRep != 0 && areas.Overlaps(a, a+n) {
			return errno(eEXIST)
		}
		release(a, a+n)
	case a == 0 || !inside || areas.Overlaps(a, a+n):
		align := uint64(vm.FrameSize)
		if n >= large {
			align = large
		}
		var ok bool
		if a, ok = areas.Gap(abi.MmapBase, abi.UserMax, n, align); !ok {
			return errno(eNOMEM)
		}
	}
	if !areas.Set(a, a+n, uint32(prot), false) {
		return errno(eNOMEM)
	}
	return a
}

// userBase returns the first address behind the policy and the boot arguments
// that were built in: from there to UserMax the program maps what it likes.
func userBase() uint64 {
	r := record()
	return r.Policy + alignUp(r.PolicyLen+8+abi.MaxCmdline, abi.PageSize)
}

// programs returns the end of the n bytes at a, rounded up to a page, and whether
// all of it is the program's to change: whole pages at its own addresses, none
// of them a part of the image.
func programs(a, n uint64) (end uint64, ok bool) {
	end = alignUp(a+n, vm.FrameSize)
	ok = a&(vm.FrameSize-1) == 0 && a >= abi.KernelEnd && end >= a && n <= abi.UserMax && end <= abi.UserMax && !areas.HasFixed(a, end)
	return end, ok
}

// sysMunmap gives back address space and memory.
func sysMunmap(a, n uint64) uint64 {
	e, ok := programs(a, n)
	if !ok || n == 0 {
		return errno(eINVAL)
	}
	if !areas.Remove(a, e) {
		return errno(eNOMEM)
	}
	release(a, e)
	return 0
}

// sysMprotect changes what the program may do with memory it has mapped.
func sysMprotect(a, n, prot uint64) uint64 {
	e, ok := programs(a, n)
	if !ok || prot&^(vm.Read|vm.Write) != 0 {
		return errno(eINVAL)
	}
	if !areas.Covered(a, e, 0) {
		return errno(eNOMEM)
	}
	if !areas.Set(a, e, uint32(prot), false) {
		return errno(eNOMEM)
	}
	if prot == 0 {
		// A page without permission would have to keep its contents; Go
		// does not rely on it, so they are given back.
		release(a, e)
		return 0
	}
	protect(a, e, setting(uint32(prot)))
	return 0
}

// sysMadvise: memory advised as unneeded is given back at once and reads as
// zero afterwards, which Go relies on (docs/platform.md). MADV_FREE is
// allowed to do the same.
func sysMadvise(a, n, advice uint64) uint64 {
	e, ok := programs(a, n)
	if !ok {
		return errno(eINVAL)
	}
	switch advice {
	case madvDontNeed, madvFree:
		if !areas.Covered(a, e, 0) {
			return errno(eNOMEM)
		}
		release(a, e)
		return 0
	case madvHugePage, madvNoHugePage, madvCollapse:
		return 0 // advice about speed
	}
	return errno(eINVAL)
}

// sysDMA: see abi.SysDMA.
func sysDMA(n, flags uint64) uint64 {
	if n == 0 || n > maxRAM {
		return errno(eINVAL)
	}
	k, align := alignUp(n, vm.FrameSize)/vm.FrameSize, uint64(1)
	if n >= large {
		align = large / vm.FrameSize
	}
	pa, ok := uint64(0), false
	if iommuRegs == 0 || flags&abi.DMAPrivate != 0 {
		pa, ok = frames.TakeRun(k, align)
	} else if mon().Shared == 0 {
		return errno(ePERM)
	} else {
		pa, ok = takeShared(k * vm.FrameSize)
	}
	if !ok {
		return errno(eNOMEM)
	}
	if flags&abi.DMAUncleared == 0 {
		clear(bytesAt(abi.DirectBase+pa, k*vm.FrameSize))
	}
	return abi.DirectBase + pa
}

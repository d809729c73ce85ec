package image

import (
	"encoding/binary"
	"fmt"

	"github.com/thurward/thurward/internal/shared/abi"
)

// Bits of a page-table entry (Intel SDM vol. 3, 4.5).
const (
	pPresent  = 1 << 0
	pWrite    = 1 << 1
	pUser     = 1 << 2
	pAccessed = 1 << 5
	pDirty    = 1 << 6
	pWT       = 1 << 3
	pCD       = 1 << 4
	pLarge    = 1 << 7
	pNX       = 1 << 63
	pAddr     = 0x000ffffffffff000
)

// ring0Base is abi.Ring0Base as an address.
const ring0Base = 1<<64 + abi.Ring0Base

// tableSet builds page tables that lie from abi.Tables on.
type tableSet struct{ b []byte }

func (t *tableSet) alloc() uint64 {
	a := abi.Tables + uint64(len(t.b))
	t.b = append(t.b, make([]byte, abi.PageSize)...)
	return a
}

func (t *tableSet) get(table, i uint64) uint64 {
	return binary.LittleEndian.Uint64(t.b[table-abi.Tables+8*i:])
}

func (t *tableSet) set(table, i, v uint64) {
	binary.LittleEndian.PutUint64(t.b[table-abi.Tables+8*i:], v)
}

// next returns the table of entry i, and makes it if there is none.
func (t *tableSet) next(table, i uint64) uint64 {
	if e := t.get(table, i); e != 0 {
		return e & pAddr
	}
	n := t.alloc()
	t.set(table, i, n|pPresent|pWrite|pUser|pAccessed)
	return n
}

// pageTables maps every part in 4 KiB pages, each with the least permission, and the
// first 2 MiB of memory, read-only, at the start of the direct map: the kernel finds
// the loader's data there and then unmaps it. All else is not mapped, among it page
// zero and the guard pages between the stacks.
//
// What belongs to ring 0 is mapped by one page directory pointer table that ring
// 0 and the kernel's window share (abi.TableWindow): descriptors, the monitor's
// state, the trap page, the tables and their pool.
func pageTables(parts []part, poolStart, poolEnd uint64) ([]byte, error) {
	t := &tableSet{}
	root := t.alloc()
	own := t.alloc()
	t.set(root, abi.RootRing0, own|pPresent|pWrite|pAccessed)
	t.set(root, abi.RootWindow, own|pPresent|pWrite|pUser|pAccessed)
	ring0 := func(va, pa, bits uint64) {
		va += ring0Base
		pt := t.next(t.next(own, va>>30&511), va>>21&511)
		t.set(pt, va>>12&511, pa|bits|pPresent|pWrite|pAccessed|pDirty|pNX)
	}
	ring0(abi.LAPICSlot, abi.LAPICPhys, pWT|pCD)
	ring0(abi.TrapSlot, abi.TrapPage, pUser)
	ring0(abi.SharedPage, abi.SharedPage, 0)
	for _, pa := range []uint64{abi.DescPage, abi.MonitorPage, abi.TrapPage, abi.LocalPage} {
		ring0(pa, pa, pUser)
	}
	for pa := uint64(abi.Tables); pa < abi.TablesEnd; pa += abi.PageSize {
		ring0(pa, pa, pUser)
	}
	for pa := poolStart; pa < poolEnd; pa += abi.PageSize {
		ring0(pa, pa, pUser)
	}
	for _, p := range parts {
		bits := uint64(pPresent | pAccessed | pDirty)
		if p.flags&permW != 0 {
			bits |= pWrite
		}
		if p.flags&permX == 0 {
			bits |= pNX
		}
		if p.flags&permSupervisor == 0 {
			bits |= pUser
		}
		for a := p.addr; a < p.end(); a += abi.PageSize {
			pt := t.next(t.next(t.next(root, a>>39&511), a>>30&511), a>>21&511)
			if t.get(pt, a>>12&511) != 0 {
				return nil, fmt.Errorf("image: two parts share the page %#x", a)
			}
			t.set(pt, a>>12&511, p.pa()+(a-p.addr)|bits)
		}
	}
	const direct = uint64(abi.DirectBase)
	pd := t.next(t.next(root, direct>>39&511), direct>>30&511)
	t.set(pd, direct>>21&511, pPresent|pUser|pAccessed|pDirty|pLarge|pNX)
	// Tables for the device memory that every machine has, so that a kernel without
	// free memory can still power off.
	for _, dev := range []uint64{0xfea00000, 0xfec00000, 0xfee00000} {
		a := abi.MMIOBase + dev
		t.next(t.next(t.next(root, a>>39&511), a>>30&511), a>>21&511)
	}
	if abi.Tables+uint64(len(t.b)) > abi.TablesEnd {
		return nil, fmt.Errorf("image: page tables take %d bytes; the image is too large for the %d there are",
			len(t.b), abi.TablesEnd-abi.Tables)
	}
	return t.b, nil
}

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
	pLarge    = 1 << 7
	pNX       = 1 << 63
	pAddr     = 0x000ffffffffff000
)

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
func pageTables(parts []part) ([]byte, error) {
	t := &tableSet{}
	root := t.alloc()
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
		return nil, fmt.Errorf("image: page tables take %d bytes; the image is too large for the %d there are", len(t.b), abi.TablesEnd-abi.Tables)
	}
	return t.b, nil
}

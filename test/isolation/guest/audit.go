package main

import (
	"fmt"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

// A leaf is a page that the tables map, with what all levels together allow.
type leaf struct {
	va, pa, size         uint64
	write, user, execute bool
}

// leaves calls f for every page that a root table maps, as the window shows the tables.
// It returns false where they cannot be read. seen is called for every table.
func leaves(root uint64, seen func(table uint64), f func(leaf)) bool {
	var walk func(table uint64, level int, va uint64, up leaf) bool
	walk = func(table uint64, level int, va uint64, up leaf) bool {
		if _, ok := read(abi.TableWindow + table); !ok {
			return false
		}
		seen(table)
		for i := range uint64(512) {
			e := *at(abi.TableWindow + table + 8*i)
			if e&pPresent == 0 {
				continue
			}
			shift := 12 + 9*level
			l := leaf{va: va | i<<shift, pa: e & pAddr, size: 1 << shift, write: up.write && e&pWrite != 0, user: up.user && e&pUser != 0, execute: up.execute && e&pNX == 0}
			if level > 0 && e&pLarge == 0 {
				if !walk(e&pAddr, level-1, l.va, l) {
					return false
				}
				continue
			}
			if l.va>>47 != 0 {
				l.va |= 0xffff << 48
			}
			f(l)
		}
		return true
	}
	return walk(root, 3, 0, leaf{write: true, user: true, execute: true})
}

// registers reports whether a page of the devices' addresses may be there: a
// device's registers, or those that end the machine.
func registers(va uint64) bool {
	near := func(p uint64, n uint64) bool { return p != 0 && va < p+n && p < va+page }
	for id := range uint32(64) {
		for _, d := range sys.Devices(id) {
			if near(uint64(uintptr(d.Registers)), 0x200) || near(uint64(uintptr(d.Notify)), uint64(d.NotifyLen)) || near(uint64(uintptr(d.Config)), uint64(d.ConfigLen)) {
				return true
			}
		}
	}
	return va == abi.MMIOBase+0xfea00000 // QEMU microvm's
}

// counts reports whether a page is one in which the host counts restores, which is read-only.
func counts(l leaf) bool { return l.va >= abi.GenPages && l.va < abi.GenPages+2*page && !l.write }

// reads reports whether a page is the IOMMU's registers, which are read-only.
func reads(l leaf) bool {
	at, ok := iommuRegisters()
	return ok && l.pa == at && !l.write
}

// audit looks for a mapping that breaks an invariant, in the tables of every processor, and
// returns it.
func audit() (wrong string, ok bool) {
	m := state()
	for i := range m.Processors {
		if wrong, ok = auditRoot(m.Roots[i]); wrong != "" || !ok {
			return wrong, ok
		}
	}
	return "", true
}

// misplaced returns which table is none of the image's and none that the pool has given, or
// is used twice.
func misplaced(root uint64) (wrong string) {
	used := map[uint64]int{}
	leaves(root, func(table uint64) {
		inImage, inPool := table >= abi.Tables && table < abi.TablesEnd, table < state().PoolNext && table >= abi.KernelEnd // as it is now: another thread may take one
		if used[table]++; !inImage && !inPool {
			wrong = fmt.Sprintf("a table at %#x, the pool goes up to %#x", table, state().PoolNext)
		}
	}, func(leaf) {})
	twice := 0
	for t, n := range used {
		if n > 2 {
			wrong = fmt.Sprintf("the table at %#x is used %d times", t, n)
		} else if n == 2 {
			twice++ // those of ring 0, which the window shows, too
		}
	}
	below := 0
	for i := range uint64(512) { // how many there are below ring 0's part of the root
		own := *at(abi.TableWindow + root + 8*abi.RootRing0) & pAddr
		if e := *at(abi.TableWindow + own + 8*i); e&pPresent != 0 {
			below++
			for j := range uint64(512) {
				if d := *at(abi.TableWindow + e&pAddr + 8*j); d&pPresent != 0 && d&pLarge == 0 {
					below++
				}
			}
		}
	}
	if wrong == "" && twice != below+1 {
		wrong = fmt.Sprintf("%d tables are used twice, want %d", twice, below+1)
	}
	return wrong
}

func auditRoot(root uint64) (wrong string, ok bool) {
	// Frames of the image that ring 3 must not write: those mapped read-only at
	// the image's addresses, and what is ring 0's.
	guarded := map[uint64]string{}
	for p := uint64(abi.Tables); p < abi.TablesEnd; p += page {
		guarded[p] = "a table of the image"
	}
	m := state()
	pool := m.PoolEnd // the pool begins somewhere below PoolNext; all of it counts
	if wrong = misplaced(root); wrong != "" {
		return wrong, true
	}
	none := func(uint64) {}
	ok = leaves(root, none, func(l leaf) {
		switch {
		case l.va == abi.SharedPage || l.va == abi.TableWindow+abi.SharedPage: // both rings'
		case l.va >= abi.TableWindow&^(1<<39-1) && l.va < 1<<47:
			guarded[l.pa] = "ring 0's"
		case l.va < 1<<30 && !l.write:
			guarded[l.pa] = fmt.Sprintf("read-only at %#x", l.va)
		case l.va < 1<<30 && !l.user:
			guarded[l.pa] = fmt.Sprintf("ring 0's at %#x", l.va)
		}
	})
	if !ok {
		return "", false
	}
	pages := 0
	leaves(root, none, func(l leaf) {
		pages++
		switch {
		case l.write && l.execute:
			wrong = fmt.Sprintf("%#x can be written and executed", l.va)
		case l.execute && l.user && l.va >= 1<<30:
			wrong = fmt.Sprintf("%#x can be executed", l.va)
		case l.va >= abi.MMIOBase && l.va < abi.TableWindow&^(1<<39-1) && l.user && !registers(l.va) && !counts(l) && !reads(l):
			wrong = fmt.Sprintf("%#x shows ring 3 registers of no device", l.va)
		case l.user && l.write:
			for p := l.pa; p < l.pa+l.size; p += page {
				if why := guarded[p]; why != "" {
					wrong = fmt.Sprintf("%#x writes to %#x, which is %s", l.va, p, why)
				}
			}
			if l.va < abi.MMIOBase && l.va >= 1<<30 && l.pa < m.LowStart && l.pa+l.size > pool {
				wrong = fmt.Sprintf("%#x writes to %#x, below general memory", l.va, l.pa)
			}
		}
	})
	if pages < 100 {
		return "", false
	}
	return wrong, true
}

func audits(name string) attempt {
	return attempt{name, func() outcome {
		wrong, ok := audit()
		switch {
		case !ok:
			return refused("the tables cannot be read")
		case wrong != "":
			return succeeded("%s", wrong)
		}
		return refused("the tables are as they should be")
	}}
}

// random is a sequence of numbers that is the same in each run (splitmix64).
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// randomCalls asks the monitor for anything, often near what it allows, and then
// audits the tables.
func randomCalls() attempt {
	return attempt{"random monitor calls", func() outcome {
		va, pa := free()
		m := state()
		addresses := []uint64{0, va, va + 511*page, m.UserEnd, m.UserEnd - page, m.ZeroStart - page, m.ZeroEnd, policy(), text(), abi.KernelBase, abi.Tables,
			abi.TableWindow + abi.Tables, abi.DirectBase, abi.MMIOBase, 1 << 47, 0xffffffff80000000, ^uint64(0)}
		frames := []uint64{0, pa, m.LowStart, m.LowEnd, m.HighStart, m.HighEnd, m.PoolNext, m.PoolEnd, abi.Tables, abi.DescPage, abi.MonitorPage, abi.TrapPage,
			abi.LAPICPhys, 1 << 52, 1 << 63, ^uint64(0)}
		counts := []uint64{0, 1, 2, 16, 511, 512, 513, 1 << 52, 1 << 63, ^uint64(0)}
		hows := []uint64{0, 1, 2, 3, 4, 7, 0x83, 1 << 63, 1<<63 | 3, ^uint64(0)}
		odd := []uint64{0, 0, 0, 0, 1, 8, page, ^uint64(0) - page + 1}
		var r random
		of := func(l []uint64) uint64 { return l[r.next()%uint64(len(l))] + odd[r.next()%uint64(len(odd))] }
		n := 50_000
		if sys.Native() {
			n = 2_000
		}
		done := 0
		for range n {
			v, f, c, h := of(addresses), of(frames), counts[r.next()%uint64(len(counts))], hows[r.next()%uint64(len(hows))]
			if near := v - m.ZeroStart; near < m.ZeroEnd-m.ZeroStart {
				continue // the program's own data
			}
			q := regs{di: monitorCall, ax: abi.MonSet, bx: v, cx: f, dx: c, si: h}
			run(code2addr[doCall], &q)
			if q.ax == 0 {
				done++
			} else if q.ax != abi.MonRefused {
				return succeeded("result %#x", q.ax)
			}
		}
		flush()
		wrong, ok := audit()
		if !ok || wrong != "" || done == 0 {
			return succeeded("%d of %d were done; %s", done, n, wrong)
		}
		return refused("%d of %d were done, and the tables are as they should be", done, n)
	}}
}

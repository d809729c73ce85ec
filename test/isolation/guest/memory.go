package main

import (
	"runtime"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

const page = 4096

// Bits of a page-table entry.
const (
	pPresent = 1 << 0
	pWrite   = 1 << 1
	pUser    = 1 << 2
	pLarge   = 1 << 7
	pNX      = 1 << 63
	pAddr    = 0x000ffffffffff000
)

// Where physical memory could be seen: at its own address (the image's first
// parts), in the direct map, as a device, in the window of the tables, and where
// ring 0 sees the tables.
var aliases = []uint64{0, abi.DirectBase, abi.MMIOBase, abi.TableWindow, 0xffffffff80000000}

func text() uint64 {
	pc, _, _, _ := runtime.Caller(0)
	return uint64(pc) &^ 7
}

func policy() uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(sys.Policy())))) }

// constant is in the program's read-only data.
const constant = "a constant of the program, which nobody may change"

func constantAddr() uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.StringData(constant))))&^7 + 8
}

var heap = make([]byte, 3*page)

// data returns a page of the heap, which is writable.
func data() uint64 { return uint64(uintptr(unsafe.Pointer(&heap[0])))&^(page-1) + page }

func read(a uint64) (uint64, bool) {
	r := regs{di: a}
	s := do(doRead, &r)
	return r.ax, s == 0
}

func write(name string, a uint64) attempt {
	return attempt{"write " + name, func() outcome { return faults(doWrite, regs{di: a}) }}
}

func writes() []attempt {
	l := []attempt{
		write("page zero", 8),
		write("entry code", abi.EntryPage),
		write("GDT", abi.DescPage+abi.GDTOff+8),
		write("GDTR", abi.DescPage+abi.GDTROff),
		write("IDT", abi.DescPage+abi.IDTOff+14*16),
		write("IDTR", abi.DescPage+abi.IDTROff),
		write("TSS", abi.DescPage+abi.TSSOff+4),
		write("I/O bitmap", abi.DescPage+abi.TSSOff+112),
		write("vDSO", abi.VDSOPage),
		write("trap frames of exceptions", abi.TrapTop-48),
		write("trap frames of interrupts", abi.IRQTop-48),
		write("trap frames of aborts", abi.AbortTop-48),
		write("the monitor's state", abi.MonitorPage),
		write("the monitor's state of a processor", abi.LocalPage),
		write("the trap frames that all processors see", abi.TableWindow+abi.TrapSlot+0x3d0),
		write("what monitor and kernel share, at ring 0's address", 0xffffffff80000000+abi.SharedPage),
		write("monitor text", symbol("SETPAGES")&^7),
		{"read monitor text", func() outcome { return faults(doRead, regs{di: symbol("SETPAGES") &^ 7}) }},
		{"run monitor text in ring 3", func() outcome { return faults(doJump, regs{di: symbol("SETPAGES")}) }},
		write("kernel text", abi.KernelBase+0x1000),
		write("program text", text()),
		write("program constants", constantAddr()),
		write("policy", policy()),
		write("policy's last page", (policy()+uint64(len(sys.Policy()))-8)&^7),
		write("guard of the kernel stack", abi.KernelStack-8),
		write("guard of the fault stack", abi.FaultStack-8),
		write("guard of the trap page", abi.TrapPage-8),
		write("a non-canonical address", 1<<47),
		write("the other half of addresses", 0xffff800000000000),
		write("the last page of addresses", ^uint64(7)),
		write("the page in which the host counts restores", abi.GenPages),
		write("low memory in the direct map", abi.DirectBase+0x1000),
		{"read low memory in the direct map", func() outcome { return faults(doRead, regs{di: abi.DirectBase + 0x1000}) }},
		{"read descriptors", func() outcome { return faults(doRead, regs{di: abi.DescPage}) }},
	}
	for _, d := range []struct {
		name string
		pa   uint64
	}{{"local APIC", 0xfee00000}, {"local APIC's timer", 0xfee00380}, {"I/O APIC", 0xfec00000}, {"second I/O APIC", 0xfec10000}} {
		l = append(l, attempt{"write " + d.name, func() outcome {
			for _, a := range aliases[1:] {
				r := regs{di: a + d.pa}
				if do(doWrite32, &r) == 0 {
					return succeeded("at %#x", a+d.pa)
				}
			}
			return refused("not mapped for ring 3")
		}})
	}
	// What is read-only must have no writable twin.
	for _, d := range []struct {
		name string
		va   uint64
	}{{"policy", policy()}, {"program text", text()}, {"monitor text", monitorCall}, {"program constants", constantAddr()}, {"vDSO", abi.VDSOPage},
		{"descriptors", abi.DescPage}, {"trap frames", abi.TrapPage}, {"the monitor's state", abi.MonitorPage}, {"the monitor's state of a processor", abi.LocalPage}, {"entry code", abi.EntryPage}} {
		l = append(l, attempt{"write a twin of " + d.name, func() outcome {
			pa, ok := physical(d.va)
			if !ok {
				pa = d.va // the boot segment and the kernel are at their own addresses
			}
			for _, a := range aliases[1:] {
				r := regs{di: (a + pa) &^ 7}
				if do(doWrite, &r) == 0 {
					return succeeded("at %#x", a+pa)
				}
			}
			return refused("no writable twin")
		}})
	}
	return l
}

// entryOf finds the entry of va in the tables, by any alias that can be read:
// level 4 is the root's. It returns where the entry can be seen, and its
// physical address.
func entryOf(va uint64, level int) (seen, pa uint64, ok bool) {
	table := uint64(abi.Tables)
	for l := 4; ; l-- {
		pa = table + va>>(12+9*(l-1))&511*8
		ok = false
		var v uint64
		for _, a := range aliases {
			if a == 0 && (pa < abi.Tables || pa >= abi.TablesEnd) {
				continue // something else of the image is there
			}
			if v, ok = read(a + pa); ok {
				seen = a + pa
				break
			}
		}
		if !ok || l == level {
			return seen, pa, ok
		}
		if v&pPresent == 0 || v&pLarge != 0 {
			return 0, 0, false
		}
		table = v & pAddr
	}
}

// physical returns the physical address of a page, as the tables say.
func physical(va uint64) (uint64, bool) {
	seen, _, ok := entryOf(va, 1)
	if !ok {
		return 0, false
	}
	v, ok := read(seen)
	return v&pAddr + va&(page-1), ok && v&pPresent != 0
}

// writable returns an alias by which the entry at a physical address can be
// written.
func writable(pa uint64) (uint64, bool) {
	for _, a := range aliases {
		if a == 0 && (pa < abi.Tables || pa >= abi.TablesEnd) {
			continue
		}
		r := regs{di: a + pa}
		if do(doWrite, &r) == 0 {
			return a + pa, true
		}
	}
	return 0, false
}

func unsafePointer(a uint64) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }

func at(a uint64) *uint64 { return *(**uint64)(unsafe.Pointer(&a)) }

// flush makes changed entries take effect.
func flush() {
	ask(abi.MonFlush, 0, 0, 0, 0)
}

// changeEntry sets and clears bits of va's entry, tries, and puts it back.
func changeEntry(va uint64, set, clear uint64, try func() outcome) outcome {
	_, pa, ok := entryOf(va, 1)
	if !ok {
		return refused("the tables cannot be read")
	}
	a, ok := writable(pa)
	if !ok {
		return refused("the entry cannot be written")
	}
	old := *at(a)
	*at(a) = old&^clear | set
	flush()
	o := try()
	*at(a) = old
	flush()
	return o
}

func tables() []attempt {
	var l []attempt
	for _, d := range []struct {
		name  string
		va    uint64
		level int
	}{
		{"root table", policy(), 4}, {"root table's upper half", 1<<47 - 1, 4}, {"table of 1 GiB entries", policy(), 3}, {"directory", policy(), 2},
		{"table of the policy", policy(), 1}, {"table of the program's text", text(), 1}, {"table of the kernel", abi.KernelBase, 1},
		{"table of the descriptors", abi.DescPage, 1}, {"table of the heap", data(), 1}, {"table of the mmap region", abi.MmapBase, 1},
		{"directory of the direct map", abi.DirectBase, 2}, {"directory of devices", abi.MMIOBase + 0xfee00000, 2},
	} {
		l = append(l, attempt{"write " + d.name, func() outcome {
			_, pa, ok := entryOf(d.va, d.level)
			if !ok {
				if d.level != 4 {
					return refused("the tables cannot be read")
				}
				pa = abi.Tables + d.va>>39&511*8
			}
			if a, ok := writable(pa); ok {
				return succeeded("at %#x", a)
			}
			return refused("no alias can be written")
		}})
	}
	return append(l,
		attempt{"make the policy writable", func() outcome {
			return changeEntry(policy(), pWrite, 0, func() outcome { return faults(doWrite, regs{di: policy()}) })
		}},
		attempt{"make text writable", func() outcome {
			return changeEntry(text(), pWrite, 0, func() outcome { return faults(doWrite, regs{di: text()}) })
		}},
		attempt{"make the monitor writable", func() outcome {
			a := symbol("SETPAGES") &^ 7
			return changeEntry(a, pWrite|pUser, 0, func() outcome { return faults(doWrite, regs{di: a}) })
		}},
		attempt{"make the descriptors writable", func() outcome {
			return changeEntry(abi.DescPage, pWrite|pUser, 0, func() outcome { return faults(doWrite, regs{di: abi.DescPage}) })
		}},
		attempt{"make data executable", func() outcome {
			*at(data()) = 0xc3
			return changeEntry(data(), 0, pNX, func() outcome { return faults(doJump, regs{di: data()}) })
		}},
		attempt{"map the policy's frame as data", func() outcome {
			pa, ok := physical(policy())
			if !ok {
				return refused("the tables cannot be read")
			}
			return changeEntry(data(), pa&pAddr, pAddr, func() outcome { return faults(doWrite, regs{di: data() + policy()&(page-1)&^7}) })
		}},
	)
}

func execute(name string, a func() uint64) attempt {
	return attempt{"execute " + name, func() outcome { return faults(doJump, regs{di: a()}) }}
}

// ret is a return instruction as a word of data.
const ret = 0xc3

var static = [2]uint64{ret, ret}

func executes() []attempt {
	return []attempt{
		execute("the heap", func() uint64 { *at(data()) = ret; return data() }),
		execute("static data", func() uint64 { return uint64(uintptr(unsafe.Pointer(&static))) }),
		execute("the stack", func() uint64 {
			var x uint64 = ret
			return uint64(uintptr(unsafe.Pointer(&x)))
		}),
		execute("the direct map", func() uint64 {
			m, err := sys.Memory(page, true)
			if err != nil {
				panic(err)
			}
			m[0] = ret
			return uint64(uintptr(unsafe.Pointer(&m[0])))
		}),
		execute("fresh memory", func() uint64 {
			a, e := mmap(0, page, 3, 0x22)
			if e != 0 {
				panic(e)
			}
			*at(a) = ret
			return a
		}),
		execute("the kernel's stack", func() uint64 { *at(abi.KernelStack) = ret; return abi.KernelStack }),
		execute("the boot record", func() uint64 { return abi.BootPage + 2048 }),
		execute("the machine's description", func() uint64 { return abi.InfoPage + 2048 }),
		execute("the descriptors", func() uint64 { return abi.DescPage }),
		execute("the policy", policy),
		execute("constants", constantAddr),
		execute("a non-canonical address", func() uint64 { return 1 << 47 }),
		execute("page zero", func() uint64 { return 8 }),
	}
}

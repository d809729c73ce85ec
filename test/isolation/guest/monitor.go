package main

import (
	"fmt"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

// ask calls the monitor, past the kernel.
func ask(ax, bx, cx, dx, si uint64) (result, signal uint64) {
	r := regs{di: monitorCall, ax: ax, bx: bx, cx: cx, dx: dx, si: si}
	s := do(doCall, &r)
	return r.ax, s
}

// state is the monitor's own, as the window shows it.
func state() abi.Monitor {
	return *(*abi.Monitor)(unsafePointer(abi.TableWindow + abi.MonitorPage))
}

// free returns addresses that may be mapped, and a frame that may be mapped there.
func free() (va, pa uint64) {
	m := state()
	return m.UserStart&^(2<<20-1) + 1<<30, m.LowEnd - 16*page
}

// honest maps, protects and unmaps memory, and shares it, as the kernel does, and checks what
// it does not: what is refused below would say nothing if all were.
func honest() error {
	va, pa := free()
	for _, step := range []struct {
		how         uint64
		read, write bool
	}{{abi.SetWrite, true, true}, {abi.SetRead, true, false}, {abi.SetWrite, true, true}, {abi.SetNothing, false, false}} {
		if r, s := ask(abi.MonSet, va, pa, 2, step.how); r != 0 || s != 0 {
			return fmt.Errorf("mapping with %d: result %d, signal %d", step.how, r, s)
		}
		var read, write bool
		for range 3 { // this may go on on another processor, which has not flushed
			if r, s := ask(abi.MonFlush, 0, 0, 0, 0); r != 0 || s != 0 {
				return fmt.Errorf("flush: result %d, signal %d", r, s)
			}
			a := regs{di: va + page}
			b := a
			if read, write = do(doRead, &a) == 0, do(doWrite, &b) == 0; read == step.read && write == step.write {
				break
			}
		}
		if read != step.read || write != step.write {
			return fmt.Errorf("mapped with %d: readable %v, writable %v", step.how, read, write)
		}
	}
	if n, _ := sys.Bounded(); n > 0 {
		if r, s := ask(abi.MonShare, deviceMemory.phys&^(2<<20-1), 0, 0, 0); r != 0 || s != 0 {
			return fmt.Errorf("sharing memory with devices: result %d, signal %d", r, s)
		}
		if r, s := ask(abi.MonFaults, 0, 0, 0, 0); r != 0 || s != 0 {
			return fmt.Errorf("clearing the IOMMU's faults: result %d, signal %d", r, s)
		}
	}
	return nil
}

// seal seals the machine, twice.
func seal() error {
	for range 2 {
		for _, op := range []uint64{abi.MonSeal, abi.MonClose, abi.MonEOI} {
			if r, s := ask(op, 0, 0, 0, 0); r != 0 || s != 0 {
				return fmt.Errorf("operation %d: result %d, signal %d", op, r, s)
			}
		}
	}
	return nil
}

// set is an attempt to have the monitor map what it must not.
func set(name string, f func() (va, pa, n, how uint64)) attempt {
	return attempt{"map " + name, func() outcome {
		va, pa, n, how := f()
		r, s := ask(abi.MonSet, va, pa, n, how)
		if s != 0 {
			return refused("signal %d", s)
		}
		if r == abi.MonRefused {
			return refused("by the monitor")
		}
		return succeeded("result %d", r)
	}}
}

func monitorCalls() []attempt {
	const w = abi.SetWrite
	m := state()
	va, pa := free()
	l := []attempt{}
	for _, d := range []struct {
		name  string
		va, n uint64
	}{
		{"page zero", 0, 1}, {"the descriptors' page", abi.DescPage, 1}, {"the monitor's state", abi.MonitorPage, 1}, {"the monitor's state of a processor", abi.LocalPage, 1}, {"the trap page", abi.TrapPage, 1},
		{"the kernel", abi.KernelBase, 1}, {"the monitor's text", monitorCall &^ (page - 1), 1}, {"text", text() &^ (page - 1), 1}, {"the policy", policy() &^ (page - 1), 1},
		{"constants", constantAddr() &^ (page - 1), 1}, {"the page before the zeroed data", m.ZeroStart - page, 1}, {"into the zeroed data", m.ZeroStart - page, 2},
		{"the page behind the zeroed data", m.ZeroEnd, 1}, {"out of the zeroed data", m.ZeroEnd - page, 2}, {"the page before the program's addresses", m.UserStart - page, 1},
		{"into the program's addresses", m.UserStart - page, 2}, {"from the policy to the program's addresses", policy() &^ (page - 1), (m.UserStart-policy()&^(page-1))/page + 1},
		{"the first page behind the program's addresses", m.UserEnd, 1}, {"out of the program's addresses", m.UserEnd - page, 2}, {"the direct map", abi.DirectBase + pa, 1},
		{"devices", abi.MMIOBase + 0xfee00000, 1}, {"the window of the tables", abi.TableWindow + abi.Tables, 1}, {"ring 0's tables", 0xffffffff80120000, 1},
		{"ring 0's local APIC", 0xffffffff80001000, 1}, {"a non-canonical address", 1 << 47, 1}, {"the other half", 0xffff800000000000, 1}, {"the last page", ^uint64(page - 1), 1},
		{"over the end of addresses", ^uint64(page - 1), 2}, {"an odd address", va + 8, 1}, {"no pages", va, 0}, {"513 pages", va, 513}, {"pages of two tables", va + 511*page, 2},
		{"2^52 pages", va, 1 << 52}, {"2^52 and one pages", va, 1<<52 + 1}, {"2^63 pages", va, 1 << 63}, {"-1 pages", va, ^uint64(0)},
	} {
		l = append(l, set(d.name, func() (uint64, uint64, uint64, uint64) { return d.va, pa, d.n, w }))
	}
	for _, d := range []struct {
		name string
		va   uint64
	}{{"the policy", policy()}, {"text", text()}, {"the kernel", abi.KernelBase}, {"the descriptors", abi.DescPage}, {"the direct map", abi.DirectBase + pa},
		{"the window of the tables", abi.TableWindow + abi.Tables}, {"ring 0's tables", 0xffffffff80120000}, {"the devices", abi.MMIOBase + 0xfee00000}} {
		l = append(l, set("nothing over "+d.name, func() (uint64, uint64, uint64, uint64) { return d.va &^ (page - 1), 0, 1, abi.SetNothing }))
	}
	frame := func(va uint64) uint64 { // of the image
		if p, ok := physical(va); ok {
			return p &^ (page - 1)
		}
		return va &^ (page - 1)
	}
	end := max(m.LowEnd, m.HighEnd)
	for _, d := range []struct {
		name  string
		pa, n uint64
	}{
		{"the policy", frame(policy()), 1}, {"text", frame(text()), 1}, {"constants", frame(constantAddr()), 1}, {"the kernel", abi.KernelBase, 1}, {"the monitor's text", frame(monitorCall), 1},
		{"the descriptors", abi.DescPage, 1}, {"the monitor's state", abi.MonitorPage, 1}, {"the monitor's state of a processor", abi.LocalPage, 1}, {"the trap page", abi.TrapPage, 1}, {"the root table", abi.Tables, 1},
		{"the last table of the image", abi.TablesEnd - page, 1}, {"the pool's next table", m.PoolNext, 1}, {"the pool's last table", m.PoolEnd - page, 1}, {"the pool's first byte beyond", m.LowStart - page, 1},
		{"from the pool into RAM", m.LowStart - page, 2}, {"physical page zero", 0, 1}, {"the BIOS", 0xf0000, 1}, {"the local APIC", 0xfee00000, 1}, {"the I/O APIC", 0xfec00000, 1},
		{"a device", 0xfeb00000, 1}, {"the page behind RAM", m.LowEnd, 1}, {"out of RAM", m.LowEnd - page, 2}, {"a page far behind RAM", end + 1<<40, 1}, {"the last page of 52 bits", 1<<52 - page, 1},
		{"bit 52", pa | 1<<52, 1}, {"a clear NX bit", pa | 1<<63, 1}, {"an odd frame", pa | 8, 1}, {"a frame with the bit of large pages", pa | 0x80, 1}, {"the last frame of 64 bits", ^uint64(page - 1), 1},
		{"over the end of 64 bits", ^uint64(page - 1), 2},
	} {
		l = append(l, set("the frame of "+d.name, func() (uint64, uint64, uint64, uint64) { return va, d.pa, d.n, w }))
	}
	if m.HasClock == 0 {
		l = append(l, attempt{"have a clock that there is not", func() outcome { return answered(abi.MonClock, 0) }})
	}
	for _, how := range []uint64{2, 4, 5, 6, 7, 8, 0x80, 0x83, 1<<63 | 3, 1<<63 | 1, 1<<32 | 3, ^uint64(0)} {
		l = append(l, set("as "+hex(how), func() (uint64, uint64, uint64, uint64) { return va, pa, 1, how }))
	}
	for _, d := range []struct{ bx, cx uint64 }{{m.Processors, abi.SendWake}, {m.Processors, abi.SendFlush}, {abi.MaxProcessors, 0}, {255, 0}, {1 << 32, 0}, {1 << 62, 0}, {^uint64(0), 0}} {
		l = append(l, attempt{"interrupt processor " + hex(d.bx) + " by " + hex(d.cx), func() outcome {
			if r, s := ask(abi.MonSend, d.bx, d.cx, 0, 0); s == 0 && r != abi.MonRefused {
				return succeeded("result %d", r)
			}
			return refused("by the monitor")
		}})
	}
	for _, cx := range []uint64{2, 3, 0x400, 0x500, 0x4608, 1 << 32, ^uint64(0)} {
		l = append(l, attempt{"interrupt another processor by " + hex(cx), func() outcome {
			for range 20 { // the thread may go elsewhere between the two
				if r, s := ask(abi.MonSend, (here()+1)%m.Processors, cx, 0, 0); s == 0 && r != abi.MonRefused {
					return succeeded("result %d", r)
				}
			}
			return refused("20 times")
		}})
	}
	l = append(l,
		attempt{"interrupt one's own processor", func() outcome {
			for range 20 { // the thread may go elsewhere between the two
				if r, s := ask(abi.MonSend, here(), abi.SendWake, 0, 0); s != 0 || r == abi.MonRefused {
					return refused("result %d, signal %d", r, s)
				}
			}
			return succeeded("20 times")
		}},
		attempt{"choose SYSCALL's target again", func() outcome { return answered(abi.MonEnter, 0) }},
		attempt{"choose SYSCALL's target in ring 3", func() outcome { return answered(abi.MonEnter, 1) }},
		attempt{"have the host's clock over the policy", func() outcome {
			before := *at(policy())
			r, s := ask(abi.MonClock, frame(policy()), frame(policy()), 0, 0)
			if *at(policy()) != before {
				return succeeded("the policy changed")
			}
			return refused("the policy is as it was (result %d, signal %d)", r, s)
		}},
		attempt{"open the tables after they were closed twice", func() outcome {
			ask(abi.MonClose, ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0))
			return faults(doWrite, regs{di: abi.TableWindow + abi.Tables + 8*abi.RootWindow})
		}},
		attempt{"PCI configuration after sealing", func() outcome {
			ask(abi.MonSeal, 0, 0, 0, 0)
			return faults(doOUT32, regs{di: 0xcf8, si: 0x80000000})
		}},
		attempt{"the PIT after sealing", func() outcome {
			ask(abi.MonSeal, ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0))
			return faults(doOUT, regs{di: 0x43, si: 0xb4})
		}},
		attempt{"execute what the monitor mapped", func() outcome {
			if r, _ := ask(abi.MonSet, va, pa, 1, w); r != 0 {
				return refused("it was not mapped")
			}
			*at(va) = ret
			o := faults(doJump, regs{di: va})
			ask(abi.MonSet, va, pa, 1, abi.SetNothing)
			ask(abi.MonFlush, 0, 0, 0, 0)
			return o
		}},
	)
	for _, op := range []uint64{abi.MonFaults + 1, 0x20, 0x55, 0x7fffffff, 0x80000000, 1 << 32, 1<<32 | abi.MonEnter, 1 << 63, ^uint64(0)} {
		l = append(l, attempt{"monitor call " + hex(op), func() outcome { return answered(op, policy()) }})
	}
	return l
}

// answered is the outcome of an operation that the monitor must refuse.
func answered(op, bx uint64) outcome {
	r, s := ask(op, bx, policy(), 1, ^uint64(0))
	if s == 0 && r != abi.MonRefused {
		return succeeded("result %d", r)
	}
	return refused("result %d, signal %d", r, s)
}

// exhaustion takes all page tables that the monitor has: more must not come from
// anywhere. The program can map little after it.
func exhaustion() []attempt {
	return []attempt{{"more page tables than there are", func() outcome {
		_, pa := free()
		m := state()
		for i := range uint64(1 << 20) {
			r, s := ask(abi.MonSet, 0x100000000000+i<<30, pa, 1, abi.SetWrite)
			if s != 0 {
				return refused("signal %d", s)
			}
			if r == abi.MonNoTable {
				if n := state(); n.PoolNext > n.PoolEnd || n.PoolEnd != m.PoolEnd {
					return succeeded("the pool went from %#x to %#x", m.PoolNext, n.PoolNext)
				}
				return refused("after %d tables", i)
			}
			if r != 0 {
				return refused("result %d", r)
			}
		}
		return succeeded("a million tables")
	}}}
}

package main

import (
	"fmt"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

// early is the monitor's state before the machine was sealed, where an IOMMU is used.
var early struct {
	tables uint64 // the IOMMU's second-level tables, physical
	wrong  string // what was shared that must not be
}

// A place is where a device is told to write: a physical address, and where ring 3 sees it.
type place struct {
	name string
	pa   uint64
	seen func() (uint64, bool)
}

// shown is a place that the window of the tables shows.
func shown(name string, pa uint64) place {
	return place{name, pa, func() (uint64, bool) { return read(abi.TableWindow + pa) }}
}

// own is a place that ring 3 reads by its own address.
func own(name string, va uint64) place {
	pa, _ := physical(va)
	return place{name, pa, func() (uint64, bool) { return read(va) }}
}

// onto tries to change a place.
func (p place) onto(how string, try func(pa uint64) string) attempt {
	return attempt{how + " onto " + p.name, func() outcome {
		before, ok := p.seen()
		if !ok || p.pa == 0 {
			return refused("it cannot be read")
		}
		why := try(p.pa)
		if after, _ := p.seen(); after == before {
			return refused("it is as it was (%s)", why)
		}
		return succeeded("it changed")
	}}
}

// chosen is a frame whose content differs from all that is in memory.
func chosen(pa uint64) string {
	var b [frameBytes]byte
	for i := range b {
		b[i] = byte(0xa0 + i)
	}
	return frameOnto(pa, b)
}

// devices has devices write to memory. Page tables do not bound them, only an IOMMU does.
func devices() []attempt {
	nets := len(sys.Devices(netID)) > 1
	bounded, _ := sys.Bounded()
	thePolicy := own("the policy", policy()&^7)
	l := []attempt{
		thePolicy.onto("virtio-rng", randomOnto),
		shown("the root table's last entry but one", abi.Tables+8*510).onto("virtio-rng", randomOnto), // not used
		{"virtio-rng onto memory of devices", func() outcome { // the legitimate twin
			before := deviceMemory.mem[63*page]
			for range 4 {
				if how := randomOnto(deviceMemory.phys + 63*page); how != "" {
					return succeeded("the device does not work: %s", how)
				}
				if deviceMemory.mem[63*page] != before {
					return refused("as it should")
				}
			}
			return succeeded("nothing was written")
		}},
	}
	if nets {
		l = append(l, thePolicy.onto("virtio-net", chosen), thePolicy.onto("virtio-rng's used ring", usedOnto),
			attempt{"virtio-net from and onto memory of devices", func() outcome { // the legitimate twin
				at := deviceMemory.phys + 62*page
				copy(deviceMemory.mem[62*page:], "what a device may read, and what another one may write: a frame")
				got, how := frameFrom(at)
				if how != "" || string(got[:]) != string(deviceMemory.mem[62*page:][:frameBytes]) {
					return succeeded("the devices do not work: %s", how)
				}
				if how := chosen(at); how != "" || deviceMemory.mem[62*page] != 0xa0 {
					return succeeded("the devices do not work: %s", how)
				}
				return refused("as it should")
			}})
	}
	if len(sys.Devices(vsockID)) > 0 {
		l = append(l, attempt{"virtio-vsock onto memory of devices", func() outcome { // the legitimate twin
			for range 2 {
				if how := resetOnto(deviceMemory.phys + 61*page); how != "" || deviceMemory.mem[61*page] != 2 {
					return succeeded("the device does not work: %s", how)
				}
				deviceMemory.mem[61*page] = 0
			}
			return refused("as it should")
		}}, thePolicy.onto("virtio-vsock", resetOnto))
	}
	if bounded == 0 {
		return l // more would only destroy the machine
	}
	private := uint64(uintptr(unsafe.Pointer(&privateMemory[0])))
	places := []place{own("text", text()), own("constants", constantAddr()), {"private memory", private - abi.DirectBase, func() (uint64, bool) { return read(private) }},
		shown("the first root table", abi.Tables+8*400), shown("a table of the pool", state().PoolNext-page), shown("the monitor's state", abi.MonitorPage),
		shown("the descriptors", abi.DescPage+abi.GDTOff), shown("the trap frames", abi.TrapPage), shown("the monitor's state of a processor", abi.LocalPage),
		own("the kernel", abi.KernelBase), shown("the IOMMU's table for devices", early.tables), shown("the IOMMU's table of text", early.tables+8*4),
		shown("the IOMMU's contexts", early.tables-2*page), shown("the IOMMU's root table", early.tables-3*page), shown("the IOMMU's upper table", early.tables-page)}
	if at, ok := iommuRegisters(); ok {
		r := abi.MMIOBase + at
		places = append(places, place{"the IOMMU's command", at + 0x18, func() (uint64, bool) { return read(r + 0x18) }},
			place{"the IOMMU's root register", at + 0x20, func() (uint64, bool) { return read(r + 0x20) }})
	}
	for _, p := range places {
		l = append(l, p.onto("virtio-rng", randomOnto), p.onto("virtio-rng's used ring", usedOnto), p.onto("virtio-net", chosen), p.from())
	}
	return append(l, thePolicy.from(), attempt{"be refused without being counted", func() outcome {
		for i := range 3 {
			before := sys.Stats().DMAFaults
			randomOnto(thePolicy.pa)
			if sys.Stats().DMAFaults == before {
				return succeeded("time %d", i)
			}
		}
		if n := sys.Stats().DMAFaults; n != sys.Stats().DMAFaults {
			return succeeded("counted without a reason")
		}
		return refused("counted")
	}}, attempt{"virtio-net as an interrupt of the timer", func() outcome {
		// Without remapping of interrupts a write there is one, which is the hypervisor's
		// to bound. It must lead nowhere else than to the vector's fixed address.
		how := frameOnto(abi.LAPICPhys, [frameBytes]byte{abi.TimerVector})
		if wrong, ok := audit(); !ok || wrong != "" {
			return succeeded("%s", wrong)
		}
		return refused("the tables are as they should be (%s)", how)
	}})
}

// from has a device read a place and send it away.
func (p place) from() attempt {
	return attempt{"virtio-net from " + p.name, func() outcome {
		got, how := frameFrom(p.pa)
		if got != [frameBytes]byte{} { // zeros come from where nothing is
			return succeeded("it was sent: %x", got[:8])
		}
		return refused("nothing of it was sent (%s)", how)
	}}
}

// iommuRegisters returns the physical address of the IOMMU's registers, as the tables have it
// for ring 0.
func iommuRegisters() (uint64, bool) {
	v, ok := uint64(0), false
	if seen, _, there := entryOf(abi.TableWindow+abi.IOMMUSlot, 1); there {
		v, ok = read(seen)
	}
	return v & pAddr, ok && v&pPresent != 0
}

const beforeSealing = "share with devices what is not memory before sealing"

// shareEarly asks the monitor to share with devices what it must not, before the machine is
// sealed.
func shareEarly(try bool) {
	m := state()
	early.tables = m.Shared
	if n, _ := sys.Bounded(); n == 0 || !try {
		return
	}
	const large = 2 << 20
	low, end := m.LowStart&^(large-1), m.LowEnd&^(large-1)
	for _, d := range []struct {
		name string
		pa   uint64
	}{{"page zero", 0}, {"the kernel", abi.KernelBase}, {"what lies before general memory", low}, {"an odd address", end - large + page},
		{"the end of memory", end}, {"what lies behind memory", end + large}, {"the local APIC", abi.LAPICPhys &^ (large - 1)},
		{"what lies behind high memory", m.HighEnd &^ (large - 1)}, {"bit 52", end - large | 1<<52}, {"the last address", 1<<64 - large}} {
		if d.pa == low && low == m.LowStart {
			continue
		}
		if r, s := ask(abi.MonShare, d.pa, 0, 0, 0); s != 0 || r != abi.MonRefused {
			early.wrong += fmt.Sprintf("%s is shared (result %d, signal %d); ", d.name, r, s)
		}
	}
}

// sharing asks the monitor for what it must not do about an IOMMU, also where there is none.
func sharing() []attempt {
	l := []attempt{
		{"share memory with devices after sealing", func() outcome { return answered(abi.MonShare, state().LowEnd&^(2<<20-1)-(2<<20)) }},
		{"share the policy with devices", func() outcome { return answered(abi.MonShare, policy()&^(2<<20-1)) }},
	}
	bounded, _ := sys.Bounded()
	if bounded == 0 {
		return append(l, attempt{"clear the faults of an IOMMU that there is not", func() outcome { return answered(abi.MonFaults, 0) }})
	}
	return append(l,
		attempt{beforeSealing, func() outcome {
			if early.wrong != "" {
				return succeeded("%s", early.wrong)
			}
			return refused("by the monitor")
		}},
		attempt{"memory for devices after sealing", func() outcome {
			if _, _, err := sys.DMA(page, true); err != nil {
				return refused("%v", err)
			}
			return succeeded("no error")
		}},
		attempt{"write the IOMMU's registers", func() outcome {
			at, _ := iommuRegisters()
			return faults(doWrite, regs{di: abi.MMIOBase + at + 0x18})
		}},
		attempt{"write the IOMMU's registers where ring 0 has them", func() outcome {
			return faults(doWrite, regs{di: abi.TableWindow + abi.IOMMUSlot + 0x18})
		}},
		attempt{"store to the IOMMU as a device", func() outcome {
			at, _ := iommuRegisters()
			if _, e := call(abi.SysStore, abi.MMIOBase+at+0x18, 0, 4, 0); e != 0 {
				return refused("%v", e)
			}
			return succeeded("no error")
		}},
		write("the IOMMU's table for devices", abi.TableWindow+early.tables),
		write("the IOMMU's contexts", abi.TableWindow+early.tables-2*page),
		write("the IOMMU's root table", abi.TableWindow+early.tables-3*page))
}

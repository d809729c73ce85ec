package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/acpi"
	"github.com/thurward/thurward/internal/guest/kernel/mp"
	"github.com/thurward/thurward/internal/shared/abi"
)

// Ways to end the machine, found in ACPI's FADT (ACPI 6.4, 5.2.9) where there
// is one, and by the fixed ports of QEMU and Firecracker otherwise.

// A register is an ACPI generic address: in memory or in I/O space.
type register struct {
	addr uint64
	io   bool
}

var (
	hasACPI    bool
	sleepReg   register
	resetReg   register
	resetValue uint8
)

// Offsets in the FADT.
const (
	fadtFlags      = 112
	fadtResetReg   = 116
	fadtResetValue = 128
	fadtSleep      = 244
	fadtResetOK    = 1 << 10
	fadtReduced    = 1 << 20
)

// physical returns where a physical address can be read during start-up.
func physical(pa uint64) uint64 {
	if pa < large {
		return abi.DirectBase + pa
	}
	return uint64(window(pa))
}

func phys8(pa uint64) uint8 {
	if pa >= large && !poolInRAM() {
		return 0 // there is no memory for the page table that this needs
	}
	return *at[uint8](physical(pa))
}

// poolInRAM reports whether the pool of page tables behind the image exists:
// the smallest machines end before it.
func poolInRAM() bool {
	for i := 0; i < loaded.nram; i++ {
		if loaded.ram[i].start <= record().ImageEnd && loaded.ram[i].end >= record().FreeStart {
			return true
		}
	}
	return false
}

func phys(pa uint64, n int) (v uint64) {
	for i := n - 1; i >= 0; i-- {
		v = v<<8 | uint64(phys8(pa+uint64(i)))
	}
	return v
}

// findPower reads the ACPI tables, which lie in low memory or are mapped for
// it; where devices are is noted too. Wrong tables lead to no register, never to a
// fault: every address is mapped before it is read, and counts are bounded.
func findPower() {
	rsdp := loaded.rsdp
	if rsdp == 0 {
		for a := uint64(0xe0000); a < lowMax; a += 16 {
			if *low[uint64](a) == 0x2052545020445352 { // "RSD PTR "
				rsdp = a
				break
			}
		}
	}
	if rsdp == 0 || rsdp >= lowMax-64 {
		return
	}
	root, size := phys(rsdp+16, 4), uint64(4) // RSDT
	if phys8(rsdp+15) >= 2 {
		if x := phys(rsdp+24, 8); x != 0 {
			root, size = x, 8
		}
	}
	if root == 0 || root >= maxTable {
		return
	}
	hasACPI = true
	n := phys(root+4, 4)
	for o := uint64(36); o+size <= min(n, 36+64*size); o += size {
		t := phys(root+o, int(size))
		if t == 0 || t >= maxTable {
			continue
		}
		switch acpi.Signature(phys(t, 4)) {
		case acpi.FADT:
			readFADT(t, phys(t+4, 4))
			readDSDT(t, phys(t+4, 4))
		case acpi.MADT:
			mp.ReadMADT(table(t), &listed)
			madtRead = true
		case acpi.MCFG:
			readMCFG(t)
		case acpi.DMAR:
			iommuAt, _ = acpi.ReadDMAR(table(t))
		case acpi.SSDT:
			acpiGen.Read(table(t))
		}
	}
}

// maxTable bounds where tables are looked for: below the device hole's end.
const maxTable = 1 << 32

func readFADT(t, n uint64) {
	flags := phys(t+fadtFlags, 4)
	if n > fadtResetValue && flags&fadtResetOK != 0 {
		resetReg = readRegister(t + fadtResetReg)
		resetValue = phys8(t + fadtResetValue)
	}
	if n >= fadtSleep+12 && flags&fadtReduced != 0 {
		sleepReg = readRegister(t + fadtSleep)
	}
	if flags&fadtReduced == 0 {
		readFixed(t)
	}
}

func readRegister(t uint64) register {
	r := register{addr: phys(t+4, 8)}
	switch phys8(t) {
	case 0:
		if r.addr >= maxTable {
			return register{}
		}
	case 1:
		r.io = true
		if !portAllowed(r.addr) {
			puts("thurward: kernel: ACPI names the port ")
			putx(r.addr)
			puts(" to end the machine, which is not among the allowed ones; it is not used\n")
			return register{}
		}
	default:
		return register{}
	}
	return r
}

// portAllowed reports whether the TSS lets ring 3 use a port at any time.
func portAllowed(port uint64) bool {
	for i := range abi.IOPorts {
		if r := &abi.IOPorts[i]; r.Final && port >= uint64(r.First) && port <= uint64(r.Last) {
			return true
		}
	}
	return false
}

func (r register) write(v uint8) {
	switch {
	case r.addr == 0:
	case r.io:
		outb(uint16(r.addr), v)
	default:
		store8(window(r.addr), v)
	}
}

// power ends the machine; it does not return.
func power(how uint64) {
	stopOthers()
	flushLine()
	if how == abi.PowerReset {
		resetReg.write(resetValue)
	} else {
		sleepReg.write(5<<2 | 0x20) // S5, SLP_EN
		outw(0x604, 0x2000)         // QEMU's other machines
	}
	outb(0x64, 0xfe) // the keyboard controller's reset line: Firecracker's only way
	outb(0xcf9, 6)
	resetReg.write(resetValue)
	for {
		// Nothing ends this machine. Sleep with the timer off.
		monitor(monTimer, 0, 0, 0, 0)
		monitor(monHalt, 0, 0, 0, 0)
		shared().Pending = 0
	}
}

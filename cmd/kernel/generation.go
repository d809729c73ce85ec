package main

import "github.com/thurward/thurward/internal/shared/abi"

// Where the host writes that the machine's state was restored: VMGenID and VMClock
// (package kernel/acpi). The program reads the words by itself before each batch of
// packets, which is sooner than an interrupt and needs none.

var genPages uint64 // pages mapped at abi.GenPages

// VMClock's page (Linux, uapi/linux/vmclock-abi.h).
const (
	vmclockMagic     = 0x4b4c4356 // "VCLK"
	vmclockBytes     = 112
	vmclockSize      = 4
	vmclockMarker    = 16 // disruption_marker: also changes with a migration
	vmclockFlags     = 24
	vmclockCounter   = 104    // vm_generation_counter
	vmclockHasCounts = 1 << 8 // in the flags: there is one
)

// findGenerations maps the words that change with a restore and tells the program
// where they are.
func findGenerations() {
	n := 0
	put := func(va uint64) {
		info().Generations[n] = va
		n++
	}
	if a := mapGeneration(acpiGen.ID); a != 0 {
		put(a)
		put(a + 8)
	}
	a := mapGeneration(acpiGen.Clock)
	if a == 0 || *at[uint32](a) != vmclockMagic || *at[uint32](a + vmclockSize) < vmclockBytes {
		return
	}
	if *at[uint64](a + vmclockFlags)&vmclockHasCounts != 0 {
		put(a + vmclockCounter)
	} else {
		put(a + vmclockMarker)
	}
}

// mapGeneration maps the page of a physical address for reading, and returns where it
// is; 0 where it cannot be one of the host's. Below 1 MiB, where Firecracker has it,
// there is nothing that the kernel uses.
func mapGeneration(pa uint64) uint64 {
	page := pa &^ 4095
	if pa == 0 || page+4096 > lowMax && !vacant(page, 4096) {
		return 0
	}
	va := abi.GenPages + genPages<<12
	setEntry(entry(va), page|pPresent|pUser|pAccessed|pNX)
	genPages++
	return va + pa&4095
}

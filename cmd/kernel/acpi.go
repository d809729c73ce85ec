package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/acpi"
	"github.com/thurward/thurward/internal/shared/abi"
)

// Where ACPI says that devices are. Its tables are read before memory is given
// out, while those below 1 MiB are still mapped (findPower).

var (
	acpiFound acpi.Found
	acpiRead  bool // the DSDT was read
	acpiGen   acpi.Generations
)

// maxAML bounds how much of a table is read, in bytes.
const maxAML = 256 << 10

// Offsets of the DSDT's address in the FADT.
const (
	fadtDSDT  = 40
	fadtXDSDT = 140
)

// span returns n bytes of physical memory as they lie, mapped; nil where they
// cannot be.
func span(pa, n uint64) []byte {
	if pa+n <= large {
		return bytesAt(abi.DirectBase+pa, n)
	}
	if pa < large || !poolInRAM() {
		return nil
	}
	for p := pa &^ 4095; p < pa+n; p += 4096 {
		window(p)
	}
	return bytesAt(abi.MMIOBase+pa, n)
}

// table returns the table at pa, bounded.
func table(pa uint64) []byte {
	n := phys(pa+4, 4)
	if n < acpi.HeaderSize || pa+n > maxTable {
		return nil
	}
	return span(pa, min(n, maxAML))
}

// readMCFG notes where PCI's configuration space is.
func readMCFG(pa uint64) {
	if s, ok := acpi.ReadMCFG(table(pa)); ok {
		ecam, ecamFirst, ecamLast = s.Base, s.First, s.Last
	}
}

// readDSDT looks for devices in the DSDT that a FADT of n bytes at t names: virtio
// devices unless the command line names them.
func readDSDT(t, n uint64) {
	pa := phys(t+fadtDSDT, 4)
	if n >= fadtXDSDT+8 {
		if x := phys(t+fadtXDSDT, 8); x != 0 {
			pa = x
		}
	}
	if pa == 0 || pa >= maxTable || acpi.Signature(phys(pa, 4)) != acpi.DSDT {
		return
	}
	acpiGen.Read(table(pa))
	acpiEvents.Read(table(pa))
	if hasPrefix(cmdlineDevice) {
		return
	}
	acpi.ReadDSDT(table(pa), &acpiFound)
	acpiRead = true
	if c := &acpiFound.Config; c.Base != 0 && ecam == 0 {
		ecam, ecamFirst, ecamLast = c.Base, c.First, c.Last
		// A machine that has this in place of MCFG has no firmware that gives
		// addresses to BARs. On others the kernel gives none: it does not know
		// which are taken.
		pciNext, pciEnd = acpiFound.Start, acpiFound.End
	}
}

// addACPI notes the virtio-mmio devices of the DSDT.
func addACPI() {
	if acpiFound.N > 0 {
		found.Sources |= abi.SourceACPI
	}
	for i := 0; i < acpiFound.N && i < acpi.MaxDevices; i++ {
		d := &acpiFound.Devices[i]
		switch {
		case d.GSI < ioapicPins:
			addDevice(d.Address, ioapic1, d.GSI)
		case d.GSI < 2*ioapicPins:
			addDevice(d.Address, ioapic2, d.GSI-ioapicPins)
		}
	}
}

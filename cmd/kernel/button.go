package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/acpi"
	"github.com/thurward/thurward/internal/shared/abi"
)

// The power button, by which hypervisors ask a machine to end: ACPI's fixed hardware
// (ACPI 6.4, 4.8.3; QEMU's pc and q35), or its generic event device (microvm,
// cloud-hypervisor). With Firecracker that device says that the machine was restored:
// its interrupt then wakes the program, whose timer may have been lost with the old
// machine.

var (
	acpiEvents acpi.Events
	eventAt    uintptr // the event device's register; 0: none
	buttonPort uint64  // of the fixed hardware: status and enable, 16 bits each; 0: none
	buttonPin  uint32
)

// Offsets in the FADT (5.2.9), and the bit of the button in status and enable.
const (
	fadtSCI      = 46
	fadtPM1Event = 56
	pm1Enable    = 2
	pm1Button    = 1 << 8
)

// readFixed notes the fixed hardware of a FADT at t.
func readFixed(t uint64) {
	port, pin := phys(t+fadtPM1Event, 4), uint32(phys(t+fadtSCI, 2))
	if port != 0 && portAllowed(port) && portAllowed(port+3) && pin < ioapicPins {
		buttonPort, buttonPin = port, pin
	}
}

// startButton enables the button and routes its interrupt, edge-triggered: the line
// of the fixed hardware falls when the status is cleared.
func startButton() {
	if buttonPort != 0 {
		outw(uint16(buttonPort), pm1Button) // what was pressed before
		outw(uint16(buttonPort)+pm1Enable, pm1Button)
		route(buttonPin)
		return
	}
	e := &acpiEvents
	if e.Register != 0 && vacant(e.Register, 4) {
		eventAt = uintptr(mapRegisters(e.Register, 4))
		eventBits()
	}
	for i := 0; i < e.N && i < acpi.MaxEvents; i++ {
		if e.GSI[i] < ioapicPins && e.GSI[i] != keyPin {
			route(e.GSI[i])
		}
	}
}

// route has a pin of the first I/O APIC interrupt as the keyboard controller does.
func route(pin uint32) {
	ioapicWrite(ioapic1, ioapicTable+2*pin+1, 0)
	ioapicWrite(ioapic1, ioapicTable+2*pin, abi.KeyVector)
}

// eventBits reads and clears what the event device says.
func eventBits() uint32 {
	if acpiEvents.Width == 1 {
		return uint32(load8(eventAt))
	}
	return load32(eventAt)
}

// buttonPressed reports whether the button was pressed since the last call.
func buttonPressed() bool {
	switch {
	case buttonPort != 0:
		hit := inw(uint16(buttonPort))&pm1Button != 0
		if hit {
			outw(uint16(buttonPort), pm1Button)
		}
		return hit
	case eventAt != 0:
		return eventBits()&acpiEvents.Button != 0
	}
	return false
}

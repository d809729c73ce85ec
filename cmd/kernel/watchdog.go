package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/pci"
	"github.com/thurward/thurward/internal/shared/abi"
)

// The watchdog timer of the Intel 6300ESB I/O controller (data sheet 300641, 15),
// which hypervisors offer as a PCI device (QEMU: i6300esb). It is started as soon as it
// is found, so that a start that hangs is noticed, and locked: only a reset of the
// machine stops it. The packet loop then gives it a shorter time and feeds it.

const (
	dogID    = 0x25ab<<16 | 0x8086
	dogBytes = 16 // of registers

	dogConfig = 0x60 // in the configuration space, 16 bits
	dogReset  = 3    // there: 1 kHz, no interrupt at the end of the first stage, a reset at the second's
	dogLock   = 0x68 // 8 bits
	dogEnable = 2
	dogLocked = 1

	dogStart = 30_000 // ticks of each of the two stages while the machine starts
)

// startWatchdog starts the device, the first where there are several.
func startWatchdog(fn uint32) {
	if info().Watchdog != 0 {
		return
	}
	readConfig(fn)
	cmd := pciConfig.Word(pci.Command) & 0xffff &^ pci.CommandMemory
	pciWrite(fn, pci.Command, cmd)
	b := bar(fn, 0)
	if b.Size < dogBytes || b.Address == 0 || !vacant(b.Address, dogBytes) {
		puts("thurward: kernel: the machine's watchdog is not used: its registers have no address\n")
		return
	}
	r := mapRegisters(b.Address, dogBytes)
	pciWrite(fn, pci.Command, cmd|pci.CommandMemory)
	pciWrite16(fn, dogConfig, dogReset)
	for i := uint64(0); i < 2; i++ {
		store16(uintptr(r+abi.DogReload), abi.DogUnlock1)
		store16(uintptr(r+abi.DogReload), abi.DogUnlock2)
		store32(uintptr(r+4*i), dogStart)
	}
	pciWrite8(fn, dogLock, dogEnable|dogLocked)
	info().Watchdog = r
}

// pciWrite16 and pciWrite8 write parts of a word of the configuration space.
func pciWrite16(fn, off uint32, v uint16) {
	if ecam != 0 {
		store16(ecamRegister(fn, off), v)
		return
	}
	outl(pciAddress, pciEnable|fn<<8|off&^3)
	outw(pciData+uint16(off&3), v)
}

func pciWrite8(fn, off uint32, v uint8) {
	if ecam != 0 {
		store8(ecamRegister(fn, off), v)
		return
	}
	outl(pciAddress, pciEnable|fn<<8|off&^3)
	outb(pciData+uint16(off&3), v)
}

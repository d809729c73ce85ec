package main

import (
	"github.com/thurward/thurward/internal/shared/abi"
)

// I/O APIC registers (Intel 82093AA), and where hypervisors put the chips.
const (
	ioapic1     = 0xfec00000
	ioapic2     = 0xfec10000 // QEMU microvm: interrupts 24 and up
	ioapicSel   = 0x00
	ioapicWin   = 0x10
	ioapicVer   = 1
	ioapicTable = 0x10
	ioapicPins  = 24
)

// virtio-mmio registers (virtio 1.2, 4.2.2) that finding a device needs.
const (
	mmioMagic   = 0x000
	mmioVersion = 0x004
	mmioID      = 0x008
	virtioMagic = 0x74726976
	netID       = 1
)

// QEMU microvm's register windows, where the command line does not list them
// (QEMU, hw/i386/microvm.c).
const (
	microvmBase  = 0xfeb00000
	microvmStep  = 0x200
	microvmSlots = 24
)

var (
	devices    uint32 // number of devices found
	mappedPage [32]uint64
	mappedN    int
)

// window maps the page of a register window, while the machine is set up.
func window(pa uint64) uintptr {
	for i := 0; i < mappedN; i++ {
		if mappedPage[i] == pa&^4095 {
			return uintptr(abi.MMIOBase + pa)
		}
	}
	if mappedN < len(mappedPage) {
		mappedPage[mappedN] = pa &^ 4095
		mappedN++
	}
	return mapDevice(pa)
}

// dropWindows unmaps the registers that the program must not reach: of what was
// mapped while the machine was set up, only the virtio registers of devices and
// those that end the machine stay.
func dropWindows() {
	for _, r := range [...]register{resetReg, sleepReg} {
		if r.addr != 0 && !r.io {
			window(r.addr)
		}
	}
	for va := uint64(abi.MMIOBase); va < abi.TableWindow&^(1<<39-1); {
		t, empty := tableOf(va)
		if empty != 0 {
			va = (va | (empty - 1)) + 1
			continue
		}
		for i := uint64(0); i < 512; i++ {
			switch e := tableAt(t, i); {
			case *e == 0:
			case iommuRegs != 0 && va+i<<12 == uint64(iommuRegs):
				setEntry(e, *e&^pWrite) // the kernel looks for faults there
			case !kept(va + i<<12):
				setEntry(e, 0)
			}
		}
		va += large
	}
	lapic = 0
}

// kept reports whether a page of registers stays mapped.
func kept(va uint64) bool {
	for _, r := range [...]register{resetReg, sleepReg} {
		if r.addr != 0 && !r.io && va == abi.MMIOBase+r.addr&^4095 {
			return true
		}
	}
	if eventAt != 0 && va == uint64(eventAt)&^4095 {
		return true
	}
	if va >= abi.GenPages && va < abi.GenPages+genPages*4096 {
		return true
	}
	if a := info().Watchdog; a != 0 && within(va, a, dogBytes) {
		return true
	}
	for i := uint32(0); i < devices; i++ {
		d, n := &info().Devices[i], uint32(pciCommonBytes)
		if d.Notify == 0 {
			n = microvmStep
		}
		if within(va, d.Registers, n) || within(va, d.Notify, d.NotifyLen) || within(va, d.Config, d.ConfigLen) {
			return true
		}
	}
	return false
}

// within reports whether a page has a byte of a window.
func within(va, start uint64, size uint32) bool {
	return va < start+uint64(size) && start < va+4096
}

// findDevices finds the virtio devices: on MMIO by the command line where it
// names them, as Firecracker's does, otherwise by ACPI's DSDT, or by looking at
// microvm's slots where there is no ACPI; and on PCI, where MMIO has fewer network devices than a firewall needs.
func findDevices() {
	if scanCmdline() != 0 {
		found.Sources |= abi.SourceCmdline
	} else if acpiRead {
		addACPI()
	} else {
		probeMicrovm()
	}
	if networks() < 2 && !hasPrefix("pci=off") {
		findPCI()
	}
	if found.Legacy > 0 && devices == 0 && found.Functions == 0 {
		refuse("the virtio devices are of the legacy kind (QEMU needs -global virtio-mmio.force-legacy=false)")
	}
	info().NumDevices, info().Found = devices, found
}

// networks returns the number of network devices.
func networks() (n int) {
	for i := uint32(0); i < devices; i++ {
		if info().Devices[i].ID == netID {
			n++
		}
	}
	return n
}

// hasPrefix reports whether one of the boot arguments begins with p.
func hasPrefix(p string) bool {
	c := loaded.cmd[:loaded.cmdLen]
	for i := 0; i < len(c); {
		j := i
		for j < len(c) && c[j] != ' ' {
			j++
		}
		if j-i >= len(p) && string(c[i:i+len(p)]) == p {
			return true
		}
		i = j + 1
	}
	return false
}

func probeMicrovm() {
	if load32(window(microvmBase)+mmioMagic) != virtioMagic {
		return
	}
	found.Sources |= abi.SourceSlots
	first, chip := uint32(5), uint64(ioapic1)
	slots := 8
	if v := ioapicRead(ioapic2, ioapicVer); v != 0 && v != 0xffffffff {
		first, chip, slots = 0, ioapic2, microvmSlots
	} else if hasACPI {
		first = 16
	}
	// QEMU fills the slots from the last one down. Each look is an exit to the
	// host, so the search ends after two empty ones, unless none was taken: a
	// user may have chosen slots.
	for i, empty := slots-1, 0; i >= 0 && (empty < 2 || devices == 0); i-- {
		n := devices
		addDevice(microvmBase+uint64(i)*microvmStep, chip, first+uint32(i))
		if empty++; devices != n {
			empty = 0
		}
	}
}

// cmdlineDevice is what an argument that names a device begins with.
const cmdlineDevice = "virtio_mmio.device="

// scanCmdline adds the devices of arguments of the form
// virtio_mmio.device=<size>[KMG]@<address>:<irq>[:<id>] and returns their
// number.
func scanCmdline() int {
	const key = cmdlineDevice
	c := loaded.cmd[:loaded.cmdLen]
	n := 0
	for i := 0; i < len(c); {
		j := i
		for j < len(c) && c[j] != ' ' {
			j++
		}
		if w := c[i:j]; len(w) > len(key) && string(w[:len(key)]) == key {
			if pa, irq, ok := parseDevice(w[len(key):]); ok {
				n++
				if irq < ioapicPins {
					addDevice(pa, ioapic1, irq)
				} else {
					addDevice(pa, ioapic2, irq-ioapicPins)
				}
			} else {
				refuse("a virtio_mmio.device argument is not size@address:irq")
			}
		}
		i = j + 1
	}
	return n
}

func parseDevice(w []byte) (pa uint64, irq uint32, ok bool) {
	i := 0
	for i < len(w) && w[i] != '@' {
		i++
	}
	i++
	if i+2 <= len(w) && w[i] == '0' && w[i+1]|0x20 == 'x' {
		i += 2
	}
	k := i
	for ; i < len(w) && w[i] != ':'; i++ {
		d := w[i]
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d|0x20 >= 'a' && d|0x20 <= 'f':
			d = d | 0x20 - 'a' + 10
		default:
			return 0, 0, false
		}
		if pa >= 1<<44 {
			return 0, 0, false
		}
		pa = pa<<4 | uint64(d)
	}
	if i == k || i >= len(w) || pa&3 != 0 {
		return 0, 0, false
	}
	k = i + 1
	for i++; i < len(w) && w[i] >= '0' && w[i] <= '9'; i++ {
		irq = irq*10 + uint32(w[i]-'0')
		if irq > 47 {
			return 0, 0, false
		}
	}
	return pa, irq, i > k && pa >= 1<<20
}

// addDevice notes the device at a register window, if there is one, and routes
// its interrupt.
func addDevice(pa, chip uint64, pin uint32) {
	if !vacant(pa, microvmStep) {
		refuse("a virtio-mmio device is said to be where memory or an interrupt controller is")
	}
	r := window(pa)
	id := load32(r + mmioID)
	if id == 0 || load32(r+mmioMagic) != virtioMagic {
		return
	}
	if load32(r+mmioVersion) != 2 {
		found.Legacy++
		return
	}
	if devices == abi.MaxDevices {
		tooMany()
		return
	}
	in := info()
	in.Devices[devices] = abi.Device{Registers: uint64(r), Phys: pa, ID: id, Bit: devices, Vectors: 1}
	// Edge-triggered, active high, to CPU 0: right for Firecracker, whose
	// interrupts are edges, and for QEMU, whose level falls when the driver
	// acknowledges.
	ioapicWrite(chip, ioapicTable+2*pin+1, 0)
	ioapicWrite(chip, ioapicTable+2*pin, abi.DeviceVector+devices)
	devices++
}

func ioapicRead(chip uint64, reg uint32) uint32 {
	r := window(chip)
	store32(r+ioapicSel, reg)
	return load32(r + ioapicWin)
}

func ioapicWrite(chip uint64, reg, v uint32) {
	r := window(chip)
	store32(r+ioapicSel, reg)
	store32(r+ioapicWin, v)
}

// pciCommonBytes is the size of the common configuration (virtio 1.2, 4.1.4.3).
const pciCommonBytes = 0x38

// deviceAddress reports whether the n bytes at a, 1, 2 or 4, are a register of a
// device that was found.
func deviceAddress(a, n uint64) bool {
	if n != 1 && n != 2 && n != 4 || a&(n-1) != 0 {
		return false
	}
	in := info()
	if in.Watchdog != 0 && inside(a, n, in.Watchdog, dogBytes) {
		return true
	}
	for i := uint32(0); i < devices; i++ {
		d := &in.Devices[i]
		if d.Notify == 0 {
			if a-d.Registers < microvmStep {
				return true
			}
		} else if inside(a, n, d.Notify, d.NotifyLen) || inside(a, n, d.Registers, pciCommonBytes) || inside(a, n, d.Config, d.ConfigLen) {
			return true
		}
	}
	return false
}

// inside reports whether the n bytes at a lie in a window.
func inside(a, n, start uint64, size uint32) bool {
	return a >= start && a+n <= start+uint64(size)
}

// sysLoad and sysStore: see abi.SysLoad.
func sysLoad(a, n uint64) uint64 {
	if !deviceAddress(a, n) {
		return errno(eFAULT)
	}
	switch n {
	case 1:
		return uint64(load8(uintptr(a)))
	case 2:
		return uint64(load16(uintptr(a)))
	}
	return uint64(load32(uintptr(a)))
}

func sysStore(a, v, n uint64) uint64 {
	if !deviceAddress(a, n) {
		return errno(eFAULT)
	}
	switch n {
	case 1:
		store8(uintptr(a), uint8(v))
	case 2:
		store16(uintptr(a), uint16(v))
	default:
		store32(uintptr(a), uint32(v))
	}
	return 0
}

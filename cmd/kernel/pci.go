package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/pci"
	"github.com/thurward/thurward/internal/shared/abi"
)

// Devices on PCI: the configuration space is read by ECAM where ACPI says where
// that is (MCFG; PCI Firmware 3.0, 4.1), by ports 0xcf8 and 0xcfc otherwise
// (PCI Local Bus 3.0, 3.2.2.3.2). Package kernel/pci understands it.

const (
	pciAddress = 0xcf8
	pciData    = 0xcfc
	pciEnable  = 1 << 31

	pciBuses     = 256
	pciDevices   = 32
	pciFunctions = 8
	maxTold      = 8 // functions whose problems are printed
)

var (
	ecam      uint64 // physical address of the configuration space of bus 0; 0: ports
	ecamFirst uint32 // buses that it covers
	ecamLast  uint32
	ecamAt    uint64 // the 2 MiB that are mapped
	pciNext   uint64 // where BARs without an address are put: see findWindow
	pciEnd    uint64
	busSeen   [pciBuses / 32]uint32
	busTodo   [pciBuses / 32]uint32
	pciConfig pci.Config
	pciDev    pci.Device
	found     abi.Found
	toldN     int
)

// pciRead reads a word of the configuration space of a function, bus<<8 |
// device<<3 | function.
func pciRead(fn, off uint32) uint32 {
	if ecam != 0 {
		return load32(ecamRegister(fn, off))
	}
	outl(pciAddress, pciEnable|fn<<8|off)
	return inl(pciData)
}

func pciWrite(fn, off, v uint32) {
	if ecam != 0 {
		store32(ecamRegister(fn, off), v)
		return
	}
	outl(pciAddress, pciEnable|fn<<8|off)
	outl(pciData, v)
}

// ecamRegister maps the 2 MiB in which a register lies, in place of the last.
// None stays mapped when the search is over: who can write a BAR can put a
// device's memory over the machine's.
func ecamRegister(fn, off uint32) uintptr {
	pa := ecam + uint64(fn)<<12
	if base := pa &^ (large - 1); base != ecamAt {
		setEntry(directory(abi.MMIOECAM), base|pDevice|pLarge)
		if ecamAt != 0 {
			flushTLB()
		}
		ecamAt = base
	}
	return uintptr(abi.MMIOECAM + pa&(large-1) + uint64(off))
}

// findPCI looks for virtio devices on PCI.
func findPCI() {
	if ecam != 0 {
		found.Sources |= abi.SourceECAM
	} else {
		if !hasPorts() {
			return
		}
		found.Sources |= abi.SourcePorts
		ecamLast = pciBuses - 1
	}
	busTodo[ecamFirst/32] |= 1 << (ecamFirst % 32)
	for more := true; more; {
		more = false // a bus may be found behind one with a higher number
		for bus := ecamFirst; bus <= ecamLast; bus++ {
			if busTodo[bus/32]&^busSeen[bus/32]>>(bus%32)&1 != 0 {
				busSeen[bus/32] |= 1 << (bus % 32)
				more = true
				scanBus(bus)
			}
		}
	}
	if ecamAt != 0 {
		setEntry(directory(abi.MMIOECAM), 0)
		flushTLB()
	}
}

// hasPorts reports whether something answers at the configuration ports.
func hasPorts() bool {
	outl(pciAddress, pciEnable)
	return inl(pciAddress) == pciEnable
}

func scanBus(bus uint32) {
	for dev := uint32(0); dev < pciDevices; dev++ {
		fn := bus<<8 | dev<<3
		if !scanFunction(fn) || pciRead(fn, pci.Header)>>16&pci.HeaderMany == 0 {
			continue
		}
		for f := uint32(1); f < pciFunctions; f++ {
			scanFunction(fn | f)
		}
	}
}

// scanFunction looks at a function and reports whether there is one. What lies
// behind a bridge is noted for later.
func scanFunction(fn uint32) bool {
	id := pciRead(fn, pci.ID)
	if id == 0xffffffff || id == 0 {
		return false
	}
	found.Functions++
	if id == dogID {
		startWatchdog(fn)
		return true
	}
	if pci.IsVirtio(id) {
		if p := addFunction(fn); p != pci.OK {
			tellFunction(fn, p)
		}
		return true
	}
	if pciRead(fn, pci.Header)>>16&0x7f == pci.HeaderBridge {
		if bus := pciRead(fn, pci.Buses) >> 8 & 0xff; bus >= ecamFirst && bus <= ecamLast {
			busTodo[bus/32] |= 1 << (bus % 32)
		}
	}
	return true
}

// addFunction notes a virtio device and makes its interrupts come.
func addFunction(fn uint32) pci.Problem {
	readConfig(fn)
	d := &pciDev
	if p := pciConfig.Virtio(d); p != pci.OK {
		return p
	}
	if devices == abi.MaxDevices {
		tooMany()
		return pci.OK
	}
	// While a BAR is asked for its size it leads anywhere.
	cmd := pciConfig.Word(pci.Command) & 0xffff &^ pci.CommandMemory
	pciWrite(fn, pci.Command, cmd)
	var at [4]uint64
	b, of := pci.BAR{}, uint32(pci.NumBARs)
	for i, w := range [4]pci.Window{d.Common, d.Notify, d.Config, d.Table} {
		if w.Length == 0 {
			continue
		}
		if of != w.BAR {
			b, of = bar(fn, w.BAR), w.BAR
		}
		pa, p := w.Place(b)
		if p != pci.OK {
			return p
		}
		if !vacant(pa, uint64(w.Length)) {
			return pci.InMemory
		}
		at[i] = mapRegisters(pa, uint64(w.Length))
	}
	pciWrite(fn, pci.Command, cmd|pci.CommandMemory|pci.CommandMaster|pci.CommandNoINTx)
	msixAt[devices], msixEntries[devices] = at[3], d.Table.Length/msixEntry
	routeEntry(devices, 0, abi.ConfigVector, 0)
	routeEntry(devices, 1, abi.DeviceVector+devices, 0)
	msix := uint32(d.MSIX)
	pciWrite(fn, msix, pciConfig.Word(d.MSIX)&^pci.MSIXMaskAll|pci.MSIXEnable)
	info().Devices[devices] = abi.Device{Registers: at[0], ID: d.Type, Bit: devices, Notify: at[1], NotifyLen: d.Notify.Length, Config: at[2],
		ConfigLen: d.Config.Length, Multiplier: d.Multiplier, Function: fn, Vectors: 1}
	devices++
	return pci.OK
}

// msixEntry is the size of an entry of the MSI-X table.
const msixEntry = 16

// Where the devices' MSI-X tables are mapped while the machine is set up, and how many
// entries each has.
var (
	msixAt      [abi.MaxDevices]uint64
	msixEntries [abi.MaxDevices]uint32
)

// routeEntry has an entry of a device's MSI-X table interrupt the processor with the given
// local APIC, in the upper 8 bits, edge-triggered (Intel SDM vol. 3, 11.11).
func routeEntry(device, entry, vector, apic uint32) {
	e := uintptr(msixAt[device] + msixEntry*uint64(entry))
	store32(e, abi.LAPICPhys|apic>>24<<12)
	store32(e+4, 0)
	store32(e+8, vector)
	store32(e+12, 0) // not masked
}

// routeQueues gives each device a vector for the queues of each processor, as far as its
// table has entries: entry 1+p interrupts processor p. It is done once, before the program
// starts: who can write an MSI-X table can interrupt any processor by any vector, by INIT
// and NMI too, and have the device write anywhere.
func routeQueues() {
	in := info()
	for d := uint32(0); d < devices; d++ {
		for p := uint32(1); p < in.Processors && p+1 < msixEntries[d]; p++ {
			routeEntry(d, p+1, abi.DeviceVector+d, mon().APIC[p])
			in.Devices[d].Vectors = p + 1
		}
	}
}

// readConfig copies what matters of a function's configuration space.
func readConfig(fn uint32) {
	clear(pciConfig[:])
	for i := range pci.HeaderWords {
		copyWord(fn, pci.HeaderWords[i])
	}
	p := pciConfig.Next(0)
	for n := 0; p != 0 && n < pci.MaxCaps; n++ {
		copyWord(fn, p)
		for i := uint8(1); i < pciConfig.Words(p); i++ {
			copyWord(fn, p+4*i)
		}
		p = pciConfig.Next(p)
	}
}

func copyWord(fn uint32, off uint8) { pciConfig.SetWord(off, pciRead(fn, uint32(off))) }

// bar reads a BAR, asks for its size, and gives it an address if it has none.
func bar(fn, i uint32) pci.BAR {
	off := uint32(pci.BAR0) + 4*i
	lo, hi := barSize(fn, off), uint32(0)
	if pciConfig.Wide(i) {
		hi = barSize(fn, off+4)
	}
	b := pciConfig.BAR(i, lo, hi)
	if b.Size == 0 || b.Address != 0 || b.Size > pciEnd-pciNext {
		return b
	}
	a := alignUp(pciNext, b.Size)
	if a > pciEnd-b.Size {
		return b
	}
	pciNext = a + b.Size
	b.Address = a
	for k, v := range [2]uint32{uint32(a), uint32(a >> 32)} {
		if k == 0 || b.Wide {
			pciWrite(fn, off+4*uint32(k), v)
			pciConfig.SetWord(uint8(off)+4*uint8(k), v|pciConfig.Word(uint8(off)+4*uint8(k))&15)
		}
	}
	return b
}

// barSize returns what a BAR reads as when all ones are written to it, and puts
// it back.
func barSize(fn, off uint32) uint32 {
	pciWrite(fn, off, 0xffffffff)
	v := pciRead(fn, off)
	pciWrite(fn, off, pciConfig.Word(uint8(off)))
	return v
}

// vacant reports whether addresses belong to nothing that the kernel knows of:
// registers mapped there could be the image under another name.
func vacant(pa, n uint64) bool {
	if pa < lowMax || pa < ioapic1+0x300000 && pa+n > ioapic1 { // I/O APICs and local APIC
		return false
	}
	if pa < record().FreeStart {
		return false
	}
	for i := 0; i < loaded.nram; i++ {
		if pa < loaded.ram[i].end && pa+n > loaded.ram[i].start {
			return false
		}
	}
	return true
}

// farNext counts the pages of registers that are mapped out of order.
var farNext uint64

// mapRegisters maps registers, which need not begin on a page, and returns where
// they are. Those too far up for their own place in the window get another.
func mapRegisters(pa, n uint64) uint64 {
	first, last := pa&^4095, (pa+n-1)&^4095
	if last < abi.MMIOFar-abi.MMIOBase {
		for p := first; p <= last; p += 4096 {
			window(p)
		}
		return abi.MMIOBase + pa
	}
	va := abi.MMIOFar + farNext<<12
	for p := first; p <= last; p += 4096 {
		setEntry(entry(abi.MMIOFar+farNext<<12), p|pDevice)
		farNext++
	}
	return va + pa&4095
}

// tellFunction says which virtio device cannot be used, and why.
func tellFunction(fn uint32, p pci.Problem) {
	if p == pci.Legacy {
		found.Legacy++
	} else {
		found.Unusable++
	}
	if toldN++; toldN > maxTold {
		return
	}
	puts("thurward: kernel: the virtio device at PCI ")
	putFunction(fn)
	puts(" is not used: ")
	puts(p.String())
	putc('\n')
}

// putFunction prints bus, device and function.
func putFunction(fn uint32) {
	putx(uint64(fn >> 8))
	putc(':')
	putx(uint64(fn >> 3 & 31))
	putc('.')
	putu(uint64(fn & 7))
}

func tooMany() {
	puts("thurward: kernel: more virtio devices than can be used; one is ignored\n")
}

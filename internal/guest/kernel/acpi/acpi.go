// Package acpi reads from ACPI's tables where devices are: virtio-mmio windows and
// the addresses that PCI may use, from the DSDT; PCI's configuration space, from
// MCFG. The DSDT is a program in AML, of which nothing is run: constant resources
// of devices with a known _HID are looked for, which is how hypervisors write
// them. Nothing in a table is believed: what does not fit is passed over.
//
// The kernel uses it (cmd/kernel/acpi.go): no allocation, no interfaces.
package acpi

// HeaderSize is the size of a table's header (ACPI 6.4, 5.2.6) in bytes.
const HeaderSize = 36

// A Signature is the first four bytes of a table, little-endian.
type Signature uint32

// The tables that are read.
const (
	MADT Signature = 'A' | 'P'<<8 | 'I'<<16 | 'C'<<24
	FADT Signature = 'F' | 'A'<<8 | 'C'<<16 | 'P'<<24
	MCFG Signature = 'M' | 'C'<<8 | 'F'<<16 | 'G'<<24
	DMAR Signature = 'D' | 'M'<<8 | 'A'<<16 | 'R'<<24
	DSDT Signature = 'D' | 'S'<<8 | 'D'<<16 | 'T'<<24
	SSDT Signature = 'S' | 'S'<<8 | 'D'<<16 | 'T'<<24
)

func word(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func quad(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return uint64(word(b)) | uint64(word(b[4:]))<<32
}

// A Space is PCI's configuration space of segment 0: the physical address of bus
// 0's, and the buses that it covers.
type Space struct {
	Base        uint64
	First, Last uint32
}

// ReadMCFG finds the configuration space of segment 0 (PCI Firmware 3.0, 4.1.2).
func ReadMCFG(table []byte) (s Space, ok bool) {
	const entry = 16
	for o := HeaderSize + 8; o+entry <= len(table); o += entry {
		e := table[o : o+entry]
		segment := uint32(e[8]) | uint32(e[9])<<8
		s = Space{Base: quad(e), First: uint32(e[10]), Last: uint32(e[11])}
		if segment == 0 && s.First <= s.Last && s.Base != 0 && s.Base&(1<<20-1) == 0 && s.Base < 1<<46 {
			return s, true
		}
	}
	return Space{}, false
}

// A Device is a virtio-mmio device: where its registers are, and its interrupt's
// number among all of the machine's (GSI).
type Device struct {
	Address uint64
	GSI     uint32
}

// MaxDevices is how many devices are noted.
const MaxDevices = 32

// Found is what a DSDT says.
type Found struct {
	Devices [MaxDevices]Device
	N       int
	Start   uint64 // memory below 4 GiB that PCI devices may use
	End     uint64 // 0: none said
	Config  Space  // of a PCI bridge that says itself where its configuration space is; Base 0: none
}

// maxScanned bounds the devices that are looked at, and with them the time.
const maxScanned = 512

// AML (ACPI 6.4, 20.2).
const (
	opExt    = 0x5b
	opDevice = 0x82
	opName   = 0x08
	opBuffer = 0x11
	opByte   = 0x0a
	opWord   = 0x0b
	opDWord  = 0x0c
	opString = 0x0d
	opQWord  = 0x0e
	opReturn = 0xa4

	nameHID = '_' | 'H'<<8 | 'I'<<16 | 'D'<<24
	nameCBA = '_' | 'C'<<8 | 'B'<<16 | 'A'<<24
	nameCRS = '_' | 'C'<<8 | 'R'<<16 | 'S'<<24

	hidPCI  = 0x030ad041 // EISAID("PNP0A03")
	hidPCIe = 0x080ad041 // EISAID("PNP0A08")
)

// ReadDSDT looks for devices in a DSDT, header and all.
func ReadDSDT(table []byte, f *Found) {
	*f = Found{}
	scanned := 0
	for i := HeaderSize; i+2 < len(table) && scanned < maxScanned; i++ {
		if table[i] != opExt || table[i+1] != opDevice {
			continue
		}
		if body, ok := pkg(table[i+2:]); ok {
			scanned++
			f.device(body)
		}
	}
}

// pkg returns what a PkgLength at the start of b covers, behind itself (20.2.4).
func pkg(b []byte) (body []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	more := int(b[0] >> 6)
	n := int(b[0] & 0x3f)
	if len(b) <= more {
		return nil, false
	}
	if more > 0 {
		n &= 15
		for i := 1; i <= more; i++ {
			n |= int(b[i]) << (8*i - 4)
		}
	}
	if n < 1+more || n > len(b) {
		return nil, false
	}
	return b[1+more : n], true
}

// device notes a device if it is of a known kind.
func (f *Found) device(body []byte) {
	hid := value(body, nameHID)
	if len(hid) < 5 {
		return
	}
	id := word(hid[1:])
	switch {
	case is(hid, "LNRO0005"):
		if d, ok := registers(resources(value(body, nameCRS))); ok && f.N < MaxDevices {
			f.Devices[f.N] = d
			f.N++
		}
	case is(hid, "PNP0A08"), is(hid, "PNP0A03"), hid[0] == opDWord && (id == hidPCI || id == hidPCIe):
		// Devices behind the bridge come before its own resources in QEMU's.
		for rest := value(body, nameCRS); rest != nil; rest = value(rest, nameCRS) {
			f.window(resources(rest))
		}
		f.config(body)
	}
}

// is reports whether a value is the given string.
func is(value []byte, s string) bool {
	n := 1 + len(s)
	return len(value) > n && value[0] == opString && string(value[1:n]) == s && value[n] == 0
}

// value returns what follows the first Name() of the given name.
func value(b []byte, name uint32) []byte {
	for i := 0; i+5 < len(b); i++ {
		if b[i] == opName && word(b[i+1:]) == name {
			return b[i+5:]
		}
	}
	return nil
}

// resources returns the bytes of the buffer at the start of b: a Buffer(size)
// with an initializer.
func resources(b []byte) []byte {
	if len(b) < 2 || b[0] != opBuffer {
		return nil
	}
	b, ok := pkg(b[1:])
	if !ok || len(b) < 2 {
		return nil
	}
	switch b[0] {
	case 0, 1:
		return b[1:]
	case opByte:
		return b[2:]
	case opWord:
		return b[min(3, len(b)):]
	case opDWord:
		return b[min(5, len(b)):]
	}
	return nil
}

// config notes where a PCI bridge says that its configuration space is, by a
// method _CBA that returns a constant (PCI Firmware 3.0, 4.1.3), as QEMU's microvm
// does in place of MCFG. The buses are not said: those that are found count.
func (f *Found) config(body []byte) {
	for i := 0; i+6 < len(body); i++ {
		if word(body[i:]) != nameCBA || body[i+5] != opReturn {
			continue
		}
		c := body[i+6:]
		base := uint64(0)
		switch {
		case c[0] == opDWord:
			base = uint64(word(c[1:]))
		case c[0] == opQWord:
			base = quad(c[1:])
		}
		if base != 0 && base&(1<<20-1) == 0 && base < 1<<46 {
			f.Config = Space{Base: base, Last: 255}
		}
		return
	}
}

// Resource descriptors (6.4.2, 6.4.3).
const (
	tagEnd        = 0x79
	tagLarge      = 0x80
	tagMemory32   = 0x86
	tagDWordSpace = 0x87
	tagInterrupt  = 0x89
)

// next returns the first descriptor of a list, its content and what follows it.
func next(b []byte) (tag byte, content, rest []byte) {
	if len(b) < 3 || b[0]&^7 == tagEnd&^7 {
		return 0, nil, nil
	}
	if b[0]&tagLarge == 0 {
		n := 1 + int(b[0]&7)
		return b[0], nil, b[min(n, len(b)):]
	}
	n := 3 + int(b[1]) + int(b[2])<<8
	if n > len(b) {
		return 0, nil, nil
	}
	return b[0], b[3:n], b[n:]
}

// registers returns the memory and the interrupt that a device has.
func registers(b []byte) (d Device, ok bool) {
	memory, irq := false, false
	for len(b) > 0 {
		var tag byte
		var c []byte
		tag, c, b = next(b)
		switch {
		case tag == tagMemory32 && len(c) >= 9 && !memory:
			memory, d.Address = true, uint64(word(c[1:]))
		case tag == tagInterrupt && len(c) >= 6 && c[1] >= 1 && !irq:
			irq, d.GSI = true, word(c[2:])
		}
	}
	return d, memory && irq && d.Address >= 1<<20 && d.Address&3 == 0
}

// window notes the largest memory below 4 GiB that a PCI bridge passes on.
func (f *Found) window(b []byte) {
	for len(b) > 0 {
		var tag byte
		var c []byte
		tag, c, b = next(b)
		if tag != tagDWordSpace || len(c) < 23 || c[0] != 0 { // 0: memory
			continue
		}
		start, last := uint64(word(c[7:])), uint64(word(c[11:]))
		if start >= 1<<20 && last > start && last+1-start > f.End-f.Start {
			f.Start, f.End = start, last+1
		}
	}
}

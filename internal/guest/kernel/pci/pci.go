// Package pci reads what a PCI function says of itself: whether it is a virtio
// device of version 1, where its registers lie, and how it interrupts. It works
// on a copy of the function's configuration space, so that it finds the same
// whatever the device does meanwhile, and believes none of it: each offset,
// length and link is checked.
//
// The kernel uses it (cmd/kernel/pci.go): no allocation, no interfaces.
package pci

// Offsets in the configuration space (PCI Local Bus 3.0, 6.1).
const (
	ID         = 0x00 // vendor, and device in the upper half
	Command    = 0x04 // command, and status in the upper half
	Class      = 0x08
	Header     = 0x0c // header type in bits 16 to 23
	BAR0       = 0x10
	Buses      = 0x18 // of a bridge: secondary bus in bits 8 to 15
	capPointer = 0x34
	firstCap   = 0x40

	CommandMemory  = 1 << 1
	CommandMaster  = 1 << 2
	CommandNoINTx  = 1 << 10
	statusHasCaps  = 1 << 4
	HeaderBridge   = 1
	HeaderMany     = 1 << 7 // the device has more than one function
	NumBARs        = 6
	barIO          = 1
	barType        = 6
	bar64          = 4
	MSIXEnable     = 1 << 31 // in the first word of the MSI-X capability
	MSIXMaskAll    = 1 << 30
	msixEntryBytes = 16
)

// A Config is a copy of a function's configuration space.
type Config [256]byte

// Word returns the 32 bits at an offset that is a multiple of 4.
func (c *Config) Word(off uint8) uint32 {
	off &= 0xfc
	return uint32(c[off]) | uint32(c[off+1])<<8 | uint32(c[off+2])<<16 | uint32(c[off+3])<<24
}

// SetWord sets the 32 bits at an offset that is a multiple of 4.
func (c *Config) SetWord(off uint8, v uint32) {
	off &= 0xfc
	c[off], c[off+1], c[off+2], c[off+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func (c *Config) half(off uint8) uint16 { return uint16(c[off&0xfe]) | uint16(c[off|1])<<8 }

// A Window is a part of what one BAR leads to.
type Window struct {
	BAR    uint32
	Offset uint32
	Length uint32 // 0: there is none
}

// A Device is where a virtio device has its registers.
type Device struct {
	Type       uint32 // virtio device type
	Common     Window
	Notify     Window
	Config     Window // of the device itself; may be missing
	Table      Window // MSI-X, as far as it is used
	Multiplier uint32 // of queue_notify_off, in bytes
	MSIX       uint8  // offset of the capability
}

// A Problem is why a function is not used.
type Problem uint8

// The problems. OK is none.
const (
	OK        Problem = iota
	NotVirtio         // it is something else
	Legacy            // only the version before 1
	BadList           // the list of capabilities does not end
	NoCommon
	NoNotify
	NoMSIX
	FewVectors
	NoAddress // a BAR that is needed leads nowhere
	Outside   // a window lies beyond its BAR
	InMemory  // a BAR lies where memory, or something else of the machine, does
)

// String says what is wrong, and where somebody can do something about it, what.
func (p Problem) String() string {
	switch p {
	case OK:
		return "it can be used"
	case Legacy:
		return "it speaks only virtio before version 1 (QEMU: disable-modern=off)"
	case BadList:
		return "its list of capabilities does not end"
	case NoCommon:
		return "it has no common configuration"
	case NoNotify:
		return "it has no window for notifications"
	case NoMSIX:
		return "it has no MSI-X (QEMU: leave vectors= away)"
	case FewVectors:
		return "it has one interrupt, 2 are needed (QEMU: leave vectors= away)"
	case NoAddress:
		return "neither the firmware nor ACPI gives it an address"
	case Outside:
		return "its registers lie beyond its BAR"
	case InMemory:
		return "its registers lie where the machine has something else"
	}
	return "it is no virtio device"
}

// Vendor and devices (virtio 1.2, 4.1.2).
const (
	vendorVirtio = 0x1af4
	modernFirst  = 0x1040
	modernLast   = 0x107f
	transFirst   = 0x1000
	transLast    = 0x103f
	transNet     = 0x1000
	transRNG     = 0x1005
)

// Capabilities.
const (
	capVendor = 0x09
	capMSIX   = 0x11

	cfgCommon = 1
	cfgNotify = 2
	cfgDevice = 4

	commonBytes = 0x38
	configBytes = 4096 // of a device's own configuration, what is looked at
	notifyBytes = 64 << 10

	// MaxEntries is how many entries of the MSI-X table are used: one for the configuration
	// and one for the queues of each processor.
	MaxEntries = 1 + 8
)

// IsVirtio reports whether the first word of a configuration space is that of a
// virtio device.
func IsVirtio(id uint32) bool {
	d := id >> 16
	return id&0xffff == vendorVirtio && d >= transFirst && d <= modernLast
}

// Virtio finds the device's registers. Windows are as the function says; Place
// checks them against the BARs.
func (c *Config) Virtio(d *Device) Problem {
	*d = Device{}
	id := c.Word(ID)
	if !IsVirtio(id) || c.Word(Header)>>16&0x7f != 0 {
		return NotVirtio
	}
	modern := id>>16 >= modernFirst
	switch dev := id >> 16; {
	case modern:
		d.Type = dev - modernFirst
	case dev == transNet:
		d.Type = 1
	case dev == transRNG:
		d.Type = 4
	default: // a transitional device says its type in the subsystem's number
		d.Type = uint32(c.half(0x2e))
	}
	if p := c.capabilities(d); p != OK {
		return p
	}
	switch {
	case d.Common.Length == 0 && d.Notify.Length == 0 && !modern:
		return Legacy
	case d.Common.Length == 0:
		return NoCommon
	case d.Notify.Length == 0:
		return NoNotify
	case d.MSIX == 0:
		return NoMSIX
	case d.Table.Length == 0:
		return FewVectors
	}
	return OK
}

// capabilities walks the list. The first of each kind that can be used counts
// (virtio 1.2, 4.1.4.1).
func (c *Config) capabilities(d *Device) Problem {
	if c.Word(Command)>>16&statusHasCaps == 0 {
		return OK
	}
	p := c[capPointer] &^ 3
	for n := 0; p != 0; n++ {
		if p < firstCap || n == MaxCaps {
			return BadList
		}
		switch c[p] {
		case capMSIX:
			c.msix(p, d)
		case capVendor:
			c.vendor(p, d)
		}
		p = c[p+1] &^ 3
	}
	return OK
}

// Words returns how many words of the capability at p, whose first word has been
// read, Virtio looks at: a function is not asked for more. Reads cost exits to the
// host, and of one capability (VIRTIO_PCI_CAP_PCI_CFG) they have effects.
func (c *Config) Words(p uint8) uint8 {
	switch {
	case c[p] == capMSIX && p <= 256-12:
		return 2
	case c[p] == capVendor && c[p+3] == cfgNotify && p <= 256-20:
		return 5
	case c[p] == capVendor && (c[p+3] == cfgCommon || c[p+3] == cfgDevice) && p <= 256-20:
		return 4
	}
	return 1
}

// Next returns the capability after the one at p, whose first word has been read,
// or the first one where p is 0; 0 is the end.
func (c *Config) Next(p uint8) uint8 {
	if p == 0 {
		p = capPointer - 1
		if c.Word(Command)>>16&statusHasCaps == 0 {
			return 0
		}
	}
	if p = c[p+1] &^ 3; p < firstCap {
		return 0
	}
	return p
}

// MaxCaps bounds how many capabilities there are: a list that is longer has a
// loop.
const MaxCaps = (256 - firstCap) / 4

// HeaderWords are the words of the header that Virtio looks at.
var HeaderWords = [...]uint8{ID, Command, Header, BAR0, BAR0 + 4, BAR0 + 8, BAR0 + 12, BAR0 + 16, BAR0 + 20, 0x2c, capPointer}

// msix notes the MSI-X capability at p.
func (c *Config) msix(p uint8, d *Device) {
	if p > 256-12 || d.MSIX != 0 {
		return
	}
	d.MSIX = p
	t := c.Word(p + 4)
	if entries := c.half(p+2)&0x7ff + 1; entries >= 2 && t&7 < NumBARs {
		d.Table = Window{BAR: t & 7, Offset: t &^ 7, Length: uint32(min(entries, MaxEntries)) * msixEntryBytes}
	}
}

// vendor notes the virtio capability at p, if it is one of those that are used.
// Capabilities in I/O space, of unknown BARs, misaligned or too short ones are
// passed over.
func (c *Config) vendor(p uint8, d *Device) {
	if p > 256-20 || c[p+2] < 16 {
		return
	}
	w := Window{BAR: uint32(c[p+4]), Offset: c.Word(p + 8), Length: c.Word(p + 12)}
	if w.BAR >= NumBARs || c.Word(BAR0+uint8(w.BAR)*4)&barIO != 0 {
		return
	}
	switch c[p+3] {
	case cfgCommon:
		if d.Common.Length == 0 && w.Length >= commonBytes && w.Offset&3 == 0 {
			w.Length = commonBytes
			d.Common = w
		}
	case cfgNotify:
		if m := c.Word(p + 16); d.Notify.Length == 0 && w.Length >= 2 && w.Offset&1 == 0 && c[p+2] >= 20 && m&1 == 0 {
			w.Length = min(w.Length, notifyBytes)
			d.Notify, d.Multiplier = w, m
		}
	case cfgDevice:
		if d.Config.Length == 0 && w.Offset&3 == 0 {
			w.Length = min(w.Length, configBytes)
			d.Config = w
		}
	}
}

// A BAR is a base address register that has been asked for its size: 64-bit ones
// take the next one's place too.
type BAR struct {
	Address uint64
	Size    uint64 // 0: there is none, or it is in I/O space
	Wide    bool   // 64 bits
}

// Wide reports whether register i is one of 64 bits, and the next one its upper
// half.
func (c *Config) Wide(i uint32) bool {
	return i < NumBARs-1 && c.Word(BAR0+uint8(i)*4)&(barIO|barType) == bar64
}

// BAR reads register i; lo and hi are what it and the next one read as after all
// ones had been written to them.
func (c *Config) BAR(i uint32, lo, hi uint32) (b BAR) {
	if i >= NumBARs {
		return b
	}
	r := c.Word(BAR0 + uint8(i)*4)
	if r&barIO != 0 || lo&barIO != 0 {
		return b
	}
	b.Address = uint64(r &^ 15)
	mask := uint64(lo&^15) | 0xffffffff<<32
	if r&barType == bar64 {
		if i == NumBARs-1 {
			return BAR{}
		}
		b.Wide = true
		b.Address |= uint64(c.Word(BAR0+4+uint8(i)*4)) << 32
		mask = uint64(lo&^15) | uint64(hi)<<32
	}
	if lo&^15 == 0 && !b.Wide || mask == 0 {
		return BAR{}
	}
	b.Size = mask & -mask // the lowest address bit that can be set
	if ^mask+1 != b.Size {
		return BAR{} // a size that is no power of two
	}
	return b
}

// Place returns the physical address of a window, if it lies within its BAR and
// the BAR somewhere.
func (w Window) Place(b BAR) (pa uint64, p Problem) {
	switch {
	case b.Size == 0 || uint64(w.Offset)+uint64(w.Length) > b.Size:
		return 0, Outside
	case b.Address == 0:
		return 0, NoAddress
	case b.Address&(b.Size-1) != 0 || b.Address+b.Size < b.Address || b.Address+b.Size > 1<<52:
		return 0, Outside
	}
	return b.Address + uint64(w.Offset), OK
}

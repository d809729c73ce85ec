package virtio

import (
	"errors"
	"strconv"
)

// Registers of the common configuration (virtio 1.2, 4.1.4.3). Each is accessed
// with its own width; addresses and features in halves.
const (
	pciFeatSel     = 0x00
	pciFeatures    = 0x04
	pciDriverSel   = 0x08
	pciDriver      = 0x0c
	pciConfigMSIX  = 0x10 // 16 bits
	pciStatus      = 0x14 // 8 bits
	pciQueueSel    = 0x16 // 16 bits
	pciQueueSize   = 0x18 // 16 bits
	pciQueueMSIX   = 0x1a // 16 bits
	pciQueueEnable = 0x1c // 16 bits
	pciQueueNotify = 0x1e // 16 bits
	pciDesc        = 0x20
	pciAvail       = 0x28
	pciUsed        = 0x30

	noVector = 0xffff
)

// Entries of the MSI-X table, which the kernel has filled in: one for configuration
// changes, and from vectorQueues on those for queues, of which there is at least one.
const (
	vectorConfig = 0
	vectorQueues = 1
)

// pciQueues is how many queues of a device can be used, beside one with a number above: the
// control queue, which follows all that the device has.
const pciQueues = 2 * MaxPairs

// resetReads bounds how often the status is read until a reset is over.
const resetReads = 10_000

// PCI is the transport over a PCI function's windows, with interrupts by MSI-X.
// The ISR is not used: it would cost an exit to the host.
type PCI struct {
	p      PCIWindows
	queue  uint32            // selected
	offset [pciQueues]uint32 // of the queues' notifications, in the window
	above  uint32            // that of a queue with a higher number
	bells  uintptr           // of a Window: its address; 0: written by its methods
}

// PCIWindows are the parts of a function, which the kernel has found and mapped
// (package kernel/pci).
type PCIWindows struct {
	ID         uint32 // virtio device type
	Common     Wide
	Notify     Wide
	NotifyLen  uint32 // bytes
	Multiplier uint32 // of queue_notify_off, in bytes
	Config     Wide
	ConfigLen  uint32 // bytes; reads beyond give 0
	Vectors    uint32 // MSI-X entries for pairs of queues, in turn; 0: 1
}

// NewPCI returns the transport over a function's windows.
func NewPCI(w PCIWindows) *PCI {
	w.Vectors = max(w.Vectors, 1)
	p := &PCI{p: w}
	if n, ok := w.Notify.(Window); ok {
		p.bells = n.base
	}
	return p
}

// Check implements Transport. The kernel has checked already that the device is a modern
// one.
func (p *PCI) Check(id uint32) error {
	if p.p.ID != id {
		return errors.New("virtio: device type " + strconv.Itoa(int(p.p.ID)) + ", want " + strconv.Itoa(int(id)))
	}
	return nil
}

// Status implements Transport.
func (p *PCI) Status() uint32 { return uint32(p.p.Common.Read8(pciStatus)) }

// SetStatus implements Transport. A reset is over when the status reads 0 (4.1.4.3.2); the
// next step fails for a device that never gets there.
func (p *PCI) SetStatus(s uint32) {
	p.p.Common.Write8(pciStatus, uint8(s))
	for i := 0; s == 0 && i < resetReads && p.Status() != 0; i++ {
	}
}

// Features implements Transport.
func (p *PCI) Features() uint64 {
	c := p.p.Common
	c.Write32(pciFeatSel, 0)
	f := uint64(c.Read32(pciFeatures))
	c.Write32(pciFeatSel, 1)
	return f | uint64(c.Read32(pciFeatures))<<32
}

// SetFeatures implements Transport. It also sets the configuration change vector, which a
// reset clears.
func (p *PCI) SetFeatures(f uint64) {
	c := p.p.Common
	c.Write32(pciDriverSel, 0)
	c.Write32(pciDriver, uint32(f))
	c.Write32(pciDriverSel, 1)
	c.Write32(pciDriver, uint32(f>>32))
	c.Write16(pciConfigMSIX, vectorConfig)
}

// Queue implements Transport.
func (p *PCI) Queue(q uint32) (size uint32, enabled bool) {
	c := p.p.Common
	p.queue = q
	if q > 0xffff {
		return 0, false // no register holds its number
	}
	c.Write16(pciQueueSel, uint16(q))
	enabled = c.Read16(pciQueueEnable) != 0
	return uint32(c.Read16(pciQueueSize)), enabled
}

// Enable implements Transport.
func (p *PCI) Enable(n uint16, desc, avail, used uint64) error {
	c := p.p.Common
	name := "virtio: queue " + strconv.Itoa(int(p.queue))
	off := uint64(c.Read16(pciQueueNotify)) * uint64(p.p.Multiplier)
	if off&1 != 0 || off+2 > uint64(p.p.NotifyLen) {
		return errors.New(name + " is notified at offset " + strconv.FormatUint(off, 10) + " of a window of " + strconv.Itoa(int(p.p.NotifyLen)) + " bytes")
	}
	if p.queue < pciQueues {
		p.offset[p.queue] = uint32(off)
	} else {
		p.above = uint32(off)
	}
	c.Write16(pciQueueSize, n)
	c.Write16(pciQueueMSIX, uint16(vectorQueues+p.queue/2%p.p.Vectors))
	if c.Read16(pciQueueMSIX) == noVector {
		return errors.New(name + " gets no interrupt: the device has no room for it")
	}
	p.address(pciDesc, desc)
	p.address(pciAvail, avail)
	p.address(pciUsed, used)
	c.Write16(pciQueueEnable, 1)
	return nil
}

func (p *PCI) address(reg uint32, a uint64) {
	p.p.Common.Write32(reg, uint32(a))
	p.p.Common.Write32(reg+4, uint32(a>>32))
}

// Notify implements Transport.
func (p *PCI) Notify(q uint32) {
	off := p.offset[q&(pciQueues-1)]
	if q >= pciQueues {
		off = p.above
	}
	if p.bells != 0 {
		store16(p.bells+uintptr(off), uint16(q))
		return
	}
	p.p.Notify.Write16(off, uint16(q))
}

// Interrupt implements Transport. MSI-X needs no acknowledgement, and configuration changes
// have a vector of their own.
func (p *PCI) Interrupt() (changed bool) { return false }

// has reports whether n bytes at an offset belong to the device's configuration.
func (p *PCI) has(off, n uint32) bool { return uint64(off)+uint64(n) <= uint64(p.p.ConfigLen) }

// Config8 implements Transport.
func (p *PCI) Config8(off uint32) uint8 {
	if !p.has(off, 1) {
		return 0
	}
	return p.p.Config.Read8(off)
}

// Config16 implements Transport.
func (p *PCI) Config16(off uint32) uint16 {
	if !p.has(off, 2) {
		return 0
	}
	return p.p.Config.Read16(off)
}

// Config32 implements Transport.
func (p *PCI) Config32(off uint32) uint32 {
	if !p.has(off, 4) {
		return 0
	}
	return p.p.Config.Read32(off)
}

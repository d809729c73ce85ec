package virtio

import (
	"errors"
	"strconv"
)

// Registers of the MMIO transport (virtio 1.2, 4.2.2).
const (
	regMagic      = 0x000
	regVersion    = 0x004
	regDeviceID   = 0x008
	regFeatures   = 0x010
	regFeatSel    = 0x014
	regDriver     = 0x020
	regDriverSel  = 0x024
	regQueueSel   = 0x030
	regQueueMax   = 0x034
	regQueueNum   = 0x038
	regQueueReady = 0x044
	regNotify     = 0x050
	regISR        = 0x060
	regISRAck     = 0x064
	regStatus     = 0x070
	regDesc       = 0x080
	regAvail      = 0x090
	regUsed       = 0x0a0
	regConfigGen  = 0x0fc
	regConfig     = 0x100

	magic = 0x74726976 // "virt"

	isrConfig = 2 // of regISR: the configuration has changed
)

// MMIO is the transport over one window of registers of at least 0x200 bytes.
type MMIO struct {
	r    Registers
	bell uintptr // of a Window: address of the notification register; 0: written by r
}

// NewMMIO returns the transport over a window.
func NewMMIO(r Registers) MMIO {
	m := MMIO{r: r}
	if w, ok := r.(Window); ok {
		m.bell = w.base + regNotify
	}
	return m
}

// Check implements Transport.
func (m MMIO) Check(id uint32) error {
	if v := m.r.Read32(regMagic); v != magic {
		return errors.New("virtio: no device at this address (magic 0x" + strconv.FormatUint(uint64(v), 16) + ")")
	}
	if v := m.r.Read32(regVersion); v != 2 {
		return errors.New("virtio: transport version " + strconv.Itoa(int(v)) + ", want 2 (QEMU: -global virtio-mmio.force-legacy=false)")
	}
	if v := m.r.Read32(regDeviceID); v != id {
		return errors.New("virtio: device type " + strconv.Itoa(int(v)) + ", want " + strconv.Itoa(int(id)))
	}
	return nil
}

// Status implements Transport.
func (m MMIO) Status() uint32 { return m.r.Read32(regStatus) }

// SetStatus implements Transport.
func (m MMIO) SetStatus(s uint32) { m.r.Write32(regStatus, s) }

// Features implements Transport.
func (m MMIO) Features() uint64 {
	m.r.Write32(regFeatSel, 0)
	f := uint64(m.r.Read32(regFeatures))
	m.r.Write32(regFeatSel, 1)
	return f | uint64(m.r.Read32(regFeatures))<<32
}

// SetFeatures implements Transport.
func (m MMIO) SetFeatures(f uint64) {
	m.r.Write32(regDriverSel, 0)
	m.r.Write32(regDriver, uint32(f))
	m.r.Write32(regDriverSel, 1)
	m.r.Write32(regDriver, uint32(f>>32))
}

// Queue implements Transport.
func (m MMIO) Queue(q uint32) (size uint32, enabled bool) {
	m.r.Write32(regQueueSel, q)
	enabled = m.r.Read32(regQueueReady) != 0
	return m.r.Read32(regQueueMax), enabled
}

// Enable implements Transport.
func (m MMIO) Enable(n uint16, desc, avail, used uint64) error {
	m.r.Write32(regQueueNum, uint32(n))
	m.address(regDesc, desc)
	m.address(regAvail, avail)
	m.address(regUsed, used)
	m.r.Write32(regQueueReady, 1)
	return nil
}

func (m MMIO) address(reg uint32, a uint64) {
	m.r.Write32(reg, uint32(a))
	m.r.Write32(reg+4, uint32(a>>32))
}

// Notify implements Transport.
func (m MMIO) Notify(q uint32) {
	if m.bell != 0 {
		store32(m.bell, q)
		return
	}
	m.r.Write32(regNotify, q)
}

// Interrupt implements Transport.
func (m MMIO) Interrupt() (changed bool) {
	isr := m.r.Read32(regISR)
	if isr != 0 {
		m.r.Write32(regISRAck, isr)
	}
	return isr&isrConfig != 0
}

// Config8 implements Transport.
func (m MMIO) Config8(off uint32) uint8 { return m.r.Read8(regConfig + off) }

// Config16 implements Transport.
func (m MMIO) Config16(off uint32) uint16 { return m.r.Read16(regConfig + off) }

// Config32 implements Transport.
func (m MMIO) Config32(off uint32) uint32 { return m.r.Read32(regConfig + off) }

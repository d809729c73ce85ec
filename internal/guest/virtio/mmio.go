package virtio

import (
	"errors"
	"strconv"
	"unsafe"
)

// Registers of the mmio transport (virtio 1.2, 4.2.2).
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
)

// Device status bits (virtio 1.2, 2.1).
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128
)

// A Transport is access to one device's registers. Tests give one of their
// own; the image uses MMIO. It is called to set a device up, once per batch
// to notify, and after interrupts: never per packet.
type Transport interface {
	Read32(off uint32) uint32
	Write32(off, v uint32)
	Read8(off uint32) uint8
	Read16(off uint32) uint16
}

// MMIO is a register window mapped at an address, at least 0x200 bytes. Each
// access is exactly one move of the named width: devices answer to nothing
// else, and each costs an exit to the host.
type MMIO struct{ base uintptr }

// NewMMIO returns the window at p.
func NewMMIO(p unsafe.Pointer) MMIO { return MMIO{uintptr(p)} }

// Read32 reads a 32-bit register.
func (m MMIO) Read32(off uint32) uint32 { return load32(m.base + uintptr(off)) }

// Write32 writes a 32-bit register.
func (m MMIO) Write32(off, v uint32) { store32(m.base+uintptr(off), v) }

// Read8 reads a byte of the configuration space.
func (m MMIO) Read8(off uint32) uint8 { return load8(m.base + uintptr(off)) }

// Read16 reads 16 bits of the configuration space.
func (m MMIO) Read16(off uint32) uint16 { return load16(m.base + uintptr(off)) }

func load32(a uintptr) uint32
func store32(a uintptr, v uint32)
func load8(a uintptr) uint8
func load16(a uintptr) uint16

// negotiate resets the device and agrees on features, up to FEATURES_OK.
// Firecracker accepts exactly this order, one status bit at a time.
func negotiate(t Transport, id uint32, want uint64) (features uint64, err error) {
	if v := t.Read32(regMagic); v != magic {
		return 0, errors.New("virtio: no device at this address (magic 0x" + strconv.FormatUint(uint64(v), 16) + ")")
	}
	if v := t.Read32(regVersion); v != 2 {
		return 0, errors.New("virtio: transport version " + strconv.Itoa(int(v)) + ", want 2 (QEMU: -global virtio-mmio.force-legacy=false)")
	}
	if v := t.Read32(regDeviceID); v != id {
		return 0, errors.New("virtio: device type " + strconv.Itoa(int(v)) + ", want " + strconv.Itoa(int(id)))
	}
	if t.Read32(regStatus) != 0 { // writing 0 to a fresh device is an error to some
		t.Write32(regStatus, 0)
	}
	t.Write32(regStatus, statusAcknowledge)
	t.Write32(regStatus, statusAcknowledge|statusDriver)
	t.Write32(regFeatSel, 0)
	offered := uint64(t.Read32(regFeatures))
	t.Write32(regFeatSel, 1)
	offered |= uint64(t.Read32(regFeatures)) << 32
	if offered&featVersion1 == 0 {
		fail(t)
		return 0, errors.New("virtio: the device does not offer VIRTIO_F_VERSION_1")
	}
	features = offered & (want | featVersion1)
	t.Write32(regDriverSel, 0)
	t.Write32(regDriver, uint32(features))
	t.Write32(regDriverSel, 1)
	t.Write32(regDriver, uint32(features>>32))
	t.Write32(regStatus, statusAcknowledge|statusDriver|statusFeaturesOK)
	if t.Read32(regStatus)&statusFeaturesOK == 0 {
		fail(t)
		return 0, errors.New("virtio: the device refuses features 0x" + strconv.FormatUint(features, 16))
	}
	return features, nil
}

// start ends the set-up: the device may use its queues.
func start(t Transport) error {
	const all = statusAcknowledge | statusDriver | statusFeaturesOK | statusDriverOK
	t.Write32(regStatus, all)
	if s := t.Read32(regStatus); s&0xff != all {
		return errors.New("virtio: the device did not start (status 0x" + strconv.FormatUint(uint64(s), 16) + ")")
	}
	return nil
}

// fail tells the device that the driver gives it up.
func fail(t Transport) { t.Write32(regStatus, t.Read32(regStatus)|statusFailed) }

package virtio

import (
	"errors"
	"strconv"
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

// A Transport is the way to one device: MMIO or PCI. It is called to set the
// device up, once per batch to notify it, and after interrupts: never per
// packet.
type Transport interface {
	// Check returns an error unless there is a device of type id here that
	// speaks virtio 1.
	Check(id uint32) error
	// Status returns the device status, SetStatus writes it; 0 resets the
	// device.
	Status() uint32
	SetStatus(s uint32)
	// Features returns the features that the device offers, SetFeatures writes those that
	// the driver accepts.
	Features() uint64
	SetFeatures(f uint64)
	// Queue selects queue q and returns the largest size that the device
	// allows it, 0 if there is no such queue, and whether it is enabled.
	Queue(q uint32) (size uint32, enabled bool)
	// Enable enables the queue that was selected last, with n descriptors
	// and its three parts at the given bus addresses.
	Enable(n uint16, desc, avail, used uint64) error
	// Notify is an available buffer notification for queue q.
	Notify(q uint32)
	// Interrupt acknowledges an interrupt and reports whether it may mean that
	// the configuration, or the status, has changed.
	Interrupt() (changed bool)
	// Config8, Config16 and Config32 read the device's own configuration,
	// little-endian, at an offset that is a multiple of the width.
	Config8(off uint32) uint8
	Config16(off uint32) uint16
	Config32(off uint32) uint32
}

// featPlatform is VIRTIO_F_ACCESS_PLATFORM (virtio 1.2, section 6): the device's accesses go
// through what the platform puts before memory, an IOMMU or a host that confines them. A
// device that offers it may insist. The addresses are the same: where the kernel turns an
// IOMMU on it maps addresses to themselves (ADR 0060).
const featPlatform = 1 << 33

// negotiate resets the device and negotiates features, up to FEATURES_OK. Firecracker
// accepts exactly this order, one status bit at a time.
func negotiate(t Transport, id uint32, want uint64) (features uint64, err error) {
	return negotiateBy(t, id, func(uint64) uint64 { return want })
}

// negotiateBy is negotiate where what is wanted depends on what is offered.
func negotiateBy(t Transport, id uint32, want func(offered uint64) uint64) (features uint64, err error) {
	if err := t.Check(id); err != nil {
		return 0, err
	}
	if t.Status() != 0 { // some devices reject 0 while the status is 0
		t.SetStatus(0)
	}
	t.SetStatus(statusAcknowledge)
	t.SetStatus(statusAcknowledge | statusDriver)
	offered := t.Features()
	if offered&featVersion1 == 0 {
		fail(t)
		return 0, errors.New("virtio: the device does not offer VIRTIO_F_VERSION_1")
	}
	features = offered & (want(offered) | featVersion1 | featPlatform)
	t.SetFeatures(features)
	t.SetStatus(statusAcknowledge | statusDriver | statusFeaturesOK)
	if t.Status()&statusFeaturesOK == 0 {
		fail(t)
		return 0, errors.New("virtio: the device refuses features 0x" + strconv.FormatUint(features, 16))
	}
	return features, nil
}

// start completes the initialisation: the device may use its queues.
func start(t Transport) error {
	const all = statusAcknowledge | statusDriver | statusFeaturesOK | statusDriverOK
	t.SetStatus(all)
	if s := t.Status(); s&0xff != all {
		return errors.New("virtio: the device did not start (status 0x" + strconv.FormatUint(uint64(s), 16) + ")")
	}
	return nil
}

// fail sets FAILED: the driver gives the device up.
func fail(t Transport) { t.SetStatus(t.Status() | statusFailed) }

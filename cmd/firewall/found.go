package main

import (
	"strings"

	"github.com/thurward/thurward/internal/shared/abi"
)

// noNetwork returns the message for a machine without a network device: where devices were
// searched, what was found instead, and the remedy.
func noNetwork(f abi.Found) string {
	var where []string
	for _, s := range [...]struct {
		bit  uint32
		name string
	}{{abi.SourceCmdline, "on the command line (virtio_mmio.device)"}, {abi.SourceACPI, "in ACPI's DSDT"}, {abi.SourceSlots, "in microvm's slots"},
		{abi.SourceECAM | abi.SourcePorts, "on PCI, where " + itoa(int(f.Functions)) + " functions answered"}} {
		if f.Sources&s.bit != 0 {
			where = append(where, s.name)
		}
	}
	s := "the machine has no network device"
	if len(where) == 0 {
		s += ", and nothing says where one could be (QEMU: -M microvm or q35; or give virtio_mmio.device=SIZE@ADDRESS:IRQ)"
	} else {
		s += ": looked " + strings.Join(where, ", ")
	}
	if f.Legacy > 0 {
		s += "; " + itoa(int(f.Legacy)) + " virtio device(s) speak only the version before 1 " +
			"(QEMU: -global virtio-mmio.force-legacy=false, or disable-modern=off)"
	}
	if f.Unusable > 0 {
		s += "; " + itoa(int(f.Unusable)) + " virtio device(s) cannot be used, for the reasons above"
	}
	if f.Legacy+f.Unusable == 0 {
		s += " (QEMU: -device virtio-net-device on microvm, virtio-net-pci elsewhere; Firecracker: network-interfaces)"
	}
	return s
}

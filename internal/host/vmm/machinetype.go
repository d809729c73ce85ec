package vmm

import "fmt"

// A MachineType is one of QEMU's machines. Zero is microvm.
type MachineType uint8

// The machines. Microvm has its devices on MMIO, the others on PCI.
const (
	Microvm MachineType = iota
	MicrovmPCI
	Q35
	PC
	Q35IOMMU // q35 with Intel's IOMMU, which the image turns on (ADR 60)
)

// machineTypes lists them as --machine names them.
var machineTypes = [...]string{Microvm: "microvm", MicrovmPCI: "microvm-pci", Q35: "q35", PC: "pc", Q35IOMMU: "q35-iommu"}

// MachineHelp lists what ParseMachine accepts.
const MachineHelp = "microvm, microvm-pci, q35, q35-iommu or pc"

// ParseMachine reads the value of --machine.
func ParseMachine(s string) (MachineType, error) {
	for m, name := range machineTypes {
		if s == name {
			return MachineType(m), nil
		}
	}
	return 0, fmt.Errorf("%q is not a machine (want %s)", s, MachineHelp)
}

// String returns the machine as ParseMachine reads it.
func (m MachineType) String() string { return machineTypes[m] }

// name returns what follows -M.
func (m MachineType) name() string {
	switch m {
	case MicrovmPCI:
		return "microvm,pcie=on"
	case Q35IOMMU:
		return "q35"
	}
	return m.String()
}

// bus returns the ending of the names of virtio devices.
func (m MachineType) bus() string {
	if m == Microvm {
		return "device"
	}
	return "pci"
}

// iommu returns the arguments that give the machine an IOMMU, which come before its devices.
// Interrupts are not remapped: with KVM that would take another interrupt controller.
func (m MachineType) iommu() []string {
	if m != Q35IOMMU {
		return nil
	}
	return []string{"-device", "intel-iommu,intremap=off"}
}

// through is the end of a virtio device's options by which its accesses go through the IOMMU.
func (m MachineType) through() string {
	if m != Q35IOMMU {
		return ""
	}
	return ",disable-legacy=on,iommu_platform=on"
}

// passes returns why an attachment's back end would go past the machine's IOMMU, "" where there
// is none or it does not.
func (m MachineType) passes(a *Attachment) string {
	if m == Q35IOMMU && len(a.Sockets) > 0 {
		return "another process, which " + a.Sockets[0] + " leads to, would reach the machine's memory past the IOMMU"
	}
	return ""
}

// netDevice returns the network device with what all of them have set. One on PCI is without
// what the image does not use, and the machine would take time for: a ROM to boot from the
// network, and the registers of virtio before version 1.
func (m MachineType) netDevice() string {
	if m == Microvm {
		return "virtio-net-device"
	}
	if m == Q35IOMMU { // through says it
		return "virtio-net-pci,romfile="
	}
	return "virtio-net-pci,romfile=,disable-legacy=on"
}

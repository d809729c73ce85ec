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
)

// machineTypes lists them as --machine names them.
var machineTypes = [...]string{Microvm: "microvm", MicrovmPCI: "microvm-pci", Q35: "q35", PC: "pc"}

// MachineHelp lists what ParseMachine accepts.
const MachineHelp = "microvm, microvm-pci, q35 or pc"

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
	if m == MicrovmPCI {
		return "microvm,pcie=on"
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

package acpi

// Structures of DMAR (Intel VT-d Architecture Specification 3.3, 8.2 to 8.3): what follows
// its header, and where in a unit's are its segment and the address of its registers.
const (
	dmarStructures = HeaderSize + 12
	dmarUnit       = 0 // type
	dmarUnitSize   = 16
	dmarSegment    = 6
	dmarRegisters  = 8
)

// ReadDMAR finds the registers of the remapping unit of PCI segment 0. Where there are
// several it is not said which of them a device belongs to: then there is none that could be
// used for all.
func ReadDMAR(table []byte) (registers uint64, ok bool) {
	for o := dmarStructures; o+4 <= len(table); {
		n := int(table[o+2]) | int(table[o+3])<<8
		if n < 4 || n > len(table)-o {
			return 0, false
		}
		u := table[o : o+n]
		if int(u[0])|int(u[1])<<8 == dmarUnit && n >= dmarUnitSize && int(u[dmarSegment])|int(u[dmarSegment+1])<<8 == 0 {
			if ok {
				return 0, false
			}
			registers, ok = quad(u[dmarRegisters:]), true
		}
		o += n
	}
	return registers, ok && registers != 0 && registers&4095 == 0 && registers < 1<<32
}

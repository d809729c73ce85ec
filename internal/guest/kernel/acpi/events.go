package acpi

// Events is the generic event device (ACPI 6.4, 5.6.9): how a machine without ACPI's fixed
// hardware says that somebody has pressed the power button, or that its state was restored.
type Events struct {
	GSI      [MaxEvents]uint32 // its interrupts
	N        int
	Register uint64 // what has happened, as bits, which are cleared by reading; 0: the interrupt says it all
	Width    uint64 // of the register, in bytes: 1 or 4
	Button   uint32 // the bit of the power button
}

// MaxEvents is how many interrupts are noted.
const MaxEvents = 4

const (
	opRegion = 0x80
	inMemory = 0

	nameEREG = 'E' | 'R'<<8 | 'E'<<16 | 'G'<<24 // QEMU (docs/specs/acpi_hw_reduced_hotplug)
	nameGDST = 'G' | 'D'<<8 | 'S'<<16 | 'T'<<24 // cloud-hypervisor
)

// Read looks for the device in a DSDT, header and all.
func (e *Events) Read(table []byte) {
	*e = Events{}
	scanned := 0
	for i := HeaderSize; i+6 < len(table) && scanned < maxScanned; i++ {
		if table[i] != opExt {
			continue
		}
		switch table[i+1] {
		case opDevice:
			if body, ok := pkg(table[i+2:]); ok {
				scanned++
				if e.N == 0 && is(value(body, nameHID), "ACPI0013") {
					e.interrupts(resources(value(body, nameCRS)))
				}
			}
		case opRegion:
			name := word(table[i+2:])
			if e.Register == 0 && table[i+6] == inMemory && (name == nameEREG || name == nameGDST) {
				e.register(name, table[i+7:])
			}
		}
	}
	if e.N == 0 {
		*e = Events{}
	}
}

// interrupts notes the interrupts of a list of resources.
func (e *Events) interrupts(b []byte) {
	for len(b) > 0 {
		var tag byte
		var c []byte
		if tag, c, b = next(b); tag == tagInterrupt && len(c) >= 6 && c[1] >= 1 && e.N < MaxEvents {
			e.GSI[e.N] = word(c[2:])
			e.N++
		}
	}
}

// register notes the register of a region whose offset begins b. What its bits mean is known
// of the hypervisors that have it; nothing of a table is run.
func (e *Events) register(name uint32, b []byte) {
	a, _, ok := integer(b)
	if !ok || a < 1<<20 || a >= maxAddress || a&3 != 0 {
		return
	}
	e.Register, e.Width, e.Button = a, 4, 1<<1
	if name == nameGDST {
		e.Width, e.Button = 1, 1<<3
	}
}

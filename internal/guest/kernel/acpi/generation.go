package acpi

// Generations is where a hypervisor writes that the machine has become another one: its
// state was restored, perhaps for the second time. The addresses are physical; 0: none.
type Generations struct {
	ID    uint64 // VMGenID: 16 bytes that differ for each machine (Microsoft, Virtual Machine Generation ID)
	Clock uint64 // VMClock: a page that counts restores and migrations (Linux, uapi/linux/vmclock-abi.h)
}

// GenIDSize is the size of a VMGenID in bytes.
const GenIDSize = 16

const (
	opZero    = 0x00
	opOne     = 0x01
	opPackage = 0x12

	nameCID  = '_' | 'C'<<8 | 'I'<<16 | 'D'<<24
	nameADDR = 'A' | 'D'<<8 | 'D'<<16 | 'R'<<24
	nameVGIA = 'V' | 'G'<<8 | 'I'<<16 | 'A'<<24

	// In QEMU's table a method computes the address from what its firmware leaves in
	// VGIA: a page whose first 40 bytes are the firmware's (QEMU, docs/specs/vmgenid).
	vgiaOffset = 40

	tagQWordSpace = 0x8a
	pageMask      = 1<<12 - 1
	maxAddress    = 1 << 46
)

// Read looks for the devices in a DSDT or SSDT, header and all. What was found before stays.
func (g *Generations) Read(table []byte) {
	scanned := 0
	for i := HeaderSize; i+2 < len(table) && scanned < maxScanned; i++ {
		if table[i] != opExt || table[i+1] != opDevice {
			continue
		}
		body, ok := pkg(table[i+2:])
		if !ok {
			continue
		}
		scanned++
		switch cid := value(body, nameCID); {
		case is(cid, "VM_Gen_Counter") && g.ID == 0:
			a := pair(value(body, nameADDR))
			if v, _, ok := integer(value(table[HeaderSize:], nameVGIA)); ok && a == 0 && v != 0 {
				a = v + vgiaOffset
			}
			// One page, and aligned as the specification demands.
			if a != 0 && a&7 == 0 && a < maxAddress && a&pageMask <= pageMask+1-GenIDSize {
				g.ID = a
			}
		case is(cid, "VMCLOCK") && g.Clock == 0:
			g.Clock = page(resources(value(body, nameCRS)))
		}
	}
}

// integer reads a constant (20.2.3) and returns what follows it.
func integer(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	n := 0
	switch b[0] {
	case opZero, opOne:
		return uint64(b[0]), b[1:], true
	case opByte:
		n = 1
	case opWord:
		n = 2
	case opDWord:
		n = 4
	case opQWord:
		n = 8
	}
	if n == 0 || len(b) <= n {
		return 0, nil, false
	}
	for i := n; i > 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v, b[1+n:], true
}

// pair reads Package(2){low, high}, an address in two halves; 0 where it is none.
func pair(b []byte) uint64 {
	if len(b) == 0 || b[0] != opPackage {
		return 0
	}
	b, ok := pkg(b[1:])
	if !ok || len(b) == 0 || b[0] != 2 {
		return 0
	}
	low, b, ok := integer(b[1:])
	if !ok {
		return 0
	}
	high, _, ok := integer(b)
	if !ok || low>>32 != 0 || high>>32 != 0 {
		return 0
	}
	return high<<32 | low
}

// page returns the address of the first page of memory in a list of resources, 0 where
// there is none.
func page(b []byte) uint64 {
	for len(b) > 0 {
		var tag byte
		var c []byte
		tag, c, b = next(b)
		if tag != tagQWordSpace || len(c) < 43 || c[0] != 0 { // 0: memory
			continue
		}
		start, last := quad(c[11:]), quad(c[19:])
		if start != 0 && start&pageMask == 0 && start < maxAddress && last >= start+pageMask {
			return start
		}
	}
	return 0
}

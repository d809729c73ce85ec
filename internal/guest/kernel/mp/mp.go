// Package mp reads which processors a machine has: from ACPI's MADT, or from the table
// of Intel's MultiProcessor Specification 1.4 where there is no ACPI. Nothing in a table is
// believed: what does not fit is passed over.
//
// The kernel uses it (cmd/kernel/processors.go): no allocation, no interfaces.
package mp

import "github.com/thurward/thurward/internal/shared/abi"

// A List is the processors that can be used.
type List struct {
	APIC   [abi.MaxProcessors]uint8 // numbers of their local APICs
	N      int
	Listed int  // how many there are, also those for which there is no room or no number
	Moved  bool // the local APICs are not at their usual address, so that nothing here can be used
}

// unreachable is the first number of a local APIC that is none in xAPIC mode: all of them.
const unreachable = 0xff

// add notes a processor, once.
func (l *List) add(id uint32) {
	for i := range l.N {
		if uint32(l.APIC[i]) == id {
			return
		}
	}
	l.Listed++
	if id < unreachable && l.N < len(l.APIC) {
		l.APIC[l.N] = uint8(id)
		l.N++
	}
}

// maxEntries bounds the entries that are looked at.
const maxEntries = 1024

// The MADT (ACPI 6.4, 5.2.12).
const (
	madtAPIC    = 36 // offset of the local APICs' address, 32 bits
	madtEntries = 44

	typeLocal    = 0 // 8 bytes: the number at 3, flags at 4
	typeOverride = 5 // 12 bytes: the local APICs' address at 4, 64 bits
	typeLocalX2  = 9 // 16 bytes: the number at 4, flags at 8
	enabled      = 1
)

// ReadMADT reads the table, header and all.
func ReadMADT(table []byte, l *List) {
	*l = List{}
	if len(table) < madtEntries {
		return
	}
	l.Moved = word(table[madtAPIC:]) != abi.LAPICPhys
	rest := table[madtEntries:]
	for range maxEntries {
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			return
		}
		e := rest[:rest[1]]
		rest = rest[rest[1]:]
		switch {
		case e[0] == typeLocal && len(e) >= 8 && word(e[4:])&enabled != 0:
			l.add(uint32(e[3]))
		case e[0] == typeLocalX2 && len(e) >= 16 && word(e[8:])&enabled != 0:
			l.add(word(e[4:]))
		case e[0] == typeOverride && len(e) >= 12:
			l.Moved = word(e[4:]) != abi.LAPICPhys || word(e[8:]) != 0
		}
	}
}

// The MultiProcessor table (MultiProcessor Specification 1.4, chapter 4).
const (
	pointerMagic = '_' | 'M'<<8 | 'P'<<16 | '_'<<24
	pointerBytes = 16
	tableMagic   = 'P' | 'C'<<8 | 'M'<<16 | 'P'<<24
	tableBytes   = 44 // of the header: the length at 4, the address of the local APICs at 36

	typeProcessor  = 0 // 20 bytes: the number at 1, flags at 3
	processorBytes = 20
	otherBytes     = 8 // of all other types
)

// ReadTable looks for the table in memory below 1 MiB, which is given from address 0: its
// pointer is at the end of the base memory or in the BIOS (4.1).
func ReadTable(low []byte, l *List) {
	*l = List{}
	for _, s := range [2][2]int{{0x9fc00, 0xa0000}, {0xf0000, 0x100000}} {
		for a := s[0]; a+pointerBytes <= min(s[1], len(low)); a += 16 {
			p := low[a : a+pointerBytes]
			if word(p) != pointerMagic || sum(p) != 0 {
				continue
			}
			if at := int(word(p[4:])); at < len(low) && readTable(low[at:], l) {
				return
			}
		}
	}
}

// readTable reads the table at the start of t and reports whether there is one.
func readTable(t []byte, l *List) bool {
	if len(t) < tableBytes || word(t) != tableMagic {
		return false
	}
	n := int(t[4]) | int(t[5])<<8
	if n < tableBytes || n > len(t) || sum(t[:n]) != 0 {
		return false
	}
	l.Moved = word(t[36:]) != abi.LAPICPhys
	rest := t[tableBytes:n]
	for range maxEntries { // by the length: qboot, which microvm has, leaves their number 0
		size := otherBytes
		if len(rest) > 0 && rest[0] == typeProcessor {
			size = processorBytes
		}
		if len(rest) < size {
			break
		}
		if e := rest[:size]; e[0] == typeProcessor && e[3]&enabled != 0 {
			l.add(uint32(e[1]))
		}
		rest = rest[size:]
	}
	return true
}

// sum returns the sum of bytes, which checksums make zero.
func sum(b []byte) (s byte) {
	for _, c := range b {
		s += c
	}
	return s
}

// word returns the first 32 bits of b, little-endian.
func word(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

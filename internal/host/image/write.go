package image

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/abi"
)

// writeELF writes the parts as PT_LOAD segments and exactly one PT_NOTE:
// Firecracker's loader lets the last one win.
func writeELF(parts []part, entry uint64) []byte {
	const ehsize, phsize = 64, 56
	note := pvhNote(abi.EntryPage)
	var load []part
	for _, p := range parts {
		if len(p.data) > 0 {
			load = append(load, p)
		}
	}
	le := binary.LittleEndian
	noteOff := uint64(ehsize + phsize*(len(load)+1))
	off := noteOff + uint64(len(note))
	out := make([]byte, 0, 4<<20)
	out = append(out, 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	out = le.AppendUint16(out, 2)  // ET_EXEC
	out = le.AppendUint16(out, 62) // EM_X86_64
	out = le.AppendUint32(out, 1)
	out = le.AppendUint64(out, entry)
	out = le.AppendUint64(out, ehsize) // e_phoff
	out = le.AppendUint64(out, 0)      // e_shoff
	out = le.AppendUint32(out, 0)
	out = le.AppendUint16(out, ehsize)
	out = le.AppendUint16(out, phsize)
	out = le.AppendUint16(out, uint16(len(load)+1))
	out = le.AppendUint16(out, 64) // e_shentsize
	out = le.AppendUint16(out, 0)
	out = le.AppendUint16(out, 0)
	ph := func(typ, flags uint32, off, addr, phys, filesz, memsz, align uint64) {
		out = le.AppendUint32(out, typ)
		out = le.AppendUint32(out, flags)
		for _, v := range []uint64{off, addr, phys, filesz, memsz, align} {
			out = le.AppendUint64(out, v)
		}
	}
	offs := make([]uint64, len(load))
	for i, p := range load {
		off += (p.addr - off) % abi.PageSize // congruent, as ELF wants it
		offs[i] = off
		ph(1, p.flags&7, off, p.addr, p.pa(), uint64(len(p.data)), p.size, abi.PageSize)
		off += uint64(len(p.data))
	}
	// The note is in no loaded segment: both loaders read it from the file.
	ph(4, 4, noteOff, 0, 0, uint64(len(note)), uint64(len(note)), 4)
	out = append(out, note...)
	for i, p := range load {
		out = append(out, make([]byte, offs[i]-uint64(len(out)))...)
		out = append(out, p.data...)
	}
	return out
}

// pvhNote returns Xen's ELF note XEN_ELFNOTE_PHYS32_ENTRY (18).
func pvhNote(entry uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 4) // name size
	b = le.AppendUint32(b, 8)    // descriptor size
	b = le.AppendUint32(b, 18)
	b = append(b, "Xen\x00"...)
	b = le.AppendUint32(b, entry)
	return le.AppendUint32(b, 0)
}

// Package image joins the kernel, the program and the compiled policy into
// one bootable ELF file, which QEMU and Firecracker load as they are: it has
// a PVH note (32-bit entry) and a 64-bit Linux entry point.
//
// The result depends on the input alone: nothing is read from the clock, the
// environment or the file system.
package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/thurward/thurward/internal/shared/abi"
)

// Input is what an image is made of.
type Input struct {
	Program []byte // static ELF64 of cmd/firewall
	Kernel  []byte // ELF64 of cmd/kernel, with symbols
	Policy  []byte // policy segment (package segment)
	Cmdline string // boot arguments built in; those of the loader follow them
}

// A part is a stretch of memory that the image fills or reserves.
type part struct {
	addr  uint64 // virtual
	phys  uint64 // physical; 0: the same
	data  []byte
	size  uint64 // in memory; the rest after data is zero
	flags uint32 // of the page tables: see perm
}

// pa returns the part's physical address.
func (p part) pa() uint64 {
	if p.phys != 0 {
		return p.phys
	}
	return p.addr
}

// Permissions of a part, ELF's p_flags plus the ring.
const (
	permX          = 1
	permW          = 2
	permR          = 4
	permSupervisor = 8 // ring 0 only
)

func (p part) end() uint64 { return p.addr + p.size }

// poolMin is the least room for page tables made at run time. More is taken
// from general memory, which a sealed image will not do.
const poolMin = 512 << 10

// Link makes the image.
func Link(in Input) ([]byte, error) {
	kern, err := loadELF("kernel", in.Kernel)
	if err != nil {
		return nil, err
	}
	prog, err := loadELF("program", in.Program)
	if err != nil {
		return nil, err
	}
	if err := kern.within(abi.KernelBase, abi.KernelEnd); err != nil {
		return nil, err
	}
	if err := prog.within(abi.KernelEnd, 1<<30); err != nil {
		return nil, err
	}
	if len(in.Policy) == 0 {
		return nil, errors.New("policy: empty segment")
	}
	if len(in.Policy) > abi.MaxPolicySize {
		return nil, fmt.Errorf("policy: segment of %d bytes; at most %d are supported", len(in.Policy), abi.MaxPolicySize)
	}
	if len(in.Cmdline) >= abi.MaxCmdline {
		return nil, fmt.Errorf("boot arguments: %d bytes; at most %d are supported", len(in.Cmdline), abi.MaxCmdline-1)
	}

	if err := checkVariant(in.Program, in.Policy); err != nil {
		return nil, err
	}
	// Of the program, only what the file holds is loaded. Its zeroed data has
	// no memory before it is touched: Go programs reserve far more than they
	// use.
	rec := abi.BootRecord{Entry: prog.entry, PolicyLen: uint64(len(in.Policy)), CmdLen: uint64(len(in.Cmdline))}
	var loaded []part
	add := func(start, end uint64, flags uint32) error {
		if rec.Program.N == uint64(len(rec.Program.Seg)) {
			return fmt.Errorf("program: too many loadable segments; at most %d parts are supported", len(rec.Program.Seg))
		}
		rec.Program.Seg[rec.Program.N] = abi.Segment{Start: start, End: end, Flags: uint64(flags)}
		rec.Program.N++
		return nil
	}
	phys := uint64(0)
	for _, p := range prog.parts {
		file := alignUp(uint64(len(p.data)), abi.PageSize)
		if file > 0 {
			q := part{addr: p.addr, data: append(bytes.Clone(p.data), make([]byte, file-uint64(len(p.data)))...), size: file, flags: p.flags}
			loaded = append(loaded, q)
			phys = max(phys, q.end())
			if err := add(p.addr, q.end(), p.flags); err != nil {
				return nil, err
			}
		}
		if end := alignUp(p.end(), abi.PageSize); end > p.addr+file {
			if err := add(p.addr+file, end, p.flags|abi.SegmentZero); err != nil {
				return nil, err
			}
		}
	}
	rec.Program.End = alignUp(prog.end(), abi.PageSize)

	// The policy lies behind the program's addresses, one unmapped page
	// between them, and the built-in boot arguments behind the policy; in
	// memory they follow what is loaded of the program.
	rec.Policy = rec.Program.End + abi.PageSize
	ro := append(bytes.Clone(in.Policy), make([]byte, -len(in.Policy)&7)...)
	rec.Cmdline = rec.Policy + uint64(len(ro))
	ro = append(ro, in.Cmdline...)
	ro = append(ro, 0)
	tail := part{addr: rec.Policy, phys: phys, data: ro, size: uint64(len(ro)), flags: permR}
	rec.ImageEnd = alignUp(phys+tail.size, abi.PageSize)
	rec.FreeStart = alignUp(rec.ImageEnd+poolMin, 2<<20)

	entry64, err := kern.symbol("main.entryLinux")
	if err != nil {
		return nil, err
	}
	boot, err := bootParts(kern, &rec)
	if err != nil {
		return nil, err
	}
	parts := append(boot, kern.parts...)
	parts = append(parts, loaded...)
	parts = append(parts, tail)
	tables, err := pageTables(append(parts, reserved(rec.ImageEnd, rec.FreeStart)...))
	if err != nil {
		return nil, err
	}
	parts = append(parts, part{addr: abi.Tables, data: tables, size: uint64(len(tables)), flags: permR | permW})
	return writeELF(parts, entry64), nil
}

// reserved lists the memory that is mapped from the start but not loaded.
func reserved(poolStart, poolEnd uint64) []part {
	r := func(from, to uint64) part { return part{addr: from, size: to - from, flags: permR | permW} }
	return []part{
		r(abi.KernelStack, abi.KernelStackTop),
		r(abi.FaultStack, abi.FaultStackTop),
		r(abi.CrashStack, abi.CrashStackTop),
		r(abi.TrapPage, abi.TrapPage+abi.PageSize),
		r(abi.Tables, abi.TablesEnd),
		r(abi.FaultXS, abi.FaultXS+abi.PageSize),
		r(abi.UserStack, abi.UserEnd),
		{addr: abi.DirectBase + poolStart, phys: poolStart, size: poolEnd - poolStart, flags: permR | permW},
	}
}

func alignUp(v, a uint64) uint64 { return (v + a - 1) &^ (a - 1) }

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

// Package image links the kernel, the program and the compiled policy into one
// bootable ELF file for QEMU and Firecracker, with a PVH note (32-bit entry point)
// and a 64-bit Linux entry point.
//
// The result depends on the input alone: nothing is read from the clock, the
// environment or the file system.
package image

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/thurward/thurward/internal/shared/abi"
)

// Input has the parts of an image.
type Input struct {
	Program []byte // static ELF64 of cmd/firewall
	Kernel  []byte // ELF64 of cmd/kernel, with symbols
	Policy  []byte // the ruleset (package ruleset)
	Cmdline string // boot arguments built in; those of the loader follow them
}

// A part is a contiguous range of memory that the image fills or reserves.
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

// poolMin is the least memory for page tables made at run time, in bytes. On large
// machines the kernel adds to it before it closes the tables.
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
	if err := check(in, kern, prog); err != nil {
		return nil, err
	}
	if err := kern.splitMonitor(); err != nil {
		return nil, err
	}
	rec := abi.BootRecord{Entry: prog.entry, PolicyLen: uint64(len(in.Policy)), CmdLen: uint64(len(in.Cmdline))}
	loaded, phys, err := placeProgram(prog, &rec)
	if err != nil {
		return nil, err
	}
	tail := placePolicy(in, phys, &rec)
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
	tables, err := pageTables(append(parts, reserved()...), rec.ImageEnd, rec.FreeStart)
	if err != nil {
		return nil, err
	}
	parts = append(parts, part{addr: ring0Base + abi.Tables, phys: abi.Tables, data: tables, size: uint64(len(tables)), flags: permR | permW})
	return appendSymbols(writeELF(parts, entry64), symbols(kern, prog)), nil
}

// check checks sizes and addresses of the parts, and that they belong together.
func check(in Input, kern, prog *program) error {
	if err := kern.within(abi.KernelBase, abi.KernelEnd); err != nil {
		return err
	}
	if err := prog.within(abi.KernelEnd, 1<<30); err != nil {
		return err
	}
	if len(in.Policy) == 0 {
		return errors.New("policy: empty ruleset")
	}
	if len(in.Policy) > abi.MaxPolicySize {
		return fmt.Errorf("policy: ruleset of %d bytes; at most %d are supported", len(in.Policy), abi.MaxPolicySize)
	}
	if len(in.Cmdline) >= abi.MaxCmdline {
		return fmt.Errorf("boot arguments: %d bytes; at most %d are supported", len(in.Cmdline), abi.MaxCmdline-1)
	}
	return checkVariant(in.Program, in.Policy)
}

// placeProgram returns the parts of the program that are loaded, and the end of
// their memory, and describes the program in the boot record. Only the contents of
// the file are loaded. Zeroed data gets memory when it is used: Go programs reserve
// far more than they use.
func placeProgram(prog *program, rec *abi.BootRecord) (loaded []part, phys uint64, err error) {
	zero := 0
	add := func(start, end uint64, flags uint32) error {
		if flags&abi.SegmentZero != 0 {
			if zero++; zero > 1 {
				return errors.New("program: more than one segment has zeroed data; the monitor knows one")
			}
		}
		if rec.Program.N == uint64(len(rec.Program.Seg)) {
			return fmt.Errorf("program: too many loadable segments; at most %d parts are supported",
				len(rec.Program.Seg))
		}
		rec.Program.Seg[rec.Program.N] = abi.Segment{Start: start, End: end, Flags: uint64(flags)}
		rec.Program.N++
		return nil
	}
	for _, p := range prog.parts {
		size := alignUp(uint64(len(p.data)), abi.PageSize)
		if size > 0 {
			data := make([]byte, size)
			copy(data, p.data)
			q := part{addr: p.addr, data: data, size: size, flags: p.flags}
			loaded = append(loaded, q)
			phys = max(phys, q.end())
			if err := add(p.addr, q.end(), p.flags); err != nil {
				return nil, 0, err
			}
		}
		if end := alignUp(p.end(), abi.PageSize); end > p.addr+size {
			if err := add(p.addr+size, end, p.flags|abi.SegmentZero); err != nil {
				return nil, 0, err
			}
		}
	}
	rec.Program.End = alignUp(prog.end(), abi.PageSize)
	return loaded, phys, nil
}

// placePolicy returns the part with the policy and the built-in boot arguments, and
// describes it in the boot record. Its addresses follow those of the program after
// an unmapped page, its memory that of the program's loaded parts, which ends at
// phys.
func placePolicy(in Input, phys uint64, rec *abi.BootRecord) part {
	rec.Policy = rec.Program.End + abi.PageSize
	ro := append(bytes.Clone(in.Policy), make([]byte, -len(in.Policy)&7)...)
	rec.Cmdline = rec.Policy + uint64(len(ro))
	ro = append(ro, in.Cmdline...)
	ro = append(ro, 0)
	p := part{addr: rec.Policy, phys: phys, data: ro, size: uint64(len(ro)), flags: permR}
	rec.ImageEnd = alignUp(phys+p.size, abi.PageSize)
	rec.FreeStart = alignUp(rec.ImageEnd+poolMin, 2<<20)
	return p
}

// reserved lists the memory that is mapped from the start but not loaded.
func reserved() []part {
	r := func(from, to uint64) part { return part{addr: from, size: to - from, flags: permR | permW} }
	return []part{
		r(abi.KernelStack, abi.KernelStackTop),
		r(abi.FaultStack, abi.FaultStackTop),
		r(abi.CrashStack, abi.CrashStackTop),
		{addr: abi.TrapPage, size: abi.PageSize, flags: permR | permW | permSupervisor},
		r(abi.FaultXS, abi.FaultXS+abi.PageSize),
		r(abi.UserStack, abi.UserEnd),
	}
}

func alignUp(v, a uint64) uint64 { return (v + a - 1) &^ (a - 1) }

package image

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/thurward/thurward/internal/shared/abi"
)

// bootParts makes the boot segment's pages: entry code, descriptor tables, the
// boot record, the vDSO.
func bootParts(kern *program, rec *abi.BootRecord) ([]part, error) {
	boot64, err := kern.symbol("main.boot64")
	if err != nil {
		return nil, err
	}
	desc, err := descriptors(kern)
	if err != nil {
		return nil, err
	}
	clock, err := kern.symbol("main.vdsoClockGettime")
	if err != nil {
		return nil, err
	}
	ap, err := kern.symbol("main.boot64AP")
	if err != nil {
		return nil, err
	}
	local, err := local(kern)
	if err != nil {
		return nil, err
	}
	mon := abi.Monitor{PoolNext: rec.ImageEnd, PoolEnd: rec.FreeStart, HighStart: ^uint64(0), Processors: 1}
	mon.Roots[0] = abi.Tables
	var r, m, l, sh bytes.Buffer
	for b, v := range map[*bytes.Buffer]any{&r: rec, &m: mon, &l: local, &sh: abi.Shared{InKernel: 1}} {
		if err := binary.Write(b, binary.LittleEndian, v); err != nil {
			return nil, fmt.Errorf("boot pages: %w", err)
		}
	}
	page := func(addr uint64, data []byte, flags uint32) part {
		b := make([]byte, abi.PageSize)
		if copy(b, data) < len(data) {
			panic(fmt.Sprintf("image: page %#x overflows", addr))
		}
		return part{addr: addr, data: b, size: abi.PageSize, flags: flags}
	}
	entry := entry32(uint32(boot64))
	entry = append(entry, make([]byte, abi.APEntry-abi.EntryPage-len(entry))...)
	entry = append(entry, entryAP(uint32(ap))...)
	return []part{
		page(abi.EntryPage, entry, permR|permX|permSupervisor),
		page(abi.DescPage, desc, permR|permW|permSupervisor),
		page(abi.BootPage, r.Bytes(), permR|permW),
		page(abi.ClockPage, nil, permR|permW),
		page(abi.VDSOPage, vdso(clock), permR),
		page(abi.InfoPage, nil, permR|permW),
		page(abi.SharedPage, sh.Bytes(), permR|permW),
		page(abi.MonitorPage, m.Bytes(), permR|permW|permSupervisor),
		page(abi.LocalPage, l.Bytes(), permR|permW|permSupervisor),
	}, nil
}

// local makes what the monitor keeps for the first processor: where it returns to ring
// 3. The kernel copies it for others.
func local(kern *program) (*abi.Local, error) {
	m := &abi.Local{}
	for _, f := range []struct {
		ret   *abi.Return
		entry string
		stack uint64
	}{
		{&m.Fault, "main.faultEntry", abi.FaultStackTop},
		{&m.Crash, "main.crashEntry", abi.CrashStackTop},
		{&m.Interrupt, "main.interruptEntry", abi.KernelStackTop},
		{&m.Bounce, "main.syscallEntry", 0},
	} {
		entry, err := kern.symbol(f.entry)
		if err != nil {
			return nil, err
		}
		*f.ret = abi.Return{RIP: entry, CS: abi.UserCS, RFLAGS: 0x202, RSP: f.stack, SS: abi.UserDS}
	}
	return m, nil
}

// entry32 returns the PVH entry: 32-bit protected mode, paging off, EBX points
// to hvm_start_info. It stores that and the TSC in the boot record and enters long
// mode with the image's page tables. It is emitted as bytes because Go's assembler
// has 64-bit code only.
func entry32(boot64 uint32) []byte {
	le := binary.LittleEndian
	var b []byte
	op := func(bs ...byte) { b = append(b, bs...) }
	imm := func(v uint32) { b = le.AppendUint32(b, v) }
	op(0xfa)       // cli
	op(0xfc)       // cld
	op(0x89, 0x1d) // mov [record.Start], ebx
	imm(abi.BootPage)
	op(0x0f, 0x31) // rdtsc
	op(0xa3)       // mov [record.EntryTSC], eax
	imm(abi.BootPage + 8)
	op(0x89, 0x15) // mov [record.EntryTSC+4], edx
	imm(abi.BootPage + 12)
	op(0xc7, 0x05) // mov dword [record.Kind], BootPVH
	imm(abi.BootPage + 16)
	imm(abi.BootPVH)
	op(0xb8) // mov eax, Tables
	imm(abi.Tables)
	return append(b, longMode(boot64)...)
}

// entryAP returns the code of APEntry, where a further processor comes to from real mode
// by a flat 32-bit code segment: its root table is in the start-up page.
func entryAP(boot64 uint32) []byte {
	le := binary.LittleEndian
	b := []byte{
		0x66, 0xb8, 0x10, 0x00, // mov ax, the start-up page's data segment
		0x8e, 0xd8, // mov ds, ax
		0x8e, 0xc0, // mov es, ax
		0x8e, 0xd0, // mov ss, ax
		0xa1, // mov eax, [tables]
	}
	b = le.AppendUint32(b, abi.StartupPage+abi.StartupTables)
	return append(b, longMode(boot64)...)
}

// longMode returns 32-bit code that enters long mode with the root table at EAX, and goes
// to boot64.
func longMode(boot64 uint32) []byte {
	le := binary.LittleEndian
	var b []byte
	op := func(bs ...byte) { b = append(b, bs...) }
	imm := func(v uint32) { b = le.AppendUint32(b, v) }
	op(0x0f, 0x22, 0xd8) // mov cr3, eax
	op(0x0f, 0x20, 0xe0) // mov eax, cr4
	op(0x83, 0xc8, 0x20) // or eax, PAE
	op(0x0f, 0x22, 0xe0) // mov cr4, eax
	op(0xb9)             // mov ecx, EFER
	imm(0xc0000080)
	op(0xb8) // mov eax, NXE|LME|SCE
	imm(0x901)
	op(0x31, 0xd2)       // xor edx, edx
	op(0x0f, 0x30)       // wrmsr
	op(0x0f, 0x20, 0xc0) // mov eax, cr0
	op(0x25)             // and eax, ~(CD|NW|TS|EM)
	imm(0x9ffffff3)
	op(0x0d) // or eax, PG|WP|NE|MP|PE
	imm(0x80010023)
	op(0x0f, 0x22, 0xc0) // mov cr0, eax
	op(0x0f, 0x01, 0x15) // lgdt [GDTR]
	imm(abi.DescPage + abi.GDTROff)
	op(0xea) // jmp KernelCS:boot64
	imm(boot64)
	return le.AppendUint16(b, abi.KernelCS)
}

// descriptors makes DescPage: GDT, IDT, TSS (Intel SDM vol. 3, 3.4.5, 6.14,
// 8.7). Accessed bits are preset.
func descriptors(kern *program) ([]byte, error) {
	le := binary.LittleEndian
	b := make([]byte, abi.PageSize)
	gdt := b[abi.GDTOff:]
	le.PutUint64(gdt[0x08:], 0x00af9b000000ffff) // ring 0, 64-bit code
	le.PutUint64(gdt[0x10:], 0x00cf93000000ffff) // ring 0, data
	le.PutUint64(gdt[0x20:], 0x00cffb000000ffff) // ring 3, 32-bit code: none runs
	le.PutUint64(gdt[0x28:], 0x00cff3000000ffff) // ring 3, data
	le.PutUint64(gdt[0x30:], 0x00affb000000ffff) // ring 3, 64-bit code
	const tss, limit = abi.DescPage + abi.TSSOff, abi.TSSSize - 1
	le.PutUint64(gdt[0x38:], limit|tss<<16&0xffffff0000|0x89<<40|tss>>24<<56)
	le.PutUint16(b[abi.GDTROff:], abi.GDTSize-1)
	le.PutUint64(b[abi.GDTROff+2:], abi.DescPage+abi.GDTOff)
	le.PutUint16(b[abi.IDTROff:], abi.Vectors*16-1)
	le.PutUint64(b[abi.IDTROff+2:], abi.DescPage+abi.IDTOff)

	for v := 0; v < abi.Vectors; v++ {
		name := fmt.Sprintf("main.vector%d", v)
		if v > abi.FlushVector {
			name = "main.spurious"
		}
		h, err := kern.symbol(name)
		if err != nil {
			return nil, err
		}
		typ, ist := byte(0x8e), byte(0) // interrupt gate
		switch {
		case v == 2 || v == 8 || v == 18:
			ist = 2
		case v > abi.LastVector:
			ist = 3
		case v >= abi.TimerVector:
			ist = 1
		case v == 3 || v == 4:
			typ = 0xee // INT3 and INTO may come from ring 3
		}
		g := b[abi.IDTOff+16*v:]
		le.PutUint16(g[0:], uint16(h))
		le.PutUint16(g[2:], abi.KernelCS)
		g[4], g[5] = ist, typ
		le.PutUint16(g[6:], uint16(h>>16))
		le.PutUint32(g[8:], uint32(h>>32))
	}

	t := b[abi.TSSOff:]
	le.PutUint64(t[4:], abi.TrapTop)     // RSP0
	le.PutUint64(t[0x24:], abi.IRQTop)   // IST1
	le.PutUint64(t[0x2c:], abi.AbortTop) // IST2
	le.PutUint64(t[0x34:], abi.FlushTop) // IST3
	le.PutUint16(t[0x66:], abi.IOBase)   // I/O bitmap
	for _, at := range []int{abi.IOBase, abi.IOFinal} {
		bitmap := t[at : at+abi.IOMax/8+1] // and its closing byte
		for i := range bitmap {
			bitmap[i] = 0xff
		}
		for _, r := range abi.IOPorts {
			for p := r.First; p <= r.Last && (r.Final || at == abi.IOBase); p++ {
				bitmap[p/8] &^= 1 << (p % 8)
			}
		}
	}
	return b, nil
}

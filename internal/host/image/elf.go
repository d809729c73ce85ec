package image

import (
	"bytes"
	"debug/elf"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/abi"
)

// A program is an ELF file's loadable parts and symbols.
type program struct {
	name  string
	entry uint64
	parts []part
	syms  map[string]uint64

	funcs    map[string][2]uint64 // functions: address and size
	sections map[string][2]uint64 // likewise
}

// loadELF reads a static 64-bit x86 ELF file. Errors name the part and the remedy.
func loadELF(name string, b []byte) (*program, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: not a readable ELF file (%d bytes): %w", name, len(b), err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		return nil, fmt.Errorf("%s: is %v %v %v; want a static ELFCLASS64 EM_X86_64 ET_EXEC "+
			"(CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build)", name, f.Class, f.Machine, f.Type)
	}
	p := &program{name: name, entry: f.Entry, syms: map[string]uint64{},
		funcs: map[string][2]uint64{}, sections: map[string][2]uint64{}}
	syms, _ := f.Symbols()
	for _, s := range syms {
		p.syms[s.Name] = s.Value
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			p.funcs[s.Name] = [2]uint64{s.Value, s.Size}
		}
	}
	for _, s := range f.Sections {
		p.sections[s.Name] = [2]uint64{s.Addr, s.Size}
	}
	for _, h := range f.Progs {
		switch h.Type {
		case elf.PT_INTERP, elf.PT_DYNAMIC:
			return nil, fmt.Errorf("%s: is dynamically linked; want a static program (CGO_ENABLED=0)", name)
		case elf.PT_LOAD:
		default:
			continue
		}
		if h.Filesz > h.Memsz || h.Off+h.Filesz < h.Off || h.Off+h.Filesz > uint64(len(b)) {
			return nil, fmt.Errorf("%s: truncated: a segment ends at byte %d of a file of %d",
				name, h.Off+h.Filesz, len(b))
		}
		if h.Vaddr%abi.PageSize != 0 {
			return nil, fmt.Errorf("%s: segment at %#x does not begin on a page", name, h.Vaddr)
		}
		if h.Flags&elf.PF_W != 0 && h.Flags&elf.PF_X != 0 {
			return nil, fmt.Errorf("%s: segment at %#x is both writable and executable", name, h.Vaddr)
		}
		data := b[h.Off : h.Off+h.Filesz]
		p.parts = append(p.parts, part{addr: h.Vaddr, data: data, size: h.Memsz, flags: uint32(h.Flags & 7)})
	}
	if len(p.parts) == 0 {
		return nil, fmt.Errorf("%s: has nothing to load", name)
	}
	if name == "kernel" {
		p.dropRuntimeTables(f)
		p.dropRuntimeCode()
	}
	return p, nil
}

func (p *program) symbol(name string) (uint64, error) {
	v, ok := p.syms[name]
	if !ok {
		return 0, fmt.Errorf("%s: has no symbol %s (it must not be stripped)", p.name, name)
	}
	return v, nil
}

// splitMonitor gives the pages of the monitor's code to ring 0. Before and behind
// it lies code that never runs, so that no page holds code of both rings.
func (p *program) splitMonitor() error {
	start, err := p.symbol("main.monitorStart")
	if err != nil {
		return err
	}
	end, err := p.symbol("main.monitorEnd")
	if err != nil {
		return err
	}
	lo, hi := alignUp(start, abi.PageSize), alignUp(end, abi.PageSize)
	for name, a := range p.syms {
		if name == "main.monitorStart" || name == "main.monitorEnd" {
			continue
		}
		if inside := a >= lo && a < hi; inside != monitorFunc.MatchString(name) && (inside || strings.HasPrefix(name, "main.")) {
			return fmt.Errorf("%s: the function %s at %#x lies on the wrong side of the monitor's pages [%#x, %#x)",
				p.name, name, a, lo, hi)
		}
	}
	for i, q := range p.parts {
		if q.flags&permX == 0 || lo < q.addr || hi > q.addr+uint64(len(q.data)) {
			continue
		}
		cut := func(from, to uint64, flags uint32) part {
			return part{addr: from, data: q.data[from-q.addr : min(to-q.addr, uint64(len(q.data)))], size: to - from, flags: flags}
		}
		p.parts = slices.Replace(p.parts, i, i+1, cut(q.addr, lo, q.flags), cut(lo, hi, q.flags|permSupervisor), cut(hi, q.end(), q.flags))
		return nil
	}
	return fmt.Errorf("%s: the monitor's pages [%#x, %#x) are not in its code", p.name, lo, hi)
}

// monitorFunc names the functions of the monitor.
var monitorFunc = regexp.MustCompile(`^main\.(entryLinux|boot64|boot64AP|toRing3|haltOthers|stand|syscallBounce|vector\d+|interrupt|spurious|monitorFault|calls|haltCPU|setPages|sharePage)(\.abi0)?$`)

func (p *program) end() uint64 {
	e := uint64(0)
	for _, q := range p.parts {
		e = max(e, q.end())
	}
	return e
}

func (p *program) within(lo, hi uint64) error {
	for _, q := range p.parts {
		if q.addr < lo || q.end() > hi || q.end() < q.addr {
			return fmt.Errorf("%s: segment [%#x, %#x) lies outside [%#x, %#x)", p.name, q.addr, q.end(), lo, hi)
		}
	}
	return nil
}

package image

import (
	"debug/elf"
	"encoding/binary"
	"sort"
	"strings"
)

// Symbols of the image, which is not loaded with them: the kernel's functions, and where
// the program has the tables of Go's runtime that name its own. The launcher names the
// addresses of a crash report by them.
const (
	SymbolText  = "runtime.text"    // where the program's code begins
	SymbolTable = "runtime.pclntab" // its table of functions and lines, with its size
	maxSymbol   = 200               // bytes of a name that are kept
	symSize     = 24                // of an Elf64_Sym
	shSize      = 64                // of an Elf64_Shdr
	sectionStr  = "\x00.symtab\x00.strtab\x00"
)

// A symbol is a name for an address.
type symbol struct {
	name       string
	addr, size uint64
	isFunc     bool
}

// symbols returns the image's symbols by address.
func symbols(kern, prog *program) []symbol {
	var s []symbol
	for name, f := range kern.funcs {
		if strings.HasPrefix(name, "main.") || strings.Contains(name, "internal/guest/kernel") {
			if plain := strings.TrimSuffix(name, ".abi0"); kern.funcs[plain] == [2]uint64{} {
				name = plain // else that is a wrapper for Go code
			}
			s = append(s, symbol{name, f[0], f[1], true})
		}
	}
	for section, name := range map[string]string{".text": SymbolText, ".gopclntab": SymbolTable} {
		if r, ok := prog.sections[section]; ok {
			s = append(s, symbol{name: name, addr: r[0], size: r[1]})
		}
	}
	sort.Slice(s, func(i, j int) bool {
		if s[i].addr != s[j].addr {
			return s[i].addr < s[j].addr
		}
		return s[i].name < s[j].name
	})
	return s
}

// appendSymbols appends the symbols to an ELF file, which has no sections yet, and points
// its header to them.
func appendSymbols(out []byte, syms []symbol) []byte {
	le := binary.LittleEndian
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	symOff := len(out)
	names := []byte{0}
	out = append(out, make([]byte, symSize)...)
	for _, s := range syms {
		typ := byte(elf.STT_OBJECT)
		if s.isFunc {
			typ = byte(elf.STT_FUNC)
		}
		out = le.AppendUint32(out, uint32(len(names)))
		out = append(out, byte(elf.STB_GLOBAL)<<4|typ, 0)
		out = le.AppendUint16(out, uint16(elf.SHN_ABS))
		out = le.AppendUint64(out, s.addr)
		out = le.AppendUint64(out, s.size)
		names = append(names, s.name[:min(len(s.name), maxSymbol)]...)
		names = append(names, 0)
	}
	strOff := len(out)
	out = append(out, names...)
	namesOff := len(out)
	out = append(out, sectionStr...)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	shOff := len(out)
	section := func(name int, typ elf.SectionType, off, size, link, info, align, entry int) {
		out = le.AppendUint32(out, uint32(name))
		out = le.AppendUint32(out, uint32(typ))
		for _, v := range []int{0, 0, off, size} { // flags, address
			out = le.AppendUint64(out, uint64(v))
		}
		out = le.AppendUint32(out, uint32(link))
		out = le.AppendUint32(out, uint32(info))
		out = le.AppendUint64(out, uint64(align))
		out = le.AppendUint64(out, uint64(entry))
	}
	section(0, elf.SHT_NULL, 0, 0, 0, 0, 0, 0)
	section(1, elf.SHT_SYMTAB, symOff, strOff-symOff, 2, 1, 8, symSize)
	section(9, elf.SHT_STRTAB, strOff, len(names), 0, 0, 1, 0)
	section(9, elf.SHT_STRTAB, namesOff, len(sectionStr), 0, 0, 1, 0)
	le.PutUint64(out[40:], uint64(shOff))
	le.PutUint16(out[58:], shSize)
	le.PutUint16(out[60:], 4)
	le.PutUint16(out[62:], 3)
	return out
}

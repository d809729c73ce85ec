package vmm

import (
	"bytes"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/limited"
)

// Symbols name the addresses of an image's code.
type Symbols struct {
	funcs []elf.Symbol // the kernel's, by address
	table *gosym.Table // the program's; nil: there is none
}

// OpenSymbols reads an image's symbols.
func OpenSymbols(path string) (*Symbols, error) {
	b, err := limited.ReadFile(path, maxImage)
	if err != nil {
		return nil, err
	}
	return readSymbols(b)
}

// readSymbols reads the symbols of an image, which may be of another version, or damaged.
func readSymbols(b []byte) (*Symbols, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	all, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("the image has no symbols: %w", err)
	}
	s := &Symbols{}
	var text, table elf.Symbol
	for _, y := range all {
		switch {
		case elf.ST_TYPE(y.Info) == elf.STT_FUNC:
			s.funcs = append(s.funcs, y)
		case y.Name == image.SymbolText:
			text = y
		case y.Name == image.SymbolTable:
			table = y
		}
	}
	sort.Slice(s.funcs, func(i, j int) bool { return s.funcs[i].Value < s.funcs[j].Value })
	data := loadedAt(f, b, table.Value, table.Size)
	// debug/gosym makes room for as many functions as the table says it has, each of which takes
	// 8 bytes of it (runtime.pcHeader, runtime.functab).
	if len(data) < 16 || text.Value == 0 || binary.LittleEndian.Uint64(data[8:]) > uint64(len(data))/8 {
		return s, errors.New("the image has no table of the program's functions")
	}
	s.table, err = gosym.NewTable(nil, gosym.NewLineTable(data, text.Value))
	return s, err
}

// loadedAt returns what a file loads at an address, nil if that is not all in one segment.
func loadedAt(f *elf.File, b []byte, addr, size uint64) []byte {
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || size == 0 || addr < p.Vaddr || addr-p.Vaddr > p.Filesz ||
			size > p.Filesz-(addr-p.Vaddr) {
			continue
		}
		from := p.Off + addr - p.Vaddr
		if to := from + size; from >= p.Off && to >= from && to <= uint64(len(b)) {
			return b[from:to]
		}
	}
	return nil
}

// Name returns the function at an address with the distance from its beginning, and the line
// where it is known; "" for an address that is no code of the image.
func (s *Symbols) Name(addr uint64) string {
	if i := sort.Search(len(s.funcs), func(i int) bool { return s.funcs[i].Value > addr }) - 1; i >= 0 {
		if y := s.funcs[i]; addr-y.Value < max(y.Size, 1) {
			return fmt.Sprintf("kernel %s+%#x", y.Name, addr-y.Value)
		}
	}
	if s.table == nil {
		return ""
	}
	file, line, fn := s.table.PCToLine(addr)
	if fn == nil {
		return ""
	}
	return fmt.Sprintf("%s+%#x %s:%d", fn.Name, addr-fn.Entry, file, line)
}

// A reporter collects what a crash report says of registers and stack, and names the
// addresses. A guest may print anything: what is collected is bounded.
type reporter struct {
	path  string // of the image
	lines []string
	names []string // of the addresses, in their order

	symbols *Symbols
	err     error
}

// Bounds of a report.
const (
	maxReportLines = 96
	maxReportNames = 640
)

var (
	registers = regexp.MustCompile(`^(called at )?(rip|rax|r8|in_kernel|stack)[=:]`)
	others    = regexp.MustCompile(`^(processor \d{1,3}|thread \d{1,3} waits for [a-z ]{1,20}(?:, (?:due|late)_us=\d{1,20})?)(: rip=| does not stop$)`)
	codeAt    = regexp.MustCompile(`0x[0-9a-f]{1,16}\b`)
)

// line takes a line of the console after the one that begins a report, and returns lines that
// name the addresses in it.
func (r *reporter) line(s string) (named []string) {
	other := others.MatchString(s)
	if !other && !registers.MatchString(s) || len(r.lines) == maxReportLines {
		return nil
	}
	r.lines = append(r.lines, s)
	if other && len(r.names) < maxReportNames { // what follows are its stacks
		r.names = append(r.names, others.FindStringSubmatch(s)[1]+":")
	}
	switch {
	case other, strings.HasPrefix(s, "rip="), strings.HasPrefix(s, "called at "):
		s, _, _ = strings.Cut(s, " rsp=")
	case !strings.HasPrefix(s, "stack:"):
		return nil
	}
	if r.symbols == nil && r.err == nil {
		if r.symbols, r.err = OpenSymbols(r.path); r.symbols == nil {
			r.symbols = &Symbols{}
		}
	}
	caller := strings.HasPrefix(s, "stack:")
	for _, h := range codeAt.FindAllString(s, -1) {
		a, err := strconv.ParseUint(h[2:], 16, 64)
		if err != nil || len(r.names) == maxReportNames {
			continue
		}
		if caller && a > 0 {
			a-- // a return address is behind its call, which may be the last of a function
		}
		n := r.symbols.Name(a)
		if n == "" {
			n = "not in the image"
		}
		n = h + " " + n
		r.names = append(r.names, n)
		named = append(named, "  "+n)
	}
	return named
}

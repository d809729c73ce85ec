package inspect

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// goMagic begins what the linker writes about a program's build (debug/buildinfo).
const goMagic = "\xff Go buildinf:"

// goVersion returns the version of Go in a program's data, or "".
func goVersion(b []byte) string {
	const header, inline = 32, 2 // bytes; flag: the strings follow
	i := bytes.Index(b, []byte(goMagic))
	if i < 0 || len(b)-i < header || b[i+15]&inline == 0 {
		return ""
	}
	b = b[i+header:]
	n, w := binary.Uvarint(b)
	if w <= 0 || n > 64 || n > uint64(len(b)-w) {
		return ""
	}
	return string(b[w:][:n])
}

// The header of Go's table of functions, runtime.pcHeader: after eight bytes, which say
// its version and that addresses have eight bytes, numbers of eight bytes.
const (
	pcMagic       = "\xf1\xff\xff\xff\x00\x00\x01\x08"
	pcFunctions   = 8
	pcNameOffset  = 8 + 3*8
	pcCuOffset    = pcNameOffset + 8
	maxFunctions  = 1 << 20
	longestSymbol = 4096
)

// firewall is the path of package main.
const firewall = "github.com/thurward/thurward/cmd/firewall"

// pushed is a package that is not linked though there are functions of its name: the
// runtime defines them for it (go:linkname).
const pushed = "os/signal"

// packages returns the packages of which functions are linked into a program, sorted, by
// the table in which the runtime looks up names for tracebacks.
func packages(b []byte) []string {
	i := bytes.Index(b, []byte(pcMagic))
	if i < 0 || len(b)-i < pcCuOffset+8 {
		return nil
	}
	b = b[i:]
	le := binary.LittleEndian
	n, start, end := le.Uint64(b[pcFunctions:]), le.Uint64(b[pcNameOffset:]), le.Uint64(b[pcCuOffset:])
	if n == 0 || n > maxFunctions || start > end || end > uint64(len(b)) {
		return nil
	}
	seen := map[string]bool{}
	for name := range bytes.SplitSeq(b[start:end], []byte{0}) {
		if len(name) <= longestSymbol {
			if p := packageOf(string(name)); p == "main" {
				seen[firewall] = true
			} else if p != "" && p != pushed {
				seen[p] = true
			}
		}
	}
	all := make([]string, 0, len(seen))
	for p := range seen {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// packageOf returns the package of a function by its linker symbol, or "" if it is none's:
// path.Function, path.(*Type).Method, path.Function[...], go:buildid.
func packageOf(name string) string {
	name, _, _ = strings.Cut(name, "[") // type arguments have paths of their own
	if strings.ContainsAny(name, " :{") {
		return ""
	}
	path := name[:strings.LastIndexByte(name, '/')+1]
	last, _, ok := strings.Cut(name[len(path):], ".")
	if !ok || last == "" {
		return ""
	}
	return strings.NewReplacer("%2e", ".", "%22", `"`).Replace(path + last)
}

package isolation

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// A branch is a conditional jump of the monitor to where it refuses.
type branch struct {
	at     uint64 // its address
	length int
	source string // file and line
}

var instruction = regexp.MustCompile(`(?m)^\s+(monitor\w+\.s:\d+)\s+0x([0-9a-f]+)\s+([0-9a-f]+)\s+(.*?)\s*$`)

// refusals returns the branches of a function to the instruction that makes
// MonRefused its result.
func refusals(t *testing.T, kernel []byte, function string) []branch {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel.elf")
	if err := os.WriteFile(path, kernel, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "tool", "objdump", "-s", `^main\.`+function+`$`, path).Output()
	if err != nil {
		t.Fatal(err)
	}
	code := instruction.FindAllSubmatch(out, -1)
	refuse := ""
	for _, i := range code {
		if string(i[4]) == "MOVL $0x1, AX" {
			refuse = "0x" + string(i[2])
		}
	}
	jump := regexp.MustCompile(`^J\w+ ` + refuse + `$`)
	var l []branch
	for _, i := range code {
		if !jump.Match(i[4]) || bytes.HasPrefix(i[4], []byte("JMP")) {
			continue
		}
		at, err := strconv.ParseUint(string(i[2]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, branch{at, len(i[3]) / 2, string(i[1])})
	}
	return l
}

// without returns the kernel with no-operations in place of a branch.
func without(t *testing.T, kernel []byte, b branch) []byte {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		t.Fatal(err)
	}
	k := bytes.Clone(kernel)
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && b.at-p.Vaddr < p.Filesz {
			at := p.Off + b.at - p.Vaddr
			if k[at]&0xf0 != 0x70 && k[at] != 0x0f {
				t.Fatalf("%s is not a conditional jump: %s", b.source, hex.EncodeToString(k[at:at+6]))
			}
			copy(k[at:], bytes.Repeat([]byte{0x90}, b.length))
			return k
		}
	}
	t.Fatalf("no code at %#x", b.at)
	return nil
}

// TestMonitorChecks takes each check out of the monitor, one at a time, and
// asserts that an attempt then succeeds, or ends the machine. The machine has RAM
// above 4 GiB, and two processors for the calls that are about others: a program that has
// destroyed itself stops sooner with one.
func TestMonitorChecks(t *testing.T) {
	qemu(t)
	p, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	l := refusals(t, p.kernel, "setPages")
	pages := len(l)
	l = append(l, refusals(t, p.kernel, "calls")...)
	if len(l) < 14 {
		t.Fatalf("found %d checks", len(l))
	}
	calls := len(l)
	l = append(l, refusals(t, p.kernel, "sharePage")...)
	if len(l) < calls+6 {
		t.Fatalf("found %d checks of what devices may reach", len(l)-calls)
	}
	for i, b := range l {
		m := microvm("5G")
		switch {
		case i >= calls:
			m = append(q35(platform, "-device", "intel-iommu"), "-m", "5G")
		case i >= pages:
			m = append(m, "-smp", "2")
		}
		t.Run(b.source, func(t *testing.T) {
			_, succeeded, ended := attempts(t, without(t, p.kernel, b), m, "LISTS=monitor,sharing")
			if len(succeeded)+len(ended) == 0 {
				t.Error("no attempt succeeds without this check")
			}
			t.Logf("%d succeed, %d end the machine", len(succeeded), len(ended))
		})
	}
}

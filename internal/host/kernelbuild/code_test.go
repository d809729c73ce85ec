package kernelbuild

import (
	"bufio"
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/image"
)

// Functions of the monitor, which run in ring 0.
var monitorFunc = regexp.MustCompile(`^main\.(entryLinux|boot64|boot64AP|toRing3|haltOthers|stand|syscallProbe|syscallBounce|vector\d+|interrupt|spurious|monitorFault|calls|haltCPU|setPages|sharePage)(\.abi0)?$`)

// Instructions that may appear in ring 0: hosts that emulate it lack vector
// instructions and others (docs/platform.md).
var ring0 = regexp.MustCompile(`^(CLI|CLD|STI|HLT|RDTSC|RDMSR|WRMSR|XSETBV|CPUID|LGDT|LIDT|LTR|RETFQ|IRETQ|UD2|INT|NOPL|NOPW|NOP|OUTB|OUTL|OUT|OUTW|(MOV|ADD|SUB|AND|OR|XOR|CMP|TEST|SHL|SHR|BT|INC|DEC|NEG|LEA|PUSH|POP|XCHG)[BWLQ]?|J[A-Z]+|LOOP|STOSQ|PAUSE|LOCK|CMPXCHGL|LRET[A-Z]*|DATA16|XCHGL|\?)$`)

var callTarget = regexp.MustCompile(`^([A-Za-z0-9_./*()·\[\],-]+)\(SB\)$`)

// TestKernelCode checks the machine code of the kernel: what it calls, and
// what runs in ring 0. Go's runtime does not run in the kernel: what allocates, blocks, or
// needs a real g is a bug there.
func TestKernelCode(t *testing.T) {
	out := filepath.Join(t.TempDir(), "kernel.elf")
	if err := Kernel(out); err != nil {
		t.Fatal(err)
	}
	dump, err := exec.Command("go", "tool", "objdump", out).Output()
	if err != nil {
		t.Fatal(err)
	}
	var fn string
	funcs, monitor := 0, 0
	sc := bufio.NewScanner(bytes.NewReader(dump))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if rest, ok := strings.CutPrefix(line, "TEXT "); ok {
			fn = strings.TrimSuffix(strings.Fields(rest)[0], "(SB)")
			if ours(fn) {
				funcs++
			}
			if monitorFunc.MatchString(fn) {
				monitor++
			}
			continue
		}
		f := strings.Fields(line)
		leaf := image.KernelCalls[fn] == image.Leaf
		if len(f) < 4 || !ours(fn) && !leaf {
			continue
		}
		op, args := f[3], strings.Join(f[4:], " ")
		if monitorFunc.MatchString(fn) && !ring0.MatchString(op) {
			t.Errorf("%s runs in ring 0 and uses %s %s", fn, op, args)
		}
		if strings.Contains(args, "runtime.writeBarrier") || strings.Contains(args, "gcWriteBarrier") {
			t.Errorf("%s stores a pointer (write barrier): %s", fn, line)
		}
		if op != "CALL" && !strings.HasPrefix(op, "J") {
			continue
		}
		m := callTarget.FindStringSubmatch(args)
		if m == nil || ours(m[1]) {
			continue
		}
		switch why, ok := image.KernelCalls[m[1]]; {
		case !ok:
			t.Errorf("%s calls %s, which kernel code may not, and which the image has not", fn, m[1])
		case leaf && why != image.Leaf && m[1] != fn:
			t.Errorf("%s is no leaf: it calls %s", fn, m[1])
		}
	}
	if funcs < 100 || monitor < 50 {
		t.Fatalf("looked at %d functions, %d of the monitor: the check does not see the code", funcs, monitor)
	}
}

func ours(fn string) bool { return image.OfKernel(fn) && fn != "main.main" }

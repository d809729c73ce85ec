package kernel

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/image"
)

var tcg = []string{"-accel", "tcg", "-cpu", "max"}

func needQEMU(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")
	}
}

// TestProcessors: all checks of the guest pass with several processors, which are found by
// ACPI, and by the table of the MultiProcessor Specification where there is no ACPI.
func TestProcessors(t *testing.T) {
	needQEMU(t)
	for _, c := range []struct {
		name, args string
		n          int
		extra      []string
	}{
		{"microvm", "", 2, nil},
		{"microvm", "", 4, nil},
		{"without-acpi", "CHECK=boot", 2, []string{"-M", "microvm,acpi=off", "-device", "i8042"}}, // a way to end the machine
		{"q35", "", 2, []string{"-M", "q35"}},
		{"pc", "CHECK=boot", 3, []string{"-M", "pc"}},
	} {
		t.Run(fmt.Sprintf("%s-%d", c.name, c.n), func(t *testing.T) {
			out := boot(t, tcg, 5*time.Minute, c.args, append([]string{"-smp", strconv.Itoa(c.n)}, c.extra...)...)
			if want := fmt.Sprintf("used=%d listed=%d", c.n, c.n); !strings.Contains(out, want) {
				t.Errorf("no %q", want)
			}
			if strings.Contains(out, "guest: FAIL") || !strings.Contains(out, "guest: done") || strings.Contains(out, "unknown system call") || strings.Contains(out, "processors used:") || t.Failed() {
				t.Errorf("console:\n%s", out)
			}
		})
	}
}

// TestBootsWithProcessors boots again and again: none hangs, and all processors run each
// time. THURWARD_BOOTS says how often, 10 times by default.
func TestBootsWithProcessors(t *testing.T) {
	needQEMU(t)
	boots := 10
	if n, err := strconv.Atoi(os.Getenv("THURWARD_BOOTS")); err == nil {
		boots = n
	}
	for i := range boots {
		n := 2 + 2*(i%2)
		out := boot(t, tcg, time.Minute, "CHECK=boot", "-smp", strconv.Itoa(n))
		if !strings.Contains(out, "guest: at-once <nil>") || !strings.Contains(out, "guest: done") || strings.Contains(out, "processors used:") {
			t.Fatalf("boot %d, %d processors; console:\n%s", i, n, out)
		}
	}
}

// TestProcessorsLeftOut: what cannot be used is said, with the reason, and the rest is used.
func TestProcessorsLeftOut(t *testing.T) {
	needQEMU(t)
	check := func(t *testing.T, out, line, counts string) {
		t.Helper()
		if !strings.Contains(out, line) || !strings.Contains(out, counts) || !strings.Contains(out, "guest: done") {
			t.Errorf("want %q and %q; console:\n%s", line, counts, out)
		}
	}
	t.Run("smp=off", func(t *testing.T) {
		check(t, boot(t, tcg, time.Minute, "CHECK=boot smp=off", "-smp", "2"), "thurward: kernel: 1 of 2 processors used: smp=off", "listed=2")
	})
	t.Run("more than there is room for", func(t *testing.T) {
		check(t, boot(t, tcg, 2*time.Minute, "CHECK=boot", "-smp", "10"), "thurward: kernel: 8 of 10 processors used: ", "used=8 listed=10")
	})
	t.Run("little memory", func(t *testing.T) {
		check(t, boot(t, tcg, time.Minute, "CHECK=boot", "-smp", "2", "-m", "14M"), "thurward: kernel: 1 of 2 processors used: there is too little memory", "listed=2")
	})
	t.Run("one that does not start", func(t *testing.T) {
		img := breakStart(t)
		out := bootImage(t, img, tcg, time.Minute, "CHECK=boot", "-smp", "3")
		check(t, out, "thurward: kernel: the processor with APIC 1 is not used: it did not start within a second", "used=1 listed=3")
		check(t, out, "thurward: kernel: 1 of 3 processors used: ", "used=1 listed=3")
	})
	each(t, func(t *testing.T, accel []string) {
		out := boot(t, accel, time.Minute, "CHECK=boot", "-smp", "2")
		switch {
		case strings.Contains(out, "native=true"):
			check(t, out, "thurward: kernel: 1 of 2 processors used: the hypervisor emulates ring 0", "used=1 listed=2")
			// They start: this KVM has SMAP, which TCG has not.
			out = boot(t, accel, time.Minute, "CHECK=boot smp=try", "-smp", "3")
			check(t, out, "thurward: kernel: smp=try: others that start: 2", "used=1 listed=3")
		default:
			check(t, out, "", "used=2 listed=2")
		}
	})
}

// breakStart returns the image with processors that halt in real mode, as one that the host
// does not run.
func breakStart(t *testing.T) string {
	t.Helper()
	k, g := bytesOf(t, "kernel.elf"), bytesOf(t, "guest.elf")
	start := []byte("\xfa\xfc\x8c\xc8\x8e\xd8")
	if n := bytes.Count(k, start); n != 1 {
		t.Fatalf("found the code in which processors start %d times", n)
	}
	k = bytes.Replace(k, start, []byte("\xfa\xf4\xeb\xfd\x8e\xd8"), 1) // cli; hlt; jmp to the hlt
	b, err := image.Link(image.Input{Program: g, Kernel: k, Policy: []byte("test policy")})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "broken.img")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCrashStopsProcessors: a report is made while all other processors stand still, and
// says where they were; of two crashes at once there is one report.
func TestCrashStopsProcessors(t *testing.T) {
	needQEMU(t)
	for range 3 {
		out := boot(t, tcg, time.Minute, "CHECK=kernel-crash", "-smp", "4")
		if strings.Count(out, "thurward: crash: signal 10") != 1 || len(regexp.MustCompile(`(?m)^processor \d: rip=0x[0-9a-f]{6,} `).FindAllString(out, -1)) != 3 {
			t.Errorf("console:\n%s", out)
		}
		out = boot(t, tcg, time.Minute, "CHECK=two-crashes", "-smp", "2")
		if strings.Count(out, "thurward: crash: ") != 1 || strings.Contains(out, "guest: FAIL") {
			t.Errorf("console:\n%s", out)
		}
	}
}

// TestBootWork bounds the work of a start with one processor, in instructions of the
// emulated machine, which do not depend on how busy the host is: in 2026-11 they were 3,337
// thousand before there could be several processors, and 3,338 with them.
func TestBootWork(t *testing.T) {
	needQEMU(t)
	out := boot(t, append(tcg, "-icount", "shift=0,sleep=off"), time.Minute, "CHECK=boot")
	m := regexp.MustCompile(`boot_us=(\d+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("console:\n%s", out)
	}
	us, _ := strconv.Atoi(m[1])
	t.Logf("%d thousand instructions", us)
	if us > 3600 {
		t.Errorf("a start takes %d thousand instructions, want 3,600 at most", us)
	}
}

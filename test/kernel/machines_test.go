package kernel

import (
	"context"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/image"
)

// TestMachinesWithPIC boots the machines whose firmware leaves the 8259s and
// the PIT running, several times: an interrupt that they raise before they are
// masked arrives as an exception.
func TestMachinesWithPIC(t *testing.T) {
	for _, m := range []string{"pc", "q35"} {
		t.Run(m, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, accel []string) {
				boots := 3
				if strings.Contains(strings.Join(accel, " "), "kvm") {
					boots = 1 // a software KVM takes seconds for the firmware alone
				}
				for range boots {
					out := boot(t, accel, 60*time.Second, "CHECK=boot", "-M", m)
					if !strings.Contains(out, "guest: done") {
						t.Fatalf("console:\n%s", out)
					}
				}
			})
		})
	}
}

// breakFunction returns the image with an invalid instruction at the beginning
// of each of the kernel's functions named.
func breakFunction(t *testing.T, names ...string) string {
	t.Helper()
	if _, err := makeImage(); err != nil {
		t.Fatal(err)
	}
	k, g := bytesOf(t, "kernel.elf"), bytesOf(t, "guest.elf")
	f, err := elf.NewFile(strings.NewReader(string(k)))
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for _, s := range syms {
		for _, n := range names {
			if s.Name != n {
				continue
			}
			for _, p := range f.Progs {
				if p.Type == elf.PT_LOAD && s.Value-p.Vaddr < p.Filesz {
					copy(k[p.Off+s.Value-p.Vaddr:], "\x0f\x0b")
					done++
				}
			}
		}
	}
	if done != len(names) {
		t.Fatalf("found %d of the functions %v", done, names)
	}
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

func bytesOf(t *testing.T, name string) []byte {
	t.Helper()
	img, err := makeImage()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(img), name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCrashReportFails: a crash inside the crash report ends the machine, with
// a last word where that is possible, and does not begin another report.
func TestCrashReportFails(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")
	}
	const lastWord = "thurward: crash: the crash report failed too"
	for name, c := range map[string]struct {
		broken []string
		last   int // how often the last word is said
	}{
		"the registers":     {[]string{"main.putRegisters"}, 1},
		"and the last word": {[]string{"main.putRegisters", "main.lastWord"}, 0},
		"the power button":  {[]string{"main.power"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := breakFunction(t, c.broken...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-cpu", "max",
				"-m", "64M", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
				"-kernel", img, "-append", "CHECK=signal").CombinedOutput()
			if err != nil || ctx.Err() != nil {
				t.Errorf("the machine did not end by itself: %v", err)
			}
			s := string(out)
			if strings.Count(s, lastWord) != c.last || strings.Count(s, "thurward: crash: signal 10") != 1 {
				t.Errorf("console:\n%.3000s", s)
			}
		})
	}
}

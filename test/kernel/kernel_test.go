// Package kernel tests the kernel from outside and inside: it boots images
// whose program is test/kernel/guest, under TCG always and under KVM where
// there is one.
package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/kernelbuild"
)

var makeImage = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "thurward-kernel-test")
	if err != nil {
		return "", err
	}
	kernel, guest, img := filepath.Join(dir, "kernel.elf"), filepath.Join(dir, "guest.elf"), filepath.Join(dir, "guest.img")
	if err := kernelbuild.Kernel(kernel); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", guest, "./guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, b)
	}
	k, err := os.ReadFile(kernel)
	if err != nil {
		return "", err
	}
	g, err := os.ReadFile(guest)
	if err != nil {
		return "", err
	}
	b, err := image.Link(image.Input{Program: g, Kernel: k, Policy: []byte("test policy")})
	if err != nil {
		return "", err
	}
	return img, os.WriteFile(img, b, 0o644)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if img, err := makeImage(); err == nil {
		os.RemoveAll(filepath.Dir(img))
	}
	os.Exit(code)
}

// accels are the ways to run a machine here.
func accels() map[string][]string {
	a := map[string][]string{"tcg": {"-accel", "tcg", "-cpu", "max"}}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		a["kvm"] = []string{"-accel", "kvm", "-cpu", "host,-arch-capabilities"}
	}
	return a
}

// boot runs the guest and returns its console and how long it took. The
// machine must end by itself within limit.
func boot(t *testing.T, accel []string, limit time.Duration, append string, extra ...string) string {
	t.Helper()
	img, err := makeImage()
	if err != nil {
		t.Fatal(err)
	}
	return bootImage(t, img, accel, limit, append, extra...)
}

func bootImage(t *testing.T, img string, accel []string, limit time.Duration, append string, extra ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	args := []string{"-M", "microvm", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
		"-serial", "stdio", "-no-reboot", "-global", "virtio-mmio.force-legacy=false", "-kernel", img, "-append", append}
	args = slicesConcat(args, accel, extra)
	if !strings.Contains(strings.Join(extra, " "), "-m ") {
		args = slicesConcat(args, []string{"-m", "64M"})
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the machine did not end within %v; console:\n%s", limit, out)
	}
	if err != nil {
		t.Fatalf("qemu: %v; console:\n%s", err, out)
	}
	return string(out)
}

func slicesConcat(s ...[]string) []string {
	var r []string
	for _, x := range s {
		r = append(r, x...)
	}
	return r
}

func each(t *testing.T, f func(t *testing.T, accel []string)) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")
	}
	for name, a := range accels() {
		t.Run(name, func(t *testing.T) { f(t, a) })
	}
}

func TestGuestChecks(t *testing.T) {
	src, err := os.ReadFile("guest/main.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^\t\{"([a-z-]+)", `).FindAllSubmatch(src, -1)
	if len(names) < 15 {
		t.Fatalf("found %d checks in guest/main.go", len(names))
	}
	for _, mem := range []string{"64M", "512M"} {
		each(t, func(t *testing.T, accel []string) {
			out := boot(t, accel, 60*time.Second, "", "-m", mem)
			for _, n := range names {
				if !strings.Contains(out, "guest: ok "+string(n[1])+"\n") {
					t.Errorf("check %s did not pass", n[1])
				}
			}
			if !strings.Contains(out, "guest: done") || strings.Contains(out, "unknown system call") || t.Failed() {
				t.Errorf("console:\n%s", out)
			}
		})
	}
}

// TestRandomDiffers: two boots of one image never see the same numbers.
func TestRandomDiffers(t *testing.T) {
	re := regexp.MustCompile(`guest: random ([0-9a-f]{64})`)
	each(t, func(t *testing.T, accel []string) {
		a, b := re.FindString(boot(t, accel, 60*time.Second, "ONLY=random")), re.FindString(boot(t, accel, 60*time.Second, "ONLY=random"))
		if a == "" || a == b {
			t.Fatalf("%q and %q", a, b)
		}
	})
}

// noRDRAND is a CPU without RDRAND, which TCG can be.
var noRDRAND = []string{"-accel", "tcg", "-cpu", "max,-rdrand"}

func TestRandomFromVirtioRNG(t *testing.T) {
	needQEMU(t)
	out := boot(t, noRDRAND, 60*time.Second, "ONLY=random", "-device", "virtio-rng-device")
	if !strings.Contains(out, "guest: ok random\n") {
		t.Fatalf("console:\n%s", out)
	}
}

// TestRandomStarves: a source that fails once the machine runs is reported once, counted, and holds
// nothing up; random numbers come all the same. What must not be known to another restore does
// not come.
func TestRandomStarves(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip(err)
	}
	for bytes, starves := range map[int]bool{40: true, 4000: false} { // of which a seed takes 32
		path := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0) // never at its end
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, bytes)
		for i := range b {
			b[i] = byte(i*7 + 1)
		}
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		out := boot(t, noRDRAND, 60*time.Second, "ONLY=random-later random-later", "-object", "rng-random,id=r,filename="+path, "-device", "virtio-rng-device,rng=r")
		want := map[bool]string{true: "guest: starved=1 ", false: "guest: starved=0 "}[starves]
		if !strings.Contains(out, "guest: ok random-later") || !strings.Contains(out, want) ||
			strings.Count(out, "the source of random numbers does not answer") != strings.Count(want, "=1") ||
			strings.Contains(out, "fresh=<nil>") == starves {
			t.Errorf("%d bytes; console:\n%s", bytes, out)
		}
		if m := regexp.MustCompile(`took=(\S+)`).FindStringSubmatch(out); m != nil {
			if d, err := time.ParseDuration(m[1]); err != nil || d > 500*time.Millisecond {
				t.Errorf("it took %v (%v)", d, err)
			}
		}
	}
}

func TestRefusesToStartWithoutRandom(t *testing.T) {
	needQEMU(t)
	out := boot(t, noRDRAND, 60*time.Second, "")
	if !strings.Contains(out, "thurward: refusing to start: no source of random numbers") || strings.Contains(out, "guest:") {
		t.Fatalf("console:\n%s", out)
	}
}

// TestRefusesOldCPU: a processor without XSAVE, or one whose leaf of CPUID about it is hidden, is
// refused with the reason. Setting XCR0 faults there, before there is anything to report a fault.
func TestRefusesOldCPU(t *testing.T) {
	needQEMU(t)
	for _, cpu := range []string{"qemu64", "max,level=7"} {
		t.Run(cpu, func(t *testing.T) { refusesCPU(t, cpu) })
	}
}

func refusesCPU(t *testing.T, cpu string) {
	img, err := makeImage()
	if err != nil {
		t.Fatal(err)
	}
	// The CPU has no way to say where power-off is before anything is set up, so that the
	// message may be followed by silence.
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	const said = "refusing to start: the CPU has no"
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-cpu", cpu, "-m", "64M", "-nodefaults", "-no-user-config",
		"-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", img)
	cmd.Stderr = t.Output()
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out []byte
	for b := make([]byte, 4096); err == nil && !bytes.Contains(out, []byte(said)); {
		var n int
		n, err = console.Read(b)
		out = append(out, b[:n]...)
	}
	cancel()
	cmd.Wait() //nolint:errcheck // killed
	if !bytes.Contains(out, []byte(said)) {
		t.Fatalf("console:\n%s", out)
	}
}

func TestTooLittleMemory(t *testing.T) {
	each(t, func(t *testing.T, accel []string) {
		out := boot(t, accel, 60*time.Second, "", "-m", "8M")
		if !strings.Contains(out, "thurward: refusing to start: the machine has 8 MB of memory") {
			t.Fatalf("console:\n%s", out)
		}
	})
}

func TestLegacyVirtioIsNamed(t *testing.T) {
	each(t, func(t *testing.T, accel []string) {
		out := boot(t, accel, 60*time.Second, "", "-global", "virtio-mmio.force-legacy=true", "-device", "virtio-rng-device")
		if !strings.Contains(out, "force-legacy=false") {
			t.Fatalf("console:\n%s", out)
		}
	})
}

// TestCrashes: each way to crash is reported and ends the machine.
func TestCrashes(t *testing.T) {
	for check, want := range map[string][]string{
		"panic":     {"panic: on purpose", "main.main()", "thurward: crash: the program exited with status 2"},
		"oom":       {"thurward: crash: out of memory"},
		"stack":     {"stack overflow", "thurward: crash: the program exited with status 2"},
		"threads":   {"thurward: kernel: out of threads: all 255 are in use", "newosproc", "thurward: crash: the program exited with status 2"},
		"exec-data": {"SIGSEGV", "thurward: crash: the program exited with status 2"},
	} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, accel []string) {
				args, limit := "CHECK="+check, time.Minute
				if check == "threads" {
					args += " GOTRACEBACK=none" // hundreds of stacks, by a slow serial port
					limit = 3 * time.Minute     // and 255 threads, where ring 0 is emulated
				}
				out := boot(t, accel, limit, args)
				for _, w := range want {
					if !strings.Contains(out, w) {
						t.Errorf("no %q in the console:\n%.2000s", w, out)
					}
				}
				if strings.Contains(out, "guest: FAIL") {
					t.Errorf("console:\n%s", out)
				}
			})
		})
	}
}

// TestBootTime is a guard against a boot that became slow, not a benchmark:
// the limit is several times the figure of SPECIFICATION.md. Where KVM emulates ring 0 the same
// kernel took 9 ms on one day and 30 on another; TestBootWork counts the instructions.
func TestBootTime(t *testing.T) {
	re := regexp.MustCompile(`boot_us=(\d+)`)
	each(t, func(t *testing.T, accel []string) {
		limit := 60_000
		if strings.Contains(strings.Join(accel, " "), "tcg") {
			limit = 300_000
		}
		best, boots := 1<<30, 0
		for ; boots < 3 || best > limit && boots < 15; boots++ { // a busy host spoils some
			m := re.FindStringSubmatch(boot(t, accel, 60*time.Second, "CHECK=panic"))
			if m == nil {
				t.Fatal("no boot time on the console")
			}
			us, _ := strconv.Atoi(m[1])
			best = min(best, us)
		}
		t.Logf("entry to main: %d us (best of %d)", best, boots)
		if best > limit {
			t.Errorf("entry to main took %d us, limit %d", best, limit)
		}
	})
}

// TestIdleSleeps: a waiting machine sleeps, and little wakes it: 2 to 54 interrupts were
// seen in the same 2 seconds, where a timer of Go's scheduler still ran (every 40 ms) and
// where none did. How much of the host's CPU the image then takes, TestIdleImage of
// test/e2e measures.
func TestIdleSleeps(t *testing.T) {
	each(t, func(t *testing.T, accel []string) {
		out := boot(t, accel, 60*time.Second, "CHECK=idle")
		m := regexp.MustCompile(`idle slept_ms=(\d+) interrupts=(\d+) halts=(\d+)`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("console:\n%s", out)
		}
		slept, _ := strconv.Atoi(m[1])
		interrupts, _ := strconv.Atoi(m[2])
		halts, _ := strconv.Atoi(m[3])
		t.Logf("of 2 s it slept %d ms, in %d parts, with %d interrupts", slept, halts, interrupts)
		if slept < 1900 || interrupts > 100 || halts < 1 || halts > 50 {
			t.Errorf("of 2 s it slept %d ms, in %d parts, with %d interrupts; want 1900, at most 50 parts and 100 interrupts", slept, halts, interrupts)
		}
	})
}

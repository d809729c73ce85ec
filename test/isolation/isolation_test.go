// Package isolation runs hostile code as the program of an image and asserts
// that none of its attempts to leave ring 3, or to change what runs, succeeds.
package isolation

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/shared/abi"
)

// parts are the ELF files of which images are made.
var parts = sync.OnceValues(func() (p struct{ kernel, guest []byte }, err error) {
	dir, err := os.MkdirTemp("", "thurward-isolation-test")
	if err != nil {
		return p, err
	}
	defer os.RemoveAll(dir)
	kernel, guest := filepath.Join(dir, "kernel.elf"), filepath.Join(dir, "guest.elf")
	if err := kernelbuild.Kernel(kernel); err != nil {
		return p, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", guest, "./guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("%w\n%s", err, b)
	}
	if p.kernel, err = os.ReadFile(kernel); err != nil {
		return p, err
	}
	p.guest, err = os.ReadFile(guest)
	return p, err
})

// symbols returns the boot arguments that tell the hostile code where things
// are: an attacker has the image and knows.
func symbols(t *testing.T, kernel []byte) string {
	f, err := elf.NewFile(strings.NewReader(string(kernel)))
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{"main.monitorCall": "MONITOR", "main.setPages": "SETPAGES"}
	args := "GODEBUG=asyncpreemptoff=1"
	for _, s := range syms {
		if n := names[s.Name]; n != "" {
			args += fmt.Sprintf(" %s=%#x", n, s.Value)
		}
	}
	return args
}

// A machine is QEMU's arguments for one.
type machine []string

// microvm is a machine with the given memory, on TCG unless arguments say more.
func microvm(memory string, accel ...string) machine {
	if accel == nil {
		accel = []string{"-accel", "tcg", "-cpu", "max"}
	}
	return append(machine{"-M", "microvm", "-m", memory, "-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"}, accel...)
}

// machines are those on which the hostile code runs.
func machines() map[string]machine {
	a := map[string]machine{
		"tcg":  microvm("64M"),
		"smp2": append(microvm("64M"), "-smp", "2"),
		"smp4": append(microvm("64M"), "-smp", "4"),
		"q35":  {"-M", "q35", "-m", "64M", "-accel", "tcg", "-cpu", "max", "-device", "virtio-rng-pci,disable-legacy=on", "-device", "vmgenid"},
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		a["kvm"] = microvm("64M", "-accel", "kvm", "-cpu", "host,-arch-capabilities")
	}
	return a
}

var (
	line   = regexp.MustCompile(`(?m)^isolation: (.+?): (refused|SUCCEEDED): (.*?)\r?$`)
	trying = regexp.MustCompile(`(?m)^isolation: trying (.*?)\r?$`)
)

// boot runs an image and returns its console.
func boot(t *testing.T, path string, m machine, limit time.Duration, args string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{"-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
		"-serial", "stdio", "-no-reboot", "-kernel", path, "-append", args}, m...)...)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// attempts boots the hostile code on the given kernel and returns for each
// attempt how it was refused, that it succeeded, or that the machine ended with
// it; where it did, it is booted again without that one.
func attempts(t *testing.T, kernel []byte, m machine, args string) (refused, succeeded, ended map[string]string) {
	t.Helper()
	p, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	b, err := image.Link(image.Input{Program: p.guest, Kernel: kernel, Policy: []byte(strings.Repeat("policy: ", 1500))})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hostile.img")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	refused, succeeded, ended = map[string]string{}, map[string]string{}, map[string]string{}
	limit := time.Minute
	if !bytes.Equal(kernel, p.kernel) {
		limit = 20 * time.Second // a kernel that was changed may well stop
	}
	args += " " + symbols(t, kernel)
	skip := ""
	for range 20 {
		out := boot(t, path, m, limit, args+" SKIP="+skip)
		for _, m := range line.FindAllStringSubmatch(out, -1) {
			if m[2] == "refused" {
				refused[m[1]] = m[3]
			} else {
				succeeded[m[1]] = m[3]
			}
		}
		if !strings.Contains(out, "isolation: honest: ok") {
			t.Fatalf("the monitor does not do what the kernel needs; console:\n%.2000s", out)
		}
		if strings.Contains(out, "isolation: done: ") {
			return refused, succeeded, ended
		}
		all := trying.FindAllStringSubmatchIndex(out, -1)
		if all == nil {
			t.Fatalf("the hostile code did not start; console:\n%s", out)
		}
		last := all[len(all)-1]
		name := out[last[2]:last[3]]
		ended[name] = strings.TrimSpace(out[last[1]:])
		if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return refused, succeeded, ended // the hostile code has destroyed its own list
		}
		skip += "," + strings.ReplaceAll(name, " ", "_")
	}
	t.Fatalf("too many attempts end the machine: %v", ended)
	return
}

// known names the attempts that succeed, and why. A device writes wherever its
// queue says, and only an IOMMU would bound it (docs/architecture/08).
var known = map[string]string{
	"virtio-rng onto the policy":                          "DMA",
	"virtio-rng onto the root table's last entry but one": "DMA",
}

func qemu(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)")
	}
}

// TestIsolation: nothing that code in ring 3 can do changes text, policy, page
// tables, descriptors or the monitor, makes data executable, or reaches ring 0,
// but for what is known.
func TestIsolation(t *testing.T) {
	qemu(t)
	p, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range machines() {
		t.Run(name, func(t *testing.T) {
			refused, succeeded, ended := attempts(t, p.kernel, m, "")
			for n, how := range ended {
				t.Errorf("%s: the machine ended: %s", n, how)
			}
			for n, how := range succeeded {
				if known[n] == "" {
					t.Errorf("%s: succeeds: %s", n, how)
				}
			}
			for n := range known {
				if name == "q35" {
					continue // the hostile code has no driver for PCI
				}
				if succeeded[n] == "" {
					t.Errorf("%s: is known to succeed, and does not: %q", n, refused[n])
				}
			}
			for _, n := range []string{"find a page that breaks an invariant", "random monitor calls", "race: map, protect and unmap one page",
				"race: take page tables for one address", "race: take page tables for neighbours", "race: map while another seals"} {
				if !strings.Contains(refused[n], "the tables are as they should be") {
					t.Errorf("%s: %q: the tables were not looked at", n, refused[n])
				}
			}
			if len(refused) < 340 {
				t.Errorf("%d attempts were refused, want at least 340", len(refused))
			}
			t.Logf("%d attempts, %d succeed", len(refused)+len(succeeded), len(succeeded))
		})
	}
}

// TestIsolationNotices: with tables that are never closed much succeeds, and
// the test sees it.
func TestIsolationNotices(t *testing.T) {
	qemu(t)
	p, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	// The instruction of MonClose: ANDL $~2, the window's entry of the root table.
	entry := int32(abi.Ring0Base + abi.Tables + 8*abi.RootWindow)
	insn := append(binary.LittleEndian.AppendUint32([]byte{0x83, 0x24, 0x25}, uint32(entry)), 0xfd)
	if n := bytes.Count(p.kernel, insn); n != 1 {
		t.Fatalf("found the instruction that closes the tables %d times", n)
	}
	open := bytes.Replace(p.kernel, insn, bytes.Repeat([]byte{0x90}, len(insn)), 1)
	_, succeeded, ended := attempts(t, open, microvm("64M"), "LISTS=writes,tables")
	for _, n := range []string{"write root table", "write table of the policy", "write table of the heap", "make the policy writable", "make text writable",
		"make the descriptors writable", "make data executable", "map the policy's frame as data", "write a twin of descriptors",
		"write a twin of trap frames", "write a twin of the monitor's state"} {
		if succeeded[n] == "" && ended[n] == "" {
			t.Errorf("%s: does not succeed with open tables", n)
		}
	}
	t.Logf("%d attempts succeed with open tables, %d end the machine", len(succeeded), len(ended))
}

// Package isolation runs hostile code as the program of an image and asserts
// that none of its attempts to leave ring 3, or to change what runs, succeeds.
package isolation

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/host/vhostvsock"
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

// q35 is a machine with devices on PCI, two of them network devices that are connected to
// each other, all with the given options.
func q35(options string, args ...string) machine {
	if !slices.Contains(args, "-accel") {
		args = append(args, "-accel", "tcg", "-cpu", "max")
	}
	return append(machine{"-M", "q35", "-m", "64M", "-device", "vmgenid", "-device", "virtio-rng-pci,disable-legacy=on" + options,
		"-netdev", "hubport,id=a,hubid=0", "-netdev", "hubport,id=b,hubid=0",
		"-device", "virtio-net-pci,netdev=a,romfile=,disable-legacy=on" + options, "-device", "virtio-net-pci,netdev=b,romfile=,disable-legacy=on" + options, vsock + options}, args...)
}

// vsock is the vsock device among a machine's arguments, whose back end is this process.
const vsock = "vsock"

// plugVsock starts the back end of a machine's vsock device, if it has one, and returns the
// arguments for it and the file that QEMU inherits.
func plugVsock(t *testing.T, m machine) (machine, []*os.File) {
	t.Helper()
	i := slices.IndexFunc(m, func(a string) bool { return strings.HasPrefix(a, vsock) })
	if i < 0 {
		return m, nil
	}
	options := strings.TrimPrefix(m[i], vsock)
	memory := m[slices.Index(m, "-m")+1]
	if j := slices.Index(m[i:], "-m"); j >= 0 {
		memory = m[i+j+1] // the last one counts
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	cfg := vhostvsock.Config{CID: 3, Path: filepath.Join(t.TempDir(), "v"), Translated: options != "", Log: t.Logf}
	served := make(chan struct{})
	go func() {
		defer close(served)
		vhostvsock.Serve(conn.(*net.UnixConn), cfg, nil) //nolint:errcheck // the hostile code breaks the rules
	}()
	t.Cleanup(func() { conn.Close(); <-served })
	return slices.Concat(m[:i], machine{"-object", "memory-backend-memfd,id=mem,share=on,size=" + memory, "-machine", "memory-backend=mem",
		"-chardev", "socket,id=v,fd=3", "-device", "vhost-user-vsock-pci,chardev=v,disable-legacy=on" + options}, m[i+1:]), []*os.File{theirs}
}

// platform makes a device's accesses go through the IOMMU.
const platform = ",iommu_platform=on"

// machines are those on which the hostile code runs.
func machines() map[string]machine {
	a := map[string]machine{
		"tcg":  microvm("64M"),
		"smp2": append(microvm("64M"), "-smp", "2"),
		"smp4": append(microvm("64M"), "-smp", "4"),
		"q35":  q35(""),
		// The IOMMU is there, and no device goes through it.
		"q35-past":       q35("", "-device", "intel-iommu"),
		"q35-iommu":      q35(platform, "-device", "intel-iommu"),
		"q35-iommu-48":   q35(platform, "-device", "intel-iommu,aw-bits=48"),
		"q35-iommu-smp2": q35(platform, "-device", "intel-iommu", "-smp", "2"),
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		f.Close()
		a["kvm"] = microvm("64M", "-accel", "kvm", "-cpu", "host,-arch-capabilities")
		a["q35-iommu-kvm"] = q35(platform, "-device", "intel-iommu", "-accel", "kvm", "-cpu", "host,-arch-capabilities")
	}
	return a
}

var (
	line   = regexp.MustCompile(`(?m)^isolation: (.+?): (refused|SUCCEEDED): (.*?)\r?$`)
	told   = regexp.MustCompile(`thurward: kernel: the IOMMU refused an access of the device at PCI 0x0:0x\d\.0: writing 0x[0-9a-f]+ \(reason 0x[0-9a-f]+; \d+ so far\)`)
	trying = regexp.MustCompile(`(?m)^isolation: trying (.*?)\r?$`)
)

// A console keeps what a machine prints; its timer ends when that is nothing for a while.
type console struct {
	bytes.Buffer
	limit time.Duration
	timer *time.Timer
}

func (c *console) Write(b []byte) (int, error) {
	c.timer.Reset(c.limit)
	return c.Buffer.Write(b)
}

// boot runs an image and returns its console. A machine that prints nothing for as long as
// limit is asked by an NMI where it is, and ended: a busy host takes long for all of it, but
// not for one attempt.
func boot(t *testing.T, path string, m machine, limit time.Duration, args string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m, files := plugVsock(t, m)
	monitor := filepath.Join(t.TempDir(), "monitor")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{"-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
		"-monitor", "unix:" + monitor + ",server=on,wait=off", "-serial", "stdio", "-no-reboot", "-kernel", path, "-append", args}, m...)...)
	cmd.ExtraFiles = files
	out := &console{limit: limit, timer: time.AfterFunc(limit, func() {
		time.AfterFunc(5*time.Second, cancel)
		if c, err := net.Dial("unix", monitor); err == nil {
			defer c.Close()
			fmt.Fprintln(c, "nmi")
			time.Sleep(time.Second) // QEMU reads it
		}
	})}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Run() //nolint:errcheck // what the console says counts
	out.timer.Stop()
	for _, f := range files {
		f.Close()
	}
	return out.String()
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
	limit := 2 * time.Minute
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
		if strings.Contains(out, "virtio-rng onto the IOMMU's command: refused") && !told.MatchString(out) {
			t.Errorf("what the IOMMU refuses is not told; console:\n%.2000s", out)
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

// known names the attempts that succeed, and where: a device writes wherever its queue says
// unless an IOMMU bounds it (docs/architecture/08).
var known = map[string]func(machine string) bool{
	"virtio-rng onto the policy":                          unbounded,
	"virtio-rng onto the root table's last entry but one": unbounded,
	"virtio-rng's used ring onto the policy":              unboundedPCI,
	"virtio-net onto the policy":                          unboundedPCI,
	"virtio-vsock onto the policy":                        unboundedPCI,
}

func unbounded(machine string) bool { return !strings.Contains(machine, "iommu") }
func unboundedPCI(machine string) bool {
	return unbounded(machine) && strings.HasPrefix(machine, "q35")
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
			lists, least := "", 340
			if name == "q35-iommu-kvm" { // what an IOMMU has no part in is slow there, and done without
				lists, least = "LISTS=monitor,audit,races,sharing,devices", 200
			}
			refused, succeeded, ended := attempts(t, p.kernel, m, lists)
			for n, how := range ended {
				t.Errorf("%s: the machine ended: %s", n, how)
			}
			for n, how := range succeeded {
				if known[n] == nil || !known[n](name) {
					t.Errorf("%s: succeeds: %s", n, how)
				}
			}
			for n, here := range known {
				if here(name) && succeeded[n] == "" {
					t.Errorf("%s: is known to succeed, and does not: %q", n, refused[n])
				}
			}
			for _, n := range []string{"find a page that breaks an invariant", "random monitor calls", "race: map, protect and unmap one page",
				"race: take page tables for one address", "race: take page tables for neighbours", "race: map while another seals"} {
				if !strings.Contains(refused[n], "the tables are as they should be") {
					t.Errorf("%s: %q: the tables were not looked at", n, refused[n])
				}
			}
			for n := range refused {
				if strings.HasSuffix(n, "onto memory of devices") && refused[n] != "as it should" {
					t.Errorf("%s: %s", n, refused[n])
				}
			}
			if _, ok := refused["virtio-net from the IOMMU's root table"]; ok == unbounded(name) {
				t.Errorf("the attempts on an IOMMU were made: %v", ok)
			}
			if len(refused) < least {
				t.Errorf("%d attempts were refused, want at least %d", len(refused), least)
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

// TestIsolationNoticesDMA: a device that goes past the IOMMU succeeds, at what the IOMMU keeps
// others from.
func TestIsolationNoticesDMA(t *testing.T) {
	qemu(t)
	p, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	m := q35(platform, "-device", "intel-iommu")
	i := slices.IndexFunc(m, func(a string) bool { return strings.HasPrefix(a, "virtio-rng-pci") })
	m[i] = strings.TrimSuffix(m[i], platform)
	refused, succeeded, ended := attempts(t, p.kernel, m, "LISTS=devices")
	for _, how := range []string{"virtio-rng", "virtio-rng's used ring"} {
		for _, n := range []string{"the policy", "text", "constants", "private memory", "the first root table", "a table of the pool", "the monitor's state",
			"the descriptors", "the trap frames", "the kernel", "the IOMMU's table for devices", "the IOMMU's table of text", "the IOMMU's contexts"} {
			if n := how + " onto " + n; succeeded[n] == "" && ended[n] == "" {
				t.Errorf("%s: does not succeed past the IOMMU: %q", n, refused[n])
			}
		}
	}
	t.Logf("%d attempts succeed, %d end the machine", len(succeeded), len(ended))
}

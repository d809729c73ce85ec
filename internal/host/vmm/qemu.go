package vmm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/sandbox"
)

// program is QEMU's name.
const program = "qemu-system-x86_64"

// A Version is QEMU's, major and minor.
type Version struct{ Major, Minor int }

// AtLeast reports whether v is not older than major.minor.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// minVersion is the first QEMU whose microvm has ACPI, by which the image
// powers off.
var minVersion = Version{5, 2}

// A QEMU is an installed emulator.
type QEMU struct {
	Path    string
	Version Version
	Sandbox bool         // it was built with -sandbox
	Confine *Confinement // nil: it has all rights of this process

	hasDog func() bool // asked for once; nil: each time
}

// dog reports whether a machine gets a watchdog device: it has a PCI bus, and this QEMU was built
// with the device.
func (q *QEMU) dog(m MachineType) bool {
	if m == Microvm {
		return false
	}
	if q.hasDog == nil {
		return hasDog(q.Path)
	}
	return q.hasDog()
}

// hasDog asks QEMU whether it has the watchdog device, which takes as long as half a boot.
func hasDog(path string) bool {
	out, err := exec.Command(path, "-device", "help").Output()
	return err == nil && strings.Contains(string(out), `"`+dogDevice+`"`)
}

var versionLine = regexp.MustCompile(`version (\d+)\.(\d+)`)

// Run is Run on QEMU.
func (q *QEMU) Run(ctx context.Context, c Config, o RunOptions) error { return Run(ctx, q, c, o) }

// String implements Hypervisor.
func (q *QEMU) String() string { return fmt.Sprintf("QEMU %d.%d", q.Version.Major, q.Version.Minor) }

func (q *QEMU) traits() traits { return traits{grace: crashGrace} }

// sandboxArgs makes QEMU load its own filter of system calls once it is set up: none that
// are obsolete, change users, start programs, or set priorities.
func (q *QEMU) sandboxArgs() []string {
	if !q.Sandbox || q.Confine == nil {
		return nil
	}
	return []string{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
}

// Start implements Hypervisor.
func (q *QEMU) Start(c Config, onLine func(Line)) (*Machine, error) {
	image := c.Image
	if q.Confine != nil && q.Confine.Spaces == nil {
		c.Image = insideImage
	}
	c.dog = !c.NoDog && q.dog(c.Machine)
	args, all, err := c.args(q.Version)
	if err != nil {
		return nil, err
	}
	defer closeAll(all.Files)
	if err := c.join(all.plugs); err != nil {
		all.end()
		return nil, err
	}
	cmd, err := q.command(&c, image, append(args, q.sandboxArgs()...), &all)
	if err != nil {
		all.end()
		return nil, err
	}
	return launch(&Machine{name: "qemu", cmd: cmd, control: c.control, paused: c.control.paused, there: all.there,
		ask: func() error { return c.control.send("system_powerdown") }}, onLine, all.end)
}

// command returns the command that runs QEMU, confined if it is to be.
func (q *QEMU) command(c *Config, image string, args []string, all *Attachment) (*exec.Cmd, error) {
	if q.Confine == nil {
		cmd := exec.Command(q.Path, args...)
		cmd.ExtraFiles = all.Files
		return cmd, nil
	}
	own, file := uint64(ownTCG), uint64(0)
	if c.KVM {
		own = ownKVM
	}
	if all.SharedMemory { // it is a file
		file = uint64(c.MemoryMB) << 20
	}
	b := q.Confine.box(c, own, file)
	b.System = true
	if b.Net = all.HostNetwork; b.Net {
		b.Families = append(b.Families, unix.AF_INET, unix.AF_INET6)
		b.Files = append(b.Files, sandbox.File{From: resolvConf(), To: "/etc/resolv.conf"})
	}
	if b.Spaces {
		f, err := q.Confine.image(image)
		if err != nil {
			return nil, err
		}
		b.Files = append(b.Files, f)
	}
	for i, path := range all.Sockets {
		r, err := newRelay(path, c.Trusted, q.Confine.User, c.log())
		if err != nil {
			return nil, fmt.Errorf("network vhost-user:%s: %w", path, err)
		}
		all.add(Attachment{Ended: r.close})
		to := r.path
		if b.Spaces {
			to = insideSockets + strconv.Itoa(i)
			b.Files = append(b.Files, sandbox.File{From: r.path, To: to})
		}
		inside(args, path, to)
	}
	return b.Command(q.Path, args, all.Files)
}

// resolvConf is the host's list of name servers, which may be a link to another file.
func resolvConf() string {
	const path = "/etc/resolv.conf"
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}

// Print implements Hypervisor. Files that QEMU inherits are numbered as they would
// be.
func (q *QEMU) Print(c Config) (string, error) {
	c.dog = !c.NoDog && q.dog(c.Machine)
	args, all, err := c.args(q.Version)
	if err != nil {
		return "", err
	}
	all.drop()
	return commandLine(append(append([]string{q.Path}, args...), q.sandboxArgs()...)), nil
}

// commandLine writes a command for a shell, an option on each line.
func commandLine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		switch {
		case i == 0:
		case strings.HasPrefix(a, "-"):
			b.WriteString(" \\\n  ")
		default:
			b.WriteByte(' ')
		}
		if strings.ContainsAny(a, " '\"$&;()<>|*?#~`\\") || a == "" {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		b.WriteString(a)
	}
	return b.String() + "\n"
}

// FindQEMU finds QEMU and its version.
func FindQEMU() (*QEMU, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed (Debian, Ubuntu: apt-get install qemu-system-x86; Fedora: dnf install qemu-system-x86-core)", program)
	}
	// One that was built without the option refuses it.
	sandboxed := true
	out, err := exec.Command(path, "-sandbox", "on", "--version").Output()
	if err != nil {
		sandboxed = false
		out, err = exec.Command(path, "--version").Output()
	}
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", path, err)
	}
	v, err := parseVersion(string(out))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !v.AtLeast(minVersion.Major, minVersion.Minor) {
		return nil, fmt.Errorf("%s is version %d.%d; %d.%d or newer is needed", path, v.Major, v.Minor, minVersion.Major, minVersion.Minor)
	}
	confine, err := NewConfinement("")
	if err != nil {
		return nil, err
	}
	return &QEMU{Path: path, Version: v, Sandbox: sandboxed, Confine: confine, hasDog: sync.OnceValue(func() bool { return hasDog(path) })}, nil
}

func parseVersion(s string) (Version, error) {
	m := versionLine.FindStringSubmatch(s)
	if m == nil {
		return Version{}, errors.New("cannot tell its version from --version")
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	return Version{major, minor}, errors.Join(err1, err2)
}

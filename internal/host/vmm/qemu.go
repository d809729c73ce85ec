package vmm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
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
}

var versionLine = regexp.MustCompile(`version (\d+)\.(\d+)`)

// Run is Run on QEMU.
func (q *QEMU) Run(ctx context.Context, c Config, o RunOptions) error { return Run(ctx, q, c, o) }

// String implements Hypervisor.
func (q *QEMU) String() string { return fmt.Sprintf("QEMU %d.%d", q.Version.Major, q.Version.Minor) }

func (q *QEMU) traits() traits { return traits{grace: crashGrace} }

// Print implements Hypervisor. Files that QEMU inherits are numbered as they would
// be.
func (q *QEMU) Print(c Config) (string, error) {
	args, all, err := c.args(q.Version)
	if err != nil {
		return "", err
	}
	all.drop()
	return commandLine(append([]string{q.Path}, args...)), nil
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
	out, err := exec.Command(path, "--version").Output()
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
	return &QEMU{Path: path, Version: v}, nil
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

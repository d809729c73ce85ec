package vmm

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
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

// Package kernelbuild builds the kernel's ELF file. It has the linker's flags, which
// belong to the kernel: its address is below the program's, and its entry point is
// not that of Go's runtime.
package kernelbuild

import (
	"fmt"
	"os"
	"os/exec"
)

// Args returns the go command's arguments that build the kernel into out.
func Args(out string) []string {
	return []string{"build", "-trimpath", "-buildvcs=false",
		"-ldflags=-E main.anchor -T 0x201000 -buildid=", "-o", out,
		"github.com/thurward/thurward/cmd/kernel"}
}

// Env returns the environment variables that the build needs beyond the
// caller's.
func Env() []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS="}
}

// Kernel builds the kernel into the file out.
func Kernel(out string) error {
	cmd := exec.Command("go", Args(out)...)
	cmd.Env = append(os.Environ(), Env()...)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the kernel: %w\n%s", err, b)
	}
	return nil
}

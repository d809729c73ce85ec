// Package parts builds the parts of an image for measurements, and links them with a policy.
package parts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
)

// Parts are the kernel and the programs: the firewall, and the one that is only a wire.
type Parts struct{ kernel, Firewall, Wire []byte }

// Build builds them, with files in dir.
func Build(dir string) (p Parts, err error) {
	k := filepath.Join(dir, "kernel.elf")
	if err := kernelbuild.Kernel(k); err != nil {
		return p, err
	}
	if p.kernel, err = os.ReadFile(k); err != nil {
		return p, err
	}
	for pkg, into := range map[string]*[]byte{"cmd/firewall": &p.Firewall, "bench/wire": &p.Wire} {
		out := filepath.Join(dir, filepath.Base(pkg))
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "github.com/thurward/thurward/"+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		if b, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("building %s: %w\n%s", pkg, err, b)
		}
		if *into, err = os.ReadFile(out); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Link writes the image of a program with a policy.
func (p *Parts) Link(path string, program []byte, rules string) error {
	pol, diags := policy.Load("bench", []byte(rules))
	if pol == nil {
		return fmt.Errorf("the policy of the measurement: %v", diags)
	}
	seg, err := compile.Compile(pol)
	if err != nil {
		return err
	}
	b, err := image.Link(image.Input{Program: program, Kernel: p.kernel, Policy: compile.Encode(seg)})
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

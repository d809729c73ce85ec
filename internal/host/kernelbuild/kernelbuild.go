// Package kernelbuild compiles the parts of the image: the kernel, and the firewall's
// programs. It has the linker's flags, and the environment in which nothing but the
// source and the pinned toolchain decides what comes out.
//
// The kernel's flags are its own: its address is below the program's, and its entry
// point is not that of Go's runtime.
package kernelbuild

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/thurward/thurward/internal/shared/stamp"
)

const module = "github.com/thurward/thurward"

// Kernel builds the kernel into the file out.
func Kernel(out string) error {
	env, err := Environ()
	if err != nil {
		return err
	}
	return build(env, "-ldflags=-E main.anchor -T 0x201000 -buildid=", "-o", out, module+"/cmd/kernel")
}

// Program builds the firewall's program into the file out, with the build tags, and
// what it will tell of itself.
func Program(out, tags string, b stamp.Build) error {
	if !b.Valid() {
		return fmt.Errorf("version %q, commit %q: want a version as 1.2.3 and a commit of git, or none", b.Version, b.Commit)
	}
	env, err := Environ()
	if err != nil {
		return err
	}
	return build(env, "-tags="+tags,
		"-ldflags=-s -w -buildid= -X "+stamp.Symbol+"="+b.String(),
		"-o", out, module+"/cmd/firewall")
}

// A Target is a part of an image that make knows.
type Target struct {
	Out             string // the file; its name says which part
	Version, Commit string
}

// Make builds one part, if the toolchain is the pinned one.
func Make(t Target) error {
	dir, err := root()
	if err != nil {
		return err
	}
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	tools, err := ThisToolchain()
	if err != nil {
		return err
	}
	if err := CheckToolchain(gomod, tools.Version); err != nil {
		return err
	}
	if err := tools.write(filepath.Dir(t.Out)); err != nil {
		return err
	}
	schema, err := os.ReadFile(filepath.Join(dir, "schemas/rules.schema.json"))
	if err != nil {
		return err
	}
	b := stamp.Build{Version: t.Version, Commit: t.Commit, Schema: fmt.Sprintf("%x", sha256.Sum256(schema))}
	switch name := filepath.Base(t.Out); name {
	case "kernel.elf":
		return Kernel(t.Out)
	case "firewall.elf":
		return Program(t.Out, "", b)
	case "firewall-dot.elf":
		return Program(t.Out, "dot", b)
	default:
		return fmt.Errorf("%s is no part of an image (want kernel.elf, firewall.elf or firewall-dot.elf)", name)
	}
}

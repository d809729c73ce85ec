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

// Host builds a program of the host for release, thurward or thurward-sigstore, into the
// file out: with the parts of the image built in, or with Sigstore's client.
func Host(out, arch string, b stamp.Build) error {
	if !b.Valid() {
		return fmt.Errorf("version %q, commit %q: want a version as 1.2.3 and a commit of git, or none", b.Version, b.Commit)
	}
	env, err := Environ()
	if err != nil {
		return err
	}
	env = append(env, "GOARCH="+arch)
	args := []string{"-tags=embed_parts"}
	name := filepath.Base(out)
	if name == "thurward-sigstore" {
		args = []string{"-modfile=tools/go.mod", "-tags=sigstore"}
	}
	return build(env, append(args, "-ldflags=-s -w -buildid= -X "+stamp.Symbol+"="+b.String(), "-o", out, module+"/cmd/"+name)...)
}

// A Target is a part of an image that make knows, or a program of the host for release.
type Target struct {
	Out             string // the file; its name says which
	Version, Commit string
	Arch            string // of a program of the host: amd64 or arm64
}

// Make builds a target, if the toolchain is the pinned one.
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
	schema, err := os.ReadFile(filepath.Join(dir, "schemas/rules.schema.json"))
	if err != nil {
		return err
	}
	b := stamp.Build{Version: t.Version, Commit: t.Commit, Schema: fmt.Sprintf("%x", sha256.Sum256(schema))}
	switch name := filepath.Base(t.Out); name {
	case "thurward", "thurward-sigstore":
		return Host(t.Out, t.Arch, b)
	case ToolchainFile:
		return tools.write(filepath.Dir(t.Out))
	case "kernel.elf":
		return Kernel(t.Out)
	case "firewall.elf":
		return Program(t.Out, "", b)
	case "firewall-dot.elf":
		return Program(t.Out, "dot", b)
	default:
		return fmt.Errorf("%s is not known (want kernel.elf, firewall.elf, firewall-dot.elf, toolchain.json, thurward or thurward-sigstore)", name)
	}
}

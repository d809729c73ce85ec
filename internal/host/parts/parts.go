// Package parts has the kernel and the firewall's programs from which images are linked.
// A released command line has them built in, so that it needs neither Go nor a checkout;
// one that make has built takes the files that make puts into build/.
package parts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/host/limited"
)

// max is the largest size of a part, in bytes. The program with TLS has 5 MB.
const max = 64 << 20

// Names of the parts; those of the programs are image.Plain and image.DoT.
const (
	Kernel    = "kernel.elf"
	Toolchain = kernelbuild.ToolchainFile
)

// BuiltIn reports whether the parts are in this program.
func BuiltIn() bool { return embedded != nil }

// Read returns a part: what is built in, or else the file in build/, beside the folder
// of this program or in the current one.
func Read(name string) ([]byte, error) {
	if embedded != nil {
		return fs.ReadFile(embedded, "embedded/"+name)
	}
	b, err := limited.ReadFile(Beside(name), max)
	if err != nil {
		return nil, fmt.Errorf("%w (make build/%s makes it, in the folder of the sources)", err, name)
	}
	return b, nil
}

// ReadToolchain returns which Go has compiled the parts of Read. It is zero if nobody
// has written it down.
func ReadToolchain() (t kernelbuild.Toolchain, err error) {
	b, err := Read(Toolchain)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return t, fmt.Errorf("%s: %w", Toolchain, err)
	}
	return t, nil
}

// Beside returns the path of a part's file: in build/ beside the folder of this program,
// where make has built it, or in lib/thurward there, where a package has installed it, or
// else below the current folder.
func Beside(name string) string {
	if exe, err := os.Executable(); err == nil {
		for _, dir := range []string{"build", "lib/thurward"} {
			p := filepath.Join(filepath.Dir(exe), "..", dir, name)
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	return filepath.Join("build", name)
}

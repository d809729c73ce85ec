package kernelbuild

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Toolchain names the Go that compiled something.
type Toolchain struct {
	Version string `json:"version"` // as go1.26.8
	// SHA256 is, in hexadecimal, that of the lines "DIGEST  NAME\n" of the go command,
	// asm, compile and link, as sha256sum prints them.
	SHA256 string `json:"sha256"`
}

// ToolchainFile is the name of the file beside the parts that names the toolchain.
const ToolchainFile = "toolchain.json"

// ThisToolchain returns what go is here.
func ThisToolchain() (Toolchain, error) {
	out, err := exec.Command("go", "env", "GOVERSION", "GOROOT", "GOTOOLDIR").Output()
	if err != nil {
		return Toolchain{}, fmt.Errorf("go env: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 3 {
		return Toolchain{}, fmt.Errorf("go env: %q", out)
	}
	all := sha256.New()
	for _, f := range []string{filepath.Join(lines[1], "bin", "go"), filepath.Join(lines[2], "asm"), filepath.Join(lines[2], "compile"), filepath.Join(lines[2], "link")} {
		h := sha256.New()
		r, err := os.Open(f)
		if err != nil {
			return Toolchain{}, err
		}
		_, err = io.Copy(h, r)
		r.Close()
		if err != nil {
			return Toolchain{}, err
		}
		fmt.Fprintf(all, "%x  %s\n", h.Sum(nil), filepath.Base(f))
	}
	return Toolchain{lines[0], hex.EncodeToString(all.Sum(nil))}, nil
}

// write writes it beside the parts.
func (t Toolchain) write(dir string) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ToolchainFile), append(b, '\n'), 0o644)
}

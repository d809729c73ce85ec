package deps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOldGo: make says which Go it needs before an old one says that go.mod is invalid, and
// takes all that fetch the right one by themselves.
func TestOldGo(t *testing.T) {
	dir := t.TempDir()
	for version, old := range map[string]bool{
		"": true, "go1.2": true, "go1.9.7": true, "go1.19.8": true, "go1.20": true, "go1.20.14": true,
		"go1.21.0": false, "go1.26.8": false, "go1.27rc1": false, "go1.100": false, "devel go1.28-1234": false,
	} {
		script := "#!/bin/sh\nexit 127\n"
		if version != "" {
			script = fmt.Sprintf("#!/bin/sh\necho 'go version %s linux/amd64'\n", version)
		}
		if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("../../scripts/need.sh", "--check", "go")
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if (err != nil) != old || strings.Contains(string(out), "Go 1.21 or newer is needed") != old {
			t.Errorf("%q: %v %s", version, err, out)
		}
	}
}

package inspect_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/inspect"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/shared/stamp"
	"github.com/thurward/thurward/schemas"
	"github.com/thurward/thurward/test/deps"
)

// TestInspect: what is shown is read out of the image: the parts cover its file, and the
// packages are among those that somebody has looked at.
func TestInspect(t *testing.T) {
	policy, err := os.ReadFile("../../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fw.img")
	b := stamp.Build{Version: "1.2.0-rc.1", Commit: strings.Repeat("0c", 20), Schema: schemas.Digest()}
	verifytest.Build(t, path, policy, b)
	img, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := inspect.Image(img)
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != b.Version || r.Commit != b.Commit || r.Schema != b.Schema || r.Toolchain != runtime.Version() || r.Program != "firewall.elf" {
		t.Errorf("%s %s %s %s %s", r.Version, r.Commit, r.Schema, r.Toolchain, r.Program)
	}
	if len(r.Rules) != 4 || r.Rules[0] != "allow-web" || len(r.Interfaces) != 2 || r.Interfaces[1].Gateway != "203.0.113.1" {
		t.Errorf("%v, %+v", r.Rules, r.Interfaces)
	}
	reviewed := deps.Firewall(false)
	for _, p := range r.Packages {
		if !slices.Contains(reviewed, p) {
			t.Errorf("the image has code of %s, which is not on the list", p)
		}
	}
	for _, p := range []string{"runtime", "time", "github.com/thurward/thurward/internal/guest/router"} {
		if !slices.Contains(r.Packages, p) {
			t.Errorf("%s is not found among %v", p, r.Packages)
		}
	}
	slices.SortFunc(r.Layout, func(a, b inspect.Part) int { return int(a.Offset) - int(b.Offset) })
	end := uint64(0)
	for _, p := range r.Layout {
		if gap := p.Offset - end; p.Offset < end || gap >= 4096 {
			t.Errorf("%s begins at byte %d, the part before it ends at %d", p.Name, p.Offset, end)
		} else if strings.Trim(string(img[end:p.Offset]), "\x00") != "" {
			t.Errorf("something is before %s", p.Name)
		}
		end = p.Offset + p.Size
	}
	if end != uint64(len(img)) {
		t.Errorf("the parts end at byte %d, the file at %d", end, len(img))
	}
}

// TestNotOurs: other files are refused.
func TestNotOurs(t *testing.T) {
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a program": exe, "nothing": nil, "text": []byte("x")} {
		if _, err := inspect.Image(b); err == nil || !strings.Contains(err.Error(), "not an image of thurward build") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzImage: whatever a file is, it is read to an end.
func FuzzImage(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) { inspect.Image(b) }) //nolint:errcheck // that it ends
}

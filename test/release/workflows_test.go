package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// TestWorkflowsArePinned: an action is named by the digest of its commit, beside it its
// version for who reads; nothing is allowed to all jobs; and jobs that build have no
// rights to sign.
func TestWorkflowsArePinned(t *testing.T) {
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	pinned := regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	uses := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for n, l := range strings.Split(string(b), "\n") {
			if _, action, ok := strings.Cut(l, "uses: "); ok {
				uses++
				if !pinned.MatchString(action) {
					t.Errorf("%s:%d: %s is not pinned by digest", f, n+1, action)
				}
			}
		}
		if strings.Contains(string(b), "write-all") {
			t.Errorf("%s: a job may write everything", f)
		}
	}
	if uses < 8 {
		t.Errorf("%d actions", uses)
	}
	release, err := os.ReadFile("../../.github/workflows/release.yml")
	if err != nil {
		t.Fatal(err)
	}
	build, _, _ := strings.Cut(string(release), "\n  publish:")
	if strings.Contains(build, "write") {
		t.Error("a job before publish may write or sign")
	}
}

// TestBuiltInParts: a command line with the parts built in makes, in an empty folder and
// without Go, the same image and statement as one that takes the parts' files.
func TestBuiltInParts(t *testing.T) {
	base := t.TempDir()
	tree := filepath.Join(base, "tree")
	checkout(t, tree)
	for _, name := range []string{"cmd/thurward", "test/deps", "examples"} {
		if err := os.CopyFS(filepath.Join(tree, name), os.DirFS(filepath.Join("../..", name))); err != nil {
			t.Fatal(err)
		}
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	run := func(dir string, env []string, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	parts := filepath.Join(tree, "internal/host/parts/embedded")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		t.Fatal(err)
	}
	files := []string{"kernel.elf", "firewall.elf", "firewall-dot.elf", "toolchain.json"}
	args := []string{"run", "./internal/host/kernelbuild/part", "-version", "1.2.3", "-commit", commit, "-arch", runtime.GOARCH}
	for _, f := range files {
		args = append(args, filepath.Join(parts, f))
	}
	run(tree, os.Environ(), "go", append(args, filepath.Join(base, "bin", "thurward"))...)

	policy, err := os.ReadFile("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	build := func(dir string, args ...string) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), policy, 0o644); err != nil {
			t.Fatal(err)
		}
		run(dir, []string{"PATH=/nonexistent", "HOME=" + dir}, filepath.Join(base, "bin", "thurward"),
			append([]string{"build", "-o", "fw.img", "--provenance"}, args...)...)
	}
	alone, given := filepath.Join(base, "alone"), filepath.Join(base, "given")
	build(alone)
	build(given, "--kernel", filepath.Join(parts, "kernel.elf"), "--program", filepath.Join(parts, "firewall.elf"))
	for _, name := range []string{"fw.img", "fw.img.provenance.json", "fw.img.sbom.json"} {
		a, err := os.ReadFile(filepath.Join(alone, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(given, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(a) != string(b) {
			t.Errorf("%s is another one", name)
		}
	}
	// Each of the two programs is there.
	if err := os.WriteFile(filepath.Join(alone, "tls.yaml"), append(policy, []byte("\ndns: { upstreams: [ { address: 1.1.1.1, tls: one.one.one.one } ] }\n")...), 0o644); err != nil {
		t.Fatal(err)
	}
	run(alone, []string{"HOME=" + alone}, filepath.Join(base, "bin", "thurward"), "build", "-f", "tls.yaml", "-o", "tls.img", "--provenance")
}

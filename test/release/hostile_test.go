// Package release proves what is said of releases: that they can be made again, byte
// for byte, and that a changed one is noticed.
package release

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// parts are what make compiles for an image without TLS.
var parts = []string{"build/kernel.elf", "build/firewall.elf"}

// checkout copies what the image is made from into dir.
func checkout(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"go.mod", "go.sum", "Makefile"} {
		b, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"internal", "cmd/kernel", "cmd/firewall", "schemas"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("../..", name))); err != nil {
			t.Fatal(err)
		}
	}
}

// goEnv returns variables of the go command.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// makeParts runs make in a checkout and returns what it has built.
func makeParts(t *testing.T, dir, umask string, env []string, user *syscall.Credential) map[string][]byte {
	t.Helper()
	cmd := exec.Command("sh", "-c", `umask "$1"; shift; exec make --no-print-directory "$@"`, "sh", umask)
	cmd.Args = append(cmd.Args, append(parts, "VERSION=1.2.3", "GIT_SHA=0123456789abcdef0123456789abcdef01234567")...)
	cmd.Dir, cmd.Env = dir, env
	if user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	built := map[string][]byte{}
	for _, p := range parts {
		b, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		built[p] = b
	}
	return built
}

var cold = flag.Bool("cold", false, "compile everything anew, with empty caches and as another user (make test)")

// TestHostileEnvironments: where and by whom the image is built does not matter. The
// second build has another umask, time zone, language and path, and variables, in the
// environment and by go env -w, each of which would change the image; with -cold also its
// own caches, so that everything is compiled anew, and another user.
func TestHostileEnvironments(t *testing.T) {
	base := t.TempDir()
	plain := filepath.Join(base, "a")
	checkout(t, plain)
	want := makeParts(t, plain, "022", os.Environ(), nil)

	deep := filepath.Join(base, "another place", strings.Repeat("deep/", 20))
	home := filepath.Join(base, "home")
	checkout(t, deep)
	config := filepath.Join(home, ".config", "go")
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	written := "GOFLAGS=-tags=dot\nGOAMD64=v3\nGOEXPERIMENT=nogreenteagc\n"
	if err := os.WriteFile(filepath.Join(config, "env"), []byte(written), 0o644); err != nil {
		t.Fatal(err)
	}
	hostile := append(os.Environ(),
		"HOME="+home, "XDG_CACHE_HOME="+home, "TMPDIR="+home, "TZ=Pacific/Chatham", "LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8",
		"GOENV="+filepath.Join(config, "env"), "GOPATH="+filepath.Join(home, "elsewhere"),
		"GOAMD64=v3", "GOEXPERIMENT=norandomizedheapbase64", "GOFLAGS=-tags=dot -ldflags=-w -gcflags=all=-N -modcacherw",
		"GOFIPS140=latest", "CGO_ENABLED=1", "GODEBUG=madvdontneed=1", "SOURCE_DATE_EPOCH=1", "GOGC=20",
	)
	cache := []string{"GOCACHE=" + goEnv(t, "GOCACHE"), "GOMODCACHE=" + goEnv(t, "GOMODCACHE")}
	if *cold {
		cache = []string{"GOCACHE=" + filepath.Join(home, "cache"), "GOMODCACHE=" + filepath.Join(home, "modules"),
			"GOPROXY=file://" + filepath.ToSlash(goEnv(t, "GOMODCACHE")) + "/cache/download", "GONOSUMDB=*"}
	}
	hostile = append(hostile, cache...)
	if *cold {
		if out, err := download(deep, hostile); err != nil {
			t.Fatalf("modules: %v\n%s", err, out)
		}
	}
	var user *syscall.Credential
	if *cold && os.Geteuid() == 0 {
		user = &syscall.Credential{Uid: 65534, Gid: 65534}
		give(t, base, 65534)
	} else if *cold {
		t.Log("the same user: only root can take another one")
	}
	got := makeParts(t, deep, "077", hostile, user)
	for _, p := range parts {
		if !bytes.Equal(got[p], want[p]) {
			t.Errorf("%s: sha256:%x, and %x where the environment is another", p, sha256.Sum256(want[p]), sha256.Sum256(got[p]))
		}
	}
}

// download fills the second build's module cache, since the other user may not read ours.
func download(dir string, env []string) ([]byte, error) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/firewall")
	cmd.Dir, cmd.Env = dir, append(env, "GOFLAGS=-tags=dot -modcacherw", "GOEXPERIMENT=", "GOFIPS140=off")
	return cmd.CombinedOutput()
}

// give gives a folder, with all that leads to it in the temporary folder, to a user.
func give(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnotherToolchain: make refuses a toolchain that go.mod does not pin, and names
// both.
func TestAnotherToolchain(t *testing.T) {
	dir := t.TempDir()
	checkout(t, dir)
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	have := goEnv(t, "GOVERSION")
	other := bytes.Replace(b, []byte("\n"+strings.Replace(have, "go", "go ", 1)+"\n"), []byte("\ngo 1.26.0\n"), 1)
	if bytes.Equal(b, other) {
		t.Fatalf("go.mod does not pin %s", have)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), other, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("make", "build/kernel.elf")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if want := "go is " + have + ", and go.mod pins go1.26.0: another compiler makes another image"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("make: %v\n%s\nwant it to fail with %q", err, out, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "build/kernel.elf")); err == nil {
		t.Error("there is a kernel")
	}
}

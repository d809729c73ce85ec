package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/vmm"
)

// TestDeployReadOnly: in a folder on a read-only file system nothing is deployed, with a clear
// error and without a trace, and the current image runs all the same.
func TestDeployReadOnly(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	state := filepath.Join(dir, "edge")
	a, b := deployImage(t, dir, "a", "203.0.113.1"), deployImage(t, dir, "b", "203.0.113.1")
	run := func(readOnly bool, code int, want string, args ...string) {
		t.Helper()
		script := `set -e; mount --bind "$0" "$0"; [ "$1" = rw ] || mount -o remount,ro,bind "$0"; shift; exec "$@"`
		mode := map[bool]string{true: "ro", false: "rw"}[readOnly]
		args = append([]string{"--mount", "sh", "-c", script, state, mode, bin, args[0], "--name", "edge", "--state", state}, args[1:]...)
		out, err := exec.CommandContext(soon(t), "unshare", args...).CombinedOutput()
		if got := exitCode(t, err); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%s %v: exit %d, want %d and %q:\n%s", mode, args[8:], got, code, want, out)
		}
	}
	service := []string{"run", "--lan", "user", "--wan", "user", "--accel", "tcg", "--vsock", "none", "--timeout", "15s"}
	if out, err := exec.CommandContext(soon(t), bin, "deploy", "--name", "edge", "--state", state, a).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run(false, 1, "thurward: ready version=", service...) // until its time limit
	before := listing(t, state)
	run(true, 1, "read-only file system", "deploy", b)
	run(true, 1, "no previous image", "rollback")
	run(true, 1, "thurward: ready version=", service...)
	run(true, 1, "is read-only: the firewall runs, but its image cannot be changed", service...)
	if after := listing(t, state); after != before {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
	run(false, 0, "is current", "deploy", b)
}

// listing lists a folder with all that is in it.
func listing(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-printf", "%p %s %m %T@ %l\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestDeployClockSetBack: a record from the future, as after a clock was set back, keeps
// nobody from deploying, and is shown as what it is.
func TestDeployClockSetBack(t *testing.T) {
	t.Parallel()
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	state := filepath.Join(dir, "edge")
	run := func(code int, want string, args ...string) {
		t.Helper()
		args = append([]string{args[0], "--name", "edge", "--state", state}, args[1:]...)
		out, err := exec.CommandContext(soon(t), bin, args...).CombinedOutput()
		if got := exitCode(t, err); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", args, got, code, want, out)
		}
	}
	a, b := deployImage(t, dir, "a", "203.0.113.1"), deployImage(t, dir, "b", "203.0.113.1")
	run(0, "is current", "deploy", a)
	path := filepath.Join(state, "state.json")
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rec struct {
		Version int `json:"version"`
		deploy.Record
	}
	if err := json.Unmarshal(src, &rec); err != nil {
		t.Fatal(err)
	}
	rec.Current.Since = time.Now().Add(1000 * time.Hour).UTC()
	rec.Failed = &deploy.Failure{Image: rec.Current.Image, When: rec.Current.Since, Why: "x"}
	if src, err = json.Marshal(rec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, src, 0o600); err != nil {
		t.Fatal(err)
	}
	run(1, "(in the future)", "status")
	run(0, "is current", "deploy", b)
	run(0, "is current", "rollback")
	run(1, "s ago)", "status")
}

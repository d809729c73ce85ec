package deps

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// beside runs scripts/beside.sh, and returns its exit status, what it says and its errors.
func beside(t *testing.T, commands ...string) (status int, out, problems string) {
	t.Helper()
	cmd := exec.Command("../../scripts/beside.sh", commands...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// TestBeside: what make test and CI run side by side fails if one of it does, whichever, and
// says which; all have run to their end, and what one says stands together.
func TestBeside(t *testing.T) {
	for _, c := range []struct {
		name     string
		commands []string
		status   int
		failed   []string
	}{
		{"all pass", []string{"true", "true", "sleep 0.1"}, 0, nil},
		{"the first", []string{"exit 2", "sleep 0.1", "true"}, 1, []string{"exit status 2: exit 2"}},
		{"another", []string{"sleep 0.1", "true", "exit 3"}, 1, []string{"exit status 3: exit 3"}},
		{"before the first", []string{"sleep 0.3", "false"}, 1, []string{"exit status 1: false"}},
		{"two", []string{"exit 4", "exit 5"}, 1, []string{"exit status 4: exit 4", "exit status 5: exit 5"}},
		{"by a signal", []string{"true", "kill -KILL $$"}, 1, []string{"exit status 137: kill -KILL $$"}},
		{"there is no such program", []string{"true", "no-such-program"}, 1, []string{"exit status 127: no-such-program"}},
	} {
		status, _, problems := beside(t, c.commands...)
		if status != c.status || strings.Count(problems, "beside.sh: exit status ") != len(c.failed) {
			t.Errorf("%s: exit status %d: %s", c.name, status, problems)
		}
		for _, f := range c.failed {
			if !strings.Contains(problems, "beside.sh: "+f+"\n") {
				t.Errorf("%s: %q is not in: %s", c.name, f, problems)
			}
		}
	}

	// Each waits for a file that the other one makes: they are not run one after the other.
	dir := t.TempDir()
	wait := func(mine, other string) string {
		return "cd " + dir + "; touch " + mine + "; until test -e " + other + "; do sleep 0.01; done"
	}
	if status, _, problems := beside(t, "timeout 60 sh -c '"+wait("a", "b")+"'", "timeout 60 sh -c '"+wait("b", "a")+"'"); status != 0 {
		t.Errorf("not side by side: %s", problems)
	}

	_, out, _ := beside(t, "true", "echo one 1; sleep 0.2; echo one 2 >&2; exit 1", "sleep 0.1; echo two")
	if !strings.Contains(out, "one 1\none 2\n") {
		t.Errorf("what one says is apart: %s", out)
	}
}

// TestBesideEnds: who ends the script ends what it runs, with what that has started.
func TestBesideEnds(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		pipe := ready + s.String()
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("../../scripts/beside.sh", "sleep 100 & sleep 100", "(sleep 100 & echo > '"+pipe+"'; sleep 100)")
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if b, err := exec.Command("cat", pipe).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		cmd.Process.Signal(s) //nolint:errcheck // Wait tells
		// The output ends when nobody holds it any more.
		r.SetReadDeadline(time.Now().Add(30 * time.Second)) //nolint:errcheck // then it waits longer
		out, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("%v: something of it runs on: %v: %s", s, err, out)
			cmd.Process.Kill() //nolint:errcheck // Wait tells
		}
		r.Close()
		cmd.Wait() //nolint:errcheck // the exit status is looked at
		if code := cmd.ProcessState.ExitCode(); code != 128+int(s) {
			t.Errorf("%v: exit status %d: %s", s, code, out)
		}
	}
}

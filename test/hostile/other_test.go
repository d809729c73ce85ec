package hostile

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// others are what processes of another user do, by name; an error fails the test
// that has started them.
var others = map[string]func(args []string) error{}

// otherMain runs one of others with this process's arguments.
func otherMain(role string) int {
	f := others[role]
	if f == nil {
		fmt.Fprintf(os.Stderr, "no role %q\n", role)
		return 1
	}
	if err := f(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// asNobody lets another user do something. It needs root, or the test is skipped.
func asNobody(t *testing.T, role string, args ...string) error {
	t.Helper()
	cmd := nobodysCommand(t, must(self())(t), args...)
	cmd.Args[0] = "other"
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	b, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, b)
	}
	return nil
}

// nobodysCommand is a command that another user runs.
func nobodysCommand(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

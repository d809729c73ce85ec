package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// launcher builds the command line, once.
var launcher = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "thurward")
	if b, err := exec.Command("go", "build", "-o", path, "github.com/thurward/thurward/cmd/thurward").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building thurward: %w\n%s", err, b)
	}
	return path, nil
})

// thurwardRun returns the command "thurward run" on the tests' image.
func thurwardRun(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(bounded(t, 2*limit), bin, append([]string{"run", "--image", testImage(t)}, args...)...)
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

// exitCode returns how a command ended.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	if e != nil {
		return e.ExitCode()
	}
	return 0
}

// TestDemonstration: what make run shows.
func TestDemonstration(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		// Each with a stream of its own: one whose stream the other reads would be without a reader for
		// some seconds when that ends.
		cmd, out, errOut := thurwardRun(t, "--accel", map[bool]string{false: "tcg", true: "kvm"}[kvm], "--vsock", filepath.Join(t.TempDir(), "vsock"))
		if code := exitCode(t, cmd.Run()); code != 0 {
			t.Errorf("exit %d", code)
		}
		for _, want := range []string{"is up: boot took ", "rule allow-dns", "rule allow-web", "rule allow-ping", "default-deny", "as 203.0.113.10:", "--lan bridge:br-lan --wan bridge:br-wan"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in the narration", want)
			}
		}
		if t.Failed() {
			t.Logf("output:\n%s\nerrors:\n%s", out, errOut)
		}
	})
}

func TestRunExitCodes(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	truncated := altered(t, func(b []byte) []byte { return b[:len(b)/2] })
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no such image":      {[]string{"--image", "/nonexistent.img"}, 1, "there is no such file"},
		"truncated image":    {[]string{"--image", truncated}, 1, "truncated"},
		"wrong accelerator":  {[]string{"--accel", "xen"}, 2, "want auto, kvm or tcg"},
		"wrong network":      {[]string{"--lan", "wifi"}, 2, "want demo, user"},
		"wrong memory":       {[]string{"--memory", "lots"}, 2, "want 4M to 3G"},
		"too little to boot": {[]string{"--memory", "2M"}, 2, "want 4M to 3G"},
		"least memory":       {[]string{"--accel", "tcg", "--memory", "4M"}, 1, "refuses to start: the machine has 4 MB of memory"},
		"wrong restart":      {[]string{"--restart", "always"}, 2, "want never or on-crash"},
		"wrong monitor":      {[]string{"--vmm", "xen"}, 2, "want qemu"},
		"no such device":     {[]string{"--lan", "tap:thw-missing"}, 1, "ip tuntap add"},
		"refusal":            {[]string{"--accel", "tcg", "--append", "thurward.rules=none"}, 1, "refuses to start: boot argument"},
		"little memory":      {[]string{"--accel", "tcg", "--memory", "16M"}, 1, "refuses to start"},
		"time limit":         {[]string{"--accel", "tcg", "--lan", "user", "--wan", "user", "--timeout", "1s"}, 1, "time limit of 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, out, errOut := thurwardRun(t, c.args...)
			if code := exitCode(t, cmd.Run()); code != c.code || !strings.Contains(errOut.String(), c.want) {
				t.Errorf("exit %d, want %d and %q\noutput:\n%s\nerrors:\n%s", code, c.code, c.want, out, errOut)
			}
		})
	}
}

// children returns the processes whose parent is pid.
func children(pid int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		// pid (name) state parent: the name may hold anything.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			pids = append(pids, n)
		}
	}
	return pids
}

// TestSignalEndsQEMU: SIGTERM and SIGINT end the launcher with 0, and QEMU
// with it; when the launcher is killed QEMU does not stay behind either.
func TestSignalEndsQEMU(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 0, syscall.SIGINT: 0, syscall.SIGKILL: -1} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			cmd, _, _ := thurwardRun(t, "--accel", "tcg", "--lan", "user", "--wan", "user")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.Stdout = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			var seen []byte
			for b := make([]byte, 4096); !bytes.Contains(seen, []byte("thurward: ready")); {
				n, err := r.Read(b)
				if err != nil {
					t.Fatalf("%v after %q", err, seen)
				}
				seen = append(seen, b[:n]...)
			}
			kids := children(cmd.Process.Pid)
			if len(kids) != 1 {
				t.Fatalf("the launcher has children %v, want QEMU", kids)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if got := exitCode(t, cmd.Wait()); got != code {
				t.Errorf("exit %d, want %d", got, code)
			}
			// QEMU holds the other end of the pipe of its console; wait for
			// the process itself to go.
			for deadline := time.Now().Add(limit); alive(kids[0]); {
				if time.Now().After(deadline) {
					t.Fatal("QEMU is still there")
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	return len(f) > 0 && f[0] != "Z"
}

package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An attack is one row of the table.
type attack struct {
	name string             // "who/what", small letters; it stays
	run  func(t *testing.T) // fails when the attack does harm
	twin func(t *testing.T) // fails when what is like it and honest does not work
}

// table is filled by the init functions of the files of attacks.
var table []attack

func add(a ...attack) { table = append(table, a...) }

// memoryLimit is what the launcher and each command may take at worst, in bytes.
const memoryLimit = 200 << 20

func TestAttacks(t *testing.T) {
	for _, a := range table {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			t.Run("attack", func(t *testing.T) { t.Parallel(); a.run(t) })
			t.Run("twin", func(t *testing.T) { t.Parallel(); a.twin(t) })
		})
	}
}

// TestTable: names are unique, and nothing is missing.
func TestTable(t *testing.T) {
	form := regexp.MustCompile(`^[a-z]+/[a-z0-9-]+$`)
	seen := map[string]bool{}
	for _, a := range table {
		if seen[a.name] || !form.MatchString(a.name) || a.run == nil || a.twin == nil {
			t.Errorf("%q: twice, not of the form who/what, or without attack or twin", a.name)
		}
		seen[a.name] = true
	}
	if len(table) < 80 {
		t.Errorf("only %d attacks; some have gone", len(table))
	}
}

// TestMain is also the entry of the processes that the tests start from this
// program: QEMU's, under its name, and such of another user.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == qemuName:
		os.Exit(monitorMain())
	case os.Getenv(roleVar) != "":
		os.Exit(otherMain(os.Getenv(roleVar)))
	}
	dir, err := os.MkdirTemp("", "hostile")
	if err == nil {
		err = os.Chmod(dir, 0o711) // other users must reach what is in it
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	flag.Parse()
	flag.Set("test.parallel", "8") //nolint:errcheck // the tests wait more than they work
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const (
	qemuName = "qemu-system-x86_64"
	roleVar  = "THURWARD_HOSTILE_ROLE" // what a process of another user is to do
	nobody   = 65534
)

// scratch holds what is made once; TestMain removes it.
var scratch string

// thurward builds the command line, once, and returns its path.
var thurward = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "thurward")
	cmd := exec.Command("go", "build", "-o", path, "github.com/thurward/thurward/cmd/thurward")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, b)
	}
	return path, os.Chmod(path, 0o755)
})

// self copies this program where other users can run it, once, under QEMU's name.
var self = sync.OnceValues(func() (string, error) {
	from, err := os.Executable()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(scratch, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return filepath.Join(dir, qemuName), os.WriteFile(filepath.Join(dir, qemuName), b, 0o755)
})

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A result is how a command ended.
type result struct {
	code     int
	out, err string
	rss      int // bytes at most
}

// command runs thurward with arguments in a directory, for a minute at most.
// It fails the test when it panics or takes more than memoryLimit.
func command(t *testing.T, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, must(thurward())(t), args...)
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("thurward %q: %v, %v", args, err, ctx.Err())
	}
	r := result{cmd.ProcessState.ExitCode(), out.String(), errOut.String(), 0}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = int(u.Maxrss) << 10
	}
	if r.rss > memoryLimit {
		t.Errorf("thurward %q took %d MB", args, r.rss>>20)
	}
	for _, bad := range []string{"panic: ", "fatal error: ", "goroutine 1 ["} {
		if strings.Contains(r.err, bad) {
			t.Errorf("thurward %q:\n%s", args, r.err)
		}
	}
	return r
}

// A launcher is thurward run with a monitor of ours in QEMU's place.
type launcher struct {
	t      *testing.T
	dir    string // all that belongs to it, the monitors' notes among it
	socket string // what --vsock is
	cmd    *exec.Cmd
	ended  chan error
}

// launchOptions change what launch does.
type launchOptions struct {
	out  *os.File // standard output and error; nil: the file "out" in the directory
	args []string // more arguments of run
	env  []string
	stop int // limit of descriptors, soft only where it is negative; 0: this process's
}

// launch starts the launcher with a guest that plays a role (monitor_test.go) on
// its first start and is honest afterwards. It ends with the test.
func launch(t *testing.T, role string, o launchOptions) *launcher {
	t.Helper()
	dir := t.TempDir()
	l := &launcher{t: t, dir: dir, socket: filepath.Join(dir, "r", "vsock"), ended: make(chan error, 1)}
	image := filepath.Join(dir, "image")
	if err := errors.Join(os.WriteFile(image, bootable(), 0o600), os.Mkdir(filepath.Join(dir, "r"), 0o700)); err != nil {
		t.Fatal(err)
	}
	wan, err := net.Listen("unix", filepath.Join(dir, "wan"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wan.Close() })
	go func() {
		for {
			c, err := wan.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c) //nolint:errcheck // the machine's end
		}
	}()
	// The monitor keeps notes of what it found. What a confined one can do is
	// internal/host/vmm's test.
	args := append([]string{"run", "--image", image, "--accel", "tcg", "--lan", "demo", "--wan", "unix:wan",
		"--vsock", l.socket, "--page", "none", "--no-sandbox"}, o.args...)
	name := must(thurward())(t)
	if o.stop != 0 {
		which := "-n"
		if o.stop < 0 {
			which = "-Sn"
		}
		args = append([]string{"-c", `ulimit ` + which + ` "$0" && exec "$@"`, strconv.Itoa(max(o.stop, -o.stop)), name}, args...)
		name = "/bin/sh"
	}
	l.cmd = exec.Command(name, args...)
	l.cmd.Dir = dir
	l.cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(must(self())(t))+":"+os.Getenv("PATH"), monitorDir+"="+dir, monitorRole+"="+role)
	l.cmd.Env = append(l.cmd.Env, o.env...)
	out := o.out
	if out == nil {
		if out, err = os.Create(filepath.Join(dir, "out")); err != nil {
			t.Fatal(err)
		}
		defer out.Close()
	}
	l.cmd.Stdout, l.cmd.Stderr = out, out
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.ended <- l.cmd.Wait() }()
	t.Cleanup(func() {
		l.cmd.Process.Kill() //nolint:errcheck // it may have ended
		if t.Failed() {
			t.Logf("the launcher said:\n%s", tail(l.said(), 4000))
		}
	})
	return l
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// said returns what the launcher has printed.
func (l *launcher) said() string {
	b, _ := os.ReadFile(filepath.Join(l.dir, "out"))
	return string(b)
}

// await waits until ok, for a minute and a half at most.
func (l *launcher) await(what string, ok func() bool) {
	l.t.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-l.ended:
			l.ended <- err
			l.t.Fatalf("%s: the launcher has ended: %v", what, err)
		default:
		}
		if time.Now().After(end) {
			l.t.Fatalf("%s: not within 90 seconds", what)
		}
	}
}

// note returns what the monitor of a start has noted, and whether it has.
func (l *launcher) note(start int) (string, bool) {
	b, err := os.ReadFile(filepath.Join(l.dir, "note."+strconv.Itoa(start)))
	return string(b), err == nil
}

// restarted waits for the role's end on the first start, which must be without a
// complaint, for the second start after the crash beside it, and for an event of
// the honest guest on it to reach a follower. Then the launcher's memory is
// looked at, and it is ended.
func (l *launcher) restarted() {
	l.t.Helper()
	l.await("the role", func() bool { _, ok := l.note(1); return ok })
	if n, _ := l.note(1); n != "" {
		l.t.Errorf("the guest: %s", n)
	}
	l.await("a crash is followed by a start", func() bool { _, ok := l.note(2); return ok })
	l.followed()
	l.small()
	l.end()
}

// followed waits until an event of an honest guest reaches a follower.
func (l *launcher) followed() {
	l.t.Helper()
	l.await("an event reaches a follower", func() bool {
		c, err := net.Dial("unix", l.socket+"_tail")
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(time.Second)) //nolint:errcheck // a test
		b := make([]byte, 0, 1<<20)
		for len(b) < cap(b) {
			n, err := c.Read(b[len(b):cap(b)])
			if b = b[:len(b)+n]; bytes.Contains(b, []byte(honestWord)) {
				return true
			}
			if err != nil {
				return false
			}
		}
		return false
	})
}

// small checks how much memory the launcher has taken at most.
func (l *launcher) small() {
	l.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindSubmatch(b)
	if m == nil {
		l.t.Fatalf("no VmHWM:\n%s", b)
	}
	if kb, _ := strconv.Atoi(string(m[1])); kb<<10 > memoryLimit {
		l.t.Errorf("the launcher took %d MB", kb>>10)
	}
}

// end asks the launcher to end, once, as a service manager does.
func (l *launcher) end() {
	l.t.Helper()
	l.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // seen below
	select {
	case err := <-l.ended:
		l.ended <- err
		if err != nil {
			l.t.Errorf("the launcher ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		l.t.Error("the launcher did not end on SIGTERM")
	}
}

// bootable returns the smallest image that the launcher takes: an ELF file with
// the note by which QEMU enters it.
func bootable() []byte {
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 62)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, 0x100000)
	b = le.AppendUint64(b, 64)
	b = append(b, make([]byte, 12)...)
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 4) // PT_NOTE
	b = le.AppendUint32(b, 4)
	for _, v := range []uint64{64 + 56, 0x100000, 0x100000, 20, 20, 4} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range []uint32{4, 4, 18} { // name, value, XEN_ELFNOTE_PHYS32_ENTRY
		b = le.AppendUint32(b, v)
	}
	return append(append(b, "Xen\x00"...), 0, 0, 0x10, 0)
}

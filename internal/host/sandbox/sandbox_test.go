package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/sandbox/captured"
)

// TestMain lets the test's own program be what is boxed.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "attack":
		var x captured.Target
		if err := json.Unmarshal([]byte(os.Args[1]), &x); err != nil {
			panic(err)
		}
		captured.Try(os.Stdout, x)
		os.Exit(0)
	case "twin":
		twin()
		os.Exit(0)
	case "hold": // a parent that starts a box and waits
		hold()
		os.Exit(0)
	case "sleep":
		fmt.Println("begun")
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

// box returns a box with limits, for the test's own program.
func box(u User, spaces bool) Box {
	return Box{User: u, Spaces: spaces, System: isDynamic("/proc/self/exe"), Families: []int{unix.AF_UNIX}, Env: []string{"A=1"}, Limits: []Limit{
		{unix.RLIMIT_CORE, 1}, {unix.RLIMIT_NOFILE, 64}, {unix.RLIMIT_AS, 4 << 30}, {unix.RLIMIT_FSIZE, 1 << 20}}}
}

// runAs runs the test's own program in a box under a name and returns what it said.
func runAs(t *testing.T, b Box, name string, args []string, files ...*os.File) string {
	t.Helper()
	c, err := b.Command("/proc/self/exe", args, files)
	if err != nil {
		t.Fatal(err)
	}
	c.Args[2] = name
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// aimed makes a target on this host, as an argument.
func aimed(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "thurward-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	x, closeAll, err := captured.Aim(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeAll)
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// done returns the attacks that succeeded.
func done(t *testing.T, said string) []string {
	t.Helper()
	names, err := captured.Done(said)
	if err != nil {
		t.Fatalf("%v:\n%s", err, said)
	}
	return names
}

// attacker is the user that root's boxes have.
var attacker = User{UID: 1952972801, GID: 1952972801}

// spaces skips a test that needs name spaces where there are none.
func spaces(t *testing.T) {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
}

// me is the user of boxes that this process makes.
func me() User {
	if os.Geteuid() == 0 {
		return attacker
	}
	return Self()
}

// TestAttacks: of what a program that was taken over could try nothing succeeds.
func TestAttacks(t *testing.T) {
	spaces(t)
	x := aimed(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	said := runAs(t, box(me(), true), "attack", []string{x}, null)
	if got := done(t, said); got != nil {
		t.Errorf("in the box these succeeded: %q\n%s", got, said)
	}
	if os.Geteuid() != 0 {
		return
	}
	// The same program without a box: nearly all of it works, so that the test can
	// fail.
	c := exec.Command("/proc/self/exe", x)
	c.Args[0] = "attack"
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var not []string
	for _, name := range captured.Names() {
		if !slices.Contains(done(t, string(out)), name) {
			not = append(not, name)
		}
	}
	// A kernel may lack some.
	if len(not) > 6 {
		t.Errorf("without a box %d of %d did not succeed: %q\n%s", len(not), len(captured.Names()), not, out)
	}
	t.Logf("%d attacks; without a box all succeed but %q", len(captured.Names()), not)
}

// TestAttacksWithoutSpaces: where there can be no name spaces it is the user, the
// filter and the limits that refuse. What remains is what any user may do with files.
func TestAttacksWithoutSpaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	box := box(attacker, false)
	box.Files = nil
	exe := reachable(t)
	c, err := box.Command(exe, []string{aimed(t)}, []*os.File{null})
	if err != nil {
		t.Fatal(err)
	}
	c.Args[2] = "attack"
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := []string{"read /etc/passwd", "write everybody's file", "make a file in /tmp", "look at processes",
		"connect to a socket", "connect to an abstract socket"}
	if got := done(t, string(out)); !slices.Equal(got, want) {
		t.Errorf("these succeeded: %q, want %q\n%s", got, want, out)
	}
}

// reachable returns a copy of this program that every user may execute.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "thurward-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile("/proc/self/exe")
	path := filepath.Join(dir, "test")
	if err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(path, b, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAsUser: the tests of this package by a user who is not root.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is no root")
	}
	c := exec.Command(reachable(t), "-test.v", "-test.run", "TestAttacks$|TestTwin|TestEndsWithParent|TestInside")
	c.Dir = "/tmp"
	c.Env = []string{"TMPDIR=/tmp"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	t.Logf("%s", out)
}

// twin does what a boxed program is to be able to do.
func twin() {
	must := func(what string, err error) {
		if err != nil {
			fmt.Printf("%s: %v\n", what, err)
		}
	}
	f := os.NewFile(firstFD, "given")
	b, err := io.ReadAll(f)
	must("read what it was given", err)
	fmt.Printf("given %q\n", b)
	if len(os.Args) > 1 {
		b, err = os.ReadFile("/given/file")
		must("read a file", err)
		fmt.Printf("file %q\n", b)
		must("write to its folder", os.WriteFile("/run/made", []byte("made"), 0o600))
		l, err := net.Listen("unix", "/run/socket")
		must("listen in its folder", err)
		if err == nil {
			l.Close()
		}
		b, err = os.ReadFile("/copy")
		must("read a copy", err)
		fmt.Printf("copy %q\n", b)
	}
	for _, d := range []string{"/dev/null", "/dev/zero", "/dev/urandom"} {
		f, err := os.OpenFile(d, os.O_RDWR, 0)
		must("open "+d, err)
		f.Close()
	}
	_, err = unix.Mmap(-1, 0, 256<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	must("have memory", err)
	must("have a thread", onThread())
	must("signal itself", unix.Tgkill(os.Getpid(), os.Getpid(), 0))
	fmt.Printf("uid %d env %q\n", os.Getuid(), os.Environ())
}

// onThread starts a thread that ends at once.
func onThread() error {
	ended := make(chan error)
	go func() {
		runtime.LockOSThread()
		ended <- nil
	}()
	return <-ended
}

// TestTwin: what the box was given can be used.
func TestTwin(t *testing.T) {
	spaces(t)
	dir, err := os.MkdirTemp("/tmp", "thurward-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	folder, file, private := filepath.Join(dir, "folder"), filepath.Join(dir, "file"), filepath.Join(dir, "private")
	u := me()
	if err := errors.Join(os.Mkdir(folder, 0o700), os.Chown(folder, u.UID, u.GID),
		os.WriteFile(file, []byte("F"), 0o644), os.WriteFile(private, []byte("P"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "G") //nolint:errcheck // the test fails then
	w.Close()
	defer r.Close()
	b := box(u, true)
	b.Files = []File{{From: file, To: "/given/file"}, {From: folder, To: "/run", Writable: true}, {From: private, To: "/copy", Copy: true}}
	want := fmt.Sprintf("given \"G\"\nfile \"F\"\ncopy \"P\"\nuid %d env [\"A=1\"]\n", u.UID)
	if got := runAs(t, b, "twin", []string{"files"}, r); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if made, err := os.ReadFile(filepath.Join(folder, "made")); string(made) != "made" {
		t.Errorf("%q, %v", made, err)
	}
}

// TestInside: what the kernel says of a program in a box.
func TestInside(t *testing.T) {
	spaces(t)
	b := box(me(), true)
	c, err := b.Command("/proc/self/exe", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Args[2] = "sleep"
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait() //nolint:errcheck // it is killed
	defer c.Process.Kill()
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "begun\n" {
		t.Fatal(l, err)
	}
	proc := "/proc/" + strconv.Itoa(c.Process.Pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	id := strconv.Itoa(b.User.UID)
	for _, want := range []string{"Uid:\t" + id + "\t" + id + "\t" + id + "\t" + id, "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000",
		"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "NSpid:\t" + strconv.Itoa(c.Process.Pid) + "\t1"} {
		if !strings.Contains(string(status), want+"\n") {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		ours, err1 := os.Readlink("/proc/self/ns/" + ns)
		theirs, err2 := os.Readlink(proc + "/ns/" + ns)
		if os.Geteuid() != 0 && err2 != nil { // it is not dumpable for its user
			continue
		}
		if ours == theirs || err1 != nil || err2 != nil {
			t.Errorf("%s: %s (%v) and %s (%v)", ns, ours, err1, theirs, err2)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	top, err := os.ReadDir(proc + "/root")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range top {
		names = append(names, e.Name())
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"dev": true, strings.Split(self, "/")[1]: true}
	if b.System {
		want["usr"], want["lib"], want["lib64"], want["bin"], want["sbin"], want["etc"] = true, true, true, true, true, true
	}
	for _, n := range names {
		if !want[n] {
			t.Errorf("its root has %q", names)
		}
	}
}

// TestInherited: a program has the descriptors that it was given, and none that this
// process has itself without having opened it to be closed.
func TestInherited(t *testing.T) {
	spaces(t)
	var leak [2]int
	if err := unix.Pipe2(leak[:], 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak[0])
	defer unix.Close(leak[1])
	var far [2]int
	if err := unix.Pipe2(far[:], 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(far[0], 251, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(far[0])
	defer unix.Close(far[1])
	defer unix.Close(251)
	b := box(me(), true)
	given, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	c, err := b.Command("/proc/self/exe", nil, []*os.File{given})
	if err != nil {
		t.Fatal(err)
	}
	c.Args[2] = "sleep"
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait() //nolint:errcheck // it is killed
	defer c.Process.Kill()
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "begun\n" {
		t.Fatal(l, err)
	}
	dir := fmt.Sprintf("/proc/%d/fd", c.Process.Pid)
	fds, err := os.ReadDir(dir)
	if err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		n, _ := strconv.Atoi(fd.Name())
		if n > firstFD && !strings.HasPrefix(to, "anon_inode:[event") || n == firstFD && to != "/dev/null" {
			t.Errorf("descriptor %d is %s", n, to)
		}
	}
}

// TestStageErrors: a box that cannot be made says why and starts nothing.
func TestStageErrors(t *testing.T) {
	spaces(t)
	for want, change := range map[string]func(*Box){
		"/none: no such file":      func(b *Box) { b.Files = []File{{From: "/none", To: "/there"}} },
		"limit 99 of 1":            func(b *Box) { b.Limits = []Limit{{99, 1}} },
		"executing /etc/hostname:": func(b *Box) { b.Path = "/etc/hostname" },
	} {
		b := box(me(), true)
		if b.Path = ""; want == "executing /etc/hostname:" {
			b.Files = append(b.Files, File{From: "/etc/hostname", To: "/etc/hostname"})
		}
		change(&b)
		program := "/proc/self/exe"
		if b.Path != "" {
			program = b.Path
		}
		c, err := b.Command(program, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitStage || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s, want %q", err, out, want)
		}
	}
}

// TestOwnUser: a number that is nobody's, another for each process, of those that
// there are.
func TestOwnUser(t *testing.T) {
	for _, c := range []struct {
		pid  int
		maps string
		want int
	}{
		{1, "0 0 4294967295", firstOwn + 1},
		{4 << 20, "0 0 4294967295", firstOwn + 4<<20},
		{77, "0 100000 65536", firstDynamic + 77},
		{dynamics + 5, "0 100000 65536", firstDynamic + 5},
		{77, "0 1000 1\n1 100000 65536", firstDynamic + 77},
		{77, "0 1000 1", 0},
		{77, "", 0},
		{77, "x 0 65536\n0 1", 0},
	} {
		u, err := own(c.pid, strings.NewReader(c.maps))
		if u.UID != c.want || u.GID != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%d in %q: %v, %v", c.pid, c.maps, u, err)
		}
	}
	if firstOwn+4<<20 >= 1<<31-2 {
		t.Error("numbers of users end")
	}
	for as, want := range map[string]string{"root": "is root", "0:5": "is root", "5:0": "is root", "no such user": "want a user's name", "-1:2": "is no user"} {
		if _, err := ParseUser(as); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", as, err)
		}
	}
	if u, err := ParseUser("12:34"); err != nil || u.UID != 12 || u.GID != 34 || u.String() != "12:34" {
		t.Errorf("%+v, %v", u, err)
	}
	if s := attacker.String(); s != "uid 1952972801" {
		t.Error(s)
	}
}

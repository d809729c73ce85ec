package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hold starts a box and says its number.
func hold() {
	b := box(me(), os.Args[1] == "spaces")
	program := "/proc/self/exe"
	if len(os.Args) > 2 {
		program = os.Args[2]
	}
	c, err := b.Command(program, nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Args[2] = "sleep"
	out, err := c.StdoutPipe()
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Stderr = os.Stdout
	if err := c.Start(); err != nil {
		fmt.Println(err)
		return
	}
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "begun\n" {
		fmt.Println(l, err)
		return
	}
	fmt.Println(c.Process.Pid)
	time.Sleep(time.Hour)
}

// TestEndsWithParent: a program in a box, of another user, ends when the process is
// killed that started it.
func TestEndsWithParent(t *testing.T) {
	for _, how := range []string{"spaces", "none"} {
		args := []string{"hold", how}
		switch {
		case how == "spaces":
			spaces(t)
		case os.Geteuid() == 0:
			args = append(args, reachable(t))
		}
		c := exec.Command("/proc/self/exe")
		c.Args = args
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		l, err := bufio.NewReader(out).ReadString('\n')
		pid, err2 := strconv.Atoi(strings.TrimSpace(l))
		if err != nil || err2 != nil {
			t.Fatalf("%s: %q %v", how, l, err)
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.Process.Kill() //nolint:errcheck // the test fails then
		n, err := 0, error(unix.EINTR)
		for err == unix.EINTR {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		}
		if n != 1 {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) //nolint:errcheck // of this test
			t.Errorf("%s: it still runs 10 s after its parent's end (%v)", how, err)
		}
		unix.Close(fd)
		c.Wait() //nolint:errcheck // it was killed
	}
}

// TestParentEnded: a program whose parent has ended already does not begin.
func TestParentEnded(t *testing.T) {
	spaces(t)
	c := exec.Command("/bin/true")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c.Wait() //nolint:errcheck // it says nothing
	b := box(me(), true)
	cmd, err := b.Command("/proc/self/exe", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[2] = "twin"
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "ended")}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "its parent has ended") {
		t.Errorf("%v: %s", err, out)
	}
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// memoryGroup makes a control group whose processes may take this many further bytes of memory
// together, and returns its folder; "" and why where none can be made.
func memoryGroup(name string, bytes int) (dir, why string) {
	for _, g := range [][2]string{{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}} {
		dir = filepath.Join(g[0], name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			why += err.Error() + "; "
			continue
		}
		if err := writeThere(filepath.Join(dir, g[1]), strconv.Itoa(bytes)); err != nil { // no such controller, or no control groups
			os.Remove(dir)
			why += err.Error() + "; "
			continue
		}
		return dir, ""
	}
	return "", strings.TrimSuffix(why, "; ")
}

// writeThere writes to a file that must be there.
func writeThere(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// outOfMemory has QEMU take more memory than there is for it, so that the kernel kills it. Without
// control groups it is killed by a signal, which is what the kernel does.
func outOfMemory(m *monitored) {
	m.t.Helper()
	dir, why := memoryGroup(fmt.Sprintf("thurward-test-%d", os.Getpid()), 4<<20)
	if dir == "" {
		m.t.Logf("no control group can be made, a signal stands for it: %s", why)
		m.signal(syscall.SIGKILL)
		return
	}
	m.t.Cleanup(func() { os.Remove(dir) })
	if err := writeThere(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(m.pid())); err != nil {
		m.t.Fatal(err)
	}
	code(takeMemory...)(m) // pages of the machine that QEMU has not touched
}

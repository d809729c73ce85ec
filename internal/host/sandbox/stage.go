package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// exitStage is the exit status of a stage that failed, as a shell's for a command
// that it could not run.
const exitStage = 125

// init makes this process the program of a box if it was started as a stage. The
// main goroutine has the main thread while packages are initialised; what belongs to a
// thread (capabilities, name spaces, filters) is that thread's when it executes the
// program.
func init() {
	if len(os.Args) < 3 || os.Args[0] != stageName {
		return
	}
	err := stage(os.Args[1], os.Args[2:])
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintf(os.Stderr, "sandbox: %v\n", err)
	os.Exit(exitStage)
}

// stage takes the rights from this process and executes the program. It returns
// without an error after a probe only.
func stage(spec string, argv []string) error {
	var b Box
	if err := json.Unmarshal([]byte(spec), &b); err != nil {
		return err
	}
	// What the launcher has inherited itself goes no further either.
	if err := closeFrom(b.Alive); err != nil {
		return fmt.Errorf("descriptors: %w", err)
	}
	if b.Spaces {
		if err := b.makeRoot(); err != nil {
			return fmt.Errorf("a root of its own: %w", err)
		}
	}
	if b.Dir != "" {
		if err := os.Chdir(b.Dir); err != nil {
			return fmt.Errorf("its working directory: %w", err)
		}
	}
	if err := b.dropRights(); err != nil {
		return err
	}
	if err := b.endWithParent(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	if err := loadFilter(b.filter(unix.Getpid())); err != nil {
		return fmt.Errorf("filter of system calls: %w", err)
	}
	if b.Probe {
		return nil
	}
	// Last: what is left of this program may not fit into them.
	debug.SetGCPercent(-1)
	for _, l := range b.Limits {
		if err := unix.Setrlimit(l.Resource, &unix.Rlimit{Cur: l.Value, Max: l.Value}); err != nil {
			return fmt.Errorf("limit %d of %d: %w", l.Resource, l.Value, err)
		}
	}
	if err := unix.Exec(b.Path, argv, b.Env); err != nil {
		return fmt.Errorf("executing %s: %w", b.Path, err)
	}
	return nil
}

// closeFrom closes descriptors from the first on when the program is executed.
// close_range(2) does that since Linux 5.11 only.
func closeFrom(first int) error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// dropRights makes this thread the user's, without capabilities and without any that
// it could get by executing a program.
func (b *Box) dropRights() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	if b.Own {
		for c := uintptr(0); ; c++ {
			err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
			if err == unix.EINVAL { // beyond the last that the kernel knows
				break
			}
			if err != nil {
				return fmt.Errorf("capability %d: %w", c, err)
			}
		}
	}
	if os.Geteuid() == 0 {
		if err := unix.Setgroups(nil); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
		if err := unix.Setresgid(b.User.GID, b.User.GID, b.User.GID); err != nil {
			return fmt.Errorf("group %d: %w", b.User.GID, err)
		}
		if err := unix.Setresuid(b.User.UID, b.User.UID, b.User.UID); err != nil {
			return fmt.Errorf("user %d: %w", b.User.UID, err)
		}
	}
	none := [2]unix.CapUserData{}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&h, &none[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

// endWithParent makes the kernel kill the program when the thread ends that started
// it. A change of user forgets the signal, so this comes after the last one; the
// filter keeps the program from forgetting it.
func (b *Box) endWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("the signal of its parent's end: %w", err)
	}
	// The parent may have ended before.
	n, err := 0, error(unix.EINTR)
	for err == unix.EINTR {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(b.Alive), Events: unix.POLLIN}}, 0)
	}
	if err != nil {
		return fmt.Errorf("whether its parent lives: %w", err)
	}
	if n != 0 {
		return fmt.Errorf("its parent has ended")
	}
	return nil
}

// trimmed is the text of a stage's error without its beginning.
func trimmed(out []byte) string {
	return strings.TrimPrefix(string(bytes.TrimSpace(out)), "sandbox: ")
}

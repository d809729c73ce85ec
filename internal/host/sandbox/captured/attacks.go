// Package captured is what a program tries that has been taken over by its guest. Tests
// run it in the place of a hypervisor, confined as that is, and without, to see that
// it could succeed. Nothing that it tries changes the host.
package captured

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An attack is what a hypervisor that was taken over might try. It returns nil if it
// got what it wanted.
type attack struct {
	name string
	try  func(Target) error
}

// A Target is what of the host the attacks are aimed at.
type Target struct {
	Parent   int    // a process of another user, or of this one
	Port     int    // on which something listens on the loopback
	Socket   string // on which something listens, open to all
	Abstract string // likewise, without a path
	Secret   string // a file of root's
	Plain    string // a file that everybody may read and write
}

// reached returns the errors that say that a call was refused. With others it got as far
// as to look at its arguments, which were chosen to change nothing.
func reached(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EACCES):
		return err
	}
	return nil
}

// call makes a system call with arguments that no kernel takes.
func call(nr uintptr, a ...uintptr) func(Target) error {
	return func(Target) error {
		var args [6]uintptr
		copy(args[:], a)
		_, _, e := unix.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		if e == 0 {
			return nil
		}
		return reached(e)
	}
}

func family(n int, kind int) func(Target) error {
	return func(Target) error {
		fd, err := unix.Socket(n, kind, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func read(path string) error {
	f, err := os.Open(path)
	if err == nil {
		f.Close()
	}
	return err
}

var aWord uint64 // at an address that another process of this program has too

const bad = ^uintptr(0) // an address, a descriptor or a number that is none

// attacks lists them.
var attacks = []attack{
	{"read /etc/shadow", func(Target) error { return read("/etc/shadow") }},
	{"read /etc/passwd", func(Target) error { return read("/etc/passwd") }},
	{"read root's file", func(x Target) error { return read(x.Secret) }},
	{"write everybody's file", func(x Target) error {
		f, err := os.OpenFile(x.Plain, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	}},
	{"make a file in /", func(Target) error { return os.WriteFile("/thurward-attack", nil, 0o600) }},
	{"make a file in /tmp", func(Target) error {
		defer os.Remove("/tmp/thurward-attack")
		return os.WriteFile("/tmp/thurward-attack", nil, 0o600)
	}},
	{"look at processes", func(Target) error { return read("/proc/1/status") }},
	{"open the host's memory", func(Target) error { return read("/dev/mem") }},
	{"open /dev/net/tun", func(Target) error { return read("/dev/net/tun") }},
	{"make a node of a device", func(Target) error {
		const path = "/dev/thurward-attack"
		defer os.Remove(path)
		return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1)))
	}},
	{"connect to the loopback", func(x Target) error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", x.Port), time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}},
	{"connect to a socket", func(x Target) error { _, err := net.Dial("unix", x.Socket); return err }},
	{"connect to an abstract socket", func(x Target) error { _, err := net.Dial("unix", x.Abstract); return err }},
	{"AF_INET6", family(unix.AF_INET6, unix.SOCK_DGRAM)},
	{"AF_NETLINK", family(unix.AF_NETLINK, unix.SOCK_RAW)},
	{"AF_PACKET", family(unix.AF_PACKET, unix.SOCK_RAW)},
	{"signal another process", func(x Target) error { return unix.Kill(x.Parent, 0) }},
	{"signal all processes", func(Target) error { return reached(unix.Kill(-1, 0)) }},
	{"signal another's thread", func(x Target) error { return unix.Tgkill(x.Parent, x.Parent, 0) }},
	{"signal another's thread, of any process", func(x Target) error {
		if _, _, e := unix.Syscall(unix.SYS_TKILL, uintptr(x.Parent), 0, 0); e != 0 {
			return e
		}
		return nil
	}},
	{"hold another process", func(x Target) error {
		fd, err := unix.PidfdOpen(x.Parent, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}},
	{"read another's memory", func(x Target) error {
		var b [1]byte
		l := unix.Iovec{Base: &b[0], Len: 1}
		r := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&aWord)), Len: 1}
		_, err := unix.ProcessVMReadv(x.Parent, []unix.Iovec{l}, []unix.RemoteIovec{r}, 0)
		return reached(err)
	}},
	{"ptrace", func(x Target) error { return reached(unix.PtraceDetach(x.Parent)) }},
	{"become root", func(Target) error { return syscallOne(unix.SYS_SETUID, 0) }},
	{"become root's group", func(Target) error { return syscallOne(unix.SYS_SETGID, 0) }},
	{"leave its groups", func(Target) error { return syscallOne(unix.SYS_SETGROUPS, 0) }},
	{"raise a limit", func(Target) error {
		return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil)
	}},
	{"outlive its parent", func(Target) error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) }},
	{"gain privileges again", func(Target) error {
		n, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
		if n == 0 {
			return nil
		}
		return unix.EPERM
	}},
	{"have a capability", func(Target) error {
		var d [2]unix.CapUserData
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capget(&h, &d[0]); err != nil {
			return err
		}
		for c := 0; ; c++ {
			n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
			if err != nil {
				break
			}
			if n == 1 {
				return nil
			}
		}
		if d[0].Effective|d[0].Permitted|d[0].Inheritable|d[1].Effective|d[1].Permitted != 0 {
			return nil
		}
		return unix.EPERM
	}},
	{"more memory than it may have", func(Target) error {
		b, err := unix.Mmap(-1, 0, 8<<30, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err == nil {
			unix.Munmap(b) //nolint:errcheck // it was there
		}
		return err
	}},
	{"a file longer than it may be", func(Target) error {
		signal.Ignore(syscall.SIGXFSZ)
		fd, err := unix.MemfdCreate("attack", 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Ftruncate(fd, 1<<30)
	}},
	{"more files than it may have", func(Target) error {
		var fds [300]int
		n := 0
		defer func() {
			for _, fd := range fds[:n] {
				unix.Close(fd)
			}
		}()
		for ; n < len(fds); n++ {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			fds[n] = fd
		}
		return nil
	}},
	{"a user name space", func(Target) error { return onThread(func() error { return unix.Unshare(unix.CLONE_NEWUSER) }) }},
	{"clone3", func(Target) error { _, _, e := unix.RawSyscall(unix.SYS_CLONE3, bad, 0, 0); return reached(e) }},
	{"clone with a user name space", func(Target) error {
		// With CLONE_FS, which a user name space excludes, so that none begins.
		_, _, e := unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_FS|uintptr(unix.SIGCHLD), 0, 0)
		return reached(e)
	}},
	{"mount", call(unix.SYS_MOUNT, bad, bad, bad, 0, 0)},
	{"umount", call(unix.SYS_UMOUNT2, bad, bad)},
	{"fsopen", call(unix.SYS_FSOPEN, bad, bad)},
	{"move_mount", call(unix.SYS_MOVE_MOUNT, bad, bad, bad, bad, bad)},
	{"chroot", call(unix.SYS_CHROOT, bad)},
	{"pivot_root", call(unix.SYS_PIVOT_ROOT, bad, bad)},
	{"setns", call(unix.SYS_SETNS, bad, 0)},
	{"open_by_handle_at", call(unix.SYS_OPEN_BY_HANDLE_AT, bad, bad, 0)},
	{"bpf", call(unix.SYS_BPF, bad, bad, bad)},
	{"perf_event_open", call(unix.SYS_PERF_EVENT_OPEN, bad, 0, 0, bad, bad)},
	{"keyctl", call(unix.SYS_KEYCTL, 0, 0)},
	{"io_uring", call(unix.SYS_IO_URING_SETUP, 0, bad)},
	{"reboot", call(unix.SYS_REBOOT, 0, 0, 0, 0)},
	{"kexec", call(unix.SYS_KEXEC_LOAD, 0, bad, bad, bad)},
	{"load a module", call(unix.SYS_FINIT_MODULE, bad, bad, bad)},
	{"set the clock", call(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, bad)},
	{"set the host's name", call(unix.SYS_SETHOSTNAME, bad, 1000)},
	{"read the kernel's log", call(unix.SYS_SYSLOG, 10, 0, 0)},
}

// syscallOne makes a call for this thread alone.
func syscallOne(nr, a uintptr) error {
	return onThread(func() error {
		if _, _, e := unix.RawSyscall(nr, a, 0, 0); e != 0 {
			return e
		}
		return nil
	})
}

// onThread calls f on a thread that ends with it.
func onThread(f func() error) error {
	err := make(chan error)
	go func() {
		runtime.LockOSThread()
		err <- f()
	}()
	return <-err
}

// Names lists the attacks in the order in which they are tried.
func Names() (names []string) {
	for _, a := range attacks {
		names = append(names, a.name)
	}
	return names
}

// Try tries all attacks and writes a line for each: its name, and "done" or why not.
func Try(w io.Writer, x Target) {
	for _, a := range attacks {
		said := "done"
		if err := a.try(x); err != nil {
			said = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Fprintf(w, "%s: %s\n", a.name, said)
	}
}

// Done returns the names of the attacks that succeeded, of what Try wrote, among other
// lines perhaps. Each must be there once.
func Done(said string) (names []string, err error) {
	n := 0
	for l := range strings.Lines(said) {
		for _, a := range attacks {
			result, ok := strings.CutPrefix(strings.TrimSpace(l), a.name+": ")
			if !ok {
				continue
			}
			if n++; result == "done" {
				names = append(names, a.name)
			}
		}
	}
	if n != len(attacks) {
		return nil, fmt.Errorf("%d results of %d attacks", n, len(attacks))
	}
	return names, nil
}

// Aim makes a target on this host, in a folder that everybody may look into. The caller closes it.
func Aim(dir string) (x Target, closeAll func(), err error) {
	var open []io.Closer
	closeAll = func() {
		for _, c := range open {
			c.Close()
		}
	}
	x = Target{Parent: os.Getpid(), Secret: filepath.Join(dir, "secret"), Plain: filepath.Join(dir, "plain"),
		Socket: filepath.Join(dir, "socket"), Abstract: fmt.Sprintf("@thurward-test-%d", os.Getpid())}
	err = errors.Join(os.WriteFile(x.Secret, nil, 0o600), os.WriteFile(x.Plain, nil, 0o666),
		os.Chmod(x.Plain, 0o666), os.Chmod(dir, 0o755))
	for _, a := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", x.Socket}, {"unix", x.Abstract}} {
		l, failed := net.Listen(a[0], a[1])
		if failed != nil {
			closeAll()
			return x, nil, errors.Join(err, failed)
		}
		open = append(open, l)
		if a[0] == "tcp" {
			x.Port = l.Addr().(*net.TCPAddr).Port
		}
	}
	return x, closeAll, errors.Join(err, os.Chmod(x.Socket, 0o666))
}

// Package sandbox starts a program with as few rights as it can work with: another
// user, no capabilities and no way to new ones, its own root with nothing in it but
// what it was given, no network, no other processes, a filter of system calls, limits,
// and an end with that of the process that started it.
//
// A program cannot take rights from itself that it needs to take others, and a Go
// program cannot be sure to run between fork and exec. So this package starts the
// program that links it once more, as a stage (Command), which is recognised when the
// package is initialised, takes the rights from itself and then becomes the program.
package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Box is what one program gets. Its fields are read by the stage as JSON.
type Box struct {
	User   User
	Spaces bool // its own mount, PID, IPC and UTS name spaces; Supported says whether there can be any
	Net    bool // with Spaces: the host's network, for a program that opens connections or devices there

	Files    []File   // with Spaces: what its root holds beside System and the program
	System   bool     // with Spaces: programs and libraries of the system, to read and execute
	Devices  []string // with Spaces: device nodes that it may open, beside null, zero and urandom
	Families []int    // families of sockets that it may make (AF_UNIX, AF_INET)
	Limits   []Limit
	Env      []string // its environment
	Dir      string   // its working directory; "": the root with Spaces, otherwise this process's

	// Of the stage.
	Own   bool   // the stage has root's rights, or those in a user name space
	Alive int    // descriptor of the process whose end is the program's
	Path  string // of the program, without links
	Probe bool   // end before the program is started
}

// A File is a file or folder of the host in the program's root.
type File struct {
	From, To string // absolute
	Writable bool
	// Copy makes a copy of a file in place of the file itself, for one that the
	// program's user may not read.
	Copy bool
}

// A Limit is a resource limit (setrlimit(2)): one of unix.RLIMIT_*, soft and hard.
type Limit struct {
	Resource int
	Value    uint64
}

// stageName is the name (argv[0]) of the process that becomes the program.
const stageName = "thurward-sandbox"

// firstFD is the number of the first of the files that a program inherits.
const firstFD = 3

// Command returns a command that runs a program in the box. Files are inherited as
// numbers from 3 on; nothing else is, but standard input, output and error.
func (b Box) Command(program string, args []string, files []*os.File) (*exec.Cmd, error) {
	self, err := aliveFile()
	if err != nil {
		return nil, err
	}
	if b.Path, err = filepath.EvalSymlinks(program); err != nil {
		return nil, err
	}
	if b.Spaces {
		b.Files = append(programFiles(b.Path, b.System), b.Files...)
	}
	root := os.Geteuid() == 0
	b.Own = root || b.Spaces
	b.Alive = firstFD + len(files)
	spec, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	c := exec.Command("/proc/self/exe")
	c.Args = append([]string{stageName, string(spec), program}, args...)
	c.Env = []string{}
	c.ExtraFiles = append(append([]*os.File{}, files...), self)
	// A process group of its own, so that Ctrl-C reaches the launcher only.
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if b.Spaces {
		attr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
		if !b.Net {
			attr.Cloneflags |= unix.CLONE_NEWNET
		}
		if !root {
			attr.Cloneflags |= unix.CLONE_NEWUSER
			attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: b.User.UID, HostID: b.User.UID, Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: b.User.GID, HostID: b.User.GID, Size: 1}}
			attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
		}
	}
	c.SysProcAttr = attr
	return c, nil
}

// aliveFile returns a descriptor of this process, by which the stage knows whether it
// still lives (pidfd_open(2)): its own parent's number says nothing in a PID name
// space.
var aliveFile = sync.OnceValues(func() (*os.File, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("a descriptor of this process (Linux 5.3 or newer is needed): %w", err)
	}
	return os.NewFile(uintptr(fd), "this process"), nil
})

// Supported returns why a program cannot have name spaces of its own here, nil if it can:
// a container may not make any, and for users they may be switched off.
var Supported = sync.OnceValue(func() error {
	b := Box{User: Self(), Spaces: true, Probe: true}
	if os.Geteuid() == 0 {
		b.User = Nobody
	}
	c, err := b.Command("/proc/self/exe", nil, nil)
	if err != nil {
		return err
	}
	out, err := c.CombinedOutput()
	if err != nil && len(out) > 0 {
		return fmt.Errorf("%s", trimmed(out))
	}
	return err
})

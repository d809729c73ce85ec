package vmm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/sandbox"
)

// A Confinement is what a hypervisor may do on the host. nil: all that the launcher may.
type Confinement struct {
	User sandbox.User // whom it becomes; this process's own where that is not root
	// Spaces is nil if it has name spaces of its own, otherwise why it cannot.
	Spaces error
}

// NewConfinement returns the strictest confinement that this host allows. as is the
// user that the hypervisor becomes, a name or UID:GID; "" is one of its own for root,
// and this process's for others.
func NewConfinement(as string) (c *Confinement, err error) {
	c = &Confinement{}
	switch root := os.Geteuid() == 0; {
	case as != "" && !root:
		return nil, fmt.Errorf("only root can make %s of the hypervisor", as)
	case as != "":
		c.User, err = sandbox.ParseUser(as)
	case root:
		c.User, err = sandbox.Own()
	default:
		c.User = sandbox.Self()
	}
	c.Spaces = sandbox.Supported()
	return c, err
}

// String describes it for the user.
func (c *Confinement) String() string {
	if c == nil {
		return "not confined: it has all rights of this process"
	}
	s := "confined: " + c.User.String() + ", no capabilities"
	if c.Spaces != nil {
		return s + fmt.Sprintf("; but it sees the host's files, processes and network, because name spaces cannot be had: %v", c.Spaces)
	}
	return s + ", a root and processes of its own"
}

// Paths in the root of a hypervisor.
const (
	insideImage   = "/thurward.img"
	insideSockets = "/sockets/"
	insideSite    = "/run"
	kvmDevice     = "/dev/kvm"
)

// Limits of a hypervisor.
const (
	maxFiles   = 256        // descriptors
	maxThreads = 64         // of a user of its own
	maxLog     = 64 << 20   // bytes of a file that it writes
	ownKVM     = 512 << 20  // bytes of memory beside the guest's: libraries' data, stacks
	ownTCG     = 1536 << 20 // and translated code, for which QEMU takes up to 1 GB
	addresses  = 4 << 30    // bytes of address space beside the guest's memory
)

// box returns the box of a hypervisor for a machine. own is how much memory it may have
// beside the machine's, file how long a file that it writes may be, in bytes.
func (c *Confinement) box(m *Config, own, file uint64) sandbox.Box {
	b := sandbox.Box{User: c.User, Spaces: c.Spaces == nil, Families: []int{unix.AF_UNIX}}
	b.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if v := os.Getenv(passOnVar); v != "" {
		b.Env = append(b.Env, passOnVar+"="+v)
	}
	if m.KVM {
		b.Devices = []string{kvmDevice}
	}
	b.Limits = []sandbox.Limit{
		// 1 is less than any core and, other than 0, also no core for a program that
		// takes them (core(5)).
		{Resource: unix.RLIMIT_CORE, Value: 1},
		{Resource: unix.RLIMIT_NOFILE, Value: maxFiles},
		{Resource: unix.RLIMIT_DATA, Value: uint64(m.MemoryMB)<<20 + own},
		{Resource: unix.RLIMIT_AS, Value: uint64(m.MemoryMB)<<20 + addresses},
		{Resource: unix.RLIMIT_FSIZE, Value: file},
		{Resource: unix.RLIMIT_MEMLOCK, Value: 0},
		{Resource: unix.RLIMIT_MSGQUEUE, Value: 0},
	}
	if os.Geteuid() == 0 && c.User.Name == "" { // others count with a user's other processes
		b.Limits = append(b.Limits, sandbox.Limit{Resource: unix.RLIMIT_NPROC, Value: maxThreads})
	}
	return b
}

// tunDevice makes and opens TAP devices.
const tunDevice = "/dev/net/tun"

// beside returns the command for a hypervisor that has its files in the folder of a
// site, and opens its TAP devices itself: it is in the host's network for them, where
// it may open no sockets but those of files.
func (c *Confinement) beside(m *Config, s *site, program string, args []string, more ...sandbox.File) (*exec.Cmd, error) {
	file := uint64(maxLog)
	if m.saved { // by a file as long as its memory
		file = max(file, uint64(m.MemoryMB)<<20)
	}
	b := c.box(m, ownKVM, file)
	b.Net, b.System, b.Dir = true, true, s.within
	b.Files = more
	b.Devices = append(b.Devices, tunDevice)
	b.Files = append(b.Files, sandbox.File{From: s.dir, To: insideSite, Writable: true})
	if b.Spaces {
		f, err := c.image(m.Image)
		if err != nil {
			return nil, err
		}
		b.Files = append(b.Files, f)
	}
	return b.Command(program, args, nil)
}

// passOnVar is the only variable of the launcher's environment that a hypervisor gets;
// tests tell their stand-ins by it what to do.
const passOnVar = "THURWARD_STANDIN"

// image returns an image as a file of a box. A user that may not read it gets a copy.
func (c *Confinement) image(path string) (sandbox.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return sandbox.File{}, err
	}
	private := os.Geteuid() == 0 && st.Mode().Perm()&0o004 == 0
	path, err = filepath.Abs(path)
	return sandbox.File{From: path, To: insideImage, Copy: private}, err
}

// inside replaces the path of a socket in QEMU's arguments by one in its root: where it is
// the whole path, which a single comma ends, not where another one begins with it.
func inside(args []string, path, by string) {
	for i, a := range args {
		before, after, ok := strings.Cut(a, ",path="+escape(path))
		if i == 0 || args[i-1] != "-chardev" || !ok {
			continue
		}
		if after == "" || after[0] == ',' && !strings.HasPrefix(after, ",,") {
			args[i] = before + ",path=" + by + after
		}
	}
}

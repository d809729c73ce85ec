package sandbox

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denied are system calls that no virtual machine monitor needs, and that reach
// other processes, the machine, or parts of the kernel that are seldom used and often
// wrong. A monitor has a filter of its own beside this one, that it loads once it is
// set up.
var denied = []uint32{
	// other processes
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP,
	unix.SYS_KILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO,
	unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL,
	// name spaces and mounts
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_QUOTACTL,
	// the machine
	unix.SYS_REBOOT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE,
	unix.SYS_DELETE_MODULE, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_SYSLOG,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP,
	// large and seldom used
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_FANOTIFY_INIT, unix.SYS_LOOKUP_DCOOKIE,
}

// missing are system calls that seem not to be there: programs have another way then.
// clone3 has its flags in memory, where a filter cannot look.
var missing = []uint32{unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// newSpaces are the flags of clone(2) that make name spaces.
const newSpaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in seccomp_data: the number of the call, the architecture, and the low half
// of an argument.
const (
	offNr   = 0
	offArch = 4
)

func offArg(n uint32) uint32 { return 16 + 8*n }

// A program of BPF (seccomp(2)).
type filter []unix.SockFilter

func (f *filter) load(off uint32) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off})
}

func (f *filter) ret(k uint32) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k})
}

// unless skips the next n instructions if the loaded word is not k.
func (f *filter) unless(k uint32, n uint8) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n})
}

// skipIf skips the next n instructions if the loaded word is k.
func (f *filter) skipIf(k uint32, n uint8) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: n})
}

// unlessAny skips the next n instructions if the loaded word has none of the bits k.
func (f *filter) unlessAny(k uint32, n uint8) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: k, Jf: n})
}

// What a filter answers.
const (
	allow  = unix.SECCOMP_RET_ALLOW
	errno  = unix.SECCOMP_RET_ERRNO
	noCall = errno | uint32(unix.ENOSYS)
	noPerm = errno | uint32(unix.EPERM)
)

// filter returns the box's filter for the process pid.
func (b *Box) filter(pid int) filter {
	var f filter
	f.load(offArch)
	f.skipIf(arch(), 1)
	f.ret(unix.SECCOMP_RET_KILL_PROCESS)
	f.load(offNr)
	if runtime.GOARCH == "amd64" { // calls of the x32 ABI have this bit
		f.unlessAny(0x40000000, 1)
		f.ret(noCall)
	}
	for _, nr := range append(append([]uint32{}, denied...), deniedHere...) {
		f.unless(nr, 1)
		f.ret(noPerm)
	}
	for _, nr := range missing {
		f.unless(nr, 1)
		f.ret(noCall)
	}
	// Threads of its own may be signalled, and no others. tkill, by which musl's
	// pthread_kill does it, names no process: it is allowed where others are not seen.
	if !b.Spaces {
		f.unless(unix.SYS_TKILL, 1)
		f.ret(noPerm)
	}
	f.unless(unix.SYS_TGKILL, 4)
	f.load(offArg(0))
	f.skipIf(uint32(pid), 1)
	f.ret(noPerm)
	f.ret(allow)

	f.unless(unix.SYS_CLONE, 4)
	f.load(offArg(0))
	f.unlessAny(newSpaces, 1)
	f.ret(noPerm)
	f.ret(allow)

	// Its end with its parent's is not its own business.
	f.unless(unix.SYS_PRCTL, 4)
	f.load(offArg(0))
	f.unless(unix.PR_SET_PDEATHSIG, 1)
	f.ret(noPerm)
	f.ret(allow)

	n := uint8(len(b.Families))
	f.unless(unix.SYS_SOCKET, n+2)
	f.load(offArg(0))
	for i, family := range b.Families {
		f.skipIf(uint32(family), n-uint8(i))
	}
	f.ret(errno | uint32(unix.EAFNOSUPPORT))
	f.ret(allow)
	return f
}

// arch is this program's architecture as the kernel names it.
func arch() uint32 {
	if runtime.GOARCH == "arm64" {
		return unix.AUDIT_ARCH_AARCH64
	}
	return unix.AUDIT_ARCH_X86_64
}

// loadFilter gives this thread a filter, which what it executes keeps.
func loadFilter(f filter) error {
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0)
}

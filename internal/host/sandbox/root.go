package sandbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// systemFolders hold programs, their libraries and firmware. They have nothing that
// not every user may read.
var systemFolders = []string{"/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/nix/store", "/gnu/store"}

// programFiles returns what a program needs of the host to be executed.
func programFiles(program string, system bool) (files []File) {
	if system {
		for _, f := range systemFolders {
			files = append(files, File{From: f, To: f})
			if strings.HasPrefix(program, f+"/") {
				program = ""
			}
		}
	}
	if program == "" {
		return files
	}
	from := program
	// A program elsewhere that has libraries has them, and its data, below the same
	// prefix.
	if dir := filepath.Dir(program); system && isDynamic(program) && filepath.Base(dir) == "bin" && filepath.Dir(dir) != "/" {
		from = filepath.Dir(dir)
	}
	return append(files, File{From: from, To: from})
}

// isDynamic reports whether a program asks for an interpreter (ELF's PT_INTERP).
func isDynamic(program string) bool {
	f, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	return false
}

// newRoot is where the root is put together: a folder that every system has, and of
// which nothing is needed any more once the devices are found.
const newRoot = "/dev"

// maxRoot bounds what can be in the root beside copies, in bytes.
const maxRoot = 256 << 10

// A source is a file of the host that is found before the new root is mounted over
// others.
type source struct {
	File
	fd int
	st unix.Stat_t
	// link is where it leads, if it is a symbolic link of the system's folders
	// ("/lib" to "usr/lib").
	link string
}

// makeRoot makes this process's root a file system in memory that holds the box's files.
// It cannot be written but where a file says so.
func (b *Box) makeRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	files, err := openSources(b.Files)
	if err != nil {
		return err
	}
	var devices []File
	for _, d := range append([]string{"/dev/null", "/dev/zero", "/dev/urandom"}, b.Devices...) {
		devices = append(devices, File{From: d, To: d})
	}
	nodes, err := openSources(devices)
	if err != nil {
		return err
	}
	size := int64(maxRoot)
	for _, f := range files {
		if f.Copy {
			size += f.st.Size + 4096
		}
	}
	options := fmt.Sprintf("mode=755,size=%d", size)
	if err := unix.Mount("root", newRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("a file system in memory: %w", err)
	}
	for _, f := range files {
		if err := f.put(); err != nil {
			return fmt.Errorf("%s: %w", f.From, err)
		}
	}
	for _, n := range nodes {
		if err := b.putDevice(n); err != nil {
			return fmt.Errorf("%s: %w", n.From, err)
		}
	}
	for _, s := range append(files, nodes...) {
		if s.fd >= 0 {
			unix.Close(s.fd)
		}
	}
	return enterRoot()
}

// openSources finds files. Folders of the system that are not there are left out, links
// among them stay links.
func openSources(files []File) (found []source, err error) {
	for _, f := range files {
		s := source{File: f, fd: -1}
		if filepath.Dir(f.From) == "/" {
			if to, err := os.Readlink(f.From); err == nil && f.From == f.To {
				s.link = to
				found = append(found, s)
				continue
			}
		}
		s.fd, err = unix.Open(f.From, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) && f.From == f.To {
			continue
		}
		if err == nil {
			err = unix.Fstat(s.fd, &s.st)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.From, err)
		}
		found = append(found, s)
	}
	return found, nil
}

// path returns the source as a path that leads to it whatever is mounted now.
func (s *source) path() string { return "/proc/self/fd/" + strconv.Itoa(s.fd) }

// put puts a file or folder into the root.
func (s *source) put() error {
	to := newRoot + s.To
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch {
	case s.link != "":
		return os.Symlink(s.link, to)
	case s.Copy:
		b, err := os.ReadFile(s.path())
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o444)
	case s.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
	default:
		if err := touch(to); err != nil {
			return err
		}
	}
	if err := unix.Mount(s.path(), to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if s.Writable {
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	} else {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return setAttr(to, &attr)
}

func setAttr(path string, attr *unix.MountAttr) error {
	err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, attr)
	if err == unix.ENOSYS {
		return errors.New("mount_setattr is missing: Linux 5.12 or newer is needed")
	}
	return err
}

// touch makes an empty file to mount another on.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	return f.Close()
}

// putDevice gives the program a device node. Root makes one that is the program's
// user's; in a user name space the host's own has to do, with its mode.
func (b *Box) putDevice(s source) error {
	to := newRoot + s.To
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		err := unix.Mknod(to, unix.S_IFCHR|0o600, int(s.st.Rdev))
		if err == nil {
			return os.Chown(to, b.User.UID, b.User.GID)
		}
		if err != unix.EPERM {
			return err
		}
	}
	if err := touch(to); err != nil {
		return err
	}
	if err := unix.Mount(s.path(), to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return setAttr(to, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC})
}

// enterRoot makes the new root this process's and gives up the old one.
func enterRoot() error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(unix.AT_FDCWD, newRoot, 0, &attr); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	// The old root is mounted over the new one, and then unmounted (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("the old root: %w", err)
	}
	return os.Chdir("/")
}

package deploy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/peer"
	"golang.org/x/sys/unix"
)

// A folder has the steps by which the folder of a firewall is read and changed. Names are
// relative to it, and lead nowhere else. A step that has returned without an error may be
// undone by a loss of power until the file, or the folder that the name is in, was synced.
type folder interface {
	// create makes a file for this process's user only. The name must be free.
	create(name string) (file, error)
	// read reads a regular file that is no link, of at most limit bytes.
	read(name string, limit int64) ([]byte, error)
	// rename gives a file another name, in one step, whatever had that name before.
	rename(from, to string) error
	remove(name string) error
	symlink(to, name string) error
	// readlink returns where a link leads to, "" if the name is not there, or an error if
	// it is no link.
	readlink(name string) (string, error)
	mkdir(name string) error
	list(dir string) ([]string, error)
	// sync makes what happened to names in a folder last.
	sync(dir string) error
}

// A file that is being written.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

// disk is a folder on disk.
type disk struct {
	root *os.Root
	path string
}

// openDisk opens a folder, in which only trusted users may have names.
func openDisk(path string) (*disk, error) {
	if err := (peer.Users{}).Folder(path); err != nil && os.Geteuid() != 0 {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &disk{root: root, path: path}
	if err := d.checkOwner(); err != nil {
		root.Close()
		return nil, err
	}
	return d, nil
}

// checkOwner returns an error if the folder is one in which other users than its owner can
// change names. The folder that is open is asked, not the path.
func (d *disk) checkOwner() error {
	st, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	if mode := st.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("the folder %s can be written by other users than its owner, mode %#o (chmod go-w %s)", d.path, mode, d.path)
	}
	if uid := owner(st); os.Geteuid() != 0 && uid != os.Geteuid() {
		return fmt.Errorf("the folder %s belongs to uid %d, not to you (run as root, or as that user)", d.path, uid)
	}
	return nil
}

// owns reports whether a user is the folder's owner.
func (d *disk) owns(uid int) bool {
	st, err := d.root.Stat(".")
	return err == nil && owner(st) == uid
}

func owner(st fs.FileInfo) int { return int(st.Sys().(*syscall.Stat_t).Uid) }

func (d *disk) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := d.give(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// give makes a new file the folder's owner's, where root works for a service that is not.
func (d *disk) give(f *os.File) error {
	st, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	s := st.Sys().(*syscall.Stat_t)
	if int(s.Uid) == os.Geteuid() {
		return nil
	}
	return f.Chown(int(s.Uid), int(s.Gid))
}

func (d *disk) read(name string, limit int64) ([]byte, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// os.Root follows links that stay within it.
	if st, err := d.root.Lstat(name); err != nil || !st.Mode().IsRegular() || !os.SameFile(st, opened) {
		return nil, fmt.Errorf("%s is no regular file, or is a link", d.name(name))
	}
	if uid := owner(opened); uid != 0 && uid != os.Geteuid() && !d.owns(uid) {
		return nil, fmt.Errorf("%s belongs to uid %d, which is neither root nor the folder's owner", d.name(name), uid)
	}
	return limited.Read(f, d.name(name), limit)
}

func (d *disk) rename(from, to string) error  { return d.root.Rename(from, to) }
func (d *disk) remove(name string) error      { return d.root.Remove(name) }
func (d *disk) symlink(to, name string) error { return d.root.Symlink(to, name) }

func (d *disk) readlink(name string) (string, error) {
	to, err := d.root.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return to, err
}

func (d *disk) mkdir(name string) error {
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := d.root.Lstat(name)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is no folder", d.name(name))
	}
	if top, err := d.root.Stat("."); err == nil && owner(st) != owner(top) {
		return d.root.Lchown(name, owner(top), int(top.Sys().(*syscall.Stat_t).Gid))
	}
	return nil
}

func (d *disk) list(dir string) ([]string, error) {
	f, err := d.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d *disk) sync(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *disk) name(name string) string { return filepath.Join(d.path, name) }

// lock locks the file of a name, which is made, until the file is closed. With wait it waits
// for the one who has it.
func (d *disk) lock(name string, wait bool) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NONBLOCK, 0o600)
	readOnly := errors.Is(err, unix.EROFS)
	if readOnly { // the lock is not written to, and what nobody can change may be read
		f, err = d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	if !readOnly {
		err = d.give(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		if err = unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Package peer checks which user is at the other end of a Unix socket. Any user may
// have made the socket at a path; only the kernel knows who it was.
package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Users are the users, by number, whose sockets and folders are trusted beside those
// of this process's user and of root.
type Users []uint32

// ParseUsers parses names and numbers of users.
func ParseUsers(names []string) (u Users, err error) {
	for _, n := range names {
		id, err := strconv.ParseUint(n, 10, 32)
		if err != nil {
			x, err := user.Lookup(n)
			if err != nil {
				return nil, fmt.Errorf("%q is no user here (want a name or a number)", n)
			}
			if id, err = strconv.ParseUint(x.Uid, 10, 32); err != nil {
				return nil, fmt.Errorf("user %q has the number %q, which is too large", n, x.Uid)
			}
		}
		u = append(u, uint32(id))
	}
	return u, nil
}

// ErrForeign is the error for a socket or folder of a user that is not trusted.
var ErrForeign = errors.New("belongs to another user")

// Has reports whether a user is this process's user, root, or one of u.
func (u Users) Has(uid uint32) bool {
	return uid == 0 || int(uid) == os.Geteuid() || slices.Contains(u, uid)
}

func (u Users) check(what string, uid uint32) error {
	if u.Has(uid) {
		return nil
	}
	return fmt.Errorf("%s %w (%s), neither to you nor to root: it may be a trap", what, ErrForeign, name(uid))
}

// name returns a user's name, if it is known, and number.
func name(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if x, err := user.LookupId(id); err == nil {
		return x.Username + ", uid " + id
	}
	return "uid " + id
}

// Credentials returns process, user and group at the other end of a connected
// socket: of the process that connected or began to listen (SO_PEERCRED,
// unix(7)). The process is 0 if it is in another PID namespace.
func Credentials(c *net.UnixConn) (*unix.Ucred, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var failed error
	if err := rc.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, failed
}

// Dial connects to the Unix socket at a path. If it is not served by this process's
// user, root, or one of u, the error wraps ErrForeign.
func (u Users) Dial(ctx context.Context, path string) (*net.UnixConn, error) {
	return u.DialFrom(ctx, "", path)
}

// DialFrom is Dial from a socket that has an address itself, "" for none.
func (u Users) DialFrom(ctx context.Context, local, path string) (*net.UnixConn, error) {
	var d net.Dialer
	if local != "" {
		d.LocalAddr = &net.UnixAddr{Name: local, Net: "unix"}
	}
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	uc := c.(*net.UnixConn)
	cred, err := Credentials(uc)
	if err == nil {
		err = u.check("the socket "+path, cred.Uid)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return uc, nil
}

// Socket checks the owner of the socket at a path, to which another process connects.
func (u Users) Socket(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is no socket", path)
	}
	return u.check("the socket "+path, fi.Sys().(*syscall.Stat_t).Uid)
}

// Folder checks that other users cannot replace files in a folder: its owner, and the
// owner of a link to it, are trusted, and others may not write to it unless it has
// the sticky bit, with which they may only remove their own files.
func (u Users) Folder(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if fi.Mode()&os.ModeSymlink != 0 {
		st := fi.Sys().(*syscall.Stat_t)
		if err := u.check("the link "+path, st.Uid); err != nil {
			return err
		}
		if fi, err = os.Stat(path); err != nil {
			return err
		}
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is no folder", path)
	}
	st := fi.Sys().(*syscall.Stat_t)
	if err := u.check("the folder "+path, st.Uid); err != nil {
		return err
	}
	open := fi.Mode().Perm() & 0o002
	if st.Gid != 0 && int(st.Gid) != os.Getegid() {
		open |= fi.Mode().Perm() & 0o020
	}
	if open != 0 && fi.Mode()&os.ModeSticky == 0 {
		return fmt.Errorf("the folder %s can be written by other users (chmod go-w %s)", path, path)
	}
	return nil
}

package vmm

import (
	"context"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/peer"
	"github.com/thurward/thurward/internal/host/sandbox"
)

// maxFDs is how many descriptors a message of vhost-user can have with it; a memory
// table has one for each of its regions.
const maxFDs = 32

// A relay is a socket for a confined QEMU in the place of one that it may not
// connect to, or cannot reach: the launcher connects to that one, checks whose it is,
// and passes messages and descriptors on. Frames do not come by here: they are in
// memory that both ends share.
type relay struct {
	dir  string
	path string
	l    *net.UnixListener
}

// newRelay makes a relay to the socket at a path, for a user.
func newRelay(to string, trusted peer.Users, u sandbox.User, say func(format string, a ...any)) (_ *relay, err error) {
	r := &relay{}
	if r.dir, err = os.MkdirTemp("", "thurward-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(r.dir)
		}
	}()
	r.path = filepath.Join(r.dir, "s")
	if r.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: r.path, Net: "unix"}); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		for _, p := range []string{r.dir, r.path} {
			if err = os.Chown(p, u.UID, u.GID); err != nil {
				r.l.Close()
				return nil, err
			}
		}
	}
	go func() {
		for {
			c, err := r.l.AcceptUnix()
			if err != nil {
				return
			}
			go join(c, to, trusted, say)
		}
	}()
	return r, nil
}

// close gives the socket up. Connections end with their ends.
func (r *relay) close() {
	r.l.Close()
	os.RemoveAll(r.dir)
}

// join joins a connection to the socket at a path until either ends.
func join(c *net.UnixConn, to string, trusted peer.Users, say func(format string, a ...any)) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
	defer cancel()
	far, err := trusted.Dial(ctx, to)
	if err != nil {
		say("network vhost-user:%s: %v", to, err)
		return
	}
	defer far.Close()
	go func() {
		carry(c, far)
		c.Close()
		far.Close()
	}()
	carry(far, c)
}

// carry passes on what comes from one end, with its descriptors, until an end is
// closed or more descriptors come than there is room for.
func carry(to, from *net.UnixConn) {
	data, rights := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, rn, flags, _, err := from.ReadMsgUnix(data, rights)
		fds := receivedFDs(rights[:rn])
		if err == nil && n > 0 && flags&unix.MSG_CTRUNC == 0 {
			_, _, err = to.WriteMsgUnix(data[:n], rights[:rn], nil)
		}
		closeAll(fds)
		if err != nil || n == 0 || flags&unix.MSG_CTRUNC != 0 {
			return
		}
	}
}

// receivedFDs returns the descriptors in a control message.
func receivedFDs(control []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}

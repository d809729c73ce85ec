package vmm

import (
	"context"
	"encoding/binary"
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

// A message of vhost-user is a header of three words, the last of which is the length of
// what follows. Descriptors come with its first byte.
const (
	messageHeader = 12
	maxMessage    = 64 << 10
)

// carry passes on messages from one end, with their descriptors, until an end is closed or
// one is longer, or has more descriptors, than any can have. It must not join two:
// the descriptors of the second would come with the first.
func carry(to, from *net.UnixConn) {
	b, control := make([]byte, messageHeader+maxMessage), make([]byte, unix.CmsgSpace(4*maxFDs))
	for carryOne(to, from, b, control) {
	}
}

// carryOne passes one message on, and reports whether there can be another.
func carryOne(to, from *net.UnixConn, b, control []byte) bool {
	var fds []*os.File
	defer func() { closeAll(fds) }()
	whole := messageHeader
	for have := 0; have < whole; {
		n, rn, flags, _, err := from.ReadMsgUnix(b[have:whole], control)
		fds = append(fds, receivedFDs(control[:rn])...)
		if err != nil || n == 0 || flags&unix.MSG_CTRUNC != 0 || len(fds) > maxFDs {
			return false
		}
		if have += n; have >= messageHeader && whole == messageHeader {
			length := binary.NativeEndian.Uint32(b[8:])
			if length > maxMessage {
				return false
			}
			whole += int(length)
		}
	}
	var rights []byte
	if len(fds) > 0 {
		numbers := make([]int, len(fds))
		for i, f := range fds {
			numbers[i] = int(f.Fd())
		}
		rights = unix.UnixRights(numbers...)
	}
	// The first byte carries the descriptors; a stream may take less than all at once.
	n, _, err := to.WriteMsgUnix(b[:whole], rights, nil)
	if err == nil && n < whole {
		_, err = to.Write(b[n:whole])
	}
	return err == nil
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

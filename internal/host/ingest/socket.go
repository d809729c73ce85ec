package ingest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"

	"github.com/thurward/thurward/internal/host/peer"
)

func listenUnix(path string) (net.Listener, error) {
	if path == "" {
		return nil, errors.New("unix: a path is missing (want unix:PATH)")
	}
	if len(path) > 107 { // sockaddr_un's sun_path, with its zero
		return nil, fmt.Errorf("unix:%s: longer than the 107 bytes that a socket's path may have", path)
	}
	dir := filepath.Dir(path)
	// Where the kernel does not follow another user's links (fs.protected_symlinks),
	// MkdirAll says that there is something in the way, and Folder whose it is.
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := (peer.Users{}).Folder(dir); err != nil {
		return nil, fmt.Errorf("unix:%s: %w (take another place, or set XDG_RUNTIME_DIR)", path, err)
	}
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("unix:%s: there is something else of that name, which is no socket", path)
		}
		if err := (peer.Users{}).Socket(path); err != nil {
			return nil, fmt.Errorf("unix:%s: %w", path, err)
		}
		if err := inUse(path); err != nil {
			return nil, fmt.Errorf("unix:%s: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return &listener{Listener: l, admit: isOurs}, nil
}

// inUse returns nil if no process listens on a socket.
func inUse(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := peer.Users{}.Dial(ctx, path)
	switch {
	case err == nil:
		c.Close()
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	case errors.Is(err, syscall.EAGAIN): // its queue is full
		return ErrInUse
	}
	return err
}

// A listener accepts connections from those whom it admits only.
type listener struct {
	net.Listener
	admit func(net.Conn) bool
}

// Accept waits for the next connection that is admitted, and closes others.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || l.admit(c) {
			return c, err
		}
		c.Close()
	}
}

// isOurs admits processes of this user and of root. Others can connect between the
// socket's creation and the change of its mode.
func isOurs(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	cred, err := peer.Credentials(u)
	return err == nil && peer.Users{}.Has(cred.Uid)
}

// isGuest admits virtual machines, and not the host's own processes, which can
// connect to vsock ports too (vsock(7): VMADDR_CID_LOCAL, VMADDR_CID_HOST).
func isGuest(c net.Conn) bool {
	a, ok := c.RemoteAddr().(*vsock.Addr)
	return ok && a.ContextID > vsock.Host
}

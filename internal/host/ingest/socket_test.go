package ingest

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
)

func TestRunDir(t *testing.T) {
	users := t.TempDir()
	uid := os.Geteuid()
	own := filepath.Join(users, strconv.Itoa(uid))
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(users, "4711"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uid             int
		xdg, user, want string
	}{
		{0, "/xdg", users, "/run/thurward"},
		{1000, "/xdg", users, "/xdg/thurward"},
		{1000, "relative", users, "/tmp/thurward-1000"},
		{1000, "", "/nowhere", "/tmp/thurward-1000"},
		{4711, "", users, "/tmp/thurward-4711"}, // that folder is another's
	} {
		if got := runDir(c.uid, c.xdg, c.user); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if !isOwn(own, uid) {
		t.Error("an own folder is not taken")
	}
}

// flaky accepts after errors.
type flaky struct {
	net.Listener
	errs []error
}

func (f *flaky) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, err
	}
	a, _ := net.Pipe()
	return a, nil
}
func (f *flaky) Close() error { return nil }

// TestAcceptOutlivesALackOfDescriptors: Accept waits until errors have passed,
// and ends when the listener is closed.
func TestAcceptOutlivesALackOfDescriptors(t *testing.T) {
	wrap := func(e syscall.Errno) error { return &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", e)} }
	l := Patient(&flaky{errs: []error{wrap(syscall.EMFILE), wrap(syscall.ENFILE), wrap(syscall.ECONNABORTED)}})
	if c, err := l.Accept(); err != nil || c == nil {
		t.Error(err)
	}
	many := make([]error, 1000)
	for i := range many {
		many[i] = wrap(syscall.EMFILE)
	}
	l = Patient(&flaky{errs: many})
	time.AfterFunc(20*time.Millisecond, func() { l.Close() })
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestListenerAdmits: a connection that is not admitted is closed, and the next
// one accepted.
func TestListenerAdmits(t *testing.T) {
	var refused net.Conn
	l := &listener{Listener: &flaky{}, admit: func(c net.Conn) bool {
		if refused == nil {
			refused = c
			return false
		}
		return true
	}}
	c, err := l.Accept()
	if err != nil || c == refused {
		t.Fatalf("%v, %v", c, err)
	}
	refused.SetWriteDeadline(time.Now()) //nolint:errcheck // a pipe takes one
	if _, err := refused.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the refused connection is open: %v", err)
	}
}

// TestOnlyGuestsByVsock: processes of the host are not admitted.
func TestOnlyGuestsByVsock(t *testing.T) {
	for cid, want := range map[uint32]bool{vsock.Hypervisor: false, vsock.Local: false, vsock.Host: false, 3: true, 1 << 31: true} {
		if got := isGuest(from{&vsock.Addr{ContextID: cid}}); got != want {
			t.Errorf("context id %d: %v", cid, got)
		}
	}
}

type from struct{ a net.Addr }

func (f from) Read([]byte) (int, error)         { return 0, nil }
func (f from) Write([]byte) (int, error)        { return 0, nil }
func (f from) Close() error                     { return nil }
func (f from) LocalAddr() net.Addr              { return f.a }
func (f from) RemoteAddr() net.Addr             { return f.a }
func (f from) SetDeadline(time.Time) error      { return nil }
func (f from) SetReadDeadline(time.Time) error  { return nil }
func (f from) SetWriteDeadline(time.Time) error { return nil }

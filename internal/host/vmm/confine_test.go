package vmm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/sandbox"
	"github.com/thurward/thurward/internal/host/sandbox/captured"
)

// TestCaptured: a hypervisor that was taken over by its guest can do nothing on the host
// but what is listed here and in docs/architecture/08.
func TestCaptured(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other hypervisors' devices need root")
	}
	if err := sandbox.Supported(); err != nil {
		t.Skip(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	dir, err := os.MkdirTemp("/tmp", "thurward-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	x, closeAll, err := captured.Aim(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	standIn(t, standCaptured+string(b))
	q, err := FindQEMU()
	if err != nil {
		t.Fatal(err)
	}
	// User-mode networks are the host's network; TAP devices are found by name.
	tap := []string{"open /dev/net/tun", "connect to an abstract socket"}
	user := []string{"connect to the loopback", "connect to an abstract socket", "AF_INET6"}
	all := hypervisors(t)
	delete(all, "jail")
	all["qemu"], all["qemu-user"] = q, q
	for name, h := range all {
		t.Run(name, func(t *testing.T) {
			var w watched
			c := w.config(t)
			want := tap
			switch name {
			case "qemu":
				want = nil
				c.NICs[0].Backend, c.NICs[1].Backend = serveBackend(func(c net.Conn) { c.Close() }, 1), Unplugged
				c.KVM = false
			case "qemu-user":
				want = user
				u, err := NewBackend(Spec{Kind: User}, Network{Subnet: netip.MustParsePrefix("203.0.113.10/24"), Host: netip.MustParseAddr("203.0.113.1")})
				if err != nil {
					t.Fatal(err)
				}
				c.NICs[0].Backend, c.NICs[1].Backend = u, Unplugged
				c.KVM = false
			}
			m, err := h.Start(c, w.line)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Wait(); err != nil {
				t.Errorf("%v", err)
			}
			got, err := captured.Done(w.console())
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%v: these succeeded: %q, want %q\n%s", err, got, want, w.console())
			}
			if left := leftovers(t); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// TestConfinement: whom a hypervisor becomes, and what is said.
func TestConfinement(t *testing.T) {
	c, err := NewConfinement("")
	if err != nil {
		t.Fatal(err)
	}
	if root := os.Geteuid() == 0; root == (c.User == sandbox.Self()) {
		t.Errorf("%v", c)
	}
	if c.User.UID == 0 {
		t.Error("it is root")
	}
	if c.Spaces = nil; !strings.HasPrefix(c.String(), "confined: uid ") || !strings.HasSuffix(c.String(), "a root and processes of its own") {
		t.Error(c)
	}
	if c.Spaces = errors.New("WHY"); !strings.Contains(c.String(), "it sees the host's files") || !strings.HasSuffix(c.String(), "WHY") {
		t.Error(c)
	}
	if c = nil; !strings.Contains(c.String(), "not confined") {
		t.Error(c)
	}
	if _, err := NewConfinement("root"); err == nil {
		t.Error("root was accepted")
	}
}

// TestImageOfABox: an image that others may not read is copied for another user.
func TestImageOfABox(t *testing.T) {
	dir := t.TempDir()
	c := &Confinement{}
	for name, mode := range map[string]os.FileMode{"open": 0o644, "private": 0o600} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
		want := sandbox.File{From: path, To: insideImage, Copy: mode == 0o600 && os.Geteuid() == 0}
		if f, err := c.image(path); f != want || err != nil {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if _, err := c.image(filepath.Join(dir, "none")); err == nil {
		t.Error("there is none")
	}
}

// TestRelay: messages pass with their descriptors, both ways; an end is the end of both; a
// socket of another user is not used.
func TestRelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backend")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := make(chan string, 10)
	r, err := newRelay(path, nil, sandbox.Self(), func(format string, a ...any) { said <- format })
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	dial := func() *net.UnixConn {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // reads fail then
		return c
	}
	for range 2 { // it connects again
		front := dial()
		back, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		back.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // likewise
		for _, way := range [][2]*net.UnixConn{{front, back}, {back, front}} {
			passFDs(t, way[0], way[1])
		}
		back.Close()
		if n, err := front.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("after its end: %d, %v", n, err)
		}
		front.Close()
	}
	l.Close()
	c := dial()
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("without a back end: %d, %v", n, err)
	}
	if s := <-said; !strings.Contains(s, "vhost-user") {
		t.Error(s)
	}
}

// message is one of vhost-user, with n bytes after its header.
func message(request uint32, n int) []byte {
	b := binary.NativeEndian.AppendUint32(nil, request)
	b = binary.NativeEndian.AppendUint32(b, 1) // version
	b = binary.NativeEndian.AppendUint32(b, uint32(n))
	return append(b, bytes.Repeat([]byte{byte(request)}, n)...)
}

// passFDs sends a message without descriptors and, before the first is read, one that has as
// many as there can be: each comes with its own.
func passFDs(t *testing.T, from, to *net.UnixConn) {
	t.Helper()
	p, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer w.Close()
	fds := make([]int, maxFDs)
	for i := range fds {
		fds[i] = int(w.Fd())
	}
	first, second := message(1, 8), message(2, 300)
	if _, err := from.Write(first); err != nil {
		t.Fatal(err)
	}
	if _, _, err := from.WriteMsgUnix(second, unix.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]byte{first, second} {
		b, control := make([]byte, len(want)), make([]byte, 4096)
		n, cn, _, _, err := to.ReadMsgUnix(b, control)
		got := receivedFDs(control[:cn])
		defer closeAll(got)
		if !bytes.Equal(b[:n], want) || len(got) != i*maxFDs || err != nil {
			t.Fatalf("message %d: %x with %d descriptors, %v", i, b[:n], len(got), err)
		}
		for _, f := range got {
			if _, err := f.WriteString("x"); err != nil {
				t.Error(err)
			}
		}
	}
	if n, err := p.Read(make([]byte, 100)); n != maxFDs || err != nil {
		t.Errorf("%d bytes by them, %v", n, err)
	}
}

// TestRelayRefuses: a message that is longer than any, and more descriptors than any has,
// end the connection.
func TestRelayRefuses(t *testing.T) {
	long := message(1, 0)
	binary.NativeEndian.PutUint32(long[8:], maxMessage+1)
	for name, send := range map[string]func(c *net.UnixConn) error{
		"length": func(c *net.UnixConn) error { _, err := c.Write(long); return err },
		"descriptors": func(c *net.UnixConn) error {
			_, _, err := c.WriteMsgUnix(message(1, 0), unix.UnixRights(slices.Repeat([]int{1}, maxFDs+1)...), nil)
			return err
		},
	} {
		a, theirs, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		b, far, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.FileConn(theirs)
		if err = errors.Join(err, send(c.(*net.UnixConn))); err != nil {
			t.Fatal(err)
		}
		done := make(chan bool)
		go func() { carry(b, a); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it goes on", name)
		}
		a.Close()
		b.Close()
		c.Close()
		closeAll([]*os.File{theirs, far})
	}
}

// TestInsideIsOnePath: a socket's path is replaced where it is the whole path, not where the
// other network's begins with it, and not in what the user has the guest told.
func TestInsideIsOnePath(t *testing.T) {
	for _, c := range []struct{ lan, wan string }{
		{"/run/vu", "/run/vu2"}, {"/run/vu2", "/run/vu"}, {"/run/vu", "/run/vu,2"}, {"/run/vu", "/run/vu,"},
		{"/run/vu,", "/run/vu,,"}, {"/run/a", "/run/b"}, // the twin
	} {
		for _, v := range []Version{{8, 2}, {9, 2}} {
			at := func(path string) string { return "socket,id=c,path=" + escape(path) + reconnect(v) }
			said := "x=y,path=" + escape(c.lan)
			args := []string{"-append", said, "-chardev", at(c.lan), "-chardev", at(c.wan)}
			inside(args, c.lan, "/sockets/0")
			inside(args, c.wan, "/sockets/1")
			want := []string{"-append", said, "-chardev", at("/sockets/0"), "-chardev", at("/sockets/1")}
			if !slices.Equal(args, want) {
				t.Errorf("%s and %s: %q, want %q", c.lan, c.wan, args, want)
			}
		}
	}
}

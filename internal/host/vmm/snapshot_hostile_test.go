package vmm

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSnapshotTakesNoLinks: of what a hypervisor that was taken over leaves in its folder only
// files of its own are taken into a snapshot, which is given to its user.
func TestSnapshotTakesNoLinks(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		make func(path string) error
		take bool
	}{
		{"a link", func(p string) error { return os.Symlink(secret, p) }, false},
		{"a link to what is not there", func(p string) error { return os.Symlink(secret+"x", p) }, false},
		{"another name of a file", func(p string) error { return os.Link(secret, p) }, false},
		{"a pipe", func(p string) error { return unix.Mkfifo(p, 0o600) }, false},
		{"a folder", func(p string) error { return os.Mkdir(p, 0o700) }, false},
		{"nothing", func(string) error { return nil }, false},
		{"a file of its own", func(p string) error { return os.WriteFile(p, []byte("state"), 0o600) }, true}, // the twin
	} {
		s := &site{dir: t.TempDir(), uid: os.Geteuid()}
		if err := c.make(filepath.Join(s.dir, fileState)); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(t.TempDir(), fileState)
		err := s.take(fileState, to)
		b, _ := os.ReadFile(to) //nolint:errcheck // empty where it is not there
		if (err == nil) != c.take || string(b) == "secret" || c.take && string(b) != "state" {
			t.Errorf("%s: %q, %v", c.what, b, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Log("only root can make another user's file: not tried")
		return
	}
	s := &site{dir: t.TempDir(), uid: 12345}
	path := filepath.Join(s.dir, fileState)
	if err := os.WriteFile(path, []byte("state"), 0o600); err != nil {
		t.Fatal(err)
	}
	for uid, take := range map[int]bool{12346: false, 12345: true} {
		to := filepath.Join(t.TempDir(), fileState)
		if err := os.Chown(path, uid, -1); err != nil {
			t.Fatal(err)
		}
		if err := s.take(fileState, to); (err == nil) != take {
			t.Errorf("a file of uid %d: %v", uid, err)
		}
	}
}

// TestAPISocketIsNoLink: a hypervisor that was taken over puts a link in its API socket's place;
// what the launcher says there, as root, does not go where it leads.
func TestAPISocketIsNoLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "other")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 2)
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path })}
	go srv.Serve(l) //nolint:errcheck // it is closed
	defer srv.Close()
	link := filepath.Join(dir, fileAPI)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := apiCallWithin(apiLimit, link, http.MethodPatch, "/link", nil); err == nil || len(asked) != 0 {
		t.Errorf("by a link: %v, %d requests", err, len(asked))
	}
	if _, err := apiCallWithin(apiLimit, path, http.MethodPatch, "/own", nil); err != nil || <-asked != "/own" { // the twin
		t.Errorf("the socket itself: %v", err)
	}
	if _, err := apiCallWithin(apiLimit, link+"x", http.MethodPatch, "/none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket that is not there yet: %v", err)
	}
}

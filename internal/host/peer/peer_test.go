package peer

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// foreign is a user that is neither root nor, as a rule, who runs the tests.
const foreign = 65534

func TestUsers(t *testing.T) {
	u, err := ParseUsers([]string{"0", "4711", "root"})
	if err != nil || len(u) != 3 || u[1] != 4711 || u[2] != 0 {
		t.Errorf("%v, %v", u, err)
	}
	for _, bad := range []string{"-1", "no such user", "4294967296", ""} {
		if _, err := ParseUsers([]string{bad}); err == nil || !strings.Contains(err.Error(), "is no user here") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if !u.Has(4711) || !u.Has(0) || !u.Has(uint32(os.Geteuid())) || os.Geteuid() != foreign && u.Has(foreign) {
		t.Error("the wrong users")
	}
}

func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Users{}.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if cred, err := Credentials(c); err != nil || int(cred.Uid) != os.Geteuid() || int(cred.Pid) != os.Getpid() {
		t.Errorf("%+v, %v", cred, err)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, mode)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	link := filepath.Join(dir, "link")
	file := filepath.Join(dir, "file")
	own := make("own", 0o700)
	if err := errors.Join(os.Symlink(own, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		own: "", make("readable", 0o755): "", make("sticky", 0o777|os.ModeSticky): "", link: "",
		make("open", 0o777): "can be written by other users", file: "is no folder", filepath.Join(dir, "none"): "no such file",
	} {
		if err := (Users{}).Folder(path); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	theirs, trap := make("theirs", 0o700), filepath.Join(dir, "trap")
	if err := errors.Join(os.Chown(theirs, foreign, foreign), os.Symlink(own, trap), os.Lchown(trap, foreign, foreign)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{theirs, trap} {
		if err := (Users{}).Folder(path); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", path, err)
		}
		if err := (Users{foreign}).Folder(path); err != nil {
			t.Errorf("%s, trusted: %v", path, err)
		}
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := (Users{}).Socket(path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := (Users{}).Socket(path); err != nil {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, foreign, foreign); err != nil {
		t.Fatal(err)
	}
	if err := (Users{}).Socket(path); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "it may be a trap") {
		t.Error(err)
	}
}

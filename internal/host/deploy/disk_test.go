package deploy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// opened returns the store of a new folder with one image in it.
func opened(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "edge"), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	deployed(t, s, "first")
	return s
}

// deployed makes an image the current one.
func deployed(t *testing.T, s *Store, image string) Entry {
	t.Helper()
	e, err := s.Put(strings.NewReader(image), anyPolicy)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Record()
	if err != nil && !errors.Is(err, ErrNone) {
		t.Fatal(err)
	}
	if err := s.Set(r.Next(e, time.Unix(1e9, 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recover(); err != nil {
		t.Fatal(err)
	}
	return e
}

// whole checks that a folder has the current image it should have, by record and link.
func whole(t *testing.T, s *Store, what, want string) {
	t.Helper()
	r, err := s.Record()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	b, err := s.Image(&r.Current)
	if err != nil || string(b) != want {
		t.Errorf("%s: the record's image is %q, %v", what, b, err)
	}
	if b, err := os.ReadFile(filepath.Join(s.Path, "current")); err != nil || string(b) != want {
		t.Errorf("%s: current is %q, %v", what, b, err)
	}
}

// TestFolderOnDisk: two images, one after the other, and both links.
func TestFolderOnDisk(t *testing.T) {
	s := opened(t)
	deployed(t, s, "second")
	deployed(t, s, "third")
	whole(t, s, "after three", "third")
	if b, err := os.ReadFile(filepath.Join(s.Path, "previous")); err != nil || string(b) != "second" {
		t.Errorf("previous is %q, %v", b, err)
	}
	for name, mode := range map[string]os.FileMode{".": 0o700, "images": 0o700, "state.json": 0o600} {
		if st, err := os.Lstat(filepath.Join(s.Path, name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	names, err := os.ReadDir(filepath.Join(s.Path, "images"))
	if err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
}

// TestPolicyIsKept: beside its image, as long as that is there; what was changed is not
// taken for it.
func TestPolicyIsKept(t *testing.T) {
	s := opened(t)
	sum := sha256.Sum256([]byte("rules"))
	e, err := s.Put(strings.NewReader("second"), func([]byte) (string, error) { return "sha256:" + hex.EncodeToString(sum[:]), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Policy(&e); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	if err := s.KeepPolicy(&e, []byte("rules")); err != nil {
		t.Fatal(err)
	}
	r, err := s.Record()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set(r.Next(e, time.Unix(1e9, 0))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recover(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "x", "/../x", "../x", ".", ".a/b", ".A", ".a."} {
		if err := s.Keep(&e, suffix, nil); err == nil {
			t.Errorf("a name that ends in %q", suffix)
		}
	}
	if err := s.Keep(&e, ".sigstore.json", []byte("{}")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(s.ImagePath(&e) + ".sigstore.json"); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := s.Policy(&e); err != nil || string(b) != "rules" {
		t.Errorf("%q, %v", b, err)
	}
	if err := os.WriteFile(s.ImagePath(&e)+policyEnd, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Policy(&e); err == nil || !strings.Contains(err.Error(), "was changed") {
		t.Errorf("a changed one: %v", err)
	}
	deployed(t, s, "third")
	deployed(t, s, "fourth")
	if _, err := s.Policy(&e); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its image: %v", err)
	}
	if names, err := os.ReadDir(filepath.Join(s.Path, images)); err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
}

// TestTrapsInTheFolder: what lies in the folder in place of what should be there is refused,
// or replaced, and nothing outside is read or written.
func TestTrapsInTheFolder(t *testing.T) {
	link := func(name string) func(t *testing.T, s *Store, secret string) {
		return func(t *testing.T, s *Store, secret string) {
			p := filepath.Join(s.Path, name)
			if err := os.RemoveAll(p); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(secret, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		trap func(t *testing.T, s *Store, secret string)
		why  string // "": it is deployed all the same
	}{
		"nothing":                            {func(*testing.T, *Store, string) {}, ""},
		"a link as the record":               {link(recordName), "state.json"},
		"a link as the next record":          {link(nextName), ""},
		"a link as current":                  {link(currentName), ""},
		"a link as previous":                 {link(previousName), ""},
		"a link as the new link":             {link(linkNext), ""},
		"a link as the image that comes in":  {link(incoming), ""},
		"a link as the folder of the images": {link(images), "images"},
		"a file as the folder of the images": {func(t *testing.T, s *Store, _ string) {
			os.RemoveAll(filepath.Join(s.Path, images))                     //nolint:errcheck // WriteFile fails then
			os.WriteFile(filepath.Join(s.Path, images), []byte("x"), 0o600) //nolint:errcheck // the test fails then
		}, "images"},
		"a pipe as the record": {func(t *testing.T, s *Store, _ string) {
			os.Remove(filepath.Join(s.Path, recordName)) //nolint:errcheck // it is there
			mkfifo(t, filepath.Join(s.Path, recordName))
		}, "no regular file"},
		"a folder as current": {func(t *testing.T, s *Store, _ string) {
			os.Remove(filepath.Join(s.Path, currentName))          //nolint:errcheck // it is there
			os.MkdirAll(filepath.Join(s.Path, "current/x"), 0o700) //nolint:errcheck // the test fails then
		}, "current"},
		"an image of another user": {func(t *testing.T, s *Store, _ string) {
			if os.Geteuid() != 0 {
				t.Skip("only root may give files away")
			}
			p := filepath.Join(s.Path, recordName)
			if err := os.Chown(p, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}, "belongs to uid 65534"},
		"a record with another form": {func(t *testing.T, s *Store, _ string) {
			edit(t, filepath.Join(s.Path, recordName), `"version": 1`, `"version": 2`)
		}, "form 2"},
		"a record with a path as image": {func(t *testing.T, s *Store, _ string) {
			r, err := s.Record()
			if err != nil {
				t.Fatal(err)
			}
			edit(t, filepath.Join(s.Path, recordName), r.Current.Image, "../../../../etc/passwd")
		}, "is no SHA-256"},
		"a record with more behind it": {func(t *testing.T, s *Store, _ string) {
			edit(t, filepath.Join(s.Path, recordName), "\n}\n", "\n}\n{}")
		}, "something follows"},
	} {
		t.Run(name, func(t *testing.T) {
			secret := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(secret, []byte(`{"version":1}`), 0o600); err != nil {
				t.Fatal(err)
			}
			s := opened(t)
			c.trap(t, s, secret)
			err := func() error {
				e, err := s.Put(strings.NewReader("second"), anyPolicy)
				if err != nil {
					return err
				}
				r, err := s.Record()
				if err != nil {
					return err
				}
				if err := s.Set(r.Next(e, time.Unix(1e9, 0))); err != nil {
					return err
				}
				_, err = s.Recover()
				return err
			}()
			if c.why == "" {
				if err != nil {
					t.Error(err)
				}
				whole(t, s, name, "second")
			} else if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, want %q", err, c.why)
			}
			if b, err := os.ReadFile(secret); err != nil || string(b) != `{"version":1}` {
				t.Errorf("the file outside is %q, %v", b, err)
			}
			if names, err := os.ReadDir(filepath.Dir(secret)); err != nil || len(names) != 1 {
				t.Errorf("beside the file outside: %v, %v", names, err)
			}
		})
	}
}

// edit changes a file.
func edit(t *testing.T, path, old, with string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%q, %v", b, err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(old), []byte(with), 1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFolderOfOthers: a folder in which others may write is refused, with the remedy; the
// owner's alone is not.
func TestFolderOfOthers(t *testing.T) {
	dir := t.TempDir()
	for mode, fine := range map[os.FileMode]bool{0o700: true, 0o750: true, 0o755: true, 0o770: false, 0o777: false, 0o702: false} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, true)
		if fine {
			if err != nil {
				t.Errorf("mode %o: %v", mode, err)
				continue
			}
			s.Close()
		} else if err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none"), false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// TestOthersFilesAreGiven: what root writes into the folder of a service's user is that
// user's.
func TestOthersFilesAreGiven(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root works in folders of others")
	}
	dir := filepath.Join(t.TempDir(), "edge")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	release, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	e := deployed(t, s, "first")
	release()
	for _, name := range []string{images, e.path(), recordName, lockName} {
		if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || owner(st) != 65534 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

func TestNames(t *testing.T) {
	for name, fine := range map[string]bool{"edge": true, "fw-1": true, "a.b_c": true, "7": true, strings.Repeat("a", 32): true,
		"": false, ".": false, "..": false, "../edge": false, "a/b": false, "/etc": false, "a\x00": false, "-rf": false, "a-": false, "Edge": false, "a b": false, "a\n": false, "é": false,
		strings.Repeat("a", 33): false, "a;reboot": false, "%i": false, "a@b": false} {
		if err := CheckName(name); (err == nil) != fine {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestTwoAtOnce: one changes the folder at a time, and one service runs it; when it is done
// another may.
func TestTwoAtOnce(t *testing.T) {
	a := opened(t)
	b, err := Open(a.Path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for name, l := range map[string]struct {
		a, b func() (func(), error)
		err  error
	}{"changes": {a.Lock, b.Lock, ErrBusy}, "runs": {a.Run, b.Run, ErrRuns}} {
		release, err := l.a()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.b(); !errors.Is(err, l.err) {
			t.Errorf("%s: a second one: %v", name, err)
		}
		release()
		if release, err = l.b(); err != nil {
			t.Errorf("%s: after the first: %v", name, err)
		} else {
			release()
		}
	}
}

// TestImageThatChanges: the file is read once. What is kept is what was hashed, though the
// file has become another meanwhile; and an image that was changed later is not started.
func TestImageThatChanges(t *testing.T) {
	s := opened(t)
	path := filepath.Join(t.TempDir(), "x.img")
	if err := os.WriteFile(path, bytes.Repeat([]byte("good"), 100000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	half := &changes{r: f, at: 200000, do: func() {
		if err := os.WriteFile(path, bytes.Repeat([]byte("evil"), 100000), 0o600); err != nil {
			t.Error(err)
		}
	}}
	checked := ""
	e, err := s.Put(half, func(b []byte) (string, error) { checked = string(b); return "", nil })
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Image(&e)
	if err != nil || string(b) != checked || !strings.Contains(checked, "evil") || !strings.Contains(checked, "good") {
		t.Errorf("what was kept is not what was checked: %v", err)
	}
	if err := os.WriteFile(s.ImagePath(&e), append(b, 'x'), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Image(&e); err == nil || !strings.Contains(err.Error(), "was changed or damaged") {
		t.Errorf("a changed image: %v", err)
	}
	if _, err := s.Put(io.LimitReader(zeros{}, MaxImage+1), anyPolicy); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("an endless image: %v", err)
	}
	if _, err := s.Put(strings.NewReader("x"), func([]byte) (string, error) { return "", errors.New("no image") }); err == nil {
		t.Error("what is no image was taken in")
	}
	whole(t, s, "after that", "first")
}

// changes does something once at bytes were read.
type changes struct {
	r  io.Reader
	at int
	do func()
	n  int
}

func (c *changes) Read(b []byte) (int, error) {
	if c.n < c.at && c.n+len(b) > c.at {
		b = b[:c.at-c.n]
	}
	n, err := c.r.Read(b)
	if c.n += n; c.n == c.at && c.do != nil {
		c.do()
		c.do = nil
	}
	return n, err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func FuzzRecord(f *testing.F) {
	r := Record{Current: Entry{Image: strings.Repeat("ab", 32)}}
	b, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"current":{"image":"../x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b)
		if err != nil {
			return
		}
		if r.Current.check() != nil || r.Previous != nil && r.Previous.check() != nil {
			t.Errorf("%+v", r)
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again); err != nil {
			t.Errorf("%s: %v", again, err)
		}
	})
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names in the folder.
const (
	recordName   = "state.json"
	nextName     = "state.next"
	currentName  = "current"
	previousName = "previous"
	linkNext     = ".link"
	images       = "images"
	imageEnd     = ".img"
	policyEnd    = ".yaml"
	incoming     = images + "/.incoming"
	lockName     = "lock"
	runningName  = "running"
	ControlName  = "control"
)

// maxRules is the largest size of a rules.yaml in bytes.
const maxRules = 16 << 20

// MaxImage is the largest size of an image in bytes.
const MaxImage = 128 << 20

// ErrBusy is the error of who wants to change a folder that somebody else changes.
var ErrBusy = errors.New("another deployment of this firewall is under way")

// ErrRuns is the error of who needs that no service runs.
var ErrRuns = errors.New("the firewall's service runs")

// ErrReadOnly is the error of what would change a folder that is on a read-only file system.
var ErrReadOnly = unix.EROFS

// ErrNone is the error where no image was ever deployed.
var ErrNone = errors.New("no image was deployed yet")

// A Store is the folder of one firewall. One goroutine uses it.
type Store struct {
	dir  folder
	disk *disk // nil in tests
	Path string
}

// Open opens a folder, and makes it with create.
func Open(path string, create bool) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if create {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	d, err := openDisk(path)
	if err != nil {
		return nil, fmt.Errorf("the firewall's folder: %w", err)
	}
	return &Store{dir: d, disk: d, Path: path}, nil
}

// Close gives the folder up.
func (s *Store) Close() { s.disk.root.Close() }

// Lock makes this process the only one that changes the folder, until release is called or
// the process ends. While another one does the error is ErrBusy.
func (s *Store) Lock() (release func(), err error) {
	f, err := s.disk.lock(lockName, false)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Run makes this process the service that runs the firewall, until release is called or the
// process ends. While another one is the error is ErrRuns.
func (s *Store) Run() (release func(), err error) {
	f, err := s.disk.lock(runningName, false)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrRuns
	}
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// Record reads which image is to run.
func (s *Store) Record() (Record, error) {
	b, err := s.dir.read(recordName, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, ErrNone
	}
	if err != nil {
		return Record{}, err
	}
	r, err := decode(b)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", filepath.Join(s.Path, recordName), err)
	}
	return r, nil
}

// Put takes an image in: it is read once, what was read is hashed, and it lasts when Put
// returns. policy is what is known of the contents. The caller has the lock.
func (s *Store) Put(r io.Reader, policy func(image []byte) (string, error)) (Entry, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxImage+1))
	if err != nil {
		return Entry{}, err
	}
	if len(b) > MaxImage {
		return Entry{}, fmt.Errorf("the image is longer than %d MB", MaxImage>>20)
	}
	sum := sha256.Sum256(b)
	e := Entry{Image: hex.EncodeToString(sum[:]), Size: int64(len(b))}
	if e.Policy, err = policy(b); err != nil {
		return Entry{}, err
	}
	if err := s.dir.mkdir(images); err != nil {
		return Entry{}, err
	}
	if _, err := s.Image(&e); err == nil {
		return e, s.dir.sync(images) // whoever put it there may not have come so far
	}
	if err := s.write(incoming, b); err != nil {
		return Entry{}, err
	}
	if err := s.dir.rename(incoming, e.path()); err != nil {
		return Entry{}, err
	}
	if err := s.dir.sync(images); err != nil {
		return Entry{}, err
	}
	return e, s.dir.sync(".")
}

// Ends of the names of files that are kept beside an image, with it.
var suffixForm = regexp.MustCompile(`^\.[a-z]+(\.[a-z]+)*$`)

// Keep keeps a file beside an image, whose name ends in suffix: what is known of it, and its
// signatures. The caller has the lock, and has checked that it is the image's.
func (s *Store) Keep(e *Entry, suffix string, b []byte) error {
	if err := e.check(); err != nil {
		return err
	}
	if !suffixForm.MatchString(suffix) {
		return fmt.Errorf("%q is not the end of a name", suffix)
	}
	if err := s.write(incoming, b); err != nil {
		return err
	}
	if err := s.dir.rename(incoming, e.path()+suffix); err != nil {
		return err
	}
	return s.dir.sync(images)
}

// KeepPolicy keeps the rules.yaml of an image, so that a later one can be compared with it.
func (s *Store) KeepPolicy(e *Entry, rules []byte) error { return s.Keep(e, policyEnd, rules) }

// Policy returns the rules.yaml of an image that was kept, or an error that wraps
// fs.ErrNotExist. It is the one of which the image has the digest.
func (s *Store) Policy(e *Entry) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b, err := s.dir.read(e.path()+policyEnd, maxRules)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); "sha256:"+hex.EncodeToString(sum[:]) != e.Policy {
		return nil, fmt.Errorf("%s was changed", filepath.Join(s.Path, e.path()+policyEnd))
	}
	return b, nil
}

// write makes a file that lasts; its name does not, yet. What had the name is removed.
func (s *Store) write(name string, b []byte) error {
	if err := s.dir.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.dir.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		s.dir.remove(name) //nolint:errcheck // a full disk gets its room back if it can be
	}
	return err
}

// Image reads an image, and checks that it is the one that was deployed.
func (s *Store) Image(e *Entry) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	b, err := s.dir.read(e.path(), MaxImage)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != e.Image {
		return nil, fmt.Errorf("%s was changed or damaged: its SHA-256 is %x", filepath.Join(s.Path, e.path()), sum)
	}
	return b, nil
}

// ImagePath returns where an image lies on the host.
func (s *Store) ImagePath(e *Entry) string { return filepath.Join(s.Path, e.path()) }

// Prepare writes a record that Commit makes the one that counts. What a disk has no room for
// fails here, and changes nothing. The caller has the lock.
func (s *Store) Prepare(r Record) error {
	b, err := r.encode()
	if err != nil {
		return err
	}
	if err := s.write(nextName, b); err != nil {
		return err
	}
	return s.dir.sync(".")
}

// Commit makes the record that Prepare wrote the one that counts. If it returns an error it
// is not known which one does: Record says so.
func (s *Store) Commit() error {
	if err := s.dir.rename(nextName, recordName); err != nil {
		return err
	}
	return s.dir.sync(".")
}

// Abandon forgets the record that Prepare wrote.
func (s *Store) Abandon() {
	s.dir.remove(nextName) //nolint:errcheck // Recover does it otherwise
}

// Set is Prepare and Commit.
func (s *Store) Set(r Record) error {
	if err := s.Prepare(r); err != nil {
		return err
	}
	return s.Commit()
}

// Recover puts the folder in order after any end of a deployment: it removes what was not
// committed, and images that the record does not name, and makes the links. The caller has
// the lock. Where nothing was deployed it returns ErrNone.
func (s *Store) Recover() (Record, error) {
	r, err := s.Record()
	if err != nil {
		return r, err
	}
	s.Abandon()
	if err := s.link(currentName, &r.Current); err != nil {
		return r, err
	}
	if err := s.link(previousName, r.Previous); err != nil {
		return r, err
	}
	names, err := s.dir.list(images)
	if err != nil {
		return r, err
	}
	for _, n := range names {
		digest, _, _ := strings.Cut(n, ".")
		if digest != r.Current.Image && (r.Previous == nil || digest != r.Previous.Image) {
			if err := s.dir.remove(images + "/" + n); err != nil {
				return r, err
			}
		}
	}
	return r, s.dir.sync(".")
}

// link makes a link to an image, or removes it.
func (s *Store) link(name string, e *Entry) error {
	want := ""
	if e != nil {
		want = e.path()
	}
	have, err := s.dir.readlink(name)
	if err == nil && have == want {
		return nil
	}
	if want == "" {
		return s.dir.remove(name)
	}
	if err := s.dir.remove(linkNext); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.dir.symlink(want, linkNext); err != nil {
		return err
	}
	return s.dir.rename(linkNext, name)
}

// Next returns the record after an image has taken the current one's place.
func (r *Record) Next(e Entry, now time.Time) Record {
	e.Since = now.UTC().Truncate(time.Second)
	n := Record{Current: e, Previous: r.Previous}
	if r.Current.Image != "" && r.Current.Image != e.Image {
		was := r.Current
		n.Previous = &was
	}
	return n
}

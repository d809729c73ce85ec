package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/limited"
)

// A disk in memory that loses power. What happened to the names in one folder has an order:
// after a loss of power some beginning of it has happened, which contains what was synced; of
// two folders each has its own. Of a file that was not synced any part may be there, of one
// that was all of it.
type model struct {
	ops    []op           // on names, in order
	synced map[string]int // by folder: how many of ops it has for certain
	steps  int            // done so far
	die    int            // at this step the power fails; 0: never
	full   int            // from this step on the disk is full; 0: never
}

type op struct {
	dir, name string
	to        *node // nil: removed
}

type node struct {
	data   []byte
	synced int // bytes
	link   string
	isDir  bool
}

var errPower = errors.New("the power failed")

// step counts a step, and fails if the power does.
func (m *model) step() error {
	m.steps++
	if m.die > 0 && m.steps >= m.die {
		return errPower
	}
	return nil
}

// room fails if the disk is full.
func (m *model) room() error {
	if m.full > 0 && m.steps >= m.full {
		return syscall.ENOSPC
	}
	return nil
}

func newModel() *model { return &model{synced: map[string]int{}} }

// names returns what is there after so many operations in each folder.
func (m *model) names(most func(dir string) int) map[string]*node {
	all, done := map[string]*node{}, map[string]int{}
	for _, o := range m.ops {
		if done[o.dir]++; done[o.dir] > most(o.dir) {
			continue
		}
		p := path.Join(o.dir, o.name)
		if o.to == nil {
			delete(all, p)
		} else {
			all[p] = o.to
		}
	}
	for p := range all {
		if d := path.Dir(p); d != "." && all[d] == nil {
			delete(all, p)
		}
	}
	return all
}

// count returns how many operations there were in a folder.
func (m *model) count(dir string) (n int) {
	for _, o := range m.ops {
		if o.dir == dir {
			n++
		}
	}
	return n
}

func (m *model) every() map[string]*node { return m.names(func(string) int { return len(m.ops) }) }

func (m *model) now(name string) *node { return m.every()[path.Clean(name)] }

func (m *model) put(name string, n *node) {
	m.ops = append(m.ops, op{path.Dir(name), path.Base(name), n})
}

// after returns the disks that a loss of power may leave.
func (m *model) after(each func(what string, d *model)) {
	top, below := m.count("."), m.count(images)
	for n := m.synced["."]; n <= top; n++ {
		for i := m.synced[images]; i <= below; i++ {
			m.afterOf(n, i, each)
		}
	}
}

// afterOf is after with so many operations in the folder and in that of images.
func (m *model) afterOf(n, i int, each func(what string, d *model)) {
	left := m.names(func(dir string) int { return map[string]int{".": n, images: i}[dir] })
	for _, kept := range []string{"nothing", "half", "all"} {
		d := newModel()
		for _, p := range slices.Sorted(maps.Keys(left)) {
			was := left[p]
			x := &node{link: was.link, isDir: was.isDir, data: slices.Clone(was.data)}
			switch kept {
			case "nothing":
				x.data = x.data[:was.synced]
			case "half":
				x.data = x.data[:was.synced+(len(x.data)-was.synced)/2]
			}
			x.synced = len(x.data)
			d.put(p, x)
		}
		each(fmt.Sprintf("%d and %d of %d operations on names, %s of what was not synced", n, i, len(m.ops), kept), d)
	}
}

type modelFile struct {
	m *model
	n *node
}

func (m *model) create(name string) (file, error) {
	if err := m.step(); err != nil {
		return nil, err
	}
	if m.now(name) != nil {
		return nil, fs.ErrExist
	}
	if err := m.room(); err != nil {
		return nil, err
	}
	n := &node{}
	m.put(name, n)
	return &modelFile{m, n}, nil
}

func (f *modelFile) Write(b []byte) (int, error) {
	if err := f.m.step(); err != nil {
		f.n.data = append(f.n.data, b[:len(b)/2]...)
		return 0, err
	}
	if err := f.m.room(); err != nil {
		f.n.data = append(f.n.data, b[:len(b)/2]...)
		return len(b) / 2, err
	}
	f.n.data = append(f.n.data, b...)
	return len(b), nil
}

func (f *modelFile) Sync() error {
	if err := f.m.step(); err != nil {
		return err
	}
	f.n.synced = len(f.n.data)
	return nil
}

func (f *modelFile) Close() error { return nil }

func (m *model) read(name string, limit int64) ([]byte, error) {
	n := m.now(name)
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return limited.Read(bytes.NewReader(n.data), name, limit)
}

func (m *model) rename(from, to string) error {
	if err := m.step(); err != nil {
		return err
	}
	n := m.now(from)
	if n == nil {
		return fs.ErrNotExist
	}
	// One operation: the folders here are on one file system.
	m.put(to, n)
	m.ops = append(m.ops, op{path.Dir(from), path.Base(from), nil})
	return nil
}

func (m *model) remove(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	if m.now(name) == nil {
		return fs.ErrNotExist
	}
	m.put(name, nil)
	return nil
}

func (m *model) symlink(to, name string) error {
	if err := m.step(); err != nil {
		return err
	}
	if err := m.room(); err != nil {
		return err
	}
	m.put(name, &node{link: to})
	return nil
}

func (m *model) readlink(name string) (string, error) {
	if n := m.now(name); n != nil {
		return n.link, nil
	}
	return "", nil
}

func (m *model) mkdir(name string) error {
	if err := m.step(); err != nil {
		return err
	}
	if m.now(name) == nil {
		m.put(name, &node{isDir: true})
	}
	return nil
}

func (m *model) list(dir string) (names []string, err error) {
	for p := range m.every() {
		if path.Dir(p) == dir {
			names = append(names, path.Base(p))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *model) sync(dir string) error {
	if err := m.step(); err != nil {
		return err
	}
	m.synced[dir] = m.count(dir)
	return nil
}

// host is a machine that is run from a folder: what it runs, which a loss of power ends.
type host struct {
	running string
	done    string // the last image of which a deployment has ended well
}

// boot runs what the folder says.
func (h *host) boot(t *testing.T, d *model, what string) Record {
	t.Helper()
	s := &Store{dir: d}
	r, err := s.Recover()
	if errors.Is(err, ErrNone) {
		h.running = ""
		return r
	}
	if err != nil {
		t.Fatalf("%s: recovery: %v", what, err)
	}
	if _, err := s.Image(&r.Current); err != nil {
		t.Fatalf("%s: the current image: %v", what, err)
	}
	if r.Previous != nil {
		if _, err := s.Image(r.Previous); err != nil {
			t.Fatalf("%s: the previous image: %v", what, err)
		}
	}
	h.running = r.Current.Image
	return r
}

func anyPolicy([]byte) (string, error) { return "sha256:00", nil }

// change deploys an image as the service does: the machines change between Prepare and
// Commit. It goes back if Commit fails, or if the image is not healthy.
func (h *host) change(s *Store, image string, healthy bool) error {
	e, err := s.Put(strings.NewReader(image), anyPolicy)
	if err != nil {
		return err
	}
	r, err := s.Record()
	if err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	if err := s.Prepare(r.Next(e, time.Unix(1e9, 0))); err != nil {
		return err
	}
	was := h.running
	h.running = e.Image
	if !healthy {
		h.running = was
		s.Abandon()
		_, err := s.Recover()
		return err
	}
	if err := s.Commit(); err != nil {
		if now, e2 := s.Record(); e2 != nil || now.Current.Image != e.Image {
			h.running = was
		}
		return err
	}
	h.done = e.Image
	_, err = s.Recover()
	return err
}

// agree fails if what the folder says is not what runs.
func (h *host) agree(t *testing.T, d *model, what string) {
	t.Helper()
	s := &Store{dir: d}
	r, err := s.Record()
	if err != nil && !errors.Is(err, ErrNone) {
		t.Fatalf("%s: %v", what, err)
	}
	if r.Current.Image != h.running {
		t.Fatalf("%s: %.8s runs, the record says %.8s", what, h.running, r.Current.Image)
	}
	if r.Current.Image == "" {
		return
	}
	if link, err := d.readlink(currentName); err != nil || link != r.Current.path() {
		t.Fatalf("%s: current leads to %q", what, link)
	}
	want := ""
	if r.Previous != nil {
		want = r.Previous.path()
	}
	if link, err := d.readlink(previousName); err != nil || link != want {
		t.Fatalf("%s: previous leads to %q, want %q", what, link, want)
	}
	names, err := d.list(images)
	if most := 2; err != nil || len(names) > most {
		t.Fatalf("%s: %d images are kept: %v", what, len(names), names)
	}
}

// scenario makes the changes of one test on a disk, and returns the first error.
func scenario(h *host, s *Store) error {
	for _, c := range []struct {
		image   string
		healthy bool
	}{{"first", true}, {"second", true}, {"broken", false}, {"third", true}, {"second", true}} {
		if err := h.change(s, c.image, c.healthy); err != nil {
			return err
		}
	}
	return nil
}

// TestPowerLost: the power fails at each step of several deployments, and leaves each disk
// that it may. What runs after that is what the record says, whole, with the image before
// it; the links agree; and the next deployment works.
func TestPowerLost(t *testing.T) {
	whole := newModel()
	h := &host{}
	if err := scenario(h, &Store{dir: whole}); err != nil {
		t.Fatal(err)
	}
	h.agree(t, whole, "without a fault")
	states := 0
	for k := 1; k <= whole.steps; k++ {
		m := newModel()
		m.die = k
		before := &host{}
		if err := scenario(before, &Store{dir: m}); !errors.Is(err, errPower) {
			t.Fatalf("step %d: %v", k, err)
		}
		m.after(func(what string, d *model) {
			states++
			what = fmt.Sprintf("power lost at step %d, %s", k, what)
			h := &host{}
			h.boot(t, d, what)
			h.agree(t, d, what)
			if h.running != before.done && h.running != before.running {
				t.Fatalf("%s: %.8s runs; %.8s was deployed", what, h.running, before.done)
			}
			if err := h.change(&Store{dir: d}, "next", true); err != nil {
				t.Fatalf("%s: the next deployment: %v", what, err)
			}
			h.agree(t, d, what+", and another deployment")
		})
	}
	if whole.steps < 60 || states < 500 {
		t.Errorf("%d steps, %d disks: the test has lost its point", whole.steps, states)
	}
	t.Logf("%d steps, %d disks", whole.steps, states)
}

// TestKilled: the process is killed at each step; the disk stays as it is, and what the
// machines do is over, too.
func TestKilled(t *testing.T) {
	for k := 1; ; k++ {
		m := newModel()
		m.die = k
		if err := scenario(&host{}, &Store{dir: m}); err == nil {
			break
		}
		m.die = 0
		h := &host{}
		h.boot(t, m, fmt.Sprintf("killed at step %d", k))
		h.agree(t, m, fmt.Sprintf("killed at step %d", k))
	}
}

// TestDiskFull: the disk is full from each step on. The deployment fails or not, what runs
// is what the record says, and with room again everything works.
func TestDiskFull(t *testing.T) {
	for k := 1; ; k++ {
		m := newModel()
		m.full = k
		h := &host{}
		err := scenario(h, &Store{dir: m})
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("full from step %d on: %v", k, err)
		}
		r, err := (&Store{dir: m}).Record()
		if err != nil && !errors.Is(err, ErrNone) || r.Current.Image != h.running {
			t.Fatalf("full from step %d on: %.8s runs, the record says %.8s, %v", k, h.running, r.Current.Image, err)
		}
		m.full = 0
		h.boot(t, m, fmt.Sprintf("full from step %d on", k))
		h.agree(t, m, fmt.Sprintf("full from step %d on", k))
	}
}

package vmm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/sandbox"
)

// A Snapshot is a machine of Firecracker's that was saved when its rules were live, and what
// it was made of. Any number of machines start from one. Its memory holds the machine's
// secrets: the folder is its owner's alone.
type Snapshot struct {
	Dir string `json:"-"`

	Layout      int      `json:"layout"` // snapshotLayout
	Firecracker string   `json:"firecracker"`
	Image       string   `json:"image_sha256"`
	PCI         bool     `json:"pci"`
	MemoryMB    int      `json:"memory_mb"`
	Args        string   `json:"boot_args"`
	NICs        []string `json:"nics"` // their hardware addresses, LAN first
	Vsock       bool     `json:"vsock"`
}

// snapshotLayout is the version of the folder.
const snapshotLayout = 1

// Names in a snapshot's folder; those of the first two also in a machine's.
const (
	fileState    = "state"
	fileMemory   = "memory"
	fileManifest = "snapshot.json"
)

// Versions of Firecracker: the first in which a snapshot can be given other TAP devices, and
// the first whose restored clock can go on by the time that has passed.
var (
	firecrackerTaps  = Version{1, 12}
	firecrackerClock = Version{1, 16}
)

// SnapshotError returns why this Firecracker can make and load no snapshots, or nil.
func (f *Firecracker) SnapshotError() error {
	if !f.atLeast(firecrackerTaps) {
		return fmt.Errorf("%s is version %s; a snapshot can be given other networks from %d.%d on", f.Path, f.Version, firecrackerTaps.Major, firecrackerTaps.Minor)
	}
	return nil
}

func (f *Firecracker) atLeast(v Version) bool {
	has, err := parseVersion("version " + f.Version)
	return err == nil && has.AtLeast(v.Major, v.Minor)
}

// describe returns what a snapshot of a machine would say.
func (f *Firecracker) describe(c *Config) (*Snapshot, error) {
	b, err := limited.ReadFile(c.Image, maxImage)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	s := &Snapshot{Layout: snapshotLayout, Firecracker: f.Version, Image: hex.EncodeToString(sum[:]), PCI: f.PCI, MemoryMB: c.MemoryMB, Args: c.Cmdline(),
		Vsock: c.Vsock.Path != ""}
	for _, n := range c.NICs {
		s.NICs = append(s.NICs, n.MAC)
	}
	return s, nil
}

// maxManifest bounds the size of a manifest in bytes.
const maxManifest = 64 << 10

// OpenSnapshot reads what a snapshot was made of.
func OpenSnapshot(dir string) (*Snapshot, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b, err := limited.ReadFile(filepath.Join(abs, fileManifest), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a whole snapshot: there is no %s in it (make one: thurward run --vmm firecracker --snapshot %s)", dir, fileManifest, dir)
	} else if err != nil {
		return nil, err
	}
	s := &Snapshot{Dir: abs}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileManifest), err)
	}
	if s.Layout != snapshotLayout {
		return nil, fmt.Errorf("%s has layout %d, this launcher reads %d: make it anew", dir, s.Layout, snapshotLayout)
	}
	st, err := os.Stat(filepath.Join(abs, fileMemory))
	if err == nil && st.Size() != int64(s.MemoryMB)<<20 {
		err = fmt.Errorf("%s: has %d bytes, want %d MB: make it anew", filepath.Join(dir, fileMemory), st.Size(), s.MemoryMB)
	}
	return s, err
}

// Fits returns what of a machine is not as in the snapshot, or nil: what runs is what was
// saved, whatever the machine's configuration says.
func (s *Snapshot) Fits(f *Firecracker, c *Config) error {
	want, err := f.describe(c)
	if err != nil {
		return err
	}
	other := func(what string, has, want any) error {
		return fmt.Errorf("the snapshot in %s was made with %s %v, not %v: make it anew", s.Dir, what, has, want)
	}
	switch {
	case s.Image != want.Image:
		return fmt.Errorf("the snapshot in %s was made of another image than %s: make it anew, or name its own", s.Dir, c.Image)
	case s.Firecracker != want.Firecracker:
		return other("Firecracker", s.Firecracker, want.Firecracker)
	case s.PCI != want.PCI:
		return other("--pci", s.PCI, want.PCI)
	case s.MemoryMB != want.MemoryMB:
		return other("a memory in MB of", s.MemoryMB, want.MemoryMB)
	case s.Vsock != want.Vsock:
		return other("a vsock device", s.Vsock, want.Vsock)
	case !slices.Equal(s.NICs, want.NICs):
		return other("the hardware addresses", s.NICs, want.NICs)
	case s.Args != want.Args:
		return other("the boot arguments", s.Args, want.Args)
	}
	return nil
}

// saveLimit is how long writing a snapshot may take.
const saveLimit = time.Minute

// MakeSnapshot boots a machine and saves it in a new folder once its rules are live. The
// machine has ended when MakeSnapshot returns.
func (f *Firecracker) MakeSnapshot(ctx context.Context, c Config, dir string, o RunOptions) (err error) {
	if err := f.SnapshotError(); err != nil {
		return err
	}
	s, err := f.describe(&c)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil { // what is there may be in use
		return fmt.Errorf("a snapshot wants a new folder: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	c.saved = true
	g, err := Start(f, c, o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan Outcome, 1)
	go func() { ended <- g.Wait(ctx) }()
	select {
	case <-g.Ready():
		err = g.m.save(dir)
	case out := <-ended:
		cancel(nil)
		if err := context.Cause(ctx); err != nil && out.err() == nil {
			return err
		}
		return errors.Join(errors.New("no snapshot: the firewall did not become ready"), out.err())
	}
	g.m.kill() // it is paused, and cannot end in order
	cancel(nil)
	if out := <-ended; err == nil && out.Crash != "" {
		err = errors.New("no snapshot: the firewall crashed: " + out.Crash)
	}
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, fileManifest), append(b, '\n'), 0o600) // last: the snapshot is whole
}

// save stops the machine of a site and saves it in dir. The files are this process's user's,
// or that of the user by whose name the hypervisor is confined, whose machines then share
// the memory in which they do not differ.
func (s *site) save(dir string, c *Confinement) error {
	socket := filepath.Join(s.dir, fileAPI)
	if _, err := apiCallWithin(apiLimit, socket, http.MethodPatch, "/vm", []byte(`{"state":"Paused"}`)); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"snapshot_type": "Full", "snapshot_path": filepath.Join(s.within, fileState), "mem_file_path": filepath.Join(s.within, fileMemory)})
	if err != nil {
		return err
	}
	if _, err := apiCallWithin(saveLimit, socket, http.MethodPut, "/snapshot/create", body); err != nil {
		return err
	}
	for _, name := range []string{fileState, fileMemory} {
		if err := s.take(name, filepath.Join(dir, name)); err != nil {
			return err
		}
		if c != nil && c.User.Name != "" {
			if err := s.give(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// fcLoad is the body of a request to load a snapshot.
type fcLoad struct {
	State  string    `json:"snapshot_path"`
	Memory fcBackend `json:"mem_backend"`
	Taps   []fcTap   `json:"network_overrides"`
	Clock  bool      `json:"clock_realtime,omitempty"`
	Resume bool      `json:"resume_vm"`
}

type fcBackend struct {
	Type string `json:"backend_type"`
	Path string `json:"backend_path"`
}

type fcTap struct {
	ID   string `json:"iface_id"`
	Host string `json:"host_dev_name"`
}

// loadRequest returns the request by which a machine with the given TAP devices starts from
// a snapshot, whose files have the given paths. Where the clock can go on by the time that
// has passed, it does: flows whose time is over then are over.
func (f *Firecracker) loadRequest(c *Config, taps []string, state, memory string) *fcLoad {
	l := &fcLoad{State: state, Memory: fcBackend{"File", memory}, Clock: f.atLeast(firecrackerClock), Resume: true}
	for i, n := range c.NICs {
		l.Taps = append(l.Taps, fcTap{nicID(i, n), taps[i]})
	}
	return l
}

// load has the Firecracker that was started last begin with the snapshot.
func (f *Firecracker) load(m *Machine, c *Config, s *site) error {
	body, err := json.Marshal(f.loadRequest(c, s.taps, s.state, s.memory))
	if err != nil {
		return err
	}
	socket := filepath.Join(s.dir, fileAPI)
	for late := time.After(saveLimit); ; {
		_, err = apiCallWithin(saveLimit, socket, http.MethodPut, "/snapshot/load", body)
		// It may not listen yet.
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		select {
		case <-m.done:
			return m.Wait()
		case <-late:
			return err
		case <-time.After(2 * time.Millisecond):
		}
	}
	if err != nil {
		return fmt.Errorf("loading the snapshot in %s: %w", f.From.Dir, err)
	}
	return nil
}

// place puts the snapshot where Firecracker finds it, and returns what its root must hold
// for that. Who may not read the files gets copies.
func (f *Firecracker) place(s *site) (files []sandbox.File, err error) {
	at := map[string]*string{fileState: &s.state, fileMemory: &s.memory}
	for _, name := range []string{fileState, fileMemory} {
		from := filepath.Join(f.From.Dir, name)
		st, err := os.Stat(from)
		if err != nil {
			return nil, err
		}
		its, ok := st.Sys().(*syscall.Stat_t)
		mine := ok && int(its.Uid) == s.uid && f.Jail == nil
		switch {
		case mine && f.Confine != nil && f.Confine.Spaces == nil:
			*at[name] = "/" + name
			files = append(files, sandbox.File{From: from, To: *at[name]})
		case mine:
			*at[name] = from
		default:
			*at[name] = filepath.Join(s.within, name)
			to := filepath.Join(s.dir, name)
			if err := duplicate(from, to); err != nil {
				return nil, err
			}
			if err := s.give(to); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// take copies a file that the hypervisor has written to a new one. The hypervisor may have
// been taken over, and its folder is its own: a link there would have this process, which is
// root, read and give away what the link leads to, and a pipe would have it wait.
func (s *site) take(name, to string) error {
	path := filepath.Join(s.dir, name)
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return err
	}
	// A file of this user's is none that the hypervisor could have put there: a second name
	// of one would be counted.
	its, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() || its.Nlink != 1 || int(its.Uid) != s.uid && int(its.Uid) != os.Geteuid() {
		return fmt.Errorf("the hypervisor's %s is no file of its own: it is not taken", path)
	}
	return copyTo(to, io.LimitReader(r, st.Size())) // it may grow meanwhile
}

// duplicate copies to a new file that is its owner's alone.
func duplicate(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	return copyTo(to, r)
}

func copyTo(to string, r io.Reader) (err error) {
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	_, err = w.ReadFrom(r) // by the kernel, which may share the blocks
	return err
}

package vmm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSnapshot: a machine is saved once it is ready, and another starts from it with its own
// TAP devices, in the jail, too. What is saved is its owner's alone.
func TestSnapshot(t *testing.T) {
	standIn(t, "stops")
	for name, h := range hypervisors(t) {
		f, ok := h.(*Firecracker)
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var w watched
			c := w.config(t)
			dir := filepath.Join(t.TempDir(), "snapshot")
			if err := f.MakeSnapshot(ctx, c, dir, RunOptions{OnLine: w.line}); err != nil {
				t.Fatalf("%v; console:\n%s", err, w.console())
			}
			for _, file := range []string{"", fileState, fileMemory, fileManifest} {
				st, err := os.Stat(filepath.Join(dir, file))
				if err != nil || st.Mode().Perm()&0o077 != 0 {
					t.Errorf("%q: %v %v", file, st, err)
				}
			}
			s, err := OpenSnapshot(dir)
			if err != nil {
				t.Fatal(err)
			}
			from := *f
			from.From = s
			g, err := Start(&from, c, RunOptions{OnLine: w.line})
			if err != nil {
				t.Fatal(err)
			}
			<-g.Ready()
			stop, end := context.WithCancel(ctx)
			end()
			if o := g.Wait(stop); !o.Ready || !o.Stopped {
				t.Errorf("%+v", o)
			}
			for _, want := range []string{"net lan t0", "net wan t1", "clock true"} {
				if !strings.Contains(w.console(), want) {
					t.Errorf("no %q on the console:\n%s", want, w.console())
				}
			}
			if w.drops != 4 {
				t.Errorf("%d TAP devices given up, want 4", w.drops)
			}
		})
	}
}

// TestSnapshotFails: a folder that is not whole does not stay, and one that was there is not
// touched; a machine that cannot be loaded is said to be so.
func TestSnapshotFails(t *testing.T) {
	standIn(t, "stops")
	f, err := FindFirecracker()
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good")
	var w watched
	c := w.config(t)
	if err := f.MakeSnapshot(t.Context(), c, good, RunOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := f.MakeSnapshot(t.Context(), c, good, RunOptions{}); err == nil || !strings.Contains(err.Error(), "new folder") {
		t.Errorf("over another: %v", err)
	}
	s, err := OpenSnapshot(good)
	if err != nil {
		t.Fatalf("the first is gone: %v", err)
	}
	for does, want := range map[string]string{"does not save": "/snapshot/create", "refuses": "no policy", "crashes": "", "says nothing": "did not become ready"} {
		t.Setenv(standInVar, does)
		dir := filepath.Join(t.TempDir(), "bad")
		err := f.MakeSnapshot(t.Context(), c, dir, RunOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", does, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: a folder stays", does)
		}
	}
	t.Setenv(standInVar, "does not load")
	from := *f
	from.From = s
	if _, err := Start(&from, c, RunOptions{}); err == nil || !strings.Contains(err.Error(), "loading the snapshot") {
		t.Errorf("does not load: %v", err)
	}
	old := &Firecracker{Path: f.Path, Version: "1.11.0"}
	if err := old.MakeSnapshot(t.Context(), c, filepath.Join(t.TempDir(), "x"), RunOptions{}); err == nil || !strings.Contains(err.Error(), "1.12") {
		t.Errorf("an old Firecracker: %v", err)
	}
}

// TestSnapshotFits: what is not as when the machine was saved is named.
func TestSnapshotFits(t *testing.T) {
	standIn(t, "stops")
	f, err := FindFirecracker()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "snapshot")
	var w watched
	c := w.config(t)
	if err := f.MakeSnapshot(t.Context(), c, dir, RunOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fits(f, &c); err != nil {
		t.Errorf("the same: %v", err)
	}
	other := c
	other.NICs = append([]NIC(nil), c.NICs...)
	other.NICs[0].Tap = nil // other networks are what snapshots are for
	if err := s.Fits(f, &other); err != nil {
		t.Errorf("other networks: %v", err)
	}
	for name, change := range map[string]func(f *Firecracker, c *Config){
		"another image": func(_ *Firecracker, c *Config) {
			c.Image = filepath.Join(t.TempDir(), "other")
			if err := os.WriteFile(c.Image, []byte("other"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"Firecracker 1.16.1": func(f *Firecracker, _ *Config) { f.Version = "1.17.0" },
		"--pci":              func(f *Firecracker, _ *Config) { f.PCI = true },
		"a memory in MB":     func(_ *Firecracker, c *Config) { c.MemoryMB = 128 },
		"a vsock device":     func(_ *Firecracker, c *Config) { c.Vsock.Path = "/run/v" },
		"hardware addresses": func(_ *Firecracker, c *Config) {
			c.NICs = append([]NIC(nil), c.NICs...)
			c.NICs[1].MAC = "52:54:00:00:00:01"
		},
		"boot arguments":            func(_ *Firecracker, c *Config) { c.Append = "GODEBUG=x=1" },
		"no such file or directory": func(_ *Firecracker, c *Config) { c.Image = "/nowhere" },
	} {
		g, d := *f, c
		change(&g, &d)
		if err := s.Fits(&g, &d); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func() error{
		"there is no " + fileManifest: func() error { return os.Remove(filepath.Join(dir, fileManifest)) },
		"layout 7":                    func() error { return os.WriteFile(filepath.Join(dir, fileManifest), []byte(`{"layout":7}`), 0o600) },
		"invalid character":           func() error { return os.WriteFile(filepath.Join(dir, fileManifest), []byte("no"), 0o600) },
		"make it anew": func() error {
			return os.WriteFile(filepath.Join(dir, fileManifest), []byte(`{"layout":1,"memory_mb":32}`), 0o600)
		},
		"too large": func() error { return os.Truncate(filepath.Join(dir, fileManifest), maxManifest+1) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenSnapshot(dir); err == nil {
			t.Errorf("%s: opened", name)
		} else if name != "too large" && !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

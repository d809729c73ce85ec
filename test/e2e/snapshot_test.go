package e2e

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
)

// config is a machine of another hypervisor than QEMU, with both networks on the wire.
func (w *wire) config(image string) vmm.Config {
	w.t.Helper()
	c := vmm.Config{Image: image, KVM: true, MemoryMB: 64, CPUs: 1, Verdicts: vmm.ConsoleVerdicts}
	for i, sw := range []*netlab.Switch{w.lan, w.wan} {
		tap, err := vmm.NewTap(vmm.Spec{Kind: vmm.Demo}, vmm.Network{Serve: sw.ServeVM})
		if err != nil {
			w.t.Fatal(err)
		}
		r := []vmm.Role{vmm.LAN, vmm.WAN}[i]
		c.NICs = append(c.NICs, vmm.NIC{Role: r, MAC: vmm.DefaultMAC(r), Tap: tap})
	}
	return c
}

// TestSnapshots: firewalls that start from one snapshot of Firecracker's are ready at once,
// pass what is allowed, send random numbers of their own, and have the time of day; without a
// vsock device, by the generation id alone, as with one.
func TestSnapshots(t *testing.T) {
	image := clonesImage(t)
	onOthers(t, func(t *testing.T, h vmm.Hypervisor) {
		f, ok := h.(*vmm.Firecracker)
		if !ok {
			t.Skip("only Firecracker's snapshots are used")
		}
		for name, vsock := range map[string]bool{"vsock": true, "generation id": false} {
			t.Run(name, func(t *testing.T) {
				w := newWire(t)
				c := w.config(image)
				var r *receiver
				if vsock {
					r = newReceiver(t)
					r.listen()
					c.Vsock.Path = r.path
				}
				dir := filepath.Join(t.TempDir(), "snapshot")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := f.MakeSnapshot(ctx, c, dir, vmm.RunOptions{}); err != nil {
					t.Fatal(err)
				}
				s, err := vmm.OpenSnapshot(dir)
				if err != nil {
					t.Fatal(err)
				}
				from := *f
				from.From = s
				time.Sleep(2 * time.Second) // so that the clock is behind
				var of [2]drawn
				instances := []string{r.instance()}
				for i := range of {
					of[i] = w.startFrom(ctx, &from, c)
					if id := r.instance(); vsock && (id == "" || slices.Contains(instances, id)) {
						t.Errorf("the stream's instance is %q, and was %q", id, instances)
					} else {
						instances = append(instances, id)
					}
				}
				if same := of[0].differ(of[1]); len(same) > 0 {
					t.Errorf("two machines from one snapshot send the same %s: %+v and %+v", strings.Join(same, ", "), of[0], of[1])
				}
			})
		}
	})
}

// instance returns the instance of which the stream's last connection was, "" for none.
func (r *receiver) instance() (id string) {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if _, rest, ok := strings.Cut(l, `"service.instance.id":"`); ok && strings.HasPrefix(l, "# HELLO ") {
			id, _, _ = strings.Cut(rest, `"`)
		}
	}
	return id
}

// startFrom starts a machine from a snapshot, looks at its numbers and its clock, and ends
// it in good order.
func (w *wire) startFrom(ctx context.Context, f *vmm.Firecracker, c vmm.Config) drawn {
	w.t.Helper()
	begun := time.Now()
	l := &lab{t: w.t, ready: make(chan vmm.ReadyInfo, 10), change: make(chan struct{}), ended: make(chan error, 1)}
	g, err := vmm.Start(f, c, vmm.RunOptions{OnLine: l.line})
	if err != nil {
		w.t.Fatal(err)
	}
	run, end := context.WithCancel(ctx)
	over := make(chan vmm.Outcome, 1)
	go func() { over <- g.Wait(run) }()
	l.awaitReady()
	took := time.Since(begun)
	d := w.draw(4000)
	if w.connects(5000, []byte{198, 51, 100, 80}) { // no name of it is known
		w.t.Error("a connection passes that no rule allows")
	}
	e := l.event(match{Action: "drop", DstPort: 80})
	late := time.Since(e.Time())
	if late < -100*time.Millisecond || late > silence+5*time.Second {
		w.t.Errorf("an event of just now says %v", e.Time())
	}
	end()
	if o := <-over; !o.Stopped {
		w.t.Errorf("it did not end in good order: %+v", o)
	}
	w.t.Logf("%v: ready after %v, an event %v ago", f, took.Round(time.Millisecond), late.Round(time.Millisecond))
	return d
}

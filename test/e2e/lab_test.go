// Package e2e proves the behaviour of the booted image, with simulated and with
// real hosts on both sides, under TCG always and under KVM where there is one.
package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
)

const (
	// limit is for what must happen; it takes milliseconds on an idle host, on which one
	// machine runs.
	limit = 30 * time.Second
	// silence is how long a test waits for what must not happen.
	silence = 300 * time.Millisecond
)

// each runs f under every accelerator of this host, beside other tests (see atOnce).
func each(t *testing.T, f func(t *testing.T, kvm bool)) {
	t.Helper()
	t.Parallel()
	eachAlone(t, func(t *testing.T, kvm bool) {
		t.Parallel()
		f(t, kvm)
	})
}

// eachAlone is each for tests that measure time, take all of the host, or look at all that
// this process has started: no other test runs meanwhile.
func eachAlone(t *testing.T, f func(t *testing.T, kvm bool)) {
	t.Helper()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	t.Run("tcg", func(t *testing.T) { f(t, false) })
	t.Run("kvm", func(t *testing.T) {
		if why := noKVM(); why != "" {
			t.Skip(why)
		}
		f(t, true)
	})
}

// noKVM says why the tests do not run under KVM here, or "": there is none, or
// the image does not come up under it.
var noKVM = sync.OnceValue(func() string {
	q, err := vmm.FindQEMU()
	if err != nil {
		return err.Error()
	}
	image, err := defaultImage()
	if err != nil {
		return err.Error()
	}
	kvm, why, err := q.Choose(context.Background(), vmm.Auto, image, 64)
	if err != nil {
		return err.Error()
	}
	if !kvm {
		return why
	}
	return ""
})

// A lab is the image between the two sides of a simulated network.
type lab struct {
	*netlab.Network
	t        testing.TB
	ready    chan vmm.ReadyInfo // one for each start
	lan, wan *capture
	breaks   bool // the machine may end within a line of its console
	cancel   context.CancelFunc
	ended    chan error

	mu     sync.Mutex
	lines  []string
	events []ecs.Event
	change chan struct{} // closed and replaced with each line
}

// errTestOver ends the machine of a test.
var errTestOver = errors.New("the test is over")

// newLab makes the network and starts the image; configure may change the
// machine before.
func newLab(t testing.TB, kvm bool, configure func(*vmm.Config)) *lab {
	t.Helper()
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	return newLabOn(t, q, kvm, configure)
}

// processors is how many processors the machines have: THURWARD_CPUS, or 1.
func processors() int {
	n, err := strconv.Atoi(os.Getenv("THURWARD_CPUS"))
	if err != nil {
		return 1
	}
	return n
}

// newLabOn is newLab on a given hypervisor.
func newLabOn(t testing.TB, h vmm.Hypervisor, kvm bool, configure func(*vmm.Config)) *lab {
	t.Helper()
	return newLabWith(t, h, kvm, configure, vmm.RunOptions{Restart: vmm.OnCrash})
}

// newLabWith is newLabOn with options of the launcher.
func newLabWith(t testing.TB, h vmm.Hypervisor, kvm bool, configure func(*vmm.Config), o vmm.RunOptions) *lab {
	t.Helper()
	return newLabRun(t, h, kvm, configure, o, vmm.Run)
}

// newLabRun is newLabWith with another way to supervise the machine.
func newLabRun(t testing.TB, h vmm.Hypervisor, kvm bool, configure func(*vmm.Config), o vmm.RunOptions,
	run func(context.Context, vmm.Hypervisor, vmm.Config, vmm.RunOptions) error) *lab {
	t.Helper()
	w, err := netlab.New(netlab.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	l := &lab{Network: w, t: t, ready: make(chan vmm.ReadyInfo, 100), change: make(chan struct{}), ended: make(chan error, 1),
		lan: newCapture(w.LANSwitch), wan: newCapture(w.WANSwitch)}
	cfg := vmm.Config{Image: testImage(t), KVM: kvm, MemoryMB: 64, CPUs: processors(), Verdicts: vmm.ConsoleVerdicts, NICs: []vmm.NIC{nic(t, vmm.LAN, w.LANSwitch), nic(t, vmm.WAN, w.WANSwitch)}}
	if configure != nil {
		configure(&cfg)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	l.cancel = func() { cancel(errTestOver) }
	over := make(chan struct{})
	go func() {
		defer close(over)
		o.OnLine = l.line
		l.ended <- run(ctx, h, cfg, o)
	}()
	t.Cleanup(func() {
		l.cancel()
		<-over
		if t.Failed() {
			l.keep()
		}
	})
	return l
}

// nic returns a network interface on a switch.
func nic(t testing.TB, r vmm.Role, sw *netlab.Switch) vmm.NIC {
	t.Helper()
	b, err := vmm.NewBackend(vmm.Spec{Kind: vmm.Demo}, vmm.Network{Serve: sw.ServeVM, Queues: vmm.Queues(processors())})
	if err != nil {
		t.Fatal(err)
	}
	tap, err := vmm.NewTap(vmm.Spec{Kind: vmm.Demo}, vmm.Network{Serve: sw.ServeVM})
	if err != nil {
		t.Fatal(err)
	}
	return vmm.NIC{Role: r, MAC: vmm.DefaultMAC(r), Backend: b, Tap: tap}
}

// boot is newLab with a machine that is ready.
func boot(t *testing.T, kvm bool) *lab {
	t.Helper()
	l := newLab(t, kvm, nil)
	l.awaitReady()
	return l
}

func (l *lab) awaitReady() vmm.ReadyInfo {
	l.t.Helper()
	select {
	case r := <-l.ready:
		return r
	case err := <-l.ended:
		l.t.Fatalf("the machine ended: %v", err)
	case <-time.After(2 * limit): // with a PC's firmware
		l.t.Fatalf("not ready within %v", 2*limit)
	}
	panic("unreachable")
}

func (l *lab) line(ln vmm.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, ln.Text)
	if i := strings.Index(ln.Text, "thurward: ready "); i > 0 && gcBegun.MatchString(ln.Text[:i]) {
		// Go's trace of a collection is written in pieces, on another processor than this line.
		ln = vmm.ParseLine(ln.Text[i:])
	}
	switch ln.Kind {
	case vmm.Ready:
		l.ready <- vmm.ParseReady(ln)
	case vmm.EventLine:
		e, err := ecs.Parse(ln.Rest)
		if err != nil {
			if !l.breaks {
				l.t.Errorf("event line %q: %v", ln.Text, err)
			}
			break
		}
		l.events = append(l.events, e)
	}
	close(l.change)
	l.change = make(chan struct{})
}

// event waits for an event like want: its fields that are set must be equal.
func (l *lab) event(want match) ecs.Event {
	l.t.Helper()
	late := time.After(limit)
	for {
		l.mu.Lock()
		for _, e := range l.events {
			if like(e, want) {
				l.mu.Unlock()
				return e
			}
		}
		change := l.change
		l.mu.Unlock()
		select {
		case <-change:
		case <-late:
			l.t.Fatalf("no event like %+v within %v", want, limit)
		}
	}
}

// count returns how many events like want there were so far.
func (l *lab) count(want match) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if like(e, want) {
			n++
		}
	}
	return n
}

// A match is what an event must have; fields that are not set may have any value.
type match struct {
	Action, Reason, RuleID, Direction, Transport, SrcIP, DstIP string
	SrcPort, DstPort                                           uint16
}

func like(e ecs.Event, want match) bool {
	s := func(name, b string) bool { return b == "" || e.Str(name) == b }
	n := func(a, b uint16) bool { return b == 0 || a == b }
	return s(ecs.EventAction, want.Action) && s(ecs.EventReason, want.Reason) && s(ecs.RuleID, want.RuleID) &&
		s(ecs.NetworkDirection, want.Direction) && s(ecs.NetworkTransport, want.Transport) &&
		s(ecs.SourceIP, want.SrcIP) && s(ecs.DestinationIP, want.DstIP) &&
		n(e.Source().Port(), want.SrcPort) && n(e.Destination().Port(), want.DstPort)
}

// keep tells what a failed test leaves behind: the console and a capture of
// each side.
func (l *lab) keep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Logf("console:\n%s", strings.Join(l.lines[max(0, len(l.lines)-60):], "\n"))
	dir, err := os.MkdirTemp("", "thurward-failed")
	if err != nil {
		return
	}
	for name, c := range map[string]*capture{"lan.pcap": l.lan, "wan.pcap": l.wan} {
		if f, err := os.Create(filepath.Join(dir, name)); err == nil {
			c.WriteTo(f) //nolint:errcheck // best effort
			f.Close()
			l.t.Logf("capture: %s", f.Name())
		}
	}
}

// soon is a context for what must happen, brief one for what must not.
func soon(t testing.TB) context.Context { return bounded(t, limit) }

func brief(t testing.TB) context.Context { return bounded(t, silence) }

func bounded(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/vmm"
)

// A world has machines that do what their images say, a word each:
//
//	unready    it ends before it is ready
//	refuses    it refuses to start
//	other      it runs another policy than its image has
//	silent     it shows no sign of life
//	mute       it shows none once it has taken over
//	deaf       it never hears its gateway
//	dies       it crashes a second after it has taken over
//	mac        it has other hardware addresses
//	fixed      its networks cannot be changed while it runs
//
// In its time a boot takes a second.
type world struct {
	t     *testing.T
	store *deploy.Store
	s     *Service
	free  int // megabytes

	mu     sync.Mutex
	said   []string
	guests []*fake
	most   int // gates that were open at a time
	alive  int // machines that were there at a time, the most
}

type fake struct {
	w                         *world
	image                     string
	gate                      *vmm.Gate
	ready, gateway, end, over chan struct{}
	signs                     uint64
	once                      sync.Once
	why                       vmm.Outcome
}

func (f *fake) is(word string) bool { return slices.Contains(strings.Fields(f.image), word) }

func (f *fake) Ready() <-chan struct{}   { return f.ready }
func (f *fake) Gateway() <-chan struct{} { return f.gateway }

func (f *fake) Info() vmm.ReadyInfo {
	p := policyOf(f.image)
	if f.is("other") {
		p = policyOf("another")
	}
	return vmm.ReadyInfo{Version: "1", Policy: p}
}

func (f *fake) Signs() (uint64, bool) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return f.signs, true
}

func (f *fake) crash(why string) {
	f.once.Do(func() {
		f.why = vmm.Outcome{Ready: closed(f.ready), Crash: why}
		if why == "refuses" {
			f.why = vmm.Outcome{Refused: why}
		}
		close(f.end)
	})
}

func (f *fake) Wait(ctx context.Context) vmm.Outcome {
	defer close(f.over)
	select {
	case <-f.end:
		return f.why
	case <-ctx.Done():
		return vmm.Outcome{Ready: closed(f.ready)}
	}
}

// live is the machine's life.
func (f *fake) live() {
	tick := func() bool {
		select {
		case <-f.over:
			return false
		case <-time.After(100 * time.Millisecond):
		}
		f.w.look()
		return true
	}
	for range 10 {
		if !tick() {
			return
		}
	}
	switch {
	case f.is("unready"):
		f.crash("early")
		return
	case f.is("refuses"):
		f.crash("refuses")
		return
	}
	close(f.ready)
	for joined := 0; ; {
		if f.gate.Joined() {
			joined++
		}
		if joined == 5 && !f.is("deaf") {
			close(f.gateway)
		}
		if joined == 10 && f.is("dies") {
			f.crash("died")
			return
		}
		f.w.mu.Lock()
		if !f.is("silent") && !(f.is("mute") && joined > 0) {
			f.signs++
		}
		f.w.mu.Unlock()
		if !tick() {
			return
		}
	}
}

// look counts the gates that are open.
func (w *world) look() (open []*fake) {
	w.mu.Lock()
	defer w.mu.Unlock()
	alive := 0
	for _, f := range w.guests {
		if closed(f.over) {
			continue
		}
		alive++
		if f.gate.Joined() {
			open = append(open, f)
		}
	}
	w.alive = max(w.alive, alive)
	w.most = max(w.most, len(open))
	return open
}

func policyOf(image string) string { return "sha256:" + image }

func newWorld(t *testing.T, dir string, first string) *world {
	st, err := deploy.Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	w := &world{t: t, store: st, free: 1000}
	if first != "" {
		if err := st.Set((&deploy.Record{}).Next(w.put(first), time.Unix(1e9, 0))); err != nil {
			t.Fatal(err)
		}
	}
	w.s = New(Config{Store: st, Free: func() (int, error) { return w.free, nil },
		Inspect: func(_ string, b []byte) (Plan, error) {
			p := Plan{Policy: policyOf(string(b)), MACs: [2]string{"a", "b"}, MemoryMB: 64}
			if strings.Contains(string(b), "mac") {
				p.MACs[0] = "c"
			}
			if strings.Contains(string(b), "bad image") {
				return p, errors.New("it is no image")
			}
			return p, nil
		},
		Start: func(path string, b []byte, gate *vmm.Gate) (Guest, error) {
			f := &fake{w: w, image: string(b), gate: gate, ready: make(chan struct{}), gateway: make(chan struct{}), end: make(chan struct{}), over: make(chan struct{})}
			if f.is("fixed") && !gate.Joined() {
				return nil, vmm.ErrNoPlug
			}
			w.mu.Lock()
			w.guests = append(w.guests, f)
			w.mu.Unlock()
			go f.live()
			return f, nil
		},
		Options: vmm.RunOptions{Restart: vmm.OnCrash, Say: func(format string, a ...any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.said = append(w.said, fmt.Sprintf(format, a...))
		}}})
	return w
}

func (w *world) put(image string) deploy.Entry {
	e, err := w.store.Put(strings.NewReader(image), func([]byte) (string, error) { return policyOf(image), nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// run runs the service, without its socket.
func (w *world) run() (stop func()) {
	var err error
	if w.s.record, err = w.store.Recover(); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		vmm.Supervise(ctx, w.s.boot, w.s.pause, w.s.c.Options) //nolint:errcheck // ended by the test
	}()
	return func() { cancel(); <-over }
}

// deploy asks for a change.
func (w *world) deploy(image string, with func(*request)) error {
	q := &request{ctx: context.Background(), say: func(string, ...any) {}, watch: 20 * time.Second, answered: make(chan error, 1)}
	if image == "" {
		q.rollback = true
	} else {
		q.entry = w.put(image)
	}
	if with != nil {
		with(q)
	}
	w.s.requests <- q
	return <-q.answered
}

// runs checks which image runs: in a machine that is joined, in the record, in the status.
func (w *world) runs(what, want string) {
	w.t.Helper()
	time.Sleep(2 * time.Second)
	open := w.look()
	if len(open) != 1 || open[0].image != want {
		var have []string
		for _, f := range open {
			have = append(have, f.image)
		}
		w.t.Errorf("%s: %q run, want %q; said: %q", what, have, want, w.said)
	}
	r, err := w.store.Record()
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := w.store.Image(&r.Current)
	if err != nil || string(b) != want {
		w.t.Errorf("%s: the record says %q, %v; want %q", what, b, err, want)
	}
	if st := w.s.Status(); !st.Healthy || st.State != "running" || st.Running.Image != r.Current.Image || st.Current != r.Current {
		w.t.Errorf("%s: status %+v, %+v", what, st, st.Running)
	}
	alive := 0
	for _, f := range w.guests {
		if !closed(f.over) {
			alive++
		}
	}
	if alive != 1 || w.most != 1 {
		w.t.Errorf("%s: %d machines are left, and %d were joined at a time", what, alive, w.most)
	}
}

// TestChange: an image takes the place of another if it is healthy, and does not otherwise,
// whatever is wrong with it.
func TestChange(t *testing.T) {
	for name, c := range map[string]struct {
		image string
		why   string // "": it is deployed
		with  func(*request)
	}{
		"healthy":                  {"new", "", nil},
		"asked, and confirmed":     {"new", "", func(q *request) { q.confirm = func(context.Context) error { return nil } }},
		"cold":                     {"new", "", func(q *request) { q.cold = true }},
		"other hardware addresses": {"new mac", "", nil},
		"networks that are fixed":  {"new fixed", "", nil},
		"no watch":                 {"new", "", func(q *request) { q.watch = 0 }},

		"no image":                     {"bad image", "it is no image", nil},
		"never ready":                  {"unready", "ended before it was ready: the firewall crashed: early", nil},
		"never ready, cold":            {"unready", "ended before it was ready: the firewall crashed: early", func(q *request) { q.cold = true }},
		"refuses":                      {"refuses", "refuses to start", nil},
		"another policy":               {"other", "runs the policy sha256:another", nil},
		"another policy, cold":         {"other", "runs the policy sha256:another", func(q *request) { q.cold = true }},
		"silent":                       {"silent", "no sign of life", nil},
		"silent in its place":          {"mute", "no sign of life", nil},
		"silent in its place, briefly": {"mute", "no sign of life", func(q *request) { q.watch = 0 }},
		"no gateway":                   {"deaf", "has not heard its gateway", nil},
		"dies":                         {"dies", "the new machine has ended: the firewall crashed: died", nil},
		"dies, fixed":                  {"dies fixed", "the new machine has ended: the firewall crashed: died", nil},
		"asked, and not confirmed": {"new", "not confirmed: the shop is down", func(q *request) {
			q.confirm = func(context.Context) error { return errors.New("the shop is down") }
		}},
		"who asked has gone": {"new", "has gone", func(q *request) {
			var gone context.CancelFunc
			q.ctx, gone = context.WithCancel(context.Background())
			time.AfterFunc(5*time.Second, gone)
			q.confirm = func(context.Context) error { return nil }
		}},
		"no previous one": {"", "no previous image", nil},
		"not taken in":    {"new", "no such file", func(q *request) { q.entry.Image = strings.Repeat("ab", 32) }},
		"a path":          {"new", "is no SHA-256", func(q *request) { q.entry.Image = "../../../etc/passwd" }},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, dir, "old")
			stop := w.run()
			w.runs(name, "old")
			time.Sleep(time.Minute)
			err := w.deploy(c.image, c.with)
			want := "old"
			if c.why == "" {
				want = c.image
			}
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("%s: %v, want %q", name, err, c.why)
			}
			w.runs(name, want)
			cold := strings.Contains(name, "cold") || strings.Contains(name, "hardware") || strings.Contains(name, "fixed")
			most := 2
			if cold || len(w.guests) == 1 {
				most = 1
			}
			if w.alive != most {
				t.Errorf("%s: %d machines at a time, want %d", name, w.alive, most)
			}
			r, _ := w.store.Record() //nolint:errcheck // runs has read it
			if (c.why != "") != (r.Failed != nil) || r.Failed != nil && !strings.Contains(r.Failed.Why, c.why) {
				t.Errorf("%s: the record of the failure is %+v", name, r.Failed)
			}
			if c.why != "" && c.with == nil && strings.Contains(name, "silent") && len(w.guests) != 2 {
				t.Errorf("%s: %d machines were started: the old one should have lived on", name, len(w.guests))
			}
			stop()
		})
	}
}

// TestGoBackAndForth: the previous image comes back, and so does the one after it; each
// change waits for the one before.
func TestGoBackAndForth(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, "a")
		defer w.run()()
		for _, c := range []struct{ image, runs string }{{"b", "b"}, {"", "a"}, {"", "b"}, {"c", "c"}, {"", "b"}, {"dies", "b"}, {"", "c"}} {
			err := w.deploy(c.image, nil)
			if (err != nil) != (c.image == "dies") {
				t.Errorf("%q: %v", c.image, err)
			}
			w.runs(c.image, c.runs)
		}
	})
}

// TestOldMachineEnds: the old machine crashes while the new one starts, and while it is
// watched. The new one takes its place; if it fails, too, the old image is started again.
func TestOldMachineEnds(t *testing.T) {
	for _, after := range []time.Duration{500 * time.Millisecond, 5 * time.Second} {
		for _, image := range []string{"new", "deaf"} {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, dir, "old")
				defer w.run()()
				w.runs("first", "old")
				time.AfterFunc(after, func() { w.guests[0].crash("now") })
				err := w.deploy(image, nil)
				want := image
				if image == "deaf" {
					want = "old"
				}
				if (err != nil) != (image == "deaf") {
					t.Errorf("%v: %v", after, err)
				}
				w.runs(fmt.Sprint(image, " after ", after), want)
			})
		}
	}
}

// TestDeployWhileDown: an image that crashes again and again is replaced by one that does
// not, between two starts.
func TestDeployWhileDown(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, "dies")
		defer w.run()()
		time.Sleep(20 * time.Second)
		if st := w.s.Status(); st.State != "waiting to start again" || st.Healthy {
			t.Errorf("status %+v", st)
		}
		if err := w.deploy("unready", nil); err == nil {
			t.Error("an image that is never ready was deployed")
		}
		for w.s.Status().State != "waiting to start again" {
			time.Sleep(100 * time.Millisecond)
		}
		began := time.Now()
		if err := w.deploy("unready", nil); err == nil || time.Since(began) > 1500*time.Millisecond {
			t.Errorf("%v after %v: a change waits for the next start", err, time.Since(began))
		}
		if err := w.deploy("new", nil); err != nil {
			t.Error(err)
		}
		w.runs("new", "new")
	})
}

// TestMemory: two machines at a time need memory; without it nothing is changed, unless the
// old one is to end first.
func TestMemory(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, "old")
		defer w.run()()
		w.runs("first", "old")
		w.free = 64 + reserveMB - 1
		if err := w.deploy("new", nil); err == nil || !strings.Contains(err.Error(), "--cold") {
			t.Errorf("without memory: %v", err)
		}
		w.runs("without memory", "old")
		if err := w.deploy("new", func(q *request) { q.cold = true }); err != nil {
			t.Error(err)
		}
		w.runs("cold", "new")
		w.free = 64 + reserveMB
		if err := w.deploy("newer", nil); err != nil {
			t.Error(err)
		}
		w.runs("with memory", "newer")
	})
}

// TestServiceEnds: the service ends in the midst of a change, at any time of it; then and
// when it runs again, what runs is what the record says.
func TestServiceEnds(t *testing.T) {
	for ms := 100; ms < 25000; ms += 1700 {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, dir, "old")
			stop := w.run()
			w.runs("first", "old")
			answer := make(chan error, 1)
			go func() { answer <- w.deploy("new", nil) }()
			time.Sleep(time.Duration(ms) * time.Millisecond)
			stop()
			err := <-answer
			for _, f := range w.guests {
				if !closed(f.over) {
					t.Errorf("after %d ms: %s lives on", ms, f.image)
				}
			}
			w.guests = nil
			again := newWorld(t, dir, "")
			defer again.run()()
			want := "old"
			if err == nil {
				want = "new"
			}
			again.runs(fmt.Sprintf("after %d ms", ms), want)
		})
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// beat is how often the host is looked at.
const beat = 5 * time.Millisecond

// A hostWatch records how long the host kept QEMU's threads from running
// though they wanted to (run delay), and how late its own clock ticked: what
// of a stall is the host's.
type hostWatch struct {
	vcpu int // thread of the virtual processor
	main int // thread that moves frames: QEMU's main loop

	stop  chan struct{}
	ended sync.WaitGroup
	held  []stretch     // without overlap, in order, once the watch has ended
	delay time.Duration // of QEMU's two threads
	late  time.Duration // of this process, at worst
}

// A stretch is a time in which the host kept QEMU or this process waiting.
// Where a thread waited several times within a beat, it is taken as once.
type stretch struct{ from, to time.Time }

// watchHost finds the QEMU that this process has started and watches it until
// end. With pin, the virtual processor gets the host's last processor and
// everything else the others, until the test is over.
func watchHost(t *testing.T, pin bool) *hostWatch {
	t.Helper()
	h := &hostWatch{stop: make(chan struct{})}
	h.find(t)
	if pin {
		h.pin(t)
	}
	last, err := h.delays()
	if err != nil {
		t.Fatalf("run delay: %v", err)
	}
	h.ended.Go(func() {
		before := time.Now()
		for {
			select {
			case <-h.stop:
				return
			case <-time.After(beat):
			}
			d, err := h.delays()
			if err != nil {
				return // QEMU has ended
			}
			now := time.Now()
			late := max(now.Sub(before)-beat-time.Millisecond, 0)
			h.late = max(h.late, late)
			h.waited(now, late)
			for i := range d {
				h.delay += d[i] - last[i]
				h.waited(now, d[i]-last[i])
			}
			before, last = now, d
		}
	})
	return h
}

// waited takes a wait that ended now.
func (h *hostWatch) waited(now time.Time, d time.Duration) {
	if d > 0 {
		h.held = append(h.held, stretch{now.Add(-d), now})
	}
}

// end ends the watch; only then its numbers may be read.
func (h *hostWatch) end() {
	close(h.stop)
	h.ended.Wait()
	h.merge()
}

// merge joins stretches that overlap, so that no time counts twice.
func (h *hostWatch) merge() {
	slices.SortFunc(h.held, func(a, b stretch) int { return a.from.Compare(b.from) })
	var m []stretch
	for _, s := range h.held {
		if n := len(m); n > 0 && !s.from.After(m[n-1].to) {
			if s.to.After(m[n-1].to) {
				m[n-1].to = s.to
			}
			continue
		}
		m = append(m, s)
	}
	h.held = m
}

// find finds QEMU: the child whose name begins so, and in it the thread that
// has run longest: booting has kept the virtual processor busy.
func (h *hostWatch) find(t *testing.T) {
	t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), "(qemu-")
		_, rest, ok := strings.Cut(rest, ") ")
		if f := strings.Fields(rest); ok && len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			h.main, _ = strconv.Atoi(filepath.Base(filepath.Dir(s)))
		}
	}
	if h.main == 0 {
		t.Fatal("QEMU is not among the children of this process")
	}
	longest := time.Duration(-1)
	for _, tid := range threads(h.main) {
		if ran, _, err := schedstat(h.main, tid); err == nil && tid != h.main && ran > longest {
			h.vcpu, longest = tid, ran
		}
	}
	if h.vcpu == 0 {
		t.Fatalf("QEMU %d has no second thread", h.main)
	}
}

func threads(pid int) (tids []int) {
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	for _, d := range dirs {
		tid, _ := strconv.Atoi(filepath.Base(d))
		tids = append(tids, tid)
	}
	return tids
}

// schedstat returns how long a thread has run, and has waited for a processor.
func schedstat(pid, tid int) (ran, delay time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, tid))
	if err == nil {
		_, err = fmt.Sscan(string(b), (*int64)(&ran), (*int64)(&delay))
	}
	return ran, delay, err
}

// delays returns the run delays of QEMU's two threads.
func (h *hostWatch) delays() (d [2]time.Duration, err error) {
	for i, tid := range [...]int{h.vcpu, h.main} {
		if _, d[i], err = schedstat(h.main, tid); err != nil {
			return d, err
		}
	}
	return d, nil
}

// pin keeps the virtual processor and everything else apart.
func (h *hostWatch) pin(t *testing.T) {
	t.Helper()
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil || all.Count() < 2 {
		t.Logf("not pinned: %d processors, %v", all.Count(), err)
		return
	}
	rest, one := all, unix.CPUSet{}
	for cpu := 1023; ; cpu-- {
		if all.IsSet(cpu) {
			rest.Clear(cpu)
			one.Set(cpu)
			break
		}
	}
	place := func(own, others *unix.CPUSet) {
		for _, tid := range append(threads(os.Getpid()), threads(h.main)...) {
			set := others
			if tid == h.vcpu {
				set = own
			}
			unix.SchedSetaffinity(tid, set) //nolint:errcheck // a thread may have ended
		}
	}
	place(&one, &rest)
	procs := runtime.GOMAXPROCS(rest.Count())
	t.Cleanup(func() { place(&all, &all); runtime.GOMAXPROCS(procs) })
}

// share returns which part of the time since a moment the host took: where it
// is large, a run says little about the guest.
func (h *hostWatch) share(since time.Time) float64 {
	now := time.Now()
	return float64(h.took(since, now)) / float64(now.Sub(since))
}

// took returns how much of the time between two moments the host took. A wait
// is seen up to a beat after its end.
func (h *hostWatch) took(from, to time.Time) (d time.Duration) {
	i, _ := slices.BinarySearchFunc(h.held, from, func(s stretch, t time.Time) int { return s.to.Compare(t) })
	length := to.Sub(from)
	to = to.Add(beat)
	for ; i < len(h.held) && h.held[i].from.Before(to); i++ {
		a, b := h.held[i].from, h.held[i].to
		if a.Before(from) {
			a = from
		}
		if b.After(to) {
			b = to
		}
		d += b.Sub(a)
	}
	return min(d, length)
}

// tookWithin returns the most that the host took in any stretch of the given
// length between two moments.
func (h *hostWatch) tookWithin(length time.Duration, from, to time.Time) (most time.Duration) {
	for _, s := range h.held {
		if s.to.After(from) && s.from.Before(to) {
			// The most is found where a window begins or ends with a wait.
			most = max(most, h.took(s.from, s.from.Add(length)), h.took(s.to.Add(-length), s.to))
		}
	}
	return most
}

// TestHostWatch: what the host took is found in the stretch where it did, and
// counts once.
func TestHostWatch(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	h := &hostWatch{}
	h.waited(at(500), 20*time.Millisecond) // a thread
	h.waited(at(505), 20*time.Millisecond) // the other
	h.waited(at(503), 2*time.Millisecond)
	h.waited(at(700), 30*time.Millisecond)
	h.waited(at(710), 0)
	h.merge()
	if len(h.held) != 2 {
		t.Errorf("%v", h.held)
	}
	for _, c := range []struct{ from, to, want int }{{0, 400, 0}, {400, 600, 25}, {490, 600, 15}, {490, 495, 5}, {0, 1000, 55}, {510, 660, 0}, {699, 800, 1}} {
		if d := h.took(at(c.from), at(c.to)); d != time.Duration(c.want)*time.Millisecond {
			t.Errorf("from %d to %d ms: %v, want %d ms", c.from, c.to, d, c.want)
		}
	}
	for length, want := range map[int]int{10: 10, 100: 30, 400: 55} {
		if d := h.tookWithin(time.Duration(length)*time.Millisecond, at(0), at(1000)); d != time.Duration(want)*time.Millisecond {
			t.Errorf("within %d ms: %v, want %d ms", length, d, want)
		}
	}
	if d := h.tookWithin(time.Second, at(0), at(300)); d != 0 {
		t.Errorf("before all: %v", d)
	}
}

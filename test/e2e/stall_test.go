package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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

	stop chan struct{}
	done sync.WaitGroup
	beat []heartbeat
}

// A heartbeat is one look: what grew since the one before.
type heartbeat struct {
	at    time.Time
	delay time.Duration // of QEMU's two threads
	late  time.Duration // of this process
}

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
	h.done.Go(func() {
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
			h.beat = append(h.beat, heartbeat{now, d - last, max(now.Sub(before)-beat-time.Millisecond, 0)})
			before, last = now, d
		}
	})
	return h
}

// end ends the watch; only then its numbers may be read.
func (h *hostWatch) end() { close(h.stop); h.done.Wait() }

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

func (h *hostWatch) delays() (time.Duration, error) {
	_, a, err := schedstat(h.main, h.vcpu)
	if err != nil {
		return 0, err
	}
	_, b, err := schedstat(h.main, h.main)
	return a + b, err
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

// took returns how much of the time between two moments the host took.
func (h *hostWatch) took(from, to time.Time) (d time.Duration) {
	for _, b := range h.beat {
		if b.at.After(from) {
			d += b.delay + b.late
			if b.at.After(to) {
				break // it has seen all that was before to
			}
		}
	}
	return d
}

// tookWithin returns the most that the host took in any stretch of the given
// length between two moments.
func (h *hostWatch) tookWithin(length time.Duration, from, to time.Time) (most time.Duration) {
	first, sum := 0, time.Duration(0)
	for _, b := range h.beat {
		if !b.at.Before(from) {
			break
		}
		first++
	}
	for i := first; i < len(h.beat) && !h.beat[i].at.After(to.Add(2*beat)); i++ {
		sum += h.beat[i].delay + h.beat[i].late
		for h.beat[i].at.Sub(h.beat[first].at) > length+2*beat {
			sum -= h.beat[first].delay + h.beat[first].late
			first++
		}
		most = max(most, sum)
	}
	return most
}

// total returns all that the host took from QEMU, and how late its own clock
// ticked at worst.
func (h *hostWatch) total() (delay, latest time.Duration) {
	for _, b := range h.beat {
		delay += b.delay
		latest = max(latest, b.late)
	}
	return delay, latest
}

// TestHostWatch: what the host took is found in the stretch where it did.
func TestHostWatch(t *testing.T) {
	t0 := time.Unix(1000, 0)
	h := &hostWatch{}
	for i := range 200 {
		b := heartbeat{at: t0.Add(time.Duration(i) * beat)}
		if i >= 100 && i < 104 {
			b.delay = 4 * time.Millisecond
		}
		if i == 150 {
			b.late = 30 * time.Millisecond
		}
		h.beat = append(h.beat, b)
	}
	at := func(i int) time.Time { return t0.Add(time.Duration(i) * beat) }
	if d := h.took(at(98), at(106)); d != 16*time.Millisecond {
		t.Errorf("took %v", d)
	}
	if d := h.took(at(10), at(20)); d != 0 {
		t.Errorf("took %v where it took nothing", d)
	}
	if d := h.tookWithin(20*time.Millisecond, at(0), at(120)); d != 16*time.Millisecond {
		t.Errorf("within 20 ms: %v", d)
	}
	if d := h.tookWithin(time.Second, at(0), at(199)); d != 46*time.Millisecond {
		t.Errorf("within all: %v", d)
	}
	if d, late := h.total(); d != 16*time.Millisecond || late != 30*time.Millisecond {
		t.Errorf("total %v, %v", d, late)
	}
}

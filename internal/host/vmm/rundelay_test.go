package vmm

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRunDelays: the time for which a process waits for a processor is seen while it waits, and
// that of one that sleeps is none.
func TestRunDelays(t *testing.T) {
	if _, err := os.ReadFile("/proc/self/schedstat"); err != nil {
		t.Skip(err)
	}
	start := func(name string, args ...string) int {
		c := exec.Command(name, args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Process.Kill() //nolint:errcheck // it may have ended
			c.Wait()         //nolint:errcheck // killed
		})
		return c.Process.Pid
	}
	// More processes on one processor than it can run at once, and one that runs when no other
	// wants to: it gets a few milliseconds in a second (sched(7), SCHED_IDLE).
	var pids []int
	for range 5 {
		pid := start("sh", "-c", "while :; do :; done")
		var one unix.CPUSet
		one.Set(0)
		if err := unix.SchedSetaffinity(pid, &one); err != nil {
			t.Skip(err)
		}
		pids = append(pids, pid)
	}
	if err := unix.SchedSetAttr(pids[4], &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		t.Fatal(err)
	}
	busy, last := &runDelays{pid: pids[0]}, &runDelays{pid: pids[4]}
	asleep, none := &runDelays{pid: start("sleep", "60")}, &runDelays{pid: 1 << 30}
	if busy.since() != 0 || last.since() != 0 || none.since() != 0 {
		t.Error("the first call knows something")
	}
	time.Sleep(200 * time.Millisecond)
	asleep.since()
	seen := 0
	for range 20 {
		time.Sleep(50 * time.Millisecond)
		if last.since() > 0 {
			seen++
		}
	}
	if got := busy.since(); got < 300*time.Millisecond {
		t.Errorf("one of four on a processor waited for %v in 1.2 seconds", got)
	}
	if got := asleep.since(); got != 0 {
		t.Errorf("one that sleeps waited for %v", got)
	}
	if seen < 10 {
		t.Errorf("one that hardly runs was seen to wait at %d of 20 times", seen)
	}
}

// TestThreadSince: a wait that goes on is seen, and no other thread that does not run is one.
func TestThreadSince(t *testing.T) {
	at := thread{ran: 5e9, waited: 3e9, times: 7, ready: true}
	for _, x := range []struct {
		what          string
		before, after thread
		want          time.Duration
	}{
		{"it waits", at, at, time.Second},
		{"it runs", at, thread{6e9, 3e9, 7, true}, 0},
		{"it ran, and waits again", at, thread{5e9, 4e9, 8, true}, time.Second},
		{"it was given a processor a moment ago", at, thread{5e9, 5e9, 8, true}, 2 * time.Second},
		{"it waits since a moment ago", thread{5e9, 3e9, 7, false}, at, 0},
		{"it sleeps", thread{5e9, 3e9, 7, false}, thread{5e9, 3e9, 7, false}, 0},
		{"it fell asleep", at, thread{5e9, 3e9, 7, false}, 0},
		{"another thread with its number", at, thread{1e6, 1e6, 1, true}, 0},
	} {
		if got := x.after.since(x.before, time.Second); got != x.want {
			t.Errorf("%s: %v, want %v", x.what, got, x.want)
		}
	}
}

// TestStateOf: the name of a process may hold anything, and a file may be cut short.
func TestStateOf(t *testing.T) {
	for stat, want := range map[string]byte{"1 (x) R 2 3": 'R', "1 (a) T (b)) S 2": 'S', "1 (x) ": 0, "1 (x)": 0, "": 0, "1 x R": 0} {
		if got := stateOf([]byte(stat)); got != want {
			t.Errorf("%q: %q, want %q", stat, got, want)
		}
	}
}

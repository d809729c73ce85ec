package vmm

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// runDelays are how long the threads of a process have waited for a processor.
type runDelays struct {
	pid  int
	last map[string]thread // by folder
	at   time.Time         // of last
}

// A thread is what Linux says of one: in /proc/PID/task/TID/schedstat how long it ran and waited
// for a processor, in nanoseconds, and how often it was given one (Documentation/scheduler/
// sched-stats.rst); and in stat, whether it could run (proc_pid_stat(5)).
type thread struct {
	ran, waited, times uint64
	ready              bool
}

// since returns how long the thread that waited most has waited for a processor since the last
// call. The first call, and a system that does not count it, give 0. Linux counts a wait when it
// is over: one that began before the last call and still goes on is the whole time.
func (r *runDelays) since() (most time.Duration) {
	at, now := time.Now(), make(map[string]thread)
	names, _ := filepath.Glob("/proc/" + strconv.Itoa(r.pid) + "/task/*")
	for _, n := range names {
		t, ok := readThread(n)
		if !ok {
			continue
		}
		now[n] = t
		if before, ok := r.last[n]; ok {
			most = max(most, t.since(before, at.Sub(r.at)))
		}
	}
	r.last, r.at = now, at
	return most
}

// since returns how long the thread has waited since it was as in before, which was that long ago.
func (t thread) since(before thread, ago time.Duration) time.Duration {
	if t == before && t.ready {
		return ago
	}
	if t.waited < before.waited { // another thread with the same number
		return 0
	}
	return time.Duration(t.waited - before.waited)
}

// readThread reads what Linux says of the thread with a folder in /proc.
func readThread(folder string) (t thread, ok bool) {
	stat, err := os.ReadFile(folder + "/stat")
	if err != nil {
		return t, false
	}
	t.ready = stateOf(stat) == 'R'
	b, err := os.ReadFile(folder + "/schedstat")
	f := bytes.Fields(b)
	if err != nil || len(f) < 3 {
		return t, false
	}
	for i, v := range []*uint64{&t.ran, &t.waited, &t.times} {
		if *v, err = strconv.ParseUint(string(f[i]), 10, 63); err != nil {
			return t, false
		}
	}
	return t, true
}

// stateOf returns the state in a stat file of /proc: R, S, D, T and so on; 0 if there is none.
func stateOf(stat []byte) byte {
	if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 { // the name before it may hold anything
		return stat[i+2]
	}
	return 0
}

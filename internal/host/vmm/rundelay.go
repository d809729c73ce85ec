package vmm

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// runDelays are how long the threads of a process have waited for a processor, in nanoseconds by
// thread: the second figure of /proc/PID/task/TID/schedstat (Linux,
// Documentation/scheduler/sched-stats.rst).
type runDelays struct {
	pid  int
	last map[string]uint64
}

// since returns how long the thread that waited most has waited for a processor since the last
// call. The first call, and a system that does not count it, give 0.
func (r *runDelays) since() (most time.Duration) {
	names, _ := filepath.Glob("/proc/" + strconv.Itoa(r.pid) + "/task/*/schedstat")
	now := make(map[string]uint64, len(names))
	for _, n := range names {
		b, err := os.ReadFile(n)
		f := bytes.Fields(b)
		if err != nil || len(f) < 2 {
			continue
		}
		v, err := strconv.ParseUint(string(f[1]), 10, 63)
		if err != nil {
			continue
		}
		now[n] = v
		if before, ok := r.last[n]; ok && v > before {
			most = max(most, time.Duration(v-before))
		}
	}
	r.last = now
	return most
}

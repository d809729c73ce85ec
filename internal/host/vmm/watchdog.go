package vmm

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/thurward/thurward/internal/host/vhostvsock"
)

// DefaultWatchdog is how long a firewall that is ready may show no sign of life. It sends a
// line every second while a receiver is connected, and tries to connect at least every 7
// seconds while there is none.
const DefaultWatchdog = 20 * time.Second

// MinWatchdog is the shortest limit that does not end a firewall without a receiver.
const MinWatchdog = 10 * time.Second

// A pulse is what the launcher, which passes the guest's vsock connections on, sees of
// them. The receiver behind them may be any process, or none. nil: the connections
// are not passed on by the launcher.
type pulse = vhostvsock.Counters

// A hungError is the end of a machine that the launcher ended because it hung.
type hungError struct{ limit time.Duration }

func (e hungError) Error() string {
	return fmt.Sprintf("the firewall hangs: no sign of life for %v", e.limit)
}

// A watchdog decides when a machine hangs. It counts its own ticks, not the clock, so that time
// in which the launcher did not run either is not held against the machine.
type watchdog struct {
	limit  int // ticks without a sign
	pulse  *pulse
	paused func() bool // the operator has paused the machine
	say    func(format string, a ...any)

	seen   uint64 // packets at the last tick
	silent int    // ticks without a sign
	said   bool   // that it is paused
}

// ticks is into how many ticks the limit is divided.
const ticks = 20

// tick reports whether the machine hangs. It does not before the first sign of life, nor while a
// receiver takes no data, since the guest must wait then.
func (w *watchdog) tick() bool {
	n := w.pulse.Packets.Load()
	if n == 0 || n != w.seen || w.pulse.Writing.Load() > 0 {
		w.seen, w.silent, w.said = n, 0, false
		return false
	}
	if w.silent++; w.silent < w.limit {
		return false
	}
	if !w.paused() {
		return true
	}
	if w.silent = 0; !w.said {
		w.said = true
		w.say("the machine is paused; the watchdog waits until it goes on")
	}
	return false
}

// watch returns a channel that is closed when the machine hangs. It ends with the machine.
// While there are signs of life Alive is called; without a watchdog, for a limit of 0 too,
// it is called as long as the machine runs.
func (m *Machine) watch(p *pulse, o RunOptions) <-chan struct{} {
	hung := make(chan struct{})
	every, w := aliveEvery, &watchdog{limit: ticks, pulse: p, paused: m.isPaused, say: o.Say}
	if p == nil || o.Watchdog <= 0 {
		w = nil
	} else {
		every = o.Watchdog / ticks
	}
	go func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-m.done:
				return
			case <-t.C:
			}
			if w != nil && w.tick() {
				close(hung)
				return
			}
			if w == nil || w.silent == 0 {
				o.Alive()
			}
		}
	}()
	return hung
}

// isPaused reports whether the hypervisor was stopped by a signal, or says that its machine
// is paused.
func (m *Machine) isPaused() bool {
	return stoppedProcess(m.Pid()) || m.paused != nil && m.paused()
}

// stoppedProcess reports whether a process was stopped by a signal (proc_pid_stat(5)).
func stoppedProcess(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	i := bytes.LastIndexByte(b, ')') // the name before it may hold anything
	return err == nil && i >= 0 && len(b) > i+2 && b[i+2] == 'T'
}

// watchdogOff says why a watchdog cannot work, "" if it can.
func watchdogOff(c *Config, limit time.Duration) string {
	switch {
	case limit <= 0:
		return ""
	case c.Vsock.CID != 0:
		return "the kernel carries the firewall's stream (--vsock kernel:CID): the launcher does not see it, and a firewall that hangs is not noticed"
	case c.Vsock.Path == "":
		return "the machine has no vsock device: a firewall that hangs is not noticed"
	}
	return ""
}

// ParseWatchdog checks the value of --watchdog.
func ParseWatchdog(d time.Duration) (time.Duration, error) {
	if d != 0 && d < MinWatchdog {
		return 0, fmt.Errorf("%v is too short (want %v or more, or 0 for none)", d, MinWatchdog)
	}
	return d, nil
}

package vmm

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/thurward/thurward/internal/host/vhostvsock"
)

// DefaultWatchdog is how long a firewall that is ready may show no sign of life. It tries to
// connect to a receiver at least every 7 seconds while there is none.
const DefaultWatchdog = 20 * time.Second

// minConnected is the shortest time that it may show none while a receiver is connected: it sends
// a line every second then.
const minConnected = 5 * time.Second

// connectedLimit returns how long a firewall may show no sign of life while a receiver is
// connected, where the watchdog's time is limit.
func connectedLimit(limit time.Duration) time.Duration {
	return min(limit, max(limit/4, minConnected))
}

// MinWatchdog is the shortest limit that does not end a firewall without a receiver.
const MinWatchdog = 10 * time.Second

// A pulse is what the launcher, which passes the guest's vsock connections on, sees of
// them. The receiver behind them may be any process, or none. nil: the connections
// are not passed on by the launcher.
type pulse = vhostvsock.Counters

// A hungError is the end of a machine that the launcher ended because it hung.
type hungError struct{ silent time.Duration }

func (e hungError) Error() string {
	return fmt.Sprintf("the firewall hangs: no sign of life for %v", e.silent)
}

// A watchdog decides when a machine hangs. It counts its own ticks, not the clock, so that time
// in which the launcher did not run either is not held against the machine. Nor is a hypervisor
// that hardly got a processor taken for one that hangs, unless it is silent as long as one without
// a receiver may be.
type watchdog struct {
	every     time.Duration // from tick to tick
	limit     time.Duration // without a sign
	connected time.Duration // the same while a receiver is connected
	pulse     *pulse
	paused    func() bool          // the operator has paused the machine
	waited    func() time.Duration // how long the hypervisor waited for a processor since the last call
	say       func(format string, a ...any)

	seen   uint64        // packets at the last tick
	silent time.Duration // without a sign
	ran    time.Duration // of that, behind usualSilence, when the hypervisor did not wait for a processor
	said   bool          // that it is paused
}

// ticks is into how many ticks the limit while a receiver is connected is divided.
const ticks = 20

// usualSilence is longer than the time from sign to sign of a firewall with a receiver that is
// well: nobody asks before how its hypervisor fared. enough is how long it must have been able to
// run then before it hangs: many times what a sign takes.
const (
	usualSilence = 1500 * time.Millisecond
	enough       = 1500 * time.Millisecond
)

// newWatchdog returns one that gives a firewall limit, or less while a receiver is connected.
func newWatchdog(limit time.Duration, p *pulse) *watchdog {
	c := connectedLimit(limit)
	return &watchdog{every: c / ticks, limit: limit, connected: c, pulse: p}
}

// tick reports whether the machine hangs. It does not before the first sign of life, nor while a
// receiver takes no data, since the guest must wait then.
func (w *watchdog) tick() bool {
	n := w.pulse.Packets.Load()
	if n == 0 || n != w.seen || w.pulse.Writing.Load() > 0 {
		w.seen, w.silent, w.ran, w.said = n, 0, 0, false
		return false
	}
	w.silent += w.every
	if w.silent > usualSilence {
		w.ran += max(w.every-w.waited(), 0)
	}
	if w.silent < w.limit && (w.pulse.Open.Load() == 0 || w.silent < w.connected || w.ran < enough) {
		return false
	}
	if !w.paused() {
		return true
	}
	if w.silent, w.ran = 0, 0; !w.said {
		w.said = true
		w.say("the machine is paused; the watchdog waits until it goes on")
	}
	return false
}

// watch returns a channel that gets the error when the machine hangs. It ends with the machine.
// While there are signs of life Alive is called; without a watchdog, for a limit of 0 too,
// it is called as long as the machine runs.
func (m *Machine) watch(p *pulse, o RunOptions) <-chan error {
	hung := make(chan error, 1)
	every, w := aliveEvery, (*watchdog)(nil)
	if p != nil && o.Watchdog > 0 {
		w = newWatchdog(o.Watchdog, p)
		w.paused, w.say, w.waited = m.isPaused, o.Say, (&runDelays{pid: m.Pid()}).since
		every = w.every
	}
	m.look(every, func() (over bool) {
		if w != nil && w.tick() {
			hung <- hungError{w.silent}
			return true
		}
		if w == nil || w.silent == 0 {
			o.Alive()
		}
		return false
	})
	return hung
}

// look calls f at intervals, in the background, until it reports that it is over or the machine
// ends.
func (m *Machine) look(every time.Duration, f func() (over bool)) {
	go func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-m.done:
				return
			case <-t.C:
			}
			if f() {
				return
			}
		}
	}()
}

// isPaused reports whether the hypervisor was stopped by a signal, or says that its machine
// is paused.
func (m *Machine) isPaused() bool {
	return stoppedProcess(m.Pid()) || m.paused != nil && m.paused()
}

// stoppedProcess reports whether a process was stopped by a signal (proc_pid_stat(5)).
func stoppedProcess(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && stateOf(b) == 'T'
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

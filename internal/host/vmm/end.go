package vmm

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Reason is the kind of a machine's end, as metrics and the journal name it.
type Reason string

// The reasons.
const (
	ReasonCrash      Reason = "crash"      // the firewall reported a crash
	ReasonHang       Reason = "hang"       // it showed no sign of life
	ReasonWatchdog   Reason = "watchdog"   // the machine's watchdog device fired
	ReasonReset      Reason = "reset"      // the machine was reset: a triple fault, or the host did it
	ReasonPowerOff   Reason = "power-off"  // it was switched off, and the firewall did not say why
	ReasonQuit       Reason = "quit"       // the hypervisor was told to end
	ReasonSignal     Reason = "signal"     // the hypervisor was ended by a signal
	ReasonHypervisor Reason = "hypervisor" // it ended with an error, or could not be started
	ReasonNetwork    Reason = "network"    // a device of the host that joins it to a network is gone
	ReasonNotReady   Reason = "not-ready"  // the firewall was not ready in time
	ReasonUnknown    Reason = "unknown"
)

// Reasons lists them.
var Reasons = []Reason{ReasonCrash, ReasonHang, ReasonWatchdog, ReasonReset, ReasonPowerOff, ReasonQuit, ReasonSignal,
	ReasonHypervisor, ReasonNetwork, ReasonNotReady, ReasonUnknown}

// An End is the end of a machine that is started again.
type End struct {
	Reason    Reason
	Text      string        // what happened, for people
	Up        time.Duration // how long the machine ran
	Pause     time.Duration // until the next start
	Row, All  int           // restarts in a row, and since Run began, with this one
	Registers []string      // lines of the crash report; nil without one
	Stack     []string      // its addresses with their names, the innermost first
}

// A silentEnd is the end of a firewall that was ready and has not said why it ended. QEMU's
// status is 0 after a reset or SIGTERM as well as after a power-off: its monitor tells them
// apart, and where there is none, nothing does.
type silentEnd struct {
	reason Reason
	why    string
}

func (e silentEnd) Error() string {
	s := map[Reason]string{
		ReasonReset:      "the machine was reset, and the firewall did not say why",
		ReasonPowerOff:   "the machine was switched off, and the firewall did not say why",
		ReasonQuit:       "the hypervisor was told to end",
		ReasonSignal:     "the hypervisor was ended by a signal",
		ReasonWatchdog:   "the machine's watchdog has reset it",
		ReasonHypervisor: "the hypervisor gave up",
	}[e.reason]
	if s == "" {
		return "the machine ended without saying why: it was reset or powered off, or the hypervisor was ended"
	}
	if e.why != "" {
		s += " (" + e.why + ")"
	}
	return s
}

// causes are QMP's ShutdownCause.
var causes = map[string]Reason{
	"guest-reset":           ReasonReset,
	"host-qmp-system-reset": ReasonReset,
	"subsystem-reset":       ReasonReset,
	"guest-shutdown":        ReasonPowerOff,
	"host-qmp-quit":         ReasonQuit,
	"host-signal":           ReasonSignal,
	"host-error":            ReasonHypervisor,
	"host-ui":               ReasonQuit,
	"guest-panic":           ReasonCrash,
	"snapshot-load":         ReasonReset,
}

// silent returns the end of a machine that said nothing, as far as its monitor knows.
func (m *Machine) silent() silentEnd {
	if strings.Contains(m.stderr.String(), kvmError) {
		return silentEnd{reason: ReasonHypervisor, why: kvmError}
	}
	if m.control == nil {
		return silentEnd{reason: ReasonUnknown}
	}
	why, watchdog := m.control.ended()
	switch reason, known := causes[why]; {
	case watchdog:
		return silentEnd{reason: ReasonWatchdog}
	case known:
		return silentEnd{reason, why}
	}
	return silentEnd{ReasonUnknown, why}
}

// kind returns the kind of an outcome's end.
func (o *Outcome) kind() Reason {
	var hung hungError
	var silent silentEnd
	var exit *exec.ExitError
	switch {
	case errors.As(o.Err, &hung):
		return ReasonHang
	case errors.As(o.Err, new(lostError)):
		return ReasonNetwork
	case o.Watchdog:
		return ReasonWatchdog
	case o.Crash != "":
		return ReasonCrash
	case errors.As(o.Err, &silent):
		return silent.reason
	case errors.Is(o.Err, errNotReady):
		return ReasonNotReady
	case errors.As(o.Err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return ReasonSignal
		}
		return ReasonHypervisor
	case o.Err != nil:
		return ReasonHypervisor
	}
	return ReasonUnknown
}

// errNotReady is the end of a machine that took too long.
var errNotReady = errors.New("the firewall was not ready")

// notReady returns it with the limit.
func notReady(limit time.Duration) error { return fmt.Errorf("%w within %v", errNotReady, limit) }

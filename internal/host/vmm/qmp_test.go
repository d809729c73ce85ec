package vmm

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// monitorOf returns a control and QEMU's end of its socket.
func monitorOf(t *testing.T) (*control, net.Conn) {
	t.Helper()
	at, k, err := controlAttachment(3)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(at.Files[0])
	closeAll(at.Files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); at.end() })
	return k, c
}

// TestControl: what QEMU's monitor says is why a machine ended and whether it is paused.
func TestControl(t *testing.T) {
	for name, c := range map[string]struct {
		says   string
		paused bool
		reason Reason
	}{
		"reset":       {`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`, false, ReasonReset},
		"power-off":   {`{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`, false, ReasonPowerOff},
		"quit":        {`{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}`, false, ReasonQuit},
		"a signal":    {`{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}}`, false, ReasonSignal},
		"watchdog":    {`{"event": "WATCHDOG", "data": {"action": "inject-nmi"}}` + "\r\n" + `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`, false, ReasonWatchdog},
		"paused":      {`{"event": "STOP"}`, true, ReasonUnknown},
		"goes on":     {`{"event": "STOP"}` + "\r\n" + `{"event": "RESUME"}`, false, ReasonUnknown},
		"new reasons": {`{"event": "SHUTDOWN", "data": {"reason": "a new one"}}`, false, ReasonUnknown},
		"no JSON":     {"STOP", false, ReasonUnknown},
		"no end":      {`{"event": "STOP", "x": "` + strings.Repeat("x", maxControl) + `"}`, false, ReasonUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			k, q := monitorOf(t)
			r := bufio.NewReader(q)
			if l, err := r.ReadString('\n'); err != nil || !strings.Contains(l, "qmp_capabilities") {
				t.Fatalf("%q, %v", l, err)
			}
			fmt.Fprintf(q, "{\"QMP\": {}}\r\n{\"return\": {}}\r\n%s\r\n", c.says)
			q.Close()
			k.close()
			if k.paused() != c.paused {
				t.Errorf("paused: %v", k.paused())
			}
			m := &Machine{control: k}
			o := Outcome{Ready: true, Err: m.silent()}
			if _, o.Watchdog = k.ended(); o.kind() != c.reason {
				t.Errorf("%s, want %s (%v)", o.kind(), c.reason, o.Err)
			}
		})
	}
}

// TestControlDoesNotWait: QEMU that reads no commands, and does not end, holds nothing up.
func TestControlDoesNotWait(t *testing.T) {
	k, _ := monitorOf(t)
	began := time.Now()
	for range 100 {
		if err := k.interrupt(); err != nil {
			break
		}
	}
	k.close()
	if took := time.Since(began); took > 4*sendLimit {
		t.Errorf("it took %v", took)
	}
}

// TestReasons: each end has its kind.
func TestReasons(t *testing.T) {
	killed := exec.Command("sh", "-c", "kill -9 $$").Run()
	failed := exec.Command("sh", "-c", "exit 3").Run()
	for want, o := range map[Reason]Outcome{
		ReasonCrash:      {Crash: "page fault", Err: fmt.Errorf("qemu: %w", failed)},
		ReasonHang:       {Crash: "interrupted by an NMI", Err: hungError{time.Minute}},
		ReasonWatchdog:   {Crash: "interrupted by an NMI", Watchdog: true},
		ReasonSignal:     {Ready: true, Err: fmt.Errorf("qemu: %w", killed)},
		ReasonHypervisor: {Ready: true, Err: fmt.Errorf("qemu: %w", failed)},
		ReasonNotReady:   {Err: notReady(time.Minute)},
		ReasonUnknown:    {Ready: true, Err: silentEnd{reason: ReasonUnknown}},
	} {
		if r := o.kind(); r != want {
			t.Errorf("%+v: %s, want %s", o, r, want)
		}
	}
	if r := (&Outcome{Err: errors.New("cannot be started")}).kind(); r != ReasonHypervisor {
		t.Error(r)
	}
	failedKVM := &Machine{}
	failedKVM.stderr.Write([]byte("KVM internal error. Suberror: 1\n")) //nolint:errcheck // never fails
	if e := failedKVM.silent(); e.reason != ReasonHypervisor || !strings.Contains(e.Error(), kvmError) {
		t.Error(e)
	}
}

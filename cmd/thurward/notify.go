package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"unicode"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/thurward/thurward/internal/host/vmm"
)

// A notifier tells a service manager how the firewall is (sd_notify(3)): ready when the rules
// are live, what is going on, and that it is alive.
type notifier struct {
	send func(state string)

	mu    sync.Mutex
	ready bool
}

// newNotifier returns nil if no service manager waits.
func newNotifier(say func(format string, a ...any)) *notifier {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	var once sync.Once
	return &notifier{send: func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			once.Do(func() { say("the service manager is not reached: %v", err) })
		}
	}}
}

// maxStatus bounds a status in bytes: it is shown on one line.
const maxStatus = 300

// status reports what is going on, in words.
func (n *notifier) status(format string, a ...any) {
	s := []rune(fmt.Sprintf(format, a...))
	for i, r := range s {
		if !unicode.IsPrint(r) { // a line break would begin another assignment
			s[i] = ' '
		}
	}
	text := string(s)
	if len(text) > maxStatus {
		text = text[:maxStatus] + "..."
	}
	n.send("STATUS=" + text)
}

// line takes a line of the console.
func (n *notifier) line(l vmm.Line) {
	switch l.Kind {
	case vmm.Ready:
		n.mu.Lock()
		first := !n.ready
		n.ready = true
		n.mu.Unlock()
		n.status("the rules are live: %s", l.Rest)
		if first {
			n.send(daemon.SdNotifyReady)
		}
	case vmm.Crashed:
		n.status("the firewall crashed: %s", l.Rest)
	case vmm.Refused:
		n.status("the firewall refuses to start: %s", l.Rest)
	}
}

// attach has a supervision report to the service manager, beside what it does already.
func (n *notifier) attach(o vmm.RunOptions) vmm.RunOptions {
	if n == nil {
		return o
	}
	onLine := o.OnLine
	o.OnLine = func(l vmm.Line) {
		n.line(l)
		if onLine != nil {
			onLine(l)
		}
	}
	o.Alive = func() { n.send(daemon.SdNotifyWatchdog) }
	return o
}

// stopOn reports that the end has begun when ctx ends, until the function that it returns is
// called.
func (n *notifier) stopOn(ctx context.Context) (stop func() bool) {
	if n == nil {
		return func() bool { return false }
	}
	return context.AfterFunc(ctx, func() { n.send(daemon.SdNotifyStopping) })
}

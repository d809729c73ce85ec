// Package journal writes what a launcher has to report to systemd's journal, as messages
// with fields (systemd.journal-fields(7)), so that they can be found by what they are about.
package journal

import (
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
)

// Fields of all messages, beside those of the journal.
const (
	FieldName = "THURWARD_NAME" // of the firewall, where it has one
	FieldKind = "THURWARD_KIND" // one of the kinds
)

// The kinds of messages.
const (
	KindLauncher = "launcher" // of the launcher
	KindReady    = "ready"    // the rules are live
	KindGateway  = "gateway"  // the gateway was heard
	KindEvent    = "event"    // of the firewall; its fields are those of ECS, in capitals
	KindRefused  = "refused"  // the firewall refuses to start
	KindCrash    = "crash"    // the firewall crashed; its report follows
	KindStopped  = "stopped"  // it ended in good order
	KindRestart  = "restart"  // a machine that has ended is started again
	KindConsole  = "console"  // other lines of its console
)

// Bounds of what is sent.
const (
	maxMessage = 16 << 10 // bytes of a message or field
	maxWaiting = 1024     // messages that wait for the journal; further ones are dropped, and counted
)

// A Journal is a connection to the journal. It waits for nothing: what the journal does not
// take is dropped, and counted in a message of its own.
type Journal struct {
	name    string
	queue   chan message
	waiting atomic.Int64 // messages that were put and are not sent yet
	lost    atomic.Uint64
	send    func(text string, p journal.Priority, fields map[string]string) error
	settle  func(until time.Time) // waits until the journal has read what was sent
}

type message struct {
	text   string
	pri    journal.Priority
	fields map[string]string
}

// Open returns the journal if standard error leads there, otherwise nil.
func Open(name string) *Journal {
	if ok, err := journal.StderrIsJournalStream(); err != nil || !ok {
		return nil
	}
	return open(name, journal.Send, settle)
}

func open(name string, send func(string, journal.Priority, map[string]string) error, settle func(time.Time)) *Journal {
	j := &Journal{name: name, queue: make(chan message, maxWaiting), send: send, settle: settle}
	go func() {
		for m := range j.queue {
			if n := j.lost.Swap(0); n > 0 {
				j.send(strconv.FormatUint(n, 10)+" messages were not written: there were too many", journal.PriWarning, j.fields(KindLauncher)) //nolint:errcheck // there is nobody to report it to
			}
			if j.send(m.text, m.pri, m.fields) != nil {
				j.lost.Add(1)
			}
			j.waiting.Add(-1)
		}
	}()
	return j
}

// Close gives the journal the time to take what waits for it, and to find out whose it is: of
// a process that has ended it cannot, and its messages would not be those of its unit.
func (j *Journal) Close(limit time.Duration) {
	end := time.Now().Add(limit)
	for j.waiting.Load() > 0 && time.Now().Before(end) {
		time.Sleep(time.Millisecond)
	}
	j.settle(end)
}

// nativeSocket is where the journal takes messages (systemd's JOURNAL_NATIVE_PROTOCOL).
const nativeSocket = "/run/systemd/journal/socket"

// settle waits until the journal has worked off what was sent to it before. It takes
// datagrams one after the other, and an empty one is nothing to it: once it has read ours,
// which the kernel then does not count as waiting any more (unix(7), SIOCOUTQ), it is done
// with the others.
func settle(until time.Time) {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: nativeSocket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer c.Close()
	c.SetDeadline(until) //nolint:errcheck // a socket takes one
	if _, err := c.Write(nil); err != nil {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for left := 1; left > 0 && time.Now().Before(until); time.Sleep(time.Millisecond) {
		if e := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); e != nil || err != nil {
			return
		}
	}
}

func (j *Journal) fields(kind string) map[string]string {
	f := map[string]string{"SYSLOG_IDENTIFIER": "thurward", FieldKind: kind}
	if j.name != "" {
		f[FieldName] = j.name
	}
	return f
}

func (j *Journal) put(text string, p journal.Priority, fields map[string]string) {
	m := message{printable.String(text, maxMessage), p, map[string]string{}}
	for k, v := range fields {
		m.fields[k] = printable.String(v, maxMessage)
	}
	j.waiting.Add(1)
	select {
	case j.queue <- m:
	default:
		j.waiting.Add(-1)
		j.lost.Add(1)
	}
}

// Say writes a message of the launcher.
func (j *Journal) Say(text string) { j.put(text, journal.PriNotice, j.fields(KindLauncher)) }

// Fail writes why the launcher ends.
func (j *Journal) Fail(text string) { j.put(text, journal.PriErr, j.fields(KindLauncher)) }

// Line writes a line of the console.
func (j *Journal) Line(l vmm.Line) {
	kinds := map[vmm.LineKind]struct {
		name string
		pri  journal.Priority
	}{vmm.Ready: {KindReady, journal.PriNotice}, vmm.Gateway: {KindGateway, journal.PriInfo}, vmm.EventLine: {KindEvent, journal.PriInfo},
		vmm.Refused: {KindRefused, journal.PriErr}, vmm.Crashed: {KindCrash, journal.PriCrit}, vmm.Stopped: {KindStopped, journal.PriNotice}}
	k, ok := kinds[l.Kind]
	if !ok {
		k.name, k.pri = KindConsole, journal.PriInfo
	}
	f, text := j.fields(k.name), l.Text
	switch l.Kind {
	case vmm.Ready:
		r := vmm.ParseReady(l)
		f["THURWARD_VERSION"], f["THURWARD_POLICY"] = r.Version, r.Policy
	case vmm.EventLine:
		if e, err := ecs.Parse(l.Rest); err == nil {
			for name := range e {
				if v := field(name); v != "" {
					f[v] = e.Str(name)
				}
			}
		}
	}
	j.put(text, k.pri, f)
}

// field is the name of an ECS field in the journal, "" for what cannot be one.
func field(name string) string {
	const prefix, most = "THURWARD_", 64
	s := prefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
	if len(s) > most || s == FieldName || s == FieldKind {
		return ""
	}
	return s
}

// Restart writes why a machine is started again.
func (j *Journal) Restart(e vmm.End) {
	f := j.fields(KindRestart)
	f["THURWARD_REASON"] = string(e.Reason)
	f["THURWARD_UP_SECONDS"] = strconv.FormatInt(int64(e.Up.Seconds()), 10)
	f["THURWARD_PAUSE_SECONDS"] = strconv.FormatInt(int64(e.Pause.Seconds()), 10)
	f["THURWARD_RESTARTS"] = strconv.Itoa(e.All)
	f["THURWARD_RESTARTS_IN_A_ROW"] = strconv.Itoa(e.Row)
	if len(e.Registers) > 0 {
		f["THURWARD_REGISTERS"] = strings.Join(e.Registers, " ")
	}
	if len(e.Stack) > 0 {
		f["THURWARD_STACK"] = strings.Join(e.Stack, " < ")
	}
	j.put(e.Text, journal.PriWarning, f)
}

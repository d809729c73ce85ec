package journal

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/thurward/thurward/internal/host/vmm"
)

// sink is a journal that keeps what it gets.
type sink struct {
	mu    sync.Mutex
	got   []message
	block chan struct{} // nil: it takes everything at once
	fails bool
}

func (s *sink) send(text string, p journal.Priority, f map[string]string) error {
	if s.block != nil {
		<-s.block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails {
		return errors.New("no room")
	}
	s.got = append(s.got, message{text, p, f})
	return nil
}

func (s *sink) settle(time.Time) {}

func (s *sink) last(t *testing.T, n int) message {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		if len(s.got) >= n {
			m := s.got[n-1]
			s.mu.Unlock()
			return m
		}
		s.mu.Unlock()
		if time.Now().After(end) {
			t.Fatalf("message %d did not come", n)
		}
	}
}

// TestFields: each kind of message has its priority and fields, and nothing from the console
// makes others, or lines of its own.
func TestFields(t *testing.T) {
	s := &sink{}
	j := open("edge", s.send, s.settle)
	for i, c := range []struct {
		do     func()
		pri    journal.Priority
		text   string
		fields map[string]string
	}{
		{func() { j.Say("booting") }, journal.PriNotice, "booting", map[string]string{FieldKind: KindLauncher, FieldName: "edge", "SYSLOG_IDENTIFIER": "thurward"}},
		{func() { j.Fail("no") }, journal.PriErr, "no", map[string]string{FieldKind: KindLauncher}},
		{func() { j.Line(vmm.ParseLine("thurward: ready version=1.2 policy=sha256:ab lan=x\n")) }, journal.PriNotice, "thurward: ready version=1.2 policy=sha256:ab lan=x",
			map[string]string{FieldKind: KindReady, "THURWARD_VERSION": "1.2", "THURWARD_POLICY": "sha256:ab"}},
		{func() { j.Line(vmm.ParseLine("thurward: crash: page fault\n")) }, journal.PriCrit, "thurward: crash: page fault", map[string]string{FieldKind: KindCrash}},
		{func() { j.Line(vmm.ParseLine("thurward: refusing to start: x\n")) }, journal.PriErr, "thurward: refusing to start: x", map[string]string{FieldKind: KindRefused}},
		{func() { j.Line(vmm.ParseLine("thurward: gateway 02:00:00:00:00:01\n")) }, journal.PriInfo, "thurward: gateway 02:00:00:00:00:01", map[string]string{FieldKind: KindGateway}},
		{func() { j.Line(vmm.ParseLine("thurward: stopped: Ctrl-Alt-Del\n")) }, journal.PriNotice, "thurward: stopped: Ctrl-Alt-Del", map[string]string{FieldKind: KindStopped}},
		{func() { j.Line(vmm.ParseLine("rax 0\x1b[2J\n")) }, journal.PriInfo, `rax 0\x1b[2J`, map[string]string{FieldKind: KindConsole}},
		{func() {
			j.Line(vmm.ParseLine(`thurward: event {"event.action":"drop","rule.id":"a\nTHURWARD_NAME=other","source.ip":"10.0.0.2","thurward.name":"x","name":"y","kind":"z"}` + "\n"))
		}, journal.PriInfo, "", map[string]string{FieldKind: KindEvent, FieldName: "edge", "THURWARD_EVENT_ACTION": "drop", "THURWARD_SOURCE_IP": "10.0.0.2"}},
		{func() {
			j.Restart(vmm.End{Reason: vmm.ReasonHang, Text: "again", Up: 90 * time.Second, Pause: 2 * time.Second, Row: 2, All: 5, Stack: []string{"a", "b"}})
		}, journal.PriWarning, "again", map[string]string{FieldKind: KindRestart, "THURWARD_REASON": "hang", "THURWARD_UP_SECONDS": "90", "THURWARD_PAUSE_SECONDS": "2",
			"THURWARD_RESTARTS": "5", "THURWARD_RESTARTS_IN_A_ROW": "2", "THURWARD_STACK": "a < b"}},
		{func() { j.Say("x\ny" + strings.Repeat("z", 2*maxMessage)) }, journal.PriNotice, "", nil},
	} {
		c.do()
		m := s.last(t, i+1)
		if m.pri != c.pri || c.text != "" && m.text != c.text || len(m.text) > maxMessage+10 {
			t.Errorf("%d: priority %d, %q", i, m.pri, m.text)
		}
		for k, v := range c.fields {
			if m.fields[k] != v {
				t.Errorf("%d: %s is %q, want %q", i, k, m.fields[k], v)
			}
		}
		for k, v := range m.fields {
			if strings.ContainsAny(v, "\n\x1b") || strings.Trim(k, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
				t.Errorf("%d: %s=%q", i, k, v)
			}
		}
		if strings.ContainsAny(m.text, "\n\x1b") {
			t.Errorf("%d: %q", i, m.text)
		}
	}
}

// TestJournalStandsStill: nothing waits for a journal that takes nothing; when it does again,
// what was lost is counted.
func TestJournalStandsStill(t *testing.T) {
	s := &sink{block: make(chan struct{})}
	j := open("", s.send, s.settle)
	const n = 3 * maxWaiting
	for i := range n {
		j.Say(fmt.Sprint(i))
	}
	began := time.Now()
	j.Close(50 * time.Millisecond)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the end waits %v", d)
	}
	close(s.block)
	j.Close(20 * time.Second)
	j.Say("the end")
	lost, taken := 0, 0
	for i := 1; ; i++ {
		m := s.last(t, i)
		if m.text == "the end" {
			break
		}
		var k int
		if _, err := fmt.Sscan(m.text, &k); err != nil {
			t.Fatal(m.text)
		}
		if strings.Contains(m.text, "were not written") {
			lost += k
		} else {
			taken++
		}
	}
	if lost+taken != n || lost < n-maxWaiting-2 {
		t.Errorf("%d messages taken and %d lost of %d", taken, lost, n)
	}
}

// TestNoJournal: where standard error leads elsewhere there is none.
func TestNoJournal(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "")
	if Open("edge") != nil {
		t.Error("a journal")
	}
}

// TestCloseWaits: the end waits for the message that the journal is just taking.
func TestCloseWaits(t *testing.T) {
	s := &sink{block: make(chan struct{})}
	settled := 0
	j := open("", s.send, func(time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		settled = len(s.got)
	})
	j.Fail("the last words")
	for len(j.queue) > 0 { // it is taken from the queue
		time.Sleep(time.Millisecond)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(s.block) })
	j.Close(20 * time.Second)
	if settled != 1 {
		t.Errorf("%d messages were sent before the end", settled)
	}
}

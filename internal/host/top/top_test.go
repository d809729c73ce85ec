package top

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/vt"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// feed adds lines to a model.
func feed(m *dashboard.Model, s *ingest.Source, at time.Time, lines ...string) {
	for _, l := range lines {
		it := ingest.Parse(l)
		if it.Kind == ingest.HelloKind {
			it.Hello.Received(at)
			s.Hello = it.Hello
		}
		m.Add(s, it, at)
	}
}

// filled returns a model of two firewalls with a minute of traffic.
func filled() *dashboard.Model {
	m := dashboard.NewModel()
	for _, wan := range []string{"203.0.113.10/24", "203.0.113.20/24"} {
		g, s := &guesttest.Guest{Boot: wan, WAN: wan, Start: start.Add(-time.Hour)}, &ingest.Source{}
		feed(m, s, start, g.Hello(start))
		for i := range 7 {
			at := start.Add(time.Duration(i-6) * 10 * time.Second)
			feed(m, s, at, g.Snapshot()...)
			for range 4 {
				feed(m, s, at, g.Event(at))
			}
		}
	}
	return m
}

// A terminal is an emulated one, which keeps what was written to it.
type terminal struct {
	vt.MockTerm
	mu  sync.Mutex
	raw strings.Builder
}

func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.raw.Write(b)
	t.mu.Unlock()
	return t.MockTerm.Write(b)
}

func (t *terminal) written() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.raw.String()
}

// lines returns what is on the screen.
func (t *terminal) lines() (all []string) {
	size, err := t.WindowSize()
	if err != nil {
		return nil
	}
	for y := range size.Height {
		var b strings.Builder
		for x := range size.Width {
			c := t.GetCell(vt.Coord{X: vt.Col(x), Y: vt.Row(y)})
			if c.C == "" {
				b.WriteByte(' ')
			}
			b.WriteString(c.C)
		}
		all = append(all, strings.TrimRight(b.String(), " "))
	}
	return all
}

// open returns a view on an emulated terminal.
func open(t *testing.T, m *dashboard.Model, width, height int) (*View, *terminal) {
	t.Helper()
	term := &terminal{MockTerm: vt.NewMockTerm(vt.MockOptSize{X: vt.Col(width), Y: vt.Row(height)})}
	s, err := tcell.NewTerminfoScreenFromTty(term, tcell.OptSanitizeContent(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Init(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Fini)
	return New(m, s, func() time.Time { return start }), term
}

// shown draws a view and returns what is on the screen.
func (v *View) shown(t *testing.T, term *terminal) string {
	t.Helper()
	v.refresh()
	v.draw()
	v.out.Show()
	if err := term.Drain(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(term.lines(), "\n")
}

// keys presses keys: characters, and names in angle brackets.
func (v *View) keys(s string) (quit bool) {
	named := map[string]tcell.Key{"enter": tcell.KeyEnter, "esc": tcell.KeyEscape, "tab": tcell.KeyTab, "up": tcell.KeyUp, "down": tcell.KeyDown,
		"left": tcell.KeyLeft, "right": tcell.KeyRight, "pgdn": tcell.KeyPgDn, "end": tcell.KeyEnd, "home": tcell.KeyHome, "bs": tcell.KeyBackspace2, "ctrl-c": tcell.KeyCtrlC}
	for s != "" {
		if s[0] == '<' {
			name, rest, _ := strings.Cut(s[1:], ">")
			quit, s = v.press(tcell.NewEventKey(named[name], "", 0)), rest
			continue
		}
		quit, s = v.press(tcell.NewEventKey(tcell.KeyRune, s[:1], 0)), s[1:]
	}
	return quit
}

// TestView: lists, sorting, filtering, panes, pause and help, as they are on the screen.
func TestView(t *testing.T) {
	v, term := open(t, dashboard.NewModel(), 100, 30)
	if s := v.shown(t, term); !strings.Contains(s, "waiting for a firewall") {
		t.Error(s)
	}
	v, term = open(t, filled(), 110, 34)
	s := v.shown(t, term)
	if path := os.Getenv("TOP_SCREEN"); path != "" {
		os.WriteFile(path, []byte(s), 0o644) //nolint:errcheck // for people
	}
	lines := func(s, a, b string) bool { // a is above b
		return strings.Contains(s, a) && strings.Contains(s[strings.Index(s, a):], b)
	}
	for _, want := range []string{"203.0.113.10  up 60m  version 1.0", "1 of 2", "accepted 11.39k/s   dropped 48/s", "accepted pkt/s, highest 11.39k in 50s", "█",
		"1 Rules", "RULE", "PKT/S▼", "allow-established", "610 000", "lan  in", "ports 203.0.113.10 tcp"} {
		if want == "610 000" {
			want = "427 000"
		}
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	if !lines(s, "allow-established", "allow-web") || !lines(s, "allow-web", "allow-dns") {
		t.Errorf("not sorted by rate:\n%s", s)
	}
	v.keys("r")
	if s := v.shown(t, term); !lines(s, "allow-web", "allow-established") || !strings.Contains(s, "PKT/S▲") {
		t.Errorf("not reversed:\n%s", s)
	}
	v.keys("rss")
	if s := v.shown(t, term); !lines(s, "default-deny", "allow-web") || !strings.Contains(s, "DROPPED▼") {
		t.Errorf("not sorted by drops:\n%s", s)
	}
	v.keys("/DNS<enter>")
	if s := v.shown(t, term); strings.Contains(s, "allow-web") || !strings.Contains(s, "allow-dns") || !strings.Contains(s, "filter: DNS") {
		t.Errorf("not filtered:\n%s", s)
	}
	v.keys("/<bs><bs><bs>web<enter><enter>")
	s = v.shown(t, term)
	for _, want := range []string{"rule allow-web", "pkt/s   accepted 364 000", "hits per second", "SOURCES", "10.0.0.", "github.com", "LAST VERDICTS", "ACCEPT"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in the pane\n%s", want, s)
		}
	}
	v.keys("h")
	if s := v.shown(t, term); !strings.Contains(s, "host 10.0.0.") || !strings.Contains(s, "allow-web") {
		t.Errorf("no pane of a host:\n%s", s)
	}
	v.keys("<esc><esc>3")
	if s := v.shown(t, term); !strings.Contains(s, "DENIED HOST") || !strings.Contains(s, "10.0.0.") {
		t.Error(s)
	}
	v.keys("<down><enter>")
	if s := v.shown(t, term); !strings.Contains(s, "host 10.0.0.") || !strings.Contains(s, "default-deny") {
		t.Error(s)
	}
	v.keys("<esc>4<enter>")
	if s := v.shown(t, term); !strings.Contains(s, "name ads.example") && !strings.Contains(s, "name telemetry.example") && !strings.Contains(s, "name tracker.example") {
		t.Error(s)
	}
	v.keys("<esc>5")
	if s := v.shown(t, term); !strings.Contains(s, "DROP    egress") {
		t.Error(s)
	}
	v.keys("2")
	if s := v.shown(t, term); !strings.Contains(s, "no_matching_allow_rule") {
		t.Error(s)
	}
	v.keys("<tab>")
	if s := v.shown(t, term); !strings.Contains(s, "203.0.113.20  up") || !strings.Contains(s, "2 of 2") {
		t.Error(s)
	}
	v.keys("?")
	if s := v.shown(t, term); !strings.Contains(s, "sort by the next column") {
		t.Error(s)
	}
	v.keys("xp")
	if s := v.shown(t, term); !strings.Contains(s, "PAUSED 12:00:00") {
		t.Error(s)
	}
	v.now = func() time.Time { return start.Add(time.Hour) }
	if s := v.shown(t, term); !strings.Contains(s, "PAUSED 12:00:00") {
		t.Errorf("goes on while paused:\n%s", s)
	}
	if v.keys("/q<esc>") || !v.keys("q") || !v.keys("<ctrl-c>") || !v.keys("<esc>") {
		t.Error("q, ctrl-c and esc quit, and q within a filter does not")
	}
}

// TestSizes: the view fits each size of a terminal, also while it changes.
func TestSizes(t *testing.T) {
	v, term := open(t, filled(), 80, 24)
	for _, size := range [][2]int{{80, 24}, {200, 60}, {40, 12}, {20, 5}, {3, 3}, {1, 1}, {110, 19}, {79, 21}} {
		term.SetSize(vt.Coord{X: vt.Col(size[0]), Y: vt.Row(size[1])})
		v.out.Sync()
		for _, keys := range []string{"1", "<end>", "<enter>", "<esc>", "2", "3", "4", "5<end>", "?", "?1"} {
			v.keys(keys)
			s := v.shown(t, term)
			if w, h := v.out.Size(); w == size[0] && h == size[1] {
				for i, l := range strings.Split(s, "\n") {
					if n := len([]rune(l)); n > size[0] || i >= size[1] {
						t.Errorf("%v: line %d has %d columns: %q", size, i, n, l)
					}
				}
			}
		}
		if size[0] >= 79 && size[1] >= 19 && !strings.Contains(v.shown(t, term), "allow-web") {
			t.Errorf("%v: no rules\n%s", size, v.shown(t, term))
		}
	}
}

// TestNarrow: on a narrow screen the shares of tables and the names of rules are there to be read,
// and columns that do not fit are left out, none is cut.
func TestNarrow(t *testing.T) {
	for _, c := range []struct {
		width, height int
		want, lack    []string
	}{
		{80, 24, []string{"32 %", "allow-established ", "DROPPED", "LAST HIT"}, []string{"% …", "allow-e…"}},
		{40, 10, []string{"allow-establi", "PKT/S", "ACCEPTED"}, []string{"DROPPED", "allow-e…", "                …"}},
		{200, 50, []string{"32 % of 65 536", "allow-established ", "LAST HIT"}, []string{"…"}},
	} {
		v, term := open(t, filled(), c.width, c.height)
		s := v.shown(t, term)
		for _, want := range c.want {
			if !strings.Contains(s, want) {
				t.Errorf("%dx%d: no %q\n%s", c.width, c.height, want, s)
			}
		}
		for _, lack := range c.lack {
			if strings.Contains(s, lack) {
				t.Errorf("%dx%d: %q\n%s", c.width, c.height, lack, s)
			}
		}
	}
}

// TestNoRatesYet: before the second snapshot there is no rate, which is not a rate of 0.
func TestNoRatesYet(t *testing.T) {
	m, s := dashboard.NewModel(), &ingest.Source{}
	g := &guesttest.Guest{Boot: "one", WAN: "203.0.113.10/24", Start: start.Add(-time.Hour)}
	feed(m, s, start, append([]string{g.Hello(start)}, g.Snapshot()...)...)
	v, term := open(t, m, 100, 30)
	if s := v.shown(t, term); !strings.Contains(s, "no rates yet") || !strings.Contains(s, "in       – pkt/s") || strings.Contains(s, "  0 pkt/s") || !strings.Contains(s, "61 000") {
		t.Error(s)
	}
	feed(m, s, start.Add(10*time.Second), g.Snapshot()...)
	if s := v.shown(t, term); strings.Contains(s, "no rates yet") || strings.Contains(s, "–") {
		t.Error(s)
	}
}

// TestVerdictsInOrder: the newest verdict is above the others, also where a line about several
// packets came later than those after the first of them; sorted by verdicts, drops are.
func TestVerdictsInOrder(t *testing.T) {
	m, s := dashboard.NewModel(), &ingest.Source{}
	g := &guesttest.Guest{Boot: "one", WAN: "203.0.113.10/24", Start: start.Add(-time.Hour)}
	event := func(second int, action string) string {
		return fmt.Sprintf(`{"@timestamp":"2026-11-24T11:59:%02d.000000Z","event.action":%q,"event.reason":"rule","rule.id":"r%d","source.ip":"10.0.0.9","destination.ip":"1.1.1.1","network.transport":"icmp","network.direction":"egress"}`, second, action, second)
	}
	feed(m, s, start, g.Hello(start), event(10, "accept"), event(12, "accept"), event(11, "drop"), event(14, "accept"), event(13, "would-drop"))
	v, term := open(t, m, 100, 30)
	order := func() (all string) {
		for _, l := range strings.Split(v.shown(t, term), "\n") {
			if i := strings.Index(l, "rule r"); i >= 0 {
				all += l[i+6:][:2] + " "
			}
		}
		return all
	}
	v.keys("5")
	if got := order(); got != "14 13 12 11 10 " {
		t.Errorf("by time: %s", got)
	}
	v.keys("s")
	if got := order(); got != "11 13 14 12 10 " {
		t.Errorf("by verdict: %s", got)
	}
}

// TestNoColour: with NO_COLOR no colour is set, and the lists can still be read.
func TestNoColour(t *testing.T) {
	for _, none := range []string{"", "1"} {
		t.Setenv("NO_COLOR", none)
		t.Setenv("TERM", "xterm-256color")
		v, term := open(t, filled(), 100, 30)
		s := v.shown(t, term)
		// SGR 30 to 37 and 38 set colours (ECMA-48 section 8.3.117).
		colours := false
		for _, c := range []string{"\x1b[32m", "\x1b[31m", ";32m", ";31m", "38;5"} {
			colours = colours || strings.Contains(term.written(), c)
		}
		if colours == (none != "") || !strings.Contains(s, "allow-web") {
			t.Errorf("NO_COLOR=%q: colours %v\n%s\n%q", none, colours, s, term.written())
		}
	}
}

// TestHostileText: what a firewall says does not control the terminal: not its title, not
// its clipboard, not its modes, and stays on its line.
func TestHostileText(t *testing.T) {
	const evil = "\x1b]2;owned\x07\x1b]52;c;b3duZWQ=\x07\x1b[2J\x1b[?1049l\u009b31m\r\n\u202e\u200bX"
	m, s := dashboard.NewModel(), &ingest.Source{}
	g := &guesttest.Guest{Boot: "aa", WAN: "203.0.113.10/24", Start: start.Add(-time.Hour)}
	quoted := strings.NewReplacer("\x1b", `\u001b`, "\x07", `\u0007`, "\u009b", `\u009b`, "\r", `\r`, "\n", `\n`).Replace(evil)
	for i := range 3 {
		at := start.Add(time.Duration(i-3) * 10 * time.Second)
		feed(m, s, at, append([]string{g.Hello(at)}, g.Snapshot()...)...)
		feed(m, s, at, fmt.Sprintf(`{"@timestamp":"2026-11-24T12:00:00Z","event.action":"drop","event.reason":"explicit_deny","rule.id":"%s","source.ip":"%s","destination.ip":"1.1.1.1","destination.domain":"%s","network.transport":"tcp","network.direction":"egress"}`, quoted, quoted, quoted))
	}
	v, term := open(t, m, 120, 40)
	title := term.GetTitle()
	before := len(term.written())
	for _, keys := range []string{"1", "2", "3", "<enter>", "<esc>4", "<enter>", "<esc>5", "<enter>"} {
		v.keys(keys)
		if s := v.shown(t, term); strings.ContainsAny(s, "\x1b\a\u009b\u202e\u200b\r") {
			t.Errorf("after %q: %q", keys, s)
		}
	}
	if s := v.shown(t, term); !strings.Contains(s, `owned`) {
		t.Errorf("the test shows nothing:\n%s", s)
	}
	out := term.written()[before:]
	for _, bad := range []string{"\x1b]2;owned", "\x1b]52", "\x1b[2J", "\x1b[?1049l", "\u009b", "\u202e"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q was written", bad)
		}
	}
	if term.GetTitle() != title {
		t.Errorf("the title became %q", term.GetTitle())
	}
}

// TestRun: the loop draws, takes keys from the terminal and follows its size.
func TestRun(t *testing.T) {
	v, term := open(t, filled(), 100, 30)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan bool, 1)
	go func() { ended <- v.Run(ctx) }()
	expect := func(text string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !strings.Contains(strings.Join(term.lines(), "\n"), text); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %q in\n%s", text, strings.Join(term.lines(), "\n"))
			}
		}
	}
	expect("allow-web")
	term.SendRaw([]byte("5"))
	expect("VERDICT")
	term.SetSize(vt.Coord{X: 60, Y: 20})
	term.SendRaw([]byte("1"))
	expect("allow-dns")
	term.SendRaw([]byte("q"))
	select {
	case quit := <-ended:
		if !quit {
			t.Error("not by the user")
		}
	case <-time.After(20 * time.Second):
		t.Error("q does not end it")
	}
}

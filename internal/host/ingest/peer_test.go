package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// desk is a handler on a socket that records what it does with connections.
type desk struct {
	path string
	mu   sync.Mutex
	said []string // names, refusals and cuts
	now  time.Time
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{path: filepath.Join(t.TempDir(), "s"), now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	note := func(format string, a ...any) {
		d.mu.Lock()
		d.said = append(d.said, fmt.Sprintf(format, a...))
		d.mu.Unlock()
	}
	h := &Handler{
		Item: func(s *Source, it Item) {
			if it.Kind == HelloKind {
				note("%s is %s", s.Peer, s.Hello.Name())
			}
		},
		Cut:    func(s *Source, err error) { note("%s cut: %v", s.Peer, err) },
		Refuse: func(peer string, err error) { note("%s refused: %v", peer, err) },
		Closed: func(s *Source) { note("%s closed", s.Peer) },
		Now:    func() time.Time { d.mu.Lock(); defer d.mu.Unlock(); return d.now },
	}
	l, err := Listen("unix:" + d.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *desk) count(what string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.said {
		if strings.Contains(s, what) {
			n++
		}
	}
	return n
}

func (d *desk) wait(t *testing.T, what string, n int) {
	t.Helper()
	until(t, what, func() bool { return d.count(what) >= n })
	if got := d.count(what); got != n {
		t.Errorf("%q %d times, want %d", what, got, n)
	}
}

func (d *desk) later(by time.Duration) { d.mu.Lock(); d.now = d.now.Add(by); d.mu.Unlock() }

const wan = `# HELLO {"service.instance.id":%q,"firewall.wan.address":%q}` + "\n"

// TestIdentityIsTheConnections: a machine with the name of another one, connected or
// not, is not taken for it.
func TestIdentityIsTheConnections(t *testing.T) {
	d := newDesk(t)
	victim := dialAs(t, d.path, "victim")
	fmt.Fprintf(victim, wan, "aa", "203.0.113.10/24")
	d.wait(t, "unix:victim is 203.0.113.10", 1)
	thief := dialAs(t, d.path, "thief")
	fmt.Fprintf(thief, wan, "bb", "203.0.113.10/24")
	d.wait(t, "unix:thief is 203.0.113.10#2", 1)
	thief.Close()
	d.wait(t, "unix:thief closed", 1)
	// Nor while the other is away, nor by its boot's id.
	victim.Close()
	d.wait(t, "unix:victim closed", 1)
	thief = dialAs(t, d.path, "thief")
	fmt.Fprintf(thief, wan, "bb", "203.0.113.10/24")
	d.wait(t, "unix:thief is 203.0.113.10#2", 2)
	thief.Close()
	d.wait(t, "unix:thief closed", 2)
	second := dialAs(t, d.path, "second")
	fmt.Fprintf(second, wan, "cc", "203.0.113.30/24")
	d.wait(t, "unix:second is 203.0.113.30", 1)
	second.Close()
	d.wait(t, "unix:second closed", 1)
	d.later(2 * renameAfter)
	second = dialAs(t, d.path, "second")
	fmt.Fprintf(second, wan, "aa", "203.0.113.10/24")
	d.wait(t, "unix:second is 203.0.113.10#3", 1)
	// The twin: the victim comes back as itself, and so does a firewall whose
	// launcher was started again.
	victim = dialAs(t, d.path, "victim")
	fmt.Fprintf(victim, wan, "a2", "203.0.113.10/24")
	d.wait(t, "unix:victim is 203.0.113.10", 2)
	victim.Close()
	d.wait(t, "unix:victim closed", 2)
	fmt.Fprintf(dialAs(t, d.path, "victims-new-launcher"), wan, "a3", "203.0.113.10/24")
	d.wait(t, "victims-new-launcher is 203.0.113.10", 1)
	if d.count("launcher is 203.0.113.10#") != 0 {
		t.Error(d.said)
	}
}

// TestOneNameForAMachine: a machine cannot fill lists with ever new names; after a
// minute without a connection it may have another name.
func TestOneNameForAMachine(t *testing.T) {
	d := newDesk(t)
	first := dialAs(t, d.path, "m")
	fmt.Fprintf(first, wan, "b", "203.0.113.10/24")
	d.wait(t, "m is 203.0.113.10", 1)
	for i := range 5 {
		d.later(cutPause)
		fmt.Fprintf(dialAs(t, d.path, "m"), wan, "b", fmt.Sprintf("203.0.113.%d/24", 20+i))
		d.wait(t, "m cut: "+ErrRenamed.Error(), i+1)
	}
	c := dialAs(t, d.path, "m")
	d.wait(t, "m refused: "+ErrPaused.Error(), 1)
	c.Close()
	d.later(2 * renameAfter)
	first.Close()
	d.wait(t, "m closed", 6)
	d.later(2 * renameAfter)
	c = dialAs(t, d.path, "m")
	fmt.Fprintf(c, wan, "b", "203.0.113.20/24")
	d.wait(t, "m is 203.0.113.20", 1)
	fmt.Fprintf(c, wan, "b", "203.0.113.20/24")
	d.wait(t, "m closed", 7)
	if d.count("m cut: "+ErrTwice.Error()) != 1 {
		t.Error("a second HELLO is taken")
	}
}

// TestSharesOfPeers: one machine has at most two connections at a time, so that there
// is room for others.
func TestSharesOfPeers(t *testing.T) {
	d := newDesk(t)
	first := dialAs(t, d.path, "greedy")
	for range 3 * MaxConns {
		dialAs(t, d.path, "greedy")
	}
	first.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // a test
	if _, err := first.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the oldest connection: %v", err)
	}
	d.wait(t, "greedy closed", 3*MaxConns-1)
	for i := range MaxConns - 1 {
		fmt.Fprintf(dialAs(t, d.path, fmt.Sprint("other", i)), wan, fmt.Sprint("b", i), fmt.Sprintf("203.0.113.%d/24", i))
	}
	d.wait(t, " is 203.0.113.", MaxConns-1)
	// All have one now, and one more is too many.
	c := dialAs(t, d.path, "late")
	c.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // a test
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("one connection too many is kept")
	}
	d.wait(t, "late refused: "+ErrFull.Error(), 1)
}

// TestCutOff: connections that are not a firewall's are cut off, those of a newer
// firewall are not.
func TestCutOff(t *testing.T) {
	hello := fmt.Sprintf(wan, "b", "203.0.113.10/24")
	junk := strings.Repeat("no line\n", maxMalformed)
	for name, c := range map[string]struct {
		say  string
		want error
	}{
		"no hello":         {`{"event.action":"drop"}` + "\n", ErrNoHello},
		"a broken hello":   {`# HELLO {}` + "\n", ErrNoHello},
		"comments only":    {strings.Repeat("# FUTURE\n", 20), ErrNoHello},
		"two hellos":       {hello + hello, ErrTwice},
		"another's line":   {hello + "# FROM 203.0.113.20\n", ErrForeign},
		"nothing readable": {hello + junk, ErrMalformed},
		// Twins.
		"a few":        {hello + strings.Repeat("no line\n", 100), nil},
		"newer":        {"# FUTURE\n" + hello + strings.Repeat("# METRIC thurward_future_total{x=\"1\"} 1\n", 5000), nil},
		"now and then": {hello + strings.Repeat(strings.Repeat("{}\n", 20)+"no line\n", 2*maxMalformed), nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			c1 := dial(t, d.path)
			io.WriteString(c1, c.say) //nolint:errcheck // it may be cut off
			if c.want != nil {
				d.wait(t, "cut: "+c.want.Error(), 1)
				return
			}
			c1.(*net.UnixConn).CloseWrite() //nolint:errcheck // a test
			d.wait(t, "closed", 1)
			if d.count("cut") != 0 || d.count(" is 203.0.113.10") != 1 {
				t.Error(d.said)
			}
		})
	}
}

// TestFollowersAreNotFooled: lines that are too long, and FROM lines of a guest, do not
// become lines of another firewall for followers.
func TestFollowersAreNotFooled(t *testing.T) {
	var h Hub
	a, b := &Source{}, &Source{}
	say := func(s *Source, line string) {
		r := NewReader(strings.NewReader(line + "\n"))
		it, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if it.Kind == HelloKind {
			s.Hello = it.Hello
		}
		h.Publish(s, it)
	}
	say(b, fmt.Sprintf(strings.TrimSpace(wan), "bb", "203.0.113.20/24"))
	f := h.join()
	say(a, fmt.Sprintf(strings.TrimSpace(wan), "bb", "203.0.113.10/24")) // b's own boot
	// Cut off after MaxLine bytes this is a HELLO, and this an event.
	for _, l := range []string{fmt.Sprintf(strings.TrimSpace(wan), "bb", "203.0.113.20/24"), `{"a":1}`, "# FROM 203.0.113.20"} {
		say(a, l+strings.Repeat(" ", MaxLine-len(l)+10))
	}
	say(a, `{"mine":1}`)
	say(b, `{"its":1}`)
	x, y := net.Pipe()
	go func() { f.write(x); x.Close() }()
	fw := NewFollower(y)
	for {
		s, it, err := fw.Next()
		if err != nil {
			t.Fatal(err)
		}
		if it.Event.Str("mine") != "" && s.Hello.Name() != "203.0.113.10" || it.Event.Str("its") != "" && s.Hello.Name() != "203.0.113.20" || it.Event.Str("a") != "" {
			t.Errorf("%s is %s's", it.Raw, s.Hello.Name())
		}
		if it.Event.Str("its") != "" {
			break
		}
	}
	f.close()
}

// failing is a listener without file descriptors for some calls.
type failing struct {
	net.Listener
	left int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return f.Listener.Accept()
}

// TestOutOfDescriptors: a connection that could not be accepted ends neither Serve.
func TestOutOfDescriptors(t *testing.T) {
	dir := t.TempDir()
	for name, serve := range map[string]func(context.Context, net.Listener) error{"guests": (&Handler{}).Serve, "followers": (&Hub{}).Serve} {
		l, err := Listen("unix:" + filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- serve(ctx, &failing{l, 2}) }()
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Errorf("%s: ended with %v", name, err)
		case <-time.After(4 * acceptPause):
		}
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := Patient(&failing{left: 1 << 30})
	time.AfterFunc(10*time.Millisecond, func() { p.(*patient).once.Do(func() { close(p.(*patient).closed) }) })
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestPeer: connections of one process have the same peer.
func TestPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := map[string]bool{}
	for range 2 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		seen[Peer(s)] = true
	}
	want := fmt.Sprintf("process %d@", os.Getpid())
	if len(seen) != 1 || seen[want+strings.TrimPrefix(began(int32(os.Getpid())), "@")] != true || began(int32(os.Getpid())) == "" {
		t.Errorf("%v, want %s…", seen, want)
	}
	if began(1) == began(int32(os.Getpid())) {
		t.Error("this process began when the first one did")
	}
}

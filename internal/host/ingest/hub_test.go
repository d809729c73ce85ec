package ingest

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// station is a receiver: guests on one socket, followers on another.
func station(t *testing.T) (path string, hub *Hub, seen func() []string, stop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "vsock")
	guests, err := Listen("unix:" + GuestSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	tails, err := Listen("unix:" + TailSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	hub = &Hub{}
	var mu sync.Mutex
	var lines []string
	h := &Handler{
		Item: func(s *Source, it Item) {
			hub.Publish(s, it)
			mu.Lock()
			lines = append(lines, s.Hello.Boot+" "+it.Raw)
			mu.Unlock()
		},
		Closed: hub.Gone,
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Serve(ctx, guests); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		if err := hub.Serve(ctx, tails); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return path, hub, func() []string { mu.Lock(); defer mu.Unlock(); return append([]string(nil), lines...) }, stop
}

var machines atomic.Int64

// dial connects as a machine of its own.
func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	return dialAs(t, path, fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), machines.Add(1)))
}

func dialAs(t *testing.T, path, machine string) net.Conn {
	t.Helper()
	c, err := guesttest.Conn(path, machine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a test
	return c
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out waiting for " + what)
		}
	}
}

const helloA = `# HELLO {"service.instance.id":"aa","@timestamp":"2026-11-24T12:00:01Z","firewall.uptime_ns":1000000000,"firewall.wan.address":"203.0.113.10/24"}`
const helloB = `# HELLO {"service.instance.id":"bb","firewall.clock":"none","firewall.uptime_ns":5000000000,"firewall.wan.mac":"02:00:00:00:00:01"}`

// TestHub: with several firewalls and several followers, each follower knows the
// firewall of each line; one that joins later gets HELLO and metrics first.
func TestHub(t *testing.T) {
	path, hub, seen, stop := station(t)
	a, b := dial(t, GuestSocket(path)), dial(t, GuestSocket(path))
	fmt.Fprintln(a, helloA)
	fmt.Fprintln(b, helloB)
	hub.Snapshot = func(s *Source, yield func([]byte) bool) {
		if s.Hello.Boot == "aa" && yield([]byte("# METRIC # SNAPSHOT x\n# METRIC thurward_uptime_seconds 2\n")) {
			yield([]byte("# METRIC # EOF\n"))
		}
	}
	until(t, "the guests' lines", func() bool { return len(seen()) == 2 })
	f1, f2 := NewFollower(dial(t, TailSocket(path))), NewFollower(dial(t, TailSocket(path)))
	until(t, "two followers", func() bool { return hub.Followers() == 2 })
	for i := range 3 {
		fmt.Fprintf(a, `{"a":%d}`+"\n", i)
		until(t, "a", func() bool { return len(seen()) == 3+2*i })
		fmt.Fprintf(b, `{"b":%d}`+"\n", i)
		until(t, "b", func() bool { return len(seen()) == 4+2*i })
	}
	for n, f := range []*Follower{f1, f2} {
		var got []string
		for len(got) < 6+2+3 {
			s, it, err := f.Next()
			if err != nil {
				t.Fatal(err)
			}
			if s.Hello.Boot == "" || s.Hello.Fields == nil {
				t.Fatalf("follower %d: whose is %s?", n, it.Raw)
			}
			if it.Kind == EventKind && (it.Event.Str("a") != "") != (s.Hello.Boot == "aa") {
				t.Errorf("follower %d: %s taken for %s's", n, it.Raw, s.Hello.Boot)
			}
			got = append(got, it.Raw)
		}
		all := strings.Join(got, "\n")
		for _, want := range []string{helloA, helloB, "# METRIC thurward_uptime_seconds 2", `{"a":2}`, `{"b":2}`} {
			if !strings.Contains(all, want) {
				t.Errorf("follower %d misses %s", n, want)
			}
		}
	}
	stop()
	if _, _, err := f1.Next(); err == nil {
		t.Error("the stream goes on after the end")
	}
	// The files are free for the next one.
	l, err := Listen("unix:" + GuestSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// TestHubSlowFollower: a follower that does not read loses the oldest lines, gets their
// number, and does not block the hub.
func TestHubSlowFollower(t *testing.T) {
	var h Hub
	s := &Source{Hello: Hello{Boot: "aa"}}
	hello := Parse(helloA)
	h.Publish(s, hello)
	f := h.join()
	const n = 20000
	line := `{"pad":"` + strings.Repeat("x", 100) + `"}`
	for range n {
		h.Publish(s, Parse(line))
	}
	if f.size > queueBytes {
		t.Fatalf("%d bytes wait", f.size)
	}
	a, b := net.Pipe()
	go func() { f.write(a); a.Close() }()
	fw := NewFollower(b)
	if _, it, err := fw.Next(); err != nil || it.Kind != HelloKind {
		t.Fatalf("%v %q", err, it.Raw)
	}
	_, it, err := fw.Next()
	if err != nil || it.Event.Str("event.action") != "lines-lost" {
		t.Fatalf("%v %q", err, it.Raw)
	}
	lost, got := it.Event.Int("firewall.lost_lines"), int64(0)
	for range f.capacity(len(line)) {
		src, it, err := fw.Next()
		if err != nil || it.Raw != line || src.Hello.Boot != "aa" {
			t.Fatalf("%v %q of %q", err, it.Raw, src.Hello.Boot)
		}
		got++
	}
	if lost+got != n {
		t.Errorf("%d lost and %d read of %d", lost, got, n)
	}
	f.close()
}

// capacity is how many lines of a length wait when the queue is full.
func (f *follower) capacity(line int) int { return queueBytes / (line + 1 + partCost) }

func TestHubBounds(t *testing.T) {
	var h Hub
	s := &Source{}
	for range MaxFollowers {
		if h.join() == nil {
			t.Fatal("refused too early")
		}
	}
	if h.join() != nil {
		t.Error("more followers than the limit")
	}
	h.Publish(s, Parse(helloA))
	h.Gone(s)
	if len(h.sources) != 0 {
		t.Error("a source stays after it has gone")
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ addr, want string }{
		{"tcp:1", "want unix:PATH or vsock:PORT"},
		{"unix:", "a path is missing"},
		{"unix:" + strings.Repeat("x", 108), "107 bytes"},
		{"unix:" + dir, "which is no socket"},
		{"vsock:0", "want vsock:9000"},
		{"vsock:x", "want vsock:9000"},
	} {
		if _, err := Listen(c.addr); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.30s: %v, want %q", c.addr, err, c.want)
		}
	}
	path := filepath.Join(dir, "s")
	l, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second listener: %v", err)
	}
	// What a killed process leaves is replaced.
	l.(*listener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	l, err = Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestHelloTimes(t *testing.T) {
	f := NewFollower(strings.NewReader(helloA + "\n{\"@timestamp\":\"2026-11-24T12:00:02Z\"}\n" + helloB + "\n" + `{"@timestamp":"1970-01-01T00:00:04Z","firewall.clock":"none"}` + "\n"))
	now := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
	f.Now = func() time.Time { return now }
	var at []time.Time
	var boots []time.Time
	for {
		s, it, err := f.Next()
		if err != nil {
			break
		}
		if it.Kind == EventKind {
			at, boots = append(at, s.Hello.When(it.Event)), append(boots, s.Hello.Booted)
		}
	}
	if len(at) != 2 || at[0].UTC().Format(time.TimeOnly) != "12:00:02" || boots[0].UTC().Format(time.TimeOnly) != "12:00:00" {
		t.Fatalf("%v %v", at, boots)
	}
	// Without a clock: five seconds up when it said hello at 15:00, so that its fourth second was at 14:59:59.
	if at[1].UTC().Format(time.TimeOnly) != "14:59:59" {
		t.Errorf("%v", at[1])
	}
}

package e2e

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// A receiver is the other end of the stream: it listens on PATH_9000 and keeps
// all lines.
type receiver struct {
	t    testing.TB
	path string
	l    net.Listener

	mu      sync.Mutex
	change  *sync.Cond
	lines   []string
	conn    net.Conn
	conns   int
	stopped bool // reading
	current map[string]uint64
	metrics map[string]uint64 // of the last whole snapshot
	shots   int
	shotOf  int               // the connection, counted from 1, that brought the last
	help    map[string]string // of metrics
	types   map[string]string
	keep    func(line string) bool             // lines that are kept; nil: all
	saw     func(series string, value float64) // told each value of a metric; may be nil
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{t: t, path: filepath.Join(t.TempDir(), "v"), help: map[string]string{}, types: map[string]string{}}
	r.change = sync.NewCond(&r.mu)
	return r
}

// listen begins to receive.
func (r *receiver) listen() {
	r.t.Helper()
	var err error
	if r.l, err = net.Listen("unix", r.path+"_9000"); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.l.Close(); r.read(true) })
	go func() {
		for {
			c, err := r.l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conn = c
			r.conns++
			r.current = nil
			r.mu.Unlock()
			go r.serve(c)
		}
	}()
}

func (r *receiver) serve(c net.Conn) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 16<<10)
	for {
		r.mu.Lock()
		for r.stopped {
			r.change.Wait()
		}
		r.mu.Unlock()
		s, err := br.ReadString('\n')
		if err != nil {
			return
		}
		r.mu.Lock()
		r.take(strings.TrimSuffix(s, "\n"))
		r.change.Broadcast()
		r.mu.Unlock()
	}
}

// take keeps a line. The lock is held.
func (r *receiver) take(s string) {
	if m, ok := strings.CutPrefix(s, "# METRIC "); ok {
		switch {
		case strings.HasPrefix(m, "# SNAPSHOT "):
			r.current = map[string]uint64{}
		case m == "# EOF":
			r.metrics, r.current = r.current, nil
			r.shots++
			r.shotOf = r.conns
		case strings.HasPrefix(m, "# HELP "), strings.HasPrefix(m, "# TYPE "):
			name, text, _ := strings.Cut(m[len("# HELP "):], " ")
			if m[2] == 'H' {
				r.help[name] = text
			} else {
				r.types[name] = text
			}
		case m[0] != '#' && r.current != nil:
			i := strings.LastIndexByte(m, ' ')
			v, err := strconv.ParseFloat(m[i+1:], 64)
			if err != nil {
				r.t.Errorf("metric %q: %v", m, err)
			}
			r.current[m[:i]] = uint64(v)
			if r.saw != nil {
				r.saw(m[:i], v)
			}
		}
		return
	}
	if r.keep == nil || r.keep(s) {
		r.lines = append(r.lines, s)
	}
}

// read lets the receiver read, or not.
func (r *receiver) read(on bool) {
	r.mu.Lock()
	r.stopped = !on
	r.change.Broadcast()
	r.mu.Unlock()
}

// hangUp closes the connection.
func (r *receiver) hangUp() {
	r.mu.Lock()
	c := r.conn
	r.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// await waits until ok, which is called with the lock held.
func (r *receiver) await(what string, ok func() bool) {
	r.t.Helper()
	late := time.AfterFunc(limit, func() { r.mu.Lock(); r.change.Broadcast(); r.mu.Unlock() })
	defer late.Stop()
	end := time.Now().Add(limit)
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ok() {
		if time.Now().After(end) {
			last := r.lines[max(0, len(r.lines)-5):]
			r.t.Fatalf("%s: not within %v; %d connections, %d lines, %d snapshots, the last lines:\n%s", what, limit, r.conns, len(r.lines), r.shots, strings.Join(last, "\n"))
		}
		r.change.Wait()
	}
}

// events returns the events that fit want, by field; a nil want is any.
func (r *receiver) events(want map[string]any) (found []map[string]any) {
	r.mu.Lock()
	lines := r.lines
	r.mu.Unlock()
	for _, s := range lines {
		if s == "" || s[0] != '{' {
			continue
		}
		e := parse(r.t, s)
		fits := true
		for k, v := range want {
			fits = fits && e[k] == v
		}
		if fits {
			found = append(found, e)
		}
	}
	return found
}

func parse(t testing.TB, s string) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		t.Errorf("%v: %q", err, s)
	}
	return m
}

// awaitEvents waits for at least n events that fit.
func (r *receiver) awaitEvents(n int, want map[string]any) (found []map[string]any) {
	r.t.Helper()
	r.await("events", func() bool {
		r.mu.Unlock()
		found = r.events(want)
		r.mu.Lock()
		return len(found) >= n
	})
	return found
}

// fresh has the firewall connect anew, which begins with a snapshot of its
// metrics, and returns that. One that the old connection was still bringing is
// not taken for it.
func (r *receiver) fresh() map[string]uint64 {
	r.t.Helper()
	r.mu.Lock()
	old := r.conns
	r.mu.Unlock()
	r.hangUp()
	var m map[string]uint64
	r.await("a snapshot", func() bool { m = r.metrics; return r.shotOf > old && r.metrics != nil })
	return m
}

// drops returns how many drops lines stand for.
func drops(es []map[string]any) (n int) {
	for _, e := range es {
		if c, ok := e["firewall.count"].(float64); ok {
			n += int(c)
		} else {
			n++
		}
	}
	return n
}

// watched boots a machine whose stream goes to a new receiver.
func watched(t testing.TB, kvm bool, configure func(*vmm.Config)) (*lab, *receiver) {
	t.Helper()
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	return watchedOn(t, q, kvm, configure)
}

// watchedOn is watched on a given hypervisor.
func watchedOn(t testing.TB, h vmm.Hypervisor, kvm bool, configure func(*vmm.Config)) (*lab, *receiver) {
	t.Helper()
	r := newReceiver(t)
	r.listen()
	l := newLabOn(t, h, kvm, func(c *vmm.Config) {
		c.Vsock, c.Append, c.Log = vmm.Vsock{Path: r.path}, "thurward.events=none", t.Logf
		if configure != nil {
			configure(c)
		}
	})
	l.awaitReady()
	r.await("hello", func() bool { return len(r.lines) > 0 })
	return l, r
}

package main

import (
	"errors"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// counters are the machine's metrics by name, summed over interfaces.
type counters map[string]float64

// told receives a machine's stream. A firewall sends its metrics when it connects: it is asked
// for them by closing its connection.
type told struct {
	l     net.Listener
	path  string // for vmm.Vsock
	shots chan counters

	mu     sync.Mutex
	conn   net.Conn
	wanted bool
}

func listenTold(dir string) (*told, error) {
	t := &told{path: filepath.Join(dir, "v"), shots: make(chan counters, 1)}
	l, err := ingest.Listen("unix:" + t.path + "_9000")
	if err != nil {
		return nil, err
	}
	t.l = l
	go t.accept()
	return t, nil
}

func (t *told) accept() {
	for {
		conn, err := t.l.Accept()
		if err != nil {
			return
		}
		t.mu.Lock()
		t.conn = conn
		wanted := t.wanted
		t.wanted = false
		t.mu.Unlock()
		t.read(conn, wanted)
	}
}

// read reads a connection to its end; its first snapshot is sent if it is wanted.
func (t *told) read(conn net.Conn, wanted bool) {
	defer conn.Close()
	r, c := ingest.NewReader(conn), counters{}
	for {
		it, err := r.Next()
		if err != nil {
			return
		}
		switch {
		case it.Kind == ingest.SampleKind && wanted:
			c[it.Sample.Name] += it.Sample.Value
		case it.Kind == ingest.EOFKind && wanted:
			wanted = false
			t.shots <- c
		}
	}
}

// counters asks the machine for its metrics. Of a nil told there are none.
func (t *told) counters() (counters, error) {
	if t == nil {
		return nil, nil
	}
	t.mu.Lock()
	t.wanted = true
	if t.conn != nil {
		t.conn.Close()
	}
	t.mu.Unlock()
	select {
	case c := <-t.shots:
		return c, nil
	case <-time.After(20 * time.Second):
		return nil, errors.New("the machine does not send its metrics")
	}
}

func (t *told) close() {
	if t == nil {
		return
	}
	t.l.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		t.conn.Close()
	}
}

package main

import (
	"net"
	"path/filepath"
	"sync"

	told "github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// A snapshot is what a guest says of itself, in seconds.
type snapshot struct{ uptime, busy float64 }

// counters gets the guest's metrics. A firewall sends them when it connects: it
// is asked for them by closing its connection.
type counters struct {
	l     net.Listener
	path  string
	shots chan snapshot

	mu     sync.Mutex
	conn   net.Conn
	wanted bool
}

func newCounters(dir string) (*counters, error) {
	c := &counters{path: filepath.Join(dir, "vsock"), shots: make(chan snapshot, 1)}
	l, err := told.Listen("unix:" + c.path + "_9000")
	if err != nil {
		return nil, err
	}
	c.l = l
	go c.accept()
	return c, nil
}

func (c *counters) vsock() vmm.Vsock { return vmm.Vsock{Path: c.path} }

func (c *counters) accept() {
	for {
		conn, err := c.l.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.conn = conn
		wanted := c.wanted
		c.wanted = false
		c.mu.Unlock()
		c.read(conn, wanted)
	}
}

// read reads a connection to its end; what the first snapshot says is sent if
// it is wanted.
func (c *counters) read(conn net.Conn, wanted bool) {
	defer conn.Close()
	r := told.NewReader(conn)
	var s snapshot
	for {
		it, err := r.Next()
		if err != nil {
			return
		}
		switch {
		case it.Kind == told.SampleKind && it.Sample.Name == "thurward_uptime_seconds":
			s.uptime = it.Sample.Value
		case it.Kind == told.SampleKind && it.Sample.Name == "thurward_packet_loop_busy_seconds_total":
			s.busy = it.Sample.Value
		case it.Kind == told.EOFKind && wanted:
			wanted = false
			c.shots <- s
		}
	}
}

// ask makes the guest connect anew.
func (c *counters) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = true
	if c.conn != nil {
		c.conn.Close()
	}
}

func (c *counters) close() {
	c.l.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
	}
}

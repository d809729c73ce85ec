package vmm

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
)

// A Plug joins a running machine to a network, and parts it from it.
type Plug struct {
	In, Out func() error
	empty   func() // before the machine starts: takes what waits for it; may be nil
}

// ErrNoPlug is the error of a machine that was to start apart from its networks, and of
// which one cannot be parted from it.
var ErrNoPlug = errors.New("a machine cannot stand by on this network")

// errShut is the error of a connection of a machine that is parted from its networks.
var errShut = errors.New("the machine stands by: its stream is not passed on")

// A Gate is where a machine is joined to its networks and its stream to the receiver, and
// parted from them, while it runs. Of two machines with the same addresses one gate at most
// may be open. Several goroutines may use a Gate. The zero Gate is shut.
type Gate struct {
	mu     sync.Mutex
	open   bool
	plugs  []Plug
	fixed  bool // a network that cannot be parted
	stream []*net.UnixConn
}

// NewGate returns a gate for a machine that is not yet started.
func NewGate(open bool) *Gate { return &Gate{open: open} }

// Switch parts one machine from the outside and joins another: the one place where machines
// take each other's place. If the second cannot be joined the first is joined again.
func Switch(from, to *Gate) error {
	if from != nil {
		if err := from.Shut(); err != nil {
			return errors.Join(err, from.Open())
		}
	}
	err := to.Open()
	if err != nil && from != nil {
		err = errors.Join(err, from.Open())
	}
	return err
}

// Open joins the machine, to its last network first, which is the WAN: what then comes from
// the LAN finds its way out. After an error it is parted from all networks.
func (g *Gate) Open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range slices.Backward(g.plugs) {
		if err := p.In(); err != nil {
			return errors.Join(fmt.Errorf("joining the machine: %w", err), g.shut())
		}
	}
	g.open = true
	return nil
}

// Shut parts the machine from its networks, and ends its stream.
func (g *Gate) Shut() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut()
}

func (g *Gate) shut() error {
	g.open = false
	var errs []error
	for _, p := range g.plugs {
		if err := p.Out(); err != nil {
			errs = append(errs, fmt.Errorf("parting the machine: %w", err))
		}
	}
	for _, c := range g.stream {
		c.Close()
	}
	g.stream = nil
	return errors.Join(errs...)
}

// Movable reports whether the machine can be parted from all of its networks.
func (g *Gate) Movable() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.fixed
}

// add takes the network of a machine that is being started, as the gate stands. p is nil
// for a network that cannot be parted. Without a gate the machine is joined.
func (g *Gate) add(p *Plug) error {
	if g == nil {
		if p == nil {
			return nil
		}
		return p.In()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case p != nil:
		g.plugs = append(g.plugs, *p)
		if g.open {
			return p.In()
		}
		if err := p.Out(); err != nil {
			return err
		}
		if p.empty != nil {
			p.empty()
		}
		return nil
	case !g.open:
		return ErrNoPlug
	}
	g.fixed = true
	return nil
}

// pass makes a connection of the machine's stream, unless the gate is shut, and ends it
// when the gate is.
func (g *Gate) pass(dial func() (*net.UnixConn, error)) (*net.UnixConn, error) {
	if g == nil {
		return dial()
	}
	if !g.Joined() {
		return nil, errShut
	}
	c, err := dial() // may take a while: nobody waits for it to shut the gate
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open {
		c.Close()
		return nil, errShut
	}
	g.stream = append(slices.DeleteFunc(g.stream, ended), c)
	return c, nil
}

// Joined reports whether the gate is open.
func (g *Gate) Joined() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// ended reports whether this process has closed a connection.
func ended(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

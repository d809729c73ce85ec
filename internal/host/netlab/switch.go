package netlab

import (
	"slices"
	"sync"
	"sync/atomic"
)

// minFrame is the length of an Ethernet header in bytes: destination, source,
// type (IEEE 802.3 clause 3.1.1).
const minFrame = 14

// A mac is an Ethernet address.
type mac [6]byte

// A Switch is an Ethernet segment: a learning switch without loops. It is
// safe for concurrent use.
type Switch struct {
	Name string

	mu    sync.RWMutex
	ports []*Port
	table map[mac]*Port
	taps  []func(from string, frame []byte)
	drops []func(at string, frame []byte)
}

// NewSwitch makes a switch without ports.
func NewSwitch(name string) *Switch { return &Switch{Name: name, table: map[mac]*Port{}} }

// maxLearned is how many addresses are learned from one port. Frames to others are
// flooded, so that a machine that makes up addresses cuts nobody off.
const maxLearned = 1024

// A Port is one end on a switch.
type Port struct {
	Name    string
	sw      *Switch
	deliver func(frame []byte)
	dropped atomic.Uint64
	learned int // addresses in the switch's table, under its lock
}

// Attach adds a port. deliver is called with every frame for it, from the
// sender's goroutine: it must not block, and must not change the frame, which
// other ports may share.
func (s *Switch) Attach(name string, deliver func(frame []byte)) *Port {
	p := &Port{Name: name, sw: s, deliver: deliver}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = append(slices.Clip(s.ports), p) // Send iterates over the old slice unlocked
	return p
}

// Tap calls f with every frame that enters the switch, and the name of the
// port it entered by, before it is delivered. f must not change the frame.
func (s *Switch) Tap(f func(from string, frame []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taps = append(slices.Clip(s.taps), f)
}

// OnDrop calls f with every frame that a port could not take, and the port's
// name. f must not change the frame.
func (s *Switch) OnDrop(f func(at string, frame []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops = append(slices.Clip(s.drops), f)
}

// drop counts a frame that the port could not take.
func (p *Port) drop(frame []byte) {
	p.dropped.Add(1)
	p.sw.mu.RLock()
	drops := p.sw.drops
	p.sw.mu.RUnlock()
	for _, f := range drops {
		f(p.Name, frame)
	}
}

// Detach takes the port off its switch.
func (p *Port) Detach() {
	s := p.sw
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = slices.DeleteFunc(slices.Clone(s.ports), func(q *Port) bool { return q == p })
	for a, q := range s.table {
		if q == p {
			delete(s.table, a)
		}
	}
}

// Send puts a frame on the switch, which takes its memory: the caller must not
// use it again. A frame too short for an Ethernet header is dropped.
func (p *Port) Send(frame []byte) {
	if len(frame) < minFrame {
		p.drop(frame)
		return
	}
	dst, src := mac(frame[0:6]), mac(frame[6:12])
	s := p.sw
	s.mu.RLock()
	known, out, ports, taps := s.table[src] == p, s.table[dst], s.ports, s.taps
	s.mu.RUnlock()
	if !known && src[0]&1 == 0 {
		s.learn(src, p)
	}
	for _, t := range taps {
		t(p.Name, frame)
	}
	if out != nil && dst[0]&1 == 0 {
		if out != p {
			out.deliver(frame)
		}
		return
	}
	for _, q := range ports {
		if q != p {
			q.deliver(frame)
		}
	}
}

// learn records behind which port an address is.
func (s *Switch) learn(a mac, p *Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.learned >= maxLearned {
		return
	}
	if q := s.table[a]; q != nil {
		q.learned--
	}
	s.table[a] = p
	p.learned++
}

// Dropped returns how many frames the port could not take.
func (p *Port) Dropped() uint64 { return p.dropped.Load() }

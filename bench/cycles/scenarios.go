package main

import (
	"fmt"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A scenario is a table of the output.
type scenario struct {
	name    string
	what    string
	flows   int
	packets int // that are measured; or flows that begin or end
	proto   uint8
	fresh   bool // each packet begins a flow
	full    bool // the table is full: each of these flows ends another
	end     bool // flows end
	stages  []stage
	part    int // of the packets that are measured; 0: all
}

// A stage is a part of what is done for a packet: what some functions do, with all that they
// call, without what others do that are called by them.
type stage struct {
	name string
	in   []string // symbols, without the module's path
	not  []string // "caller > called"
}

const (
	poll    = "router.(*Engine).Poll"
	receive = "virtio.(*Net).Receive"
	flush   = "router.(*Engine).flush"
	evict   = "conntrack.(*Table).reclaim"
)

var established = []stage{
	{"receive", []string{receive}, nil},
	{"parse", []string{"router.(*Engine).parse"}, nil},
	{"look-up", []string{"conntrack.(*Table).Prepare"}, nil},
	{"fast path", []string{"router.(*Engine).fastPath"}, []string{"router.(*Engine).fastPath > " + flush}},
	{"transmit", []string{flush}, nil},
}

var fresh = []stage{
	{"receive", []string{receive}, nil},
	{"parse", []string{"router.(*Engine).parse"}, nil},
	{"look-up", []string{"conntrack.(*Table).Prepare", "conntrack.(*Table).LookupBatch"}, nil},
	{"filter", []string{"filter.(*Classifier).Decide"}, nil},
	{"port", []string{"router.(*Engine).mapSource"}, nil},
	{"insert", []string{"router.(*Engine).insert"}, []string{"conntrack.(*Table).takeFree > " + evict}},
	{"event", []string{"router.(*Engine).emitFlow"}, nil},
	{"translate", []string{"router.(*Engine).send"}, []string{"router.(*Engine).enqueue > " + flush}},
	{"transmit", []string{flush}, nil},
}

var end = []stage{
	{"port", []string{"nat.(*Pool).Give"}, nil},
	{"event", []string{"router.(*Engine).emitEnd"}, nil},
	{"index", []string{"conntrack.(*Table).unplace"}, nil},
}

// flood is fresh, and a flow is evicted where another one is inserted.
var flood = append(slices.Clip(fresh), stage{"evict", []string{evict}, nil})

var scenarios = []scenario{
	{name: "udp-16", what: "UDP, 16 flows", flows: 16, packets: 64 << 10, proto: packet.UDP, stages: established},
	{name: "tcp-1k", what: "TCP, 1 k connections", flows: 1 << 10, packets: 64 << 10, proto: packet.TCP, stages: established},
	{name: "udp-64k", what: "UDP, 64 k flows", flows: 64 << 10, packets: 128 << 10, proto: packet.UDP, stages: established},
	{name: "udp-1m", what: "UDP, 1 M flows", flows: 1 << 20, packets: 256 << 10, proto: packet.UDP, stages: established},
	{name: "new", what: "UDP, each packet begins a flow", flows: 48 << 10, packets: 48 << 10, proto: packet.UDP, fresh: true, stages: fresh},
	{name: "flood", what: "UDP, each packet begins a flow in a full table", flows: 48 << 10, packets: 48 << 10, proto: packet.UDP, fresh: true, full: true, stages: flood},
	{name: "end", what: "UDP, flows end", flows: 48 << 10, packets: 48 << 10, proto: packet.UDP, end: true, stages: end},
}

// find returns a scenario by its name, with part of its packets and flows.
func find(name string, part int) (*scenario, error) {
	for _, s := range scenarios {
		if s.name == name {
			s.packets = max(s.packets/part, 64)
			s.flows = max(s.flows/part, min(s.flows, 16))
			s.part = part
			return &s, nil
		}
	}
	return nil, fmt.Errorf("there is no scenario %q", name)
}

// prepare makes a machine that has everything that the scenario takes for granted, but what
// is measured.
func (s *scenario) prepare() (*machine, error) {
	room := max(1<<16, s.flows+1)
	if s.full {
		room = s.flows
	}
	m, err := newMachine(room)
	if err != nil {
		return nil, err
	}
	m.meet(s.flows)
	if s.fresh {
		// All memory has been used before, as after the first minutes.
		m.set(s.flows, s.proto, 0)
		m.all()
		m.endAll()
		m.meet(s.flows)
		m.set(s.flows, s.proto, 0)
		m.shuffle()
		if s.full {
			m.all()
			if n := m.e.Flows().Len(); n != room {
				return nil, fmt.Errorf("%s: %d flows do not fill a table for %d", s.name, n, room)
			}
			m.others = true
			m.set(s.flows, s.proto, 0)
			m.shuffle()
		}
		return m, nil
	}
	if s.proto == packet.TCP {
		m.set(s.flows, packet.TCP, packet.SYN)
		m.all()
		for range 8 {
			m.poll()
		}
		m.set(s.flows, packet.TCP, packet.ACK)
	} else {
		m.set(s.flows, packet.UDP, 0)
		m.all()
	}
	m.shuffle()
	if !s.end {
		m.all()
	}
	if n := m.e.Flows().Len(); n != s.flows+1 {
		return nil, fmt.Errorf("%s: %d flows, want %d", s.name, n, s.flows+1)
	}
	return m, nil
}

// meet has the firewall find the gateway, by a flow beside the others.
func (m *machine) meet(flows int) {
	m.set(flows+1, packet.UDP, 0)
	m.at = flows * m.size
	m.round(1)
	for range 4 {
		m.poll()
	}
}

// run measures, in the functions that are counted, and verifies that all was done.
func (s *scenario) run(m *machine) error {
	sent, seen, flows := m.dev[wan].sent, m.seen, m.e.Flows().Len()
	if s.end {
		m.ending()
		if m.seen-seen != flows {
			return fmt.Errorf("%s: %d events about %d flows", s.name, m.seen-seen, flows)
		}
		return nil
	}
	m.measured(s.packets)
	if n := m.dev[wan].sent - sent; n != s.packets {
		return fmt.Errorf("%s: %d of %d packets sent", s.name, n, s.packets)
	}
	begun, events := s.packets, s.packets
	if s.full {
		begun, events = 0, 2*s.packets
	}
	if n := m.e.Flows().Len() - flows; s.fresh && (n != begun || m.seen-seen != events) {
		return fmt.Errorf("%s: %d flows and %d events of %d packets", s.name, n, m.seen-seen, s.packets)
	}
	return nil
}

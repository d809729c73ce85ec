package main

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"time"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// rules is the policy: source translation, and events of each flow's beginning and end. The
// last rules accept; before them are as many as a small network has.
const rules = `
interfaces:
  lan0: { address: 10.1.255.254/16 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny, max_flows: %d }
nat: { snat: [ { out_interface: wan0, source: 10.1.0.0/16, masquerade: true } ] }
rules:
%s  - { id: allow-udp, action: accept, direction: egress, source: 10.1.0.0/16, protocol: udp, destination_port: 9 }
  - { id: allow-tcp, action: accept, direction: egress, source: 10.1.0.0/16, protocol: tcp, destination_port: 9 }
  - { id: allow-established, action: accept, direction: ingress, state: established }
`

const (
	lan = 0
	wan = 1

	second = int64(1e9)
	port   = 9
	web    = packet.Addr(198<<24 | 51<<16 | 100<<8 | 7)
)

var peerMAC = [6]byte{2, 9, 0, 0, 0, 2}

// A machine is the firewall between two devices.
type machine struct {
	e       *router.Engine
	dev     [2]*device
	events  *event.Ring
	seen    int // events
	now     int64
	batch   int
	frames  []byte // that are received in turn, of size bytes each
	size    int
	at      int
	answers [2][][]byte
	others  bool // flows that set makes are of other hosts than those before

	timed bool // the time of polls is measured
	spent []time.Duration
}

// newMachine starts a firewall with room for a number of flows.
func newMachine(flows int) (*machine, error) {
	deny := ""
	for i := range 8 {
		deny += fmt.Sprintf("  - { id: deny-%d, action: deny, direction: egress, source: 10.1.%d.0/24, destination: 192.0.2.%d/32, protocol: tcp, destination_port: 25 }\n", i, i, i)
	}
	p, diags := policy.Load("cycles", []byte(fmt.Sprintf(rules, flows, deny)))
	if p == nil {
		return nil, fmt.Errorf("the policy of the measurement: %v", diags)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		return nil, err
	}
	m := &machine{events: event.NewRing(4096), now: second, batch: 64}
	a := &arena{mem: huge(8<<20, true)}
	buffers, err := a.alloc(2048 * framebuf.Size)
	if err != nil {
		return nil, err
	}
	pool := framebuf.NewPool(buffers.Mem, buffers.Phys)
	c := router.Config{Policy: rs, Pool: pool, Events: m.events, Secret: [32]byte{1, 2, 3}, Alloc: huge}
	for i, role := range []ruleset.Role{ruleset.LAN, ruleset.WAN} {
		d := &device{a: a, mac: [6]byte{2, 0, 0, 0, 0, byte(1 + i)}}
		d.took = func(f []byte) { m.took(i, f) }
		found, err := virtio.FindNet(d, virtio.Wanted{})
		if err != nil {
			return nil, err
		}
		n, err := found.Open(a.alloc, pool, virtio.NetOptions{QueueSize: queueSize})
		if err != nil {
			return nil, err
		}
		m.dev[i] = d
		c.Ports = append(c.Ports, router.PortConfig{Role: role, Port: n, MAC: d.mac})
	}
	if m.e, err = router.New(c); err != nil {
		return nil, err
	}
	return m, nil
}

// huge returns memory in pages of 2 MB where the system has them, as in the image.
func huge(n int, _ bool) []byte {
	m, err := syscall.Mmap(-1, 0, n+2<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	const hugepage = 14          // MADV_HUGEPAGE; without it the pages are small
	syscall.Madvise(m, hugepage) //nolint:errcheck
	return m[:n:n]
}

// took answers ARP, and connections where they are to be.
func (m *machine) took(side int, f []byte) {
	if binary.BigEndian.Uint16(f[12:]) == packet.TypeARP {
		var q packet.ARPMessage
		if packet.ParseARP(f, &q) && q.Op == packet.ARPRequest {
			a := make([]byte, 60)
			packet.PutARP(a, &q.SenderMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: peerMAC, SenderAddr: q.TargetAddr,
				TargetMAC: q.SenderMAC, TargetAddr: q.SenderAddr})
			m.answers[side] = append(m.answers[side], a)
		}
		return
	}
	if a := m.shake(side, f); a != nil {
		m.answers[side] = append(m.answers[side], a)
	}
}

// round has the firewall handle one batch, and what else there is.
func (m *machine) round(n int) {
	for range n {
		if !m.dev[lan].deliver(m.frames[m.at:][:m.size]) {
			panic("the driver has posted no buffer")
		}
		if m.at += m.size; m.at == len(m.frames) {
			m.at = 0
		}
	}
	m.poll()
}

// poll has the firewall look at what there is, and takes what comes of it.
func (m *machine) poll() {
	for i, as := range m.answers {
		for _, a := range as {
			m.dev[i].deliver(a)
		}
		m.answers[i] = as[:0]
	}
	if m.timed {
		start := threadTime()
		m.e.Poll(m.now)
		m.spent = append(m.spent, threadTime()-start)
	} else {
		m.e.Poll(m.now)
	}
	m.now += 1000
	for _, d := range m.dev {
		d.drain()
	}
	var r event.Record
	for m.events.Get(&r) {
		m.seen++
	}
}

// measured handles n frames. Only what it calls is counted.
//
//go:noinline
func (m *machine) measured(n int) {
	for ; n > 0; n -= m.batch {
		m.round(min(n, m.batch))
	}
}

// ending ends all flows. Only what it calls is counted.
//
//go:noinline
func (m *machine) ending() { m.endAll() }

// endAll lets all flows expire, and polls until the last one has gone.
func (m *machine) endAll() {
	for m.now += 300 * second; m.e.Flows().Len() > 0; {
		m.now += second / 1000
		m.poll()
	}
}

// all handles each frame once, uncounted.
func (m *machine) all() {
	for n := len(m.frames) / m.size; n > 0; n -= m.batch {
		m.round(min(n, m.batch))
	}
}

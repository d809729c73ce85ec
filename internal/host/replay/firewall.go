package replay

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Side is one of the firewall's two ports.
type Side int

// The sides.
const (
	LAN Side = iota
	WAN
)

func (s Side) String() string { return [...]string{"lan", "wan"}[s&1] }

// Start is the virtual time, in nanoseconds, at which a Firewall begins.
const Start = int64(1e9)

// DefaultMAC is the default of Config.MAC.
var DefaultMAC = [2][6]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}

// Config configures a Firewall. Policy is required.
type Config struct {
	Policy *ruleset.Policy
	Seed   uint64     // of the firewall's secret
	MAC    [2][6]byte // of the ports, by Side; zero: DefaultMAC
	// Buffers is how many frames the firewall can keep: a batch in each direction,
	// and frames that wait for neighbours or fragments. 0: 8192.
	Buffers int

	// Neighbour returns the link-layer address that answers the firewall's ARP
	// requests for a. If it is nil or returns false they are not answered, unless
	// by frames passed to Receive.
	Neighbour func(s Side, a packet.Addr) (mac [6]byte, ok bool)
	// Sent is called with each frame that leaves, ARP included, at virtual
	// time now. The frame's memory is valid during the call. Nil: ignored.
	Sent func(s Side, now int64, frame []byte)
	// Event is called with each event and the name that belongs to it, whose
	// memory is valid during the call. Nil: ignored.
	Event func(r *event.Record, name []byte)
}

// A Firewall is a data plane in virtual time, for use by one goroutine.
type Firewall struct {
	engine *router.Engine
	ring   *event.Ring
	port   [2]port
	c      Config
	now    int64
	name   []byte // scratch for names of events
}

// port is an in-memory router.Port.
type port struct {
	f    *Firewall
	side Side
	pool *framebuf.Pool
	in   []byte // the frame to receive next; nil: none
	arp  [][60]byte
	mac  [6]byte
}

// NewFirewall makes a firewall at virtual time Start.
func NewFirewall(c Config) (*Firewall, error) {
	f := &Firewall{c: c, now: Start, ring: event.NewRing(1024)}
	if c.Buffers == 0 {
		c.Buffers = 8192
	}
	_, span := router.Buffers(router.LargestMTU(c.Policy, 0, 0))
	pool := framebuf.NewPoolOf(make([]byte, c.Buffers*span*framebuf.Size), 0, span)
	for i := range f.port {
		mac := c.MAC[i]
		if mac == ([6]byte{}) {
			mac = DefaultMAC[i]
		}
		f.port[i] = port{f: f, side: Side(i), pool: pool, mac: mac}
	}
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], c.Seed)
	var err error
	f.engine, err = router.New(router.Config{
		Policy: c.Policy, Pool: pool, Events: f.ring, Secret: sha256.Sum256(seed[:]),
		Ports: []router.PortConfig{
			{Role: ruleset.LAN, Port: &f.port[LAN], MAC: f.port[LAN].mac},
			{Role: ruleset.WAN, Port: &f.port[WAN], MAC: f.port[WAN].mac},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	return f, nil
}

// Engine returns the data plane, for inspection between calls.
func (f *Firewall) Engine() *router.Engine { return f.engine }

// MaxLen returns the length of the longest frame that a port receives, in bytes.
func (f *Firewall) MaxLen() int { return f.port[LAN].pool.MaxLen() }

// Now returns the virtual time in nanoseconds.
func (f *Firewall) Now() int64 { return f.now }

// MAC returns the link-layer address of a side's port.
func (f *Firewall) MAC(s Side) [6]byte { return f.port[s].mac }

// Announce sends gratuitous ARP, as the image does when it is ready.
func (f *Firewall) Announce() {
	f.engine.Announce()
	f.settle()
}

// Receive advances to virtual time now and passes a frame to a port. A time before
// Now counts as Now. It returns false for a frame that no port could receive: it is
// empty, or longer than MaxLen.
func (f *Firewall) Receive(s Side, now int64, fr []byte) bool {
	f.Advance(now)
	if len(fr) == 0 || len(fr) > f.MaxLen() {
		return false
	}
	f.port[s].in = fr
	f.settle()
	return true
}

// Advance runs timers until virtual time now.
func (f *Firewall) Advance(now int64) {
	for f.now < now {
		d := f.engine.NextDeadline()
		if d > now || d == math.MaxInt64 {
			break
		}
		// At a deadline that has passed time must advance, too.
		f.now = min(max(d, f.now+1e6), now)
		f.settle()
	}
	f.now = max(f.now, now)
}

// Busy reports whether a timer is pending.
func (f *Firewall) Busy() bool { return f.engine.NextDeadline() != math.MaxInt64 }

// settle polls until there is nothing to do.
func (f *Firewall) settle() {
	for {
		n := f.engine.Poll(f.now)
		f.drain()
		if n == 0 && f.port[LAN].idle() && f.port[WAN].idle() {
			return
		}
	}
}

// drain passes events to Config.Event.
func (f *Firewall) drain() {
	var r event.Record
	for {
		var ok bool
		if f.name, ok = f.ring.GetNamed(&r, f.name[:0]); !ok {
			return
		}
		if f.c.Event != nil {
			f.c.Event(&r, f.name)
		}
	}
}

// LostEvents returns the number of events that were lost because the ring was full.
func (f *Firewall) LostEvents() uint64 { return f.ring.Lost() }

func (p *port) idle() bool { return p.in == nil && len(p.arp) == 0 }

// Receive implements router.Port: answers to ARP first, then the frame.
func (p *port) Receive(dst []framebuf.Frame) int {
	n := 0
	for n < len(dst) && !p.idle() {
		b, ok := p.pool.Get()
		if !ok {
			panic("replay: the firewall has lost its buffers")
		}
		var k int
		if len(p.arp) > 0 {
			k = copy(p.pool.Buffer(b)[framebuf.Headroom:], p.arp[0][:])
			p.arp = p.arp[1:]
		} else {
			k = copy(p.pool.Buffer(b)[framebuf.Headroom:], p.in)
			p.in = nil
		}
		dst[n] = framebuf.Frame{Buf: b, Len: uint32(k)}
		n++
	}
	return n
}

// HasRoom implements router.Port.
func (*port) HasRoom(int) bool { return true }

// Transmit implements router.Port.
func (p *port) Transmit(src []framebuf.Frame) int {
	for _, fr := range src {
		b := p.pool.Bytes(fr)
		if p.f.c.Sent != nil {
			p.f.c.Sent(p.side, p.f.now, b)
		}
		p.answer(b)
		p.pool.Put(fr.Buf)
	}
	return len(src)
}

// answer queues the reply to an ARP request that the firewall sent.
func (p *port) answer(b []byte) {
	var m packet.ARPMessage
	if p.f.c.Neighbour == nil || packet.Type(b) != packet.TypeARP || !packet.ParseARP(b, &m) ||
		m.Op != packet.ARPRequest || m.TargetAddr == m.SenderAddr {
		return
	}
	mac, ok := p.f.c.Neighbour(p.side, m.TargetAddr)
	if !ok {
		return
	}
	var r [60]byte
	packet.PutARP(r[:], &m.SenderMAC, &packet.ARPMessage{
		Op: packet.ARPReply, SenderMAC: mac, SenderAddr: m.TargetAddr,
		TargetMAC: m.SenderMAC, TargetAddr: m.SenderAddr,
	})
	p.arp = append(p.arp, r)
}

package endpoint

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	lanAddr  = "10.0.0.1"
	wanAddr  = "203.0.113.10"
	client   = "10.0.0.2"
	upstream = "198.51.100.53"
)

func ip(s string) packet.Addr {
	b := netip.MustParseAddr(s).As4()
	return packet.Addr(b[0])<<24 | packet.Addr(b[1])<<16 | packet.Addr(b[2])<<8 | packet.Addr(b[3])
}

// A sent packet is one that the host has given to its wire.
type sent struct {
	packet.Packet
	to    Side
	frame []byte
}

// A lab is a host and what it sends.
type lab struct {
	*Host
	t      *testing.T
	nat    *nat.NAT
	pool   *framebuf.Pool
	events *event.Ring
	sent   []sent
	ids    uint16
}

// newLab makes a host with one upstream over UDP and TCP, unless change gives the policy
// others.
func newLab(t *testing.T, change func(p *ruleset.Policy)) *lab {
	t.Helper()
	p := &ruleset.Policy{
		Interfaces: []ruleset.Interface{
			{Role: ruleset.LAN, Address: ip(lanAddr).To16(), PrefixLen: 24},
			{Role: ruleset.WAN, Address: ip(wanAddr).To16(), PrefixLen: 24},
		},
		SNAT:      []ruleset.SNAT{{Interface: 1, PortLo: 1024, PortHi: 65535, Source: ip("10.0.0.0").To16(), SourceMask: ruleset.Addr{15: 0}}},
		Upstreams: []ruleset.Upstream{{Address: ip(upstream).To16(), Port: 53}},
	}
	for i := range 15 {
		p.SNAT[0].SourceMask[i] = 0xff
	}
	if change != nil {
		change(p)
	}
	l := &lab{t: t, pool: framebuf.NewPool(make([]byte, 64*framebuf.Size), 0), events: event.NewRing(64)}
	var err error
	if l.nat, err = nat.New(p, 1); err != nil {
		t.Fatal(err)
	}
	c := Config{Policy: p, Pool: l.pool, Wire: l, Ports: l.nat.Own(), Events: l.events, MTU: [2]int{1500, 1500}, ClockSet: true, Random: rand.NewChaCha8([32]byte{1})}
	if len(p.Upstreams) > 0 {
		if c.Patterns, err = fqdn.NewPatterns(p, p.Names); err != nil {
			t.Fatal(err)
		}
		c.Names = fqdn.New(fqdn.Config{Capacity: 64, Patterns: c.Patterns, Secret: [2]uint64{1, 2}})
	}
	if l.Host, err = New(c); err != nil {
		t.Fatal(err)
	}
	return l
}

// Buffer implements Wire.
func (l *lab) Buffer() (uint32, bool) { return l.pool.Get() }

// NextID implements Wire.
func (l *lab) NextID(_, _ packet.Addr, _ uint8) uint16 { l.ids++; return l.ids }

// Send implements Wire. What is sent must parse: its checksums are right.
func (l *lab) Send(to Side, buf uint32, n int, dst packet.Addr) {
	l.t.Helper()
	s := sent{to: to, frame: append([]byte(nil), l.pool.Bytes(framebuf.Frame{Buf: buf, Len: uint32(n)})...)}
	packet.SetType(s.frame, packet.TypeIPv4)
	if _, why := packet.ParseIPv4(s.frame, &s.Packet); why != 0 || s.Dst != dst {
		l.t.Fatalf("sent to %v: %v, %x", dst, why, s.frame)
	}
	l.sent = append(l.sent, s)
	l.pool.Put(buf)
}

// taken returns what has been sent since it was last called.
func (l *lab) taken() []sent {
	s := l.sent
	l.sent = nil
	return s
}

package router

import (
	"errors"
	"math"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Port is a network interface.
type Port interface {
	// Receive moves up to len(dst) received frames to dst and returns their number. The
	// caller then owns their buffers.
	Receive(dst []framebuf.Frame) int
	// Transmit takes the first n frames of src and returns n. The caller still owns the
	// buffers of the others.
	Transmit(src []framebuf.Frame) int
	// HasRoom reports whether Transmit would take n frames now. If it can never take n
	// frames, room for half of its capacity is enough.
	HasRoom(n int) bool
}

// PortConfig is an interface of the firewall: the policy's interface with the same role.
type PortConfig struct {
	Role ruleset.Role
	Port Port
	MAC  [6]byte
	MTU  int // of the largest IP packet that the link carries, in bytes; 0: not known

	// LargeIn and LargeOut say that large frames may come from the port, up to 2*Batch
	// buffers in a batch, and that it takes them.
	LargeIn, LargeOut bool
}

// A port is an interface, with its address and neighbours.
type port struct {
	Port
	n         int
	role      ruleset.Role
	mac       [6]byte
	self      uint64 // mac, in the form of packet.MAC
	mtu       int
	addr      packet.Addr
	net, mask packet.Addr
	gateway   packet.Addr   // 0: none
	further   []packet.Addr // own addresses besides addr, sorted
	neigh     *neigh.Cache
	defend    []int64        // when addr, and each of further, may be defended next
	answers   *icmperr.Limit // rate of ICMP errors and resets
	tx        [2 * Batch]framebuf.Frame
	ntx       int
	burst     int   // how many buffers may come in a batch of the other port
	large     bool  // takes large frames
	fullSince int64 // since when it has no room for a batch; 0: it has room
}

// newPorts makes the ports of the configuration.
func (e *Engine) newPorts(c *Config) error {
	if len(c.Ports) != maxPorts {
		return errors.New("router: two ports are needed, one on the LAN and one on the WAN")
	}
	e.port = make([]port, len(c.Ports))
	for i := range c.Ports {
		p := &e.port[i]
		if err := p.init(i, &c.Ports[i], c.Policy, e.rndKey); err != nil {
			return err
		}
		p.mtu = min(p.mtu, c.Pool.MaxLen()-packet.EthLen)
		switch p.role {
		case ruleset.LAN:
			e.inside = p
		case ruleset.WAN:
			e.outside = p
		}
	}
	for i := range c.Ports {
		if c.Ports[i].LargeIn {
			e.port[1-i].burst = 2 * Batch
		}
	}
	if e.inside == nil || e.outside == nil {
		return errors.New("router: two ports are needed, one on the LAN and one on the WAN")
	}
	return nil
}

// init initialises a port as number n. key is that of hashes.
func (p *port) init(n int, c *PortConfig, policy *ruleset.Policy, key uint64) error {
	if c.Port == nil {
		return errors.New("router: a port without a device")
	}
	f := policy.Interface(c.Role)
	if f == nil {
		return errors.New("router: the policy has no " + c.Role.String() + " interface")
	}
	p.Port, p.n, p.role, p.mac, p.self, p.mtu = c.Port, n, c.Role, c.MAC, packet.MAC(c.MAC), MTU(policy, c.Role, c.MTU)
	var ok bool
	if p.addr, ok = packet.AddrFrom16(f.Address); !ok || f.PrefixLen > 32 {
		return errors.New("router: interface " + policy.Text(f.Name) + " has no IPv4 address")
	}
	p.mask = packet.Addr(uint32(uint64(math.MaxUint32) << (32 - f.PrefixLen)))
	p.net = p.addr & p.mask
	if f.Gateway != (ruleset.Addr{}) {
		if p.gateway, ok = packet.AddrFrom16(f.Gateway); !ok {
			return errors.New("router: the gateway of " + policy.Text(f.Name) + " is not IPv4")
		}
	}
	p.burst, p.large = Batch, c.LargeOut
	p.answers = icmperr.NewLimit(key)
	return nil
}

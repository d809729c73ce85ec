package nat

import (
	"cmp"
	"errors"
	"slices"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Target is the destination that a DNAT entry gives a packet.
type Target struct {
	Addr    packet.Addr
	Port    uint16
	Hairpin bool   // hosts on the LAN may use it
	Entry   uint32 // index into Policy.DNAT
}

// A server is a DNAT entry: the external ports lo to hi become port and those
// that follow it.
type server struct {
	external, to   packet.Addr
	from, fromMask packet.Addr
	lo, hi, port   uint16
	proto          uint8
	hairpin        bool
	entry          uint32 // index into Policy.DNAT
}

// static is a policy's destination translation.
type static struct {
	entries []server // in the policy's order
	in      []server // by external address and protocol, then in the policy's order
	out     []server // by server and protocol, then in the policy's order
	// Bitmaps of the external ports and of the servers' ports of all entries, by protocol:
	// most packets are in neither, which costs one read.
	inPorts, outPorts [2][1024]uint64
}

const staticBytes = 3 * int(unsafe.Sizeof(server{}))

func (s *static) init(p *ruleset.Policy, n *NAT) error {
	for i := range p.DNAT {
		d := &p.DNAT[i]
		v := server{lo: d.PortLo, hi: d.PortHi, port: d.ToPort, proto: d.Proto, hairpin: d.Hairpin != 0, entry: uint32(i)}
		var ok1, ok2 bool
		v.external, ok1 = packet.AddrFrom16(d.External)
		v.to, ok2 = packet.AddrFrom16(d.To)
		if !ok1 || !ok2 {
			return errors.New("nat: an address of a dnat entry is not IPv4")
		}
		if d.FromMask != (ruleset.Addr{}) {
			if v.from, ok1 = packet.AddrFrom16(d.From); !ok1 {
				return errors.New("nat: the sources of a dnat entry are not IPv4")
			}
			v.fromMask = packet.Mask(d.FromMask)
		}
		if v.proto != packet.TCP && v.proto != packet.UDP {
			return errors.New("nat: a dnat entry is neither for TCP nor for UDP")
		}
		if v.lo == 0 || v.hi < v.lo || v.port == 0 || int(v.port)+int(v.hi-v.lo) > 65535 {
			return errors.New("nat: the ports of a dnat entry are not ranges from 1 to 65535")
		}
		s.entries = append(s.entries, v)
		sp := spaceOf(v.proto)
		setPorts(&s.inPorts[sp], v.lo, v.hi)
		setPorts(&s.outPorts[sp], v.port, v.port+(v.hi-v.lo))
		for _, q := range n.pools {
			if q.Addr == v.external {
				q.reserve(sp, v.lo, v.hi)
			}
		}
		if v.external == n.own.addr {
			setPorts(&n.own.used[sp], v.lo, v.hi)
		}
	}
	s.in, s.out = slices.Clone(s.entries), slices.Clone(s.entries)
	slices.SortStableFunc(s.in, func(a, b server) int {
		return cmp.Or(cmp.Compare(a.external, b.external), cmp.Compare(a.proto, b.proto))
	})
	slices.SortStableFunc(s.out, func(a, b server) int { return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(a.proto, b.proto)) })
	return nil
}

func setPorts(m *[1024]uint64, lo, hi uint16) {
	for p := uint32(lo); p <= uint32(hi); p++ {
		m[p/64] |= 1 << (p % 64)
	}
}

func hasPort(m *[1024]uint64, p uint16) bool { return m[p/64]>>(p%64)&1 != 0 }

// inside returns the target of a packet from src to a port of the external address dst: the
// first matching entry decides.
func (s *static) inside(proto uint8, src, dst packet.Addr, port uint16) (Target, bool) {
	n := spaceOf(proto)
	if n < 0 || n >= len(s.inPorts) || !hasPort(&s.inPorts[n], port) {
		return Target{}, false
	}
	i, _ := slices.BinarySearchFunc(s.in, dst, func(v server, a packet.Addr) int {
		return cmp.Or(cmp.Compare(v.external, a), cmp.Compare(v.proto, proto))
	})
	for ; i < len(s.in) && s.in[i].external == dst && s.in[i].proto == proto; i++ {
		if v := &s.in[i]; port >= v.lo && port <= v.hi && src&v.fromMask == v.from {
			return Target{v.to, v.port + port - v.lo, v.hairpin, v.entry}, true
		}
	}
	return Target{}, false
}

// serves reports whether a host may have a static mapping for a port, in the space sp.
func (s *static) serves(sp int, port uint16) bool {
	return sp < len(s.outPorts) && hasPort(&s.outPorts[sp], port)
}

// outside returns the external endpoint of a server's port, the first of several. An
// external port that entries send to different servers, by source, belongs to the server of
// the first entry: no two internal endpoints share an external one.
func (s *static) outside(proto uint8, addr packet.Addr, port uint16) (packet.Addr, uint16, bool) {
	n := spaceOf(proto)
	if n < 0 || n >= len(s.outPorts) || !hasPort(&s.outPorts[n], port) {
		return 0, 0, false
	}
	i, _ := slices.BinarySearchFunc(s.out, addr, func(v server, a packet.Addr) int {
		return cmp.Or(cmp.Compare(v.to, a), cmp.Compare(v.proto, proto))
	})
	for ; i < len(s.out) && s.out[i].to == addr && s.out[i].proto == proto; i++ {
		v := &s.out[i]
		if port < v.port || port-v.port > v.hi-v.lo {
			continue
		}
		ext := v.lo + port - v.port
		if s.owner(v, ext) == v.entry {
			return v.external, ext, true
		}
	}
	return 0, 0, false
}

// owner returns the first entry with an external port of v.
func (s *static) owner(v *server, port uint16) uint32 {
	for i := range s.entries {
		if w := &s.entries[i]; w.external == v.external && w.proto == v.proto && port >= w.lo && port <= w.hi {
			return w.entry
		}
	}
	return v.entry
}

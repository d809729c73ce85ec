package nat

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// modelled is a pool and its model: the mappings by external port.
type modelled struct {
	t        *testing.T
	n        *NAT
	p        *Pool
	reserved [protos]map[uint16]bool
	maps     [protos]map[uint16]*held
	by       [protos]map[place]uint16
	high     [protos]int
	hand     [protos]int
	failed   uint64
}

// place is an internal endpoint.
type place struct {
	addr packet.Addr
	port uint16
}

type held struct {
	place
	own  bool
	refs int
	flow uint32 // 0: none; or plus one
}

// check compares all of the pool's state with the model.
func (m *modelled) check() {
	m.t.Helper()
	for i, proto := range Protocols {
		s := m.p.space[i]
		size := int(m.p.Hi) - int(m.p.Lo) + 1 - len(m.reserved[i])
		if m.p.InUse(proto) != len(m.maps[i]) || m.p.HighWater(proto) != m.high[i] || m.p.Size(proto) != size {
			m.t.Fatalf("protocol %d: %d in use, %d at most, of %d; want %d, %d, %d", proto, m.p.InUse(proto), m.p.HighWater(proto), m.p.Size(proto), len(m.maps[i]), m.high[i], size)
		}
		own, count := 0, map[packet.Addr]int{}
		for ext, h := range m.maps[i] {
			if got := s.byExt[ext-m.p.Lo]; got != (mapping{h.addr, h.port, uint32(h.refs), h.flow}) {
				m.t.Fatalf("port %d is %+v, want %+v", ext, got, *h)
			}
			if at := m.p.find(s, h.addr, h.port); s.index[at] != ext {
				m.t.Fatalf("port %d is not found by %+v", ext, h.place)
			}
			if h.own {
				own++
			} else {
				count[h.addr]++
			}
		}
		filled := 0
		for _, e := range s.index {
			if e != 0 {
				filled++
			}
		}
		if s.own != own || filled != len(m.maps[i]) {
			m.t.Fatalf("%d of the firewall's own, want %d; %d in the index", s.own, own, filled)
		}
		for a := hosts[0] - 1; a <= hosts[len(hosts)-1]+1; a++ {
			if got := m.n.Share(0, proto, a); got != count[a] {
				m.t.Fatalf("host %x has %d, want %d", a, got, count[a])
			}
		}
		for port := uint32(m.p.Lo) - 1; port <= uint32(m.p.Hi)+1; port++ {
			taken := m.maps[i][uint16(port)] != nil || m.reserved[i][uint16(port)]
			if inside := port >= uint32(m.p.Lo) && port <= uint32(m.p.Hi); s.free(uint16(port)) != !(inside && taken) {
				m.t.Fatalf("port %d of protocol %d is free: %v", port, proto, s.free(uint16(port)))
			} else if inside && m.maps[i][uint16(port)] == nil && s.byExt[port-uint32(m.p.Lo)].refs != 0 {
				m.t.Fatalf("port %d of protocol %d has flows: %d", port, proto, s.byExt[port-uint32(m.p.Lo)].refs)
			}
		}
	}
	if m.p.Failed != m.failed {
		m.t.Fatalf("%d failures, want %d", m.p.Failed, m.failed)
	}
}

// enter adds a new mapping to the model.
func (m *modelled) enter(i int, ext uint16, h held) {
	m.t.Helper()
	if ext < m.p.Lo || ext > m.p.Hi || m.maps[i][ext] != nil || m.reserved[i][ext] {
		m.t.Fatalf("%+v gets port %d, which is not free", h.place, ext)
	}
	m.maps[i][ext] = &h
	m.by[i][h.place] = ext
	m.high[i] = max(m.high[i], len(m.maps[i]))
}

func (m *modelled) take(i int, at place, rnd uint64) {
	m.t.Helper()
	size := int(m.p.Hi) - int(m.p.Lo) + 1
	got, o := m.n.Map(Protocols[i], at.addr, at.port, rnd)
	if ext, ok := m.by[i][at]; ok {
		if o != Mapped || got != (Mapping{m.p.Addr, ext, 0}) {
			m.t.Fatalf("%+v has port %d, gets %+v, %d", at, ext, got, o)
		}
		m.maps[i][ext].refs++
		return
	}
	has, own := 0, 0
	for _, h := range m.maps[i] {
		if h.own {
			own++
		} else if h.addr == at.addr {
			has++
		}
	}
	kept := 0
	if i < ownProtos {
		kept = size / ownPart
	}
	free := size - len(m.reserved[i]) - len(m.maps[i]) - max(0, kept-own)
	if may := free > 0 && has < evenShare*free+fewPorts; (o == Mapped) != may {
		m.t.Fatalf("%d free, %d by this host: outcome %d", free, has, o)
	}
	if o != Mapped {
		m.failed++
		if o != Exhausted || got != (Mapping{m.p.Addr, 0, 0}) {
			m.t.Fatalf("%+v, outcome %d", got, o)
		}
		return
	}
	if got.Addr != m.p.Addr || got.Pool != 0 {
		m.t.Fatalf("%+v", got)
	}
	m.enter(i, got.Port, held{place: at, refs: 1})
}

func (m *modelled) takeOwn(i int, rnd uint64) {
	m.t.Helper()
	port, ok := m.n.Own().Take(Protocols[i], rnd)
	want := false
	for p := uint32(m.p.Lo); p <= uint32(m.p.Hi); p++ { // no low ones, where there are others
		want = want || i < ownProtos && (p >= 1024 || m.p.Hi < 1024) && m.maps[i][uint16(p)] == nil && !m.reserved[i][uint16(p)]
	}
	if ok != want || !ok && port != 0 {
		m.t.Fatalf("own port %d of protocol %d, %v; want %v", port, Protocols[i], ok, want)
	}
	if !ok {
		if i < ownProtos {
			m.failed++
		}
		return
	}
	if port < 1024 && m.p.Hi >= 1024 {
		m.t.Fatalf("own port %d", port)
	}
	m.enter(i, port, held{place: place{m.p.Addr, port}, own: true, refs: 1})
}

func (m *modelled) give(i int, port uint16, own bool) {
	if own {
		m.n.Own().Give(Protocols[i], port)
		if i >= ownProtos {
			return
		}
	} else {
		m.n.Give(0, Protocols[i], port)
	}
	if h := m.maps[i][port]; h != nil {
		if h.refs--; h.refs == 0 {
			delete(m.by[i], h.place)
			delete(m.maps[i], port)
		}
	}
}

func (m *modelled) lone(i int) {
	m.t.Helper()
	size := int(m.p.Hi) - int(m.p.Lo) + 1
	m.hand[i] = (m.hand[i] + 1) % size
	flow, share, ok := m.n.Lone(0, Protocols[i])
	h := m.maps[i][m.p.Lo+uint16(m.hand[i])]
	want := h != nil && h.refs == 1 && h.flow != 0
	if ok != want || ok && flow != h.flow-1 || !ok && (flow != 0 || share != 0) {
		m.t.Fatalf("mapping %d is %+v, and the lone flow of it %d, %v", m.hand[i], h, flow, ok)
	}
	if !ok {
		return
	}
	count := 0
	for _, o := range m.maps[i] {
		if !o.own && o.addr == h.addr {
			count++
		}
	}
	if h.own {
		count = 0
	}
	if share != count {
		m.t.Fatalf("host %x has %d mappings, want %d", h.addr, share, count)
	}
}

var hosts = []packet.Addr{0x0a000010, 0x0a000011, 0x0a000012, 0x0a000013, 0x0a000014}

// TestPoolAtFullLoad runs long sequences of operations on pools that are mostly full, with
// every protocol, published ports and the firewall's own, and compares all of a pool's
// state with a model.
func TestPoolAtFullLoad(t *testing.T) {
	for _, c := range []struct{ lo, hi uint16 }{{1, 1}, {65535, 65535}, {1000, 1003}, {2048, 2111}, {1010, 1139}, {65400, 65535}, {1, 40}} {
		r := rand.New(rand.NewPCG(uint64(c.lo), 17))
		pol := policyWith(ruleset.SNAT{Interface: 1, PortLo: c.lo, PortHi: c.hi})
		size := int(c.hi) - int(c.lo) + 1
		m := &modelled{t: t}
		for i := range protos {
			m.reserved[i], m.maps[i], m.by[i] = map[uint16]bool{}, map[uint16]*held{}, map[place]uint16{}
		}
		if size > 30 {
			at := c.lo + 20
			pol.DNAT = []ruleset.DNAT{dnat(packet.TCP, external, at, at+4, web, 80), dnat(packet.UDP, external, c.hi-1, c.hi, web, 80)}
			for p := at; p <= at+4; p++ {
				m.reserved[0][p] = true
			}
			m.reserved[1][c.hi-1], m.reserved[1][c.hi] = true, true
		}
		m.n = newNAT(t, pol)
		m.p = m.n.pools[0]
		any := func() uint16 { return uint16(max(0, int(c.lo)-1+r.IntN(size+2))) } // one off at both ends, too
		for step := range 6000 {
			i := r.IntN(protos)
			switch x := r.IntN(100); {
			case x < 50:
				// Few hosts with ports as far apart as the pool, so that many meet.
				m.take(i, place{hosts[r.IntN(len(hosts))], uint16(r.IntN(3 * size))}, r.Uint64())
			case x < 58:
				m.takeOwn(i, r.Uint64())
			case x < 86:
				port := any()
				h := m.maps[i][port]
				m.give(i, port, h != nil && h.own)
			case x < 93:
				port, flow := any(), r.Uint32N(100)
				m.n.Bind(Mapping{Pool: 0, Port: port}, Protocols[i], flow)
				if h := m.maps[i][port]; h != nil {
					h.flow = flow + 1
				} else if port >= c.lo && port <= c.hi {
					m.p.space[i].byExt[port-c.lo].flow = 0 // of no mapping: never read
				}
			default:
				m.lone(i)
			}
			if step%16 == 0 {
				m.check()
			}
			if step%1500 == 1400 { // it shrinks to nothing
				for i := range m.maps {
					for port, h := range m.maps[i] {
						for range h.refs {
							m.give(i, port, h.own)
						}
					}
				}
				m.check()
				for i, s := range m.p.space {
					if s.inUse != 0 || s.shares != (shares{}) {
						t.Fatalf("protocol %d: %d in use", i, s.inUse)
					}
				}
			}
		}
		m.check()
	}
}

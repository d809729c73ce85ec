// Package nat decides how flows are translated: the external address and port of each
// source (NAPT, RFC 2663), and the external endpoints of servers on the LAN.
//
//	pool.go     the external ports of one address
//	mapping.go  which internal endpoint has which port
//	share.go    how many one host may have
//	guess.go    the mapping of a flow that begins soon
//	ahead.go    what the end of a mapping needs
//	source.go   the policy's source translation: pools and paired addresses
//	static.go   the policy's destination translation
//	own.go      ports of the firewall itself
//	part.go     the ports of one of several workers
//	lend.go     ports that move to another worker
//	steer.go    which of them a packet is for
//
// In the terms of RFC 4787 and RFC 5382: mapping is endpoint-independent
// (REQ-1), and since only packets of known flows pass without a rule, filtering
// is address- and port-dependent. A host keeps one external address (REQ-2).
// There is no port overloading (REQ-3). A port is preserved when it is free,
// otherwise chosen unpredictably in the same class (0-1023, 1024-65535) and
// with the same parity while there are such (REQ-3a, REQ-4). A mapping lasts as
// long as any of its flows.
package nat

import (
	"errors"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// NAT is the address translation of a policy.
type NAT struct {
	source source
	static static
	pools  []*Pool
	own    Own
	part   Part
	whole  []bool  // by pool: it is not divided into parts
	away   []*away // by pool, of all parts: where its ports are; nil: they do not move
}

// New reads the SNAT and DNAT entries of a policy. The key is secret and
// random.
func New(p *ruleset.Policy, key uint64) (*NAT, error) { return NewPart(p, key, Part{}, nil) }

// NewPart is New for one of several workers. All have the same policy and key. A nil alloc means
// the Go heap.
func NewPart(p *ruleset.Policy, key uint64, part Part, alloc Alloc) (*NAT, error) {
	if !part.valid() {
		return nil, errors.New("nat: the number of parts is not a power of two up to 8")
	}
	n := &NAT{part: part}
	plans, err := n.source.plan(p, key)
	if err != nil {
		return nil, err
	}
	for _, v := range plans {
		n.pools = append(n.pools, newPool(v.addr, v.lo, v.hi, key, alloc))
	}
	n.divide()
	n.own.init(p, n.pools, part)
	if err := n.static.init(p, n); err != nil {
		return nil, err
	}
	n.source.pair(n.pools, n.static.entries)
	return n, nil
}

// divide leaves each pool the ports of the part.
func (n *NAT) divide() {
	n.whole = make([]bool, len(n.pools))
	for i, q := range n.pools {
		switch n.whole[i] = n.part.N > 1 && !divisible(n.source.members, int16(i), n.part.N); {
		case n.part.N <= 1:
		case !n.whole[i]:
			q.confine(n.part)
		case n.part.K != 0:
			for sp := range q.space {
				q.reserve(sp, q.Lo, q.Hi)
			}
		}
	}
}

// Bytes returns the memory of a policy's translation in bytes.
func Bytes(p *ruleset.Policy) int {
	var s source
	plans, _ := s.plan(p, 0) // New reports errors
	n := len(p.DNAT) * staticBytes
	for _, v := range plans {
		n += poolBytes(v.lo, v.hi)
	}
	return n
}

// Pools returns the port pools, one for each external address of source translation.
func (n *NAT) Pools() []*Pool { return n.pools }

// Own returns the ports for the firewall's own queries.
func (n *NAT) Own() *Own { return &n.own }

// A Kind is a kind of translation.
type Kind uint8

// The kinds.
const (
	SNAT    Kind = iota // of the source, on the way out
	DNAT                // of the destination, on the way in
	Hairpin             // of both, between hosts of the LAN
	NumKinds
)

// String returns the kind's name in metrics.
func (k Kind) String() string {
	switch k {
	case SNAT:
		return "snat"
	case DNAT:
		return "dnat"
	case Hairpin:
		return "hairpin"
	}
	return "invalid"
}

// NoPool is the Mapping.Pool of no pool.
const NoPool = int16(-1)

// A Mapping is what Map gives an internal endpoint.
type Mapping struct {
	Addr packet.Addr // external address
	Port uint16      // external port, or identifier of ICMP queries
	Pool int16       // number of the pool that Port was taken from, for Give; or NoPool
}

// An Outcome of Map.
type Outcome uint8

// The outcomes.
const (
	Untranslated Outcome = iota // no entry covers the source
	Mapped
	Exhausted // no external port is free, or the source has its share
)

// Map returns the external endpoint of an internal one, for one more flow; rnd is a random
// number. When the pool is exhausted, Mapping.Pool is that pool. A server's port with a
// static mapping has the same external endpoint for flows that the server begins, if its
// address is translated at all (RFC 4787 REQ-1).
func (n *NAT) Map(proto uint8, addr packet.Addr, port uint16, rnd uint64) (Mapping, Outcome) {
	e := n.source.find(addr)
	if e == nil {
		return Mapping{Pool: NoPool}, Untranslated
	}
	if ext, p, ok := n.static.outside(proto, addr, port); ok {
		return Mapping{ext, p, NoPool}, Mapped
	}
	m := n.source.member(e, addr)
	q := n.pools[m.pool]
	p, ok := q.take(proto, addr, port, m.lo, m.hi, rnd)
	if !ok {
		return Mapping{q.Addr, 0, m.pool}, Exhausted
	}
	return Mapping{q.Addr, p, m.pool}, Mapped
}

// Translates reports whether flows from addr are translated.
func (n *NAT) Translates(addr packet.Addr) bool { return n.source.find(addr) != nil }

// Give ends one flow's use of a mapping; the last one frees it.
func (n *NAT) Give(pool int16, proto uint8, port uint16) {
	if uint(pool) < uint(len(n.pools)) {
		n.pools[pool].Give(proto, port)
	}
}

// Bind records the latest flow of a mapping, as the number that Lone returns.
func (n *NAT) Bind(m Mapping, proto uint8, flow uint32) {
	sp := spaceOf(proto)
	if uint(m.Pool) >= uint(len(n.pools)) || sp < 0 {
		return
	}
	p := n.pools[m.Pool]
	if s := p.space[sp]; int(m.Port-p.Lo) < len(s.byExt) {
		s.byExt[m.Port-p.Lo].flow = flow + 1
	}
}

// Lone examines one mapping of a pool, at each call the next one. If a single flow uses it,
// whose removal would free the port, Lone returns that flow, and how many mappings its
// internal address has.
func (n *NAT) Lone(pool int16, proto uint8) (flow uint32, share int, ok bool) {
	if uint(pool) < uint(len(n.pools)) {
		return n.pools[pool].lone(proto)
	}
	return 0, 0, false
}

// Forward returns where the policy's dnat entries send a packet to an external endpoint.
func (n *NAT) Forward(proto uint8, src, dst packet.Addr, port uint16) (Target, bool) {
	return n.static.inside(proto, src, dst, port)
}

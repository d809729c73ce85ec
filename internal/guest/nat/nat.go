// Package nat decides how flows are translated: which source gets which
// external address and port (RFC 2663 NAPT), and which servers have an address
// and ports on the WAN side.
//
//	pool.go     the external ports of one address
//	mapping.go  who has which
//	share.go    how many one host may have
//	source.go   the policy's source translation: pools and paired addresses
//	static.go   the policy's destination translation
//	own.go      ports of the firewall itself
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
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// NAT is the address translation of a policy.
type NAT struct {
	source source
	static static
	pools  []*Pool
	own    Own
}

// New reads the SNAT and DNAT entries of a policy. The key is secret and
// random.
func New(p *ruleset.Policy, key uint64) (*NAT, error) {
	n := &NAT{}
	plans, err := n.source.plan(p, key)
	if err != nil {
		return nil, err
	}
	for _, v := range plans {
		n.pools = append(n.pools, NewPool(v.addr, v.lo, v.hi, key))
	}
	n.own.init(p, n.pools)
	if err := n.static.init(p, n); err != nil {
		return nil, err
	}
	n.source.pair(n.pools, n.static.entries)
	return n, nil
}

// Bytes returns the memory that the translation of a policy takes.
func Bytes(p *ruleset.Policy) int {
	var s source
	plans, _ := s.plan(p, 0) // what is wrong with it, New says
	n := len(p.DNAT) * staticBytes
	for _, v := range plans {
		n += poolBytes(v.lo, v.hi)
	}
	return n
}

// Pools returns the port pools, one for each address that sources are
// translated to.
func (n *NAT) Pools() []*Pool { return n.pools }

// Own returns the firewall's own ports.
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

// NoPool stands for no pool.
const NoPool = int16(-1)

// A Mapping is what Map gives an internal endpoint.
type Mapping struct {
	Addr packet.Addr // external address
	Port uint16      // external port, or identifier of ICMP queries
	Pool int16       // number of the pool that Port was taken from, to be given back; or NoPool
}

// An Outcome of Map.
type Outcome uint8

// The outcomes.
const (
	Untranslated Outcome = iota // no entry covers the source
	Mapped
	Exhausted // no external port is free, or none for this source
)

// Map gives an internal endpoint its external one, for one more flow. If there
// is no free port, Mapping names the pool that has none. A server's port that
// it is reached by under a static mapping keeps that in the other direction,
// too, if the source is translated at all (RFC 4787 REQ-1).
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

// Give ends one flow's use of a mapping.
func (n *NAT) Give(pool int16, proto uint8, port uint16) {
	if uint(pool) < uint(len(n.pools)) {
		n.pools[pool].Give(proto, port)
	}
}

// Bind notes the latest flow of a mapping, by any number that Lone returns.
func (n *NAT) Bind(m Mapping, proto uint8, flow uint32) {
	if uint(m.Pool) < uint(len(n.pools)) {
		n.pools[m.Pool].bind(proto, m.Port, flow)
	}
}

// Lone returns the flow of a mapping that only one flow has, so that removing
// that frees its port, and goes on to the next mapping at the next call. It
// reports false when the mapping whose turn it is has another number of flows.
// share is how many mappings its internal address has.
func (n *NAT) Lone(pool int16, proto uint8) (flow uint32, share int, ok bool) {
	if uint(pool) < uint(len(n.pools)) {
		return n.pools[pool].lone(proto)
	}
	return 0, 0, false
}

// Forward returns where a packet to an external endpoint is to go.
func (n *NAT) Forward(proto uint8, src, dst packet.Addr, port uint16) (Target, bool) {
	return n.static.inside(proto, src, dst, port)
}

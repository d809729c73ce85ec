// Package icmperr limits the rate of the firewall's own ICMP errors and TCP resets, and
// delays answers to SYNs. The router makes and sends them.
//
// Only one goroutine may use its tables. Time is an argument, in monotonic nanoseconds.
package icmperr

import (
	"math/bits"
	"sync"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A Kind is a kind of answer to the sender of a dropped packet. Each has a rate of its own
// on each port, so that a flood of packets that cause one kind, or arrive at one port, does
// not suppress the others (RFC 1812 section 4.3.2.8).
type Kind uint8

// The kinds.
const (
	TTL     Kind = iota // time exceeded
	Size                // fragmentation needed: path MTU discovery depends on it
	Rule                // unreachable, TCP resets
	Unknown             // TCP resets about no connection
	NumKinds
)

const second = int64(1e9)

// The rates of one kind on one port. A host whose packets cause many answers uses up the
// first. The second, the reserve, is for hosts with few answers: each group of hosts has a
// small part of it.
const (
	Rate         = 1000 // answers a second
	Burst        = 100
	ReserveRate  = 250 // answers a second beside Rate
	ReserveBurst = 50
	groupRate    = 10 // of these for one group
	groupBurst   = 4
	groups       = 256 // of hosts, by a keyed hash
)

// A Limit limits the answers of a port.
type Limit struct {
	key    uint64
	kind   [NumKinds]limit
	shared *sync.Mutex // nil: one worker uses it
}

type limit struct {
	all, reserve bucket
	group        [groups]struct{ tokens, last int64 }
	used         bool
}

// NewLimit returns an unused limit. key is that of its hashes.
func NewLimit(key uint64) *Limit {
	l := &Limit{key: key}
	for k := range l.kind {
		l.kind[k] = limit{all: bucket{rate: Rate, burst: Burst}, reserve: bucket{rate: ReserveRate, burst: ReserveBurst}}
	}
	return l
}

// Share makes l fit for several workers, before the first uses it: the rates are those of all
// together.
func (l *Limit) Share() { l.shared = new(sync.Mutex) }

// Take reports whether another answer of a kind to a host is within the rate, and counts it
// if so.
func (l *Limit) Take(k Kind, to packet.Addr, now int64) bool {
	if l.shared != nil {
		l.shared.Lock()
		defer l.shared.Unlock()
	}
	a := &l.kind[k]
	a.used = true
	g := &a.group[groupOf(to, l.key)]
	const cost = second / groupRate
	if g.last == 0 {
		g.tokens = groupBurst * cost
	}
	g.tokens = min(g.tokens+now-g.last, groupBurst*cost)
	g.last = now
	few := g.tokens >= cost
	if few {
		g.tokens -= cost
	}
	return a.all.take(now) || few && a.reserve.take(now)
}

// Used reports whether Take has been called for a kind.
func (l *Limit) Used(k Kind) bool { return l.kind[k].used }

// groupOf returns the group of a host.
func groupOf(host packet.Addr, key uint64) uint8 {
	hi, lo := bits.Mul64((uint64(host)+1)*0x9e3779b97f4a7c15^key, key|1)
	return uint8((hi ^ lo) % groups)
}

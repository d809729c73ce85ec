package dnsproxy

import (
	"math/bits"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Clients share the pending queries: when all are in use, the oldest of the client
// with the most is failed, so that a client with no more than an equal share loses
// none to others (see admit).

// An owner is a client with pending queries. There are at most as many as queries.
type owner struct {
	addr        packet.Addr
	n           uint16 // number of its queries
	first, last uint16 // its queries, oldest first; 1 + index
	prev, next  uint16 // owners with the same n, in order of reaching it; 1 + index
}

type list struct{ first, last uint16 }

const (
	ownerSlots = 4 * maxPending // power of two
	ownerBits  = 12             // its logarithm
)

// owners is a hash table of owners by address, with lists by number of queries.
type owners struct {
	key     uint64 // unpredictable, so that addresses cannot be chosen to collide
	free    uint16
	most    int // largest number of queries of an owner
	list    [maxPending]owner
	byCount [maxPerClient + 1]list // owners by number of queries
	slot    [ownerSlots]uint16     // 1 + index; open addressing
}

func (hs *owners) init(key uint64) {
	hs.key = key | 1
	for i := len(hs.list); i > 0; i-- {
		hs.list[i-1].next = hs.free
		hs.free = uint16(i)
	}
}

// home returns the slot at which probing for an address begins.
func (hs *owners) home(a packet.Addr) int {
	hi, lo := bits.Mul64(uint64(a)^hs.key>>32, hs.key)
	return int((hi ^ lo) >> (64 - ownerBits))
}

// find returns the owner with an address and its slot, or 0 and the slot for it.
func (hs *owners) find(a packet.Addr) (i uint16, at int) {
	for at = hs.home(a); ; at = (at + 1) % ownerSlots {
		if i = hs.slot[at]; i == 0 || hs.list[i-1].addr == a {
			return i, at
		}
	}
}

// count returns the number of a client's pending queries.
func (hs *owners) count(a packet.Addr) int {
	if i, _ := hs.find(a); i != 0 {
		return int(hs.list[i-1].n)
	}
	return 0
}

// oldest returns a client's oldest query, or 0.
func (hs *owners) oldest(a packet.Addr) uint16 {
	if i, _ := hs.find(a); i != 0 {
		return hs.list[i-1].first
	}
	return 0
}

// oldestOfLargest returns the oldest query of the client with the most, or 0.
func (hs *owners) oldestOfLargest() uint16 {
	if hs.most == 0 {
		return 0
	}
	return hs.list[hs.byCount[hs.most].first-1].first
}

// addOwned adds query i to its client's.
func (p *Proxy) addOwned(i uint16) {
	hs, q := &p.owners, &p.queries[i-1]
	k, at := hs.find(q.client.Addr)
	if k == 0 {
		k = hs.free // there is one: each owner has a query
		hs.free = hs.list[k-1].next
		hs.list[k-1] = owner{addr: q.client.Addr}
		hs.slot[at] = k
	} else {
		hs.removeByCount(k)
	}
	h := &hs.list[k-1]
	q.older, q.newer = h.last, 0
	if h.last != 0 {
		p.queries[h.last-1].newer = i
	} else {
		h.first = i
	}
	h.last = i
	h.n++
	hs.insertByCount(k)
}

// removeOwned removes query i from its client's.
func (p *Proxy) removeOwned(i uint16) {
	hs, q := &p.owners, &p.queries[i-1]
	k, at := hs.find(q.client.Addr)
	hs.removeByCount(k)
	h := &hs.list[k-1]
	if q.older != 0 {
		p.queries[q.older-1].newer = q.newer
	} else {
		h.first = q.newer
	}
	if q.newer != 0 {
		p.queries[q.newer-1].older = q.older
	} else {
		h.last = q.older
	}
	if h.n--; h.n > 0 {
		hs.insertByCount(k)
		return
	}
	h.next = hs.free
	hs.free = k
	hs.clearSlot(at)
}

// insertByCount appends owner k to the list of those with as many queries.
func (hs *owners) insertByCount(k uint16) {
	h := &hs.list[k-1]
	l := &hs.byCount[h.n]
	h.prev, h.next = l.last, 0
	if l.last != 0 {
		hs.list[l.last-1].next = k
	} else {
		l.first = k
	}
	l.last = k
	hs.most = max(hs.most, int(h.n))
}

// removeByCount removes owner k from the list of those with as many queries.
func (hs *owners) removeByCount(k uint16) {
	h := &hs.list[k-1]
	l := &hs.byCount[h.n]
	if h.prev != 0 {
		hs.list[h.prev-1].next = h.next
	} else {
		l.first = h.next
	}
	if h.next != 0 {
		hs.list[h.next-1].prev = h.prev
	} else {
		l.last = h.prev
	}
	for hs.most > 0 && hs.byCount[hs.most].first == 0 {
		hs.most-- // amortized: one step for each query added
	}
}

// clearSlot empties a slot, and moves later entries of its probe sequence up.
func (hs *owners) clearSlot(at int) {
	hs.slot[at] = 0
	for j := (at + 1) % ownerSlots; hs.slot[j] != 0; j = (j + 1) % ownerSlots {
		home := hs.home(hs.list[hs.slot[j]-1].addr)
		if (j-home+ownerSlots)%ownerSlots >= (j-at+ownerSlots)%ownerSlots {
			hs.slot[at], hs.slot[j] = hs.slot[j], 0
			at = j
		}
	}
}

package dnsproxy

import (
	"math/bits"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Places for queries are shared: when all are taken, the client that has the
// most gives up its oldest, so that nobody who has no more than an equal share
// loses anything to others. A holder is a client with queries under way; there
// are never more of them than queries.
type holder struct {
	addr        packet.Addr
	n           uint16 // its queries
	first, last uint16 // of them, oldest first; 1 + index
	prev, next  uint16 // holders of as many, the one that has had them for the longest first; 1 + index
}

type list struct{ first, last uint16 }

const (
	holderSlots = 4 * maxPending // power of two
	holderBits  = 12             // its logarithm
)

// holders finds a client's queries by its address, and the client with the most.
type holders struct {
	key  uint64 // unpredictable: who chooses addresses does not choose slots
	free uint16
	most int // queries of those who have the most
	h    [maxPending]holder
	by   [maxPerClient + 1]list // holders by number of queries
	slot [holderSlots]uint16    // 1 + index; open addressing
}

func (hs *holders) init(key uint64) {
	hs.key = key | 1
	for i := len(hs.h); i > 0; i-- {
		hs.h[i-1].next = hs.free
		hs.free = uint16(i)
	}
}

// home returns the slot at which the search for an address begins.
func (hs *holders) home(a packet.Addr) int {
	hi, lo := bits.Mul64(uint64(a)^hs.key>>32, hs.key)
	return int((hi ^ lo) >> (64 - holderBits))
}

// find returns the holder with an address, 0 when it has no queries, and its
// slot, or the one where it would be.
func (hs *holders) find(a packet.Addr) (i uint16, at int) {
	for at = hs.home(a); ; at = (at + 1) % holderSlots {
		if i = hs.slot[at]; i == 0 || hs.h[i-1].addr == a {
			return i, at
		}
	}
}

// count returns how many queries a client has under way.
func (hs *holders) count(a packet.Addr) int {
	if i, _ := hs.find(a); i != 0 {
		return int(hs.h[i-1].n)
	}
	return 0
}

// oldest returns a client's oldest query; 0: none.
func (hs *holders) oldest(a packet.Addr) uint16 {
	if i, _ := hs.find(a); i != 0 {
		return hs.h[i-1].first
	}
	return 0
}

// largest returns the oldest query of the client that has the most; 0: nobody
// has any.
func (hs *holders) largest() uint16 {
	if hs.most == 0 {
		return 0
	}
	return hs.h[hs.by[hs.most].first-1].first
}

// hold notes query i of the client that it names.
func (p *Proxy) hold(i uint16) {
	hs, q := &p.holders, &p.q[i-1]
	k, at := hs.find(q.client.Addr)
	if k == 0 {
		k = hs.free // there is one: each holder has a query
		hs.free = hs.h[k-1].next
		hs.h[k-1] = holder{addr: q.client.Addr}
		hs.slot[at] = k
	} else {
		hs.leave(k)
	}
	h := &hs.h[k-1]
	q.older, q.newer = h.last, 0
	if h.last != 0 {
		p.q[h.last-1].newer = i
	} else {
		h.first = i
	}
	h.last = i
	h.n++
	hs.enter(k)
}

// letGo notes that query i is no longer under way.
func (p *Proxy) letGo(i uint16) {
	hs, q := &p.holders, &p.q[i-1]
	k, at := hs.find(q.client.Addr)
	if k == 0 {
		return // cannot be
	}
	hs.leave(k)
	h := &hs.h[k-1]
	if q.older != 0 {
		p.q[q.older-1].newer = q.newer
	} else {
		h.first = q.newer
	}
	if q.newer != 0 {
		p.q[q.newer-1].older = q.older
	} else {
		h.last = q.older
	}
	if h.n--; h.n > 0 {
		hs.enter(k)
		return
	}
	h.next = hs.free
	hs.free = k
	hs.clear(at)
}

// enter puts holder k at the end of those with as many queries.
func (hs *holders) enter(k uint16) {
	h := &hs.h[k-1]
	l := &hs.by[h.n]
	h.prev, h.next = l.last, 0
	if l.last != 0 {
		hs.h[l.last-1].next = k
	} else {
		l.first = k
	}
	l.last = k
	hs.most = max(hs.most, int(h.n))
}

// leave takes holder k from those with as many queries.
func (hs *holders) leave(k uint16) {
	h := &hs.h[k-1]
	l := &hs.by[h.n]
	if h.prev != 0 {
		hs.h[h.prev-1].next = h.next
	} else {
		l.first = h.next
	}
	if h.next != 0 {
		hs.h[h.next-1].prev = h.prev
	} else {
		l.last = h.prev
	}
	for hs.most > 0 && hs.by[hs.most].first == 0 {
		hs.most-- // one step for each query that ever was added
	}
}

// clear empties a slot and moves up what was put behind it for want of room.
func (hs *holders) clear(at int) {
	hs.slot[at] = 0
	for j := (at + 1) % holderSlots; hs.slot[j] != 0; j = (j + 1) % holderSlots {
		home := hs.home(hs.h[hs.slot[j]-1].addr)
		if (j-home+holderSlots)%holderSlots >= (j-at+holderSlots)%holderSlots {
			hs.slot[at], hs.slot[j] = hs.slot[j], 0
			at = j
		}
	}
}

package fqdn

import "github.com/thurward/thurward/internal/shared/packet"

// What a full set forgets. First what has expired; it is kept until then, so
// that events can say that it was known. Then names that no rule has, which
// only serve events: clients cannot push out what rules need by asking for
// anything. Then the rest. Of either kind it is the oldest binding of the
// client that takes the most: a client that asks for thousands of names pushes
// out its own. Whoever takes no more than an equal share of the set loses
// nothing to others.
const (
	plain = iota
	ruled
	numClasses
)

// everyoneShift makes a quarter of what Everyone takes: resolvers on the LAN
// ask for many clients, and have four shares.
const everyoneShift = 2

// A holder is what one client has of one class: its bindings that are alive, by
// age, and the cells that their names would take were each by itself.
type holder struct {
	client packet.Addr
	class  uint32
	list   list
	charge uint32
	place  uint32 // in the heap of its class
	next   uint32 // of the same hash, or free
}

// holders finds them by client, and of each class the one that takes the most.
// Indexes are one more than the place.
type holders struct {
	h     []holder
	heads []uint32
	free  uint32
	heap  [numClasses][]uint32 // the one that takes the most is the first
	n     [numClasses]int      // bindings
}

func (t *holders) init(n int, alloc func(int, bool) []byte) {
	t.h, t.heads = carve[holder](alloc, n), carve[uint32](alloc, powerOfTwo(n))
	for c := range t.heap {
		t.heap[c] = carve[uint32](alloc, n)[:0]
	}
	for i := n; i > 0; i-- {
		t.h[i-1].next = t.free
		t.free = uint32(i)
	}
}

// charge returns what a name of n bytes counts.
func charge(n int) uint32 { return uint32(n+cellBytes-1) / cellBytes }

func weight(client packet.Addr, charge uint32) uint32 {
	if client == Everyone {
		charge >>= everyoneShift
	}
	return charge
}

func (s *Set) holderHead(client packet.Addr, class uint32) *uint32 {
	return &s.hold.heads[uint32(s.mix(uint64(client)<<1|uint64(class)))&s.mask]
}

// holder returns the number of a client's holder, 0 when it has none.
func (s *Set) holder(client packet.Addr, class uint32) uint32 {
	i := *s.holderHead(client, class)
	for i != 0 && (s.hold.h[i-1].client != client || s.hold.h[i-1].class != class) {
		i = s.hold.h[i-1].next
	}
	return i
}

// newHolder makes one. There is room: each has a binding.
func (s *Set) newHolder(client packet.Addr, class uint32) uint32 {
	t := &s.hold
	i := t.free
	h := &t.h[i-1]
	t.free = h.next
	head := s.holderHead(client, class)
	*h = holder{client: client, class: class, next: *head, place: uint32(len(t.heap[class]))}
	*head = i
	t.heap[class] = append(t.heap[class], i)
	return i
}

// dropHolder forgets the holder i, which has nothing any more.
func (s *Set) dropHolder(i uint32) {
	t := &s.hold
	h := &t.h[i-1]
	heap := t.heap[h.class]
	last := heap[len(heap)-1]
	t.heap[h.class] = heap[:len(heap)-1]
	if last != i {
		heap[h.place] = last
		t.h[last-1].place = h.place
		s.settle(last)
	}
	at := s.holderHead(h.client, h.class)
	for *at != i {
		at = &t.h[*at-1].next
	}
	*at = h.next
	*h = holder{next: t.free}
	t.free = i
}

// before reports whether holder a gives way before b: it takes more, or as much
// and has what is older.
func (s *Set) before(a, b uint32) bool {
	x, y := &s.hold.h[a-1], &s.hold.h[b-1]
	if v, w := weight(x.client, x.charge), weight(y.client, y.charge); v != w {
		return v > w
	}
	if v, w := s.b[x.list.oldest-1].learned, s.b[y.list.oldest-1].learned; v != w {
		return v < w
	}
	return x.client < y.client
}

// settle puts holder i, of which something has changed, where it belongs in its
// heap.
func (s *Set) settle(i uint32) {
	t := &s.hold
	heap := t.heap[t.h[i-1].class]
	k := int(t.h[i-1].place)
	put := func(k int, v uint32) { heap[k], t.h[v-1].place = v, uint32(k) }
	for ; k > 0 && s.before(i, heap[(k-1)/2]); k = (k - 1) / 2 {
		put(k, heap[(k-1)/2])
	}
	for {
		c := 2*k + 1
		if c+1 < len(heap) && s.before(heap[c+1], heap[c]) {
			c++
		}
		if c >= len(heap) || !s.before(heap[c], i) {
			break
		}
		put(k, heap[c])
		k = c
	}
	put(k, i)
}

// victim returns the binding that gives way to a new one of a client, with a
// name of n bytes; 0 when there is none.
func (s *Set) victim(client packet.Addr, class uint32, n int) uint32 {
	if s.dead.n > 0 {
		return s.dead.oldest
	}
	for c := range s.hold.heap {
		if len(s.hold.heap[c]) == 0 {
			continue
		}
		most := &s.hold.h[s.hold.heap[c][0]-1]
		if own := s.holder(client, class); own != 0 && uint32(c) == class {
			// Who would take the most gives way itself.
			if o := &s.hold.h[own-1]; weight(client, o.charge+charge(n)) > weight(most.client, most.charge) {
				most = o
			}
		}
		return most.list.oldest
	}
	return 0
}

// Clients returns how many clients have living bindings with names of rules, and
// how many the one has that takes the most. Everyone counts as a client.
func (s *Set) Clients() (n, most int) {
	heap := s.hold.heap[ruled]
	if len(heap) == 0 {
		return 0, 0
	}
	return len(heap), int(s.hold.h[heap[0]-1].list.n)
}

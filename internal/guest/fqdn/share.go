package fqdn

import "github.com/thurward/thurward/internal/shared/packet"

// A full set evicts in this order. First expired bindings, which are kept until then
// so that events can name them. Then bindings of names without a pattern in the
// policy, which only events need: clients cannot evict what rules need by resolving
// other names. Then all others. Within a class it is the oldest binding of the
// client with the largest share: a client that resolves thousands of names evicts
// its own, and one that has no more than an equal share of the set loses none to
// others.
const (
	outsidePolicy = iota
	inPolicy
	numClasses
)

// everyoneShift divides the weight of Everyone's share by four: resolvers in the LAN
// resolve for many clients, and so count as four of them.
const everyoneShift = 2

// A share is the bindings of one client and class that have not expired, by age, and
// the number of cells of their names, each counted as if it were stored by itself.
type share struct {
	client packet.Addr
	class  uint32
	list   list
	cells  uint32
	heapAt uint32 // index in the heap of its class
	next   uint32 // with the same hash, or the next free one
}

// shares is a hash table of shares by client and class, and a heap of each class by
// weight. References are 1 + index.
type shares struct {
	h     []share
	heads []uint32
	free  uint32
	heap  [numClasses][]uint32 // the largest share first
	n     [numClasses]int      // bindings by class
}

func (t *shares) init(n int, alloc func(int, bool) []byte) {
	t.h, t.heads = carve[share](alloc, n), carve[uint32](alloc, powerOfTwo(n))
	for c := range t.heap {
		t.heap[c] = carve[uint32](alloc, n)[:0]
	}
	for i := n; i > 0; i-- {
		t.h[i-1].next = t.free
		t.free = uint32(i)
	}
}

// cellsOf returns the number of cells of a name of n bytes.
func cellsOf(n int) uint32 { return uint32(n+cellBytes-1) / cellBytes }

func weight(client packet.Addr, charge uint32) uint32 {
	if client == Everyone {
		charge >>= everyoneShift
	}
	return charge
}

func (s *Set) shareHead(client packet.Addr, class uint32) *uint32 {
	return &s.shares.heads[uint32(s.mix(uint64(client)<<1|uint64(class)))&s.mask]
}

// shareOf returns a client's share of a class, or 0.
func (s *Set) shareOf(client packet.Addr, class uint32) uint32 {
	i := *s.shareHead(client, class)
	for i != 0 && (s.shares.h[i-1].client != client || s.shares.h[i-1].class != class) {
		i = s.shares.h[i-1].next
	}
	return i
}

// newShare adds a share. There is room: each share has a binding.
func (s *Set) newShare(client packet.Addr, class uint32) uint32 {
	t := &s.shares
	i := t.free
	h := &t.h[i-1]
	t.free = h.next
	head := s.shareHead(client, class)
	*h = share{client: client, class: class, next: *head, heapAt: uint32(len(t.heap[class]))}
	*head = i
	t.heap[class] = append(t.heap[class], i)
	return i
}

// freeShare removes share i, which is empty.
func (s *Set) freeShare(i uint32) {
	t := &s.shares
	h := &t.h[i-1]
	heap := t.heap[h.class]
	last := heap[len(heap)-1]
	t.heap[h.class] = heap[:len(heap)-1]
	if last != i {
		heap[h.heapAt] = last
		t.h[last-1].heapAt = h.heapAt
		s.fixHeap(last)
	}
	at := s.shareHead(h.client, h.class)
	for *at != i {
		at = &t.h[*at-1].next
	}
	*at = h.next
	*h = share{next: t.free}
	t.free = i
}

// before reports whether share a is evicted from before b: it is larger, or as large
// and has an older binding.
func (s *Set) before(a, b uint32) bool {
	x, y := &s.shares.h[a-1], &s.shares.h[b-1]
	if v, w := weight(x.client, x.cells), weight(y.client, y.cells); v != w {
		return v > w
	}
	if v, w := s.b[x.list.oldest-1].learned, s.b[y.list.oldest-1].learned; v != w {
		return v < w
	}
	return x.client < y.client
}

// fixHeap restores the order of the heap after a change of share i.
func (s *Set) fixHeap(i uint32) {
	t := &s.shares
	heap := t.heap[t.h[i-1].class]
	k := int(t.h[i-1].heapAt)
	put := func(k int, v uint32) { heap[k], t.h[v-1].heapAt = v, uint32(k) }
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

// victim returns the binding to evict for a new one of a client and class, with a
// name of n bytes; 0 if the set is empty.
func (s *Set) victim(client packet.Addr, class uint32, n int) uint32 {
	if s.expired.n > 0 {
		return s.expired.oldest
	}
	for c := range s.shares.heap {
		if len(s.shares.heap[c]) == 0 {
			continue
		}
		most := &s.shares.h[s.shares.heap[c][0]-1]
		if own := s.shareOf(client, class); own != 0 && uint32(c) == class {
			// With the new one, the client's own share may be the largest.
			if o := &s.shares.h[own-1]; weight(client, o.cells+cellsOf(n)) > weight(most.client, most.cells) {
				most = o
			}
		}
		return most.list.oldest
	}
	return 0
}

// Clients returns the number of clients with unexpired bindings of names with
// patterns in the policy, and the number of bindings of the largest share of these.
// Everyone counts as a client.
func (s *Set) Clients() (n, most int) {
	heap := s.shares.heap[inPolicy]
	if len(heap) == 0 {
		return 0, 0
	}
	return len(heap), int(s.shares.h[heap[0]-1].list.n)
}

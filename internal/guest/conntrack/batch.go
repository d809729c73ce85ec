package conntrack

import (
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/prefetch"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A Batch finds the flows of many packets at once, so that their cache misses
// overlap: Add each packet's key, Prepare, then Lookup each by its number.
type Batch struct {
	key  [BatchSize]Key
	hash [BatchSize]uint64
	hint [BatchSize]Ref
	line prefetch.Lines // to be prefetched: for a TCP packet its direction's and the shared one
	n    int

	fetched int // lines that Prepare has prefetched; for tests
}

// fetch prefetches lines from to below to.
func (b *Batch) fetch(from, to int) {
	prefetch.Read(b.line[from:to])
	b.fetched += to - from
}

// BatchSize is how many keys a Batch holds.
const BatchSize = prefetch.Max / 2

// Reset empties the batch.
func (b *Batch) Reset() { b.n = 0 }

// Len returns the number of keys.
func (b *Batch) Len() int { return b.n }

// Key returns key j, which must be below Len.
func (b *Batch) Key(j int) *Key { return &b.key[j&(BatchSize-1)] }

// Next returns the place of the next key, for the caller to fill in before Add.
func (b *Batch) Next() *Key { return &b.key[b.n&(BatchSize-1)] }

// Add adds the key that Next returned. It may be called BatchSize times after Reset.
func (b *Batch) Add() { b.n = b.n&(BatchSize-1) + 1 }

// group is how many keys' lines are prefetched together.
const group = 8

// Prepare prefetches the memory that the lookups of the batch will read: all first buckets;
// then the records that these most likely refer to, and the second buckets of keys without
// a match in the first; then the records of those.
func (t *Table) Prepare(b *Batch) {
	k0, k1, k2, mask := t.k[0], t.k[1], t.k[2], t.mask
	first := &t.buckets[0]
	n := b.n & (2*BatchSize - 1)
	b.fetched = 0
	for j := range b.key[:n] {
		h := hash(&b.key[j], k0, k1, k2)
		b.hash[j] = h
		b.line[j] = uintptr(unsafe.Pointer(first)) + uintptr(h&mask)*unsafe.Sizeof(*first)
		if j%group == group-1 {
			b.fetch(j-(group-1), j+1)
		}
	}
	b.fetch(n&^(group-1), n)
	t.follow(b)
	t.recent.begin(b)
}

// follow is the second half of Prepare.
func (t *Table) follow(b *Batch) {
	var rest [BatchSize]uint8
	dirs, shared, buckets, mask := t.dirs, t.shared, t.buckets, t.mask
	asked, n, m := 0, 0, 0 // n lines are known, asked of them prefetched; m keys remain
	for j, h := range b.hash[:b.n&(2*BatchSize-1)] {
		r := None
		if m := buckets[h&mask].matches(h); m != 0 {
			r = buckets[h&mask].ref(m)
		}
		b.hint[j] = r
		if uint64(r) < uint64(len(dirs)) {
			b.line[n&(prefetch.Max-1)] = uintptr(unsafe.Pointer(&dirs[r]))
			n++
			if b.key[j].Proto == packet.TCP && uint64(r>>1) < uint64(len(shared)) {
				b.line[n&(prefetch.Max-1)] = uintptr(unsafe.Pointer(&shared[r>>1]))
				n++
			}
		} else {
			b.line[n&(prefetch.Max-1)] = uintptr(unsafe.Pointer(&buckets[t.second(h)]))
			n++
			rest[m&(BatchSize-1)] = uint8(j)
			m++
		}
		if j%group == group-1 && asked < n && n <= prefetch.Max {
			b.fetch(asked, n)
			asked = n
		}
	}
	if asked < n && n <= prefetch.Max {
		b.fetch(asked, n)
	}
	if m == 0 {
		return
	}
	n = 0
	for _, j := range rest[:m&(2*BatchSize-1)] {
		h := b.hash[j&(BatchSize-1)]
		r := None
		if m := buckets[t.second(h)].matches(h); m != 0 {
			r = buckets[t.second(h)].ref(m)
		}
		b.hint[j&(BatchSize-1)] = r
		if uint64(r) < uint64(len(dirs)) {
			b.line[n&(prefetch.Max-1)] = uintptr(unsafe.Pointer(&dirs[r]))
			b.line[(n+1)&(prefetch.Max-1)] = uintptr(unsafe.Pointer(&shared[r>>1]))
			n += 2
		}
	}
	b.fetch(0, n)
}

// Hint returns the direction that most likely has key j of a prepared batch, or
// None and nil.
func (t *Table) Hint(b *Batch, j int) (Ref, *Dir) {
	r := b.hint[j&(BatchSize-1)]
	if uint64(r) >= uint64(len(t.dirs)) {
		return None, nil
	}
	return r, &t.dirs[r]
}

// IsFast reports whether d has key k and its packets take the fast path along path, which
// is not 0.
func (t *Table) IsFast(d *Dir, k *Key, path Path, now int64) bool {
	return d.fast == path && same(&d.Key, k) && now-d.LastSeen < t.timeouts[d.State&(maxStates-1)]
}

// LookupBatch returns the direction with key j of a prepared batch, or None;
// see Lookup. The table may have changed since Prepare.
func (t *Table) LookupBatch(b *Batch, j int, now int64) Ref {
	j &= BatchSize - 1
	r := b.hint[j]
	if uint64(r) < uint64(len(t.dirs)) {
		if d := &t.dirs[r]; same(&d.Key, &b.key[j]) && now-d.LastSeen < t.timeouts[d.State&(maxStates-1)] {
			return r
		}
	} else if !t.recent.has(b, b.hash[j]) {
		return None
	}
	return t.LookupHash(&b.key[j], b.hash[j], now)
}

// matches returns which slots of the bucket most likely have a hash: bit 0 of each 16-bit
// lane for the first word of tags, bit 1 for the second. Only the record's key decides.
func (b *bucket) matches(h uint64) uint64 {
	s := spread(tag(h))
	return match(b.tags[0], s)>>15 | match(b.tags[1], s)>>14
}

// ref returns the direction of the first of matches, which is not 0.
func (b *bucket) ref(matches uint64) Ref {
	n := bits.TrailingZeros64(matches)
	return b.refs[(n>>4|n&1<<2)&(slots-1)]
}

package conntrack

import (
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/packet"
)

// A Batch finds the flows of many packets at once, so that their cache misses
// overlap: Add each packet's key, Prepare, then Lookup each by its number.
type Batch struct {
	key  [BatchSize]Key
	hash [BatchSize]uint64
	hint [BatchSize]Ref
	line [maxLines]uintptr // that will be needed
	n    int
}

// BatchSize is how many keys a Batch holds.
const BatchSize = 64

// maxLines is how many cache lines a batch needs at once: for a TCP packet its
// direction's and the shared one.
const maxLines = 2 * BatchSize

// Reset empties the batch.
func (b *Batch) Reset() { b.n = 0 }

// Len returns the number of keys.
func (b *Batch) Len() int { return b.n }

// Key returns key j, which must be below Len.
func (b *Batch) Key(j int) *Key { return &b.key[j&(BatchSize-1)] }

// Add appends a key. A full batch takes no more; the caller's batches are no
// longer than this one.
func (t *Table) Add(b *Batch, k *Key) {
	n := uint(b.n)
	if n >= BatchSize {
		return
	}
	h := t.Hash(k)
	b.key[n], b.hash[n] = *k, h
	b.line[n] = uintptr(unsafe.Pointer(&t.buckets[h&t.mask]))
	b.n++
}

// Prepare gets the memory under way that the look-ups of the batch will need:
// all first buckets, then all records that these most likely lead to, and the
// second buckets of keys that have nothing in the first, then what these lead
// to.
func (t *Table) Prepare(b *Batch) {
	prefetch(&b.line, b.n)
	var rest [BatchSize]uint8
	n, m := 0, 0
	for j, h := range b.hash[:b.n] {
		r := t.buckets[h&t.mask].candidate(h)
		b.hint[j] = r
		if r == None {
			b.line[n&(maxLines-1)] = uintptr(unsafe.Pointer(&t.buckets[t.second(h)]))
			n++
			rest[m&(BatchSize-1)] = uint8(j)
			m++
			continue
		}
		n = t.wantRecord(b, j, n)
	}
	prefetch(&b.line, n)
	if m == 0 {
		return
	}
	n = 0
	for _, j := range rest[:m] {
		h := b.hash[j&(BatchSize-1)]
		b.hint[j&(BatchSize-1)] = t.buckets[t.second(h)].candidate(h)
		n = t.wantRecord(b, int(j), n)
	}
	prefetch(&b.line, n)
}

// wantRecord puts what key j's hint leads to on the list of n lines, and returns
// its new length.
func (t *Table) wantRecord(b *Batch, j, n int) int {
	r := b.hint[j&(BatchSize-1)]
	if dirs := t.dirs[r&1]; uint64(r>>1) < uint64(len(dirs)) {
		b.line[n&(maxLines-1)] = uintptr(unsafe.Pointer(&dirs[r>>1]))
		n++
		if b.key[j&(BatchSize-1)].Proto == packet.TCP && int(r>>1) < len(t.shared) {
			b.line[n&(maxLines-1)] = uintptr(unsafe.Pointer(&t.shared[r>>1]))
			n++
		}
	}
	return n
}

// LookupSteady returns the direction with key j of a prepared batch, and its
// ref, if it is marked as steady with this way; nil otherwise, though the table
// may have it.
func (t *Table) LookupSteady(b *Batch, j int, way uint8, now int64) (*Dir, Ref) {
	j &= BatchSize - 1
	r := b.hint[j]
	if dirs := t.dirs[r&1]; uint64(r>>1) < uint64(len(dirs)) {
		d := &dirs[r>>1]
		if d.way == way && d.Key == b.key[j] && now-d.LastSeen < t.timeouts.of(d.State) {
			return d, r
		}
	}
	return nil, None
}

// LookupBatch returns the direction with key j of a prepared batch, or None;
// see Lookup. The table may have changed since Prepare.
func (t *Table) LookupBatch(b *Batch, j int, now int64) Ref {
	j &= BatchSize - 1
	r := b.hint[j]
	if dirs := t.dirs[r&1]; uint64(r>>1) < uint64(len(dirs)) {
		d := &dirs[r>>1]
		if d.Key == b.key[j] && now-d.LastSeen < t.timeouts.of(d.State) {
			return r
		}
	}
	return t.lookup(&b.key[j], b.hash[j], now)
}

// candidate returns the direction that the bucket most likely has for a hash,
// or None, without looking at its record.
func (b *bucket) candidate(h uint64) Ref {
	s := spread(tag(h))
	m := match(b.tags[0], s)>>15 | match(b.tags[1], s)>>14
	if m == 0 {
		return None
	}
	// Bit 0 of a lane is a match in the first word, bit 1 in the second.
	n := bits.TrailingZeros64(m)
	return b.refs[(n>>4|n&1<<2)&(slots-1)]
}

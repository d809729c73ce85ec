// Package conntrack is the flow table: the endpoints of each flow, its state, the rules
// that accepted it, and its translation.
//
// A flow is three cache lines: one for each direction, the only one that a packet of an
// established UDP flow touches, and one that both share, in an array of its own. An index
// of buckets, one line each, maps a direction's addresses and ports to its record. Records
// do not move, nothing contains a pointer, and a lookup reads two buckets at most.
//
// Only one goroutine may use a table. Time is an argument, in monotonic nanoseconds.
package conntrack

import (
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A Key is the five-tuple of a direction's packets as they arrive, before translation.
type Key = packet.Tuple

// Verdicts of a direction. Zero: none of its packets has been decided.
const (
	Undecided = iota
	Accepted
	Denied
	Pending // accepted; its first data decide further (sni: require)
)

// A Dir is one direction of a flow: 64 bytes.
type Dir struct {
	Key      Key
	Out      packet.Rewrite // the five-tuple after translation
	Rule     uint32         // that decided; see Verdict
	Packets  uint64
	Bytes    uint64 // IP bytes
	LastSeen int64  // of its last packet
	Verdict  uint8
	State    State  // the flow's, repeated here
	Path     Path   // by which ports its packets enter and leave
	fast     Path   // Path when its packets take the fast path, else 0: see MarkFast
	Name     uint32 // for events, 0: none; original direction: name in the name set; reply direction: its DNS query
}

// Shared is what both directions of a flow have in common: 64 bytes.
type Shared struct {
	ID      uint64    // number of the flow since boot, from 1; see Number
	Created int64     // monotonic nanoseconds; of a free record the next one in the free list, plus 1
	tcp     [2]side   // by direction
	synHigh [2]uint16 // the high halves of their syn fields
	Pool    int16     // port pool of its external port, or -1
	Port    uint16    // external port or identifier taken from the pool
}

// A Ref is a direction of a flow: the flow's number times two, plus one for the reply
// direction.
type Ref uint32

// None is the Ref of no flow.
const None = ^Ref(0)

// Reply reports whether r is the reply direction.
func (r Ref) Reply() bool { return r&1 != 0 }

const (
	slots = 8
	// window is how many buckets a key may be in.
	window = 2
)

// A bucket holds the tags and refs of up to 8 directions: 48 of its 64 bytes.
// A tag is 15 bits of the key's hash and a one; a tag of 0 is a free slot.
type bucket struct {
	tags [2]uint64 // 4 tags of 16 bits each
	refs [slots]Ref
	_    [16]byte
}

// Table is the flow table.
type Table struct {
	buckets  []bucket
	dirs     []Dir // by Ref: of each flow the original direction and the reply direction
	shared   []Shared
	mask     uint64
	k        [3]uint64 // of the hash
	freeHead uint32    // first free flow + 1; 0: none
	fresh    uint32    // flow records from here on were never used
	live     uint32
	nextID   uint64
	step     uint64    // between the numbers of flows
	hand     uint32    // where the sweep continues
	firm     [2]uint32 // flows that are never evicted: begun from the LAN, and from the WAN
	timeouts Timeouts
	C        Counters
	holders  holders
	recent   recent
	// Removed is called when a flow is removed, before its record is reused. It must not
	// change the table.
	Removed func(r Ref, why Removal)
	// Removing is called for each of some flows of which Removed is called soon, to prefetch
	// what that needs. It must not change the table.
	Removing func(r Ref)
}

// Counters of the table.
type Counters struct {
	Inserts   uint64
	Evictions [NumRemovals]uint64
	Full      uint64 // inserts refused
	HighWater uint32
}

// A Removal says why a flow left the table.
type Removal uint8

// The causes.
const (
	Expired   Removal = iota // its timeout passed
	Closed                   // replaced by a new connection of the same addresses and ports
	Reclaimed                // over or half-open, to make room: in a full table, or among external ports
	NumRemovals
)

// String returns the cause as metrics name it.
func (r Removal) String() string {
	switch r {
	case Expired:
		return "expired"
	case Closed:
		return "replaced"
	case Reclaimed:
		return "reclaimed"
	}
	return "invalid"
}

// Bytes returns the memory of a table for n flows in bytes.
func Bytes(n int) int {
	return nBuckets(n)*int(unsafe.Sizeof(bucket{})) + n*int(2*unsafe.Sizeof(Dir{})+unsafe.Sizeof(Shared{}))
}

// nBuckets returns the number of buckets: 2n directions fill at most half of the slots, so
// that an insert practically always finds one.
func nBuckets(n int) int {
	b := 1
	for b*slots < 4*n {
		b <<= 1
	}
	return b
}

// An Alloc returns memory aligned to 64 bytes. Where zeroed is false its contents are
// undefined, so that a large table costs nothing before it is used.
type Alloc func(bytes int, zeroed bool) []byte

// New makes a table for up to n flows. The secret keys the hash; a nil alloc means the Go
// heap.
func New(n int, secret [2]uint64, timeouts Timeouts, alloc Alloc) *Table {
	b := nBuckets(n)
	t := &Table{mask: uint64(b - 1), timeouts: timeouts, step: 1}
	t.timeouts[0] = 0 // a record freed during a batch is not found by it
	for i := range t.k {
		t.k[i] = mix(secret[i&1]+uint64(i+1)*0x9e3779b97f4a7c15) | 1
	}
	if alloc == nil {
		alloc = func(n int, _ bool) []byte { return make([]byte, n) }
	}
	// No record is read before Insert has written all of it: the index refers only to such
	// records, and the sweep ends at fresh.
	t.buckets = carve[bucket](alloc, b, true)
	t.dirs = carve[Dir](alloc, 2*n, false)
	t.shared = carve[Shared](alloc, n, false)
	return t
}

// Number makes the numbers of flows k+1, k+1+n and so on, so that those of n workers' tables
// differ. It is called before the first flow.
func (t *Table) Number(k, n int) { t.nextID, t.step = uint64(k+1)-uint64(n), uint64(n) }

// carve returns n values of T, which contains no pointers, in memory of alloc.
func carve[T any](alloc Alloc, n int, zeroed bool) []T {
	var t T
	b := alloc(n*int(unsafe.Sizeof(t)), zeroed)
	_ = b[n*int(unsafe.Sizeof(t))-1]
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

// Cap returns the largest number of flows, Len the present one.
func (t *Table) Cap() int { return len(t.shared) }

// Len: see Cap.
func (t *Table) Len() int { return int(t.live) }

// Dir returns the direction r, and Dir(r^1) its opposite.
func (t *Table) Dir(r Ref) *Dir { return &t.dirs[r] }

// Shared returns what both directions of r's flow have in common.
func (t *Table) Shared(r Ref) *Shared { return &t.shared[r>>1] }

// words returns a key as two numbers.
func words(k *Key) *[2]uint64 { return (*[2]uint64)(unsafe.Pointer(k)) }

// same reports whether two keys are equal.
func same(a, b *Key) bool {
	x, y := words(a), words(b)
	return (x[0]^y[0])|(x[1]^y[1]) == 0
}

// Hash returns the keyed hash of k: two rounds of multiply, the second of both halves, and
// fold. With both words in the first round consecutive ports never share few buckets,
// whatever the secret. Without the secret keys that share a bucket cannot be chosen. The
// hash does not hide the secret from an observer of hashes, which never leave the firewall.
func (t *Table) Hash(k *Key) uint64 { return hash(k, t.k[0], t.k[1], t.k[2]) }

func hash(k *Key, k0, k1, k2 uint64) uint64 {
	w := words(k)
	hi, lo := bits.Mul64(w[0]^k0, w[1]^k1)
	hi, lo = bits.Mul64(lo^k2, hi^k0)
	return hi ^ lo
}

// mix spreads every bit of x over the result (the finaliser of SplitMix64), so that hash
// keys are good even where a test's secret is not.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// tag returns the 16 bits of a hash that buckets keep: 15 and a one.
func tag(h uint64) uint64 { return h>>48 | 1 }

// second returns the other bucket of a hash.
func (t *Table) second(h uint64) uint64 { return (h ^ h>>24*0x5bd1e995 ^ 1) & t.mask }

// spread repeats a tag four times.
func spread(v uint64) uint64 { return v * ones }

// match returns a word with bit 15 of each 16-bit lane set where w holds the
// tag; a lane above a true match may be set falsely, which the key decides.
func match(w, tags uint64) uint64 {
	x := w ^ tags
	return (x - ones) & ^x & 0x8000800080008000
}

// Lookup returns the direction with key k, or None. A flow that has expired at now is
// removed and not found. For many packets at once see Batch.
func (t *Table) Lookup(k *Key, now int64) Ref { return t.LookupHash(k, t.Hash(k), now) }

// LookupHash is Lookup where the hash of k is known.
func (t *Table) LookupHash(k *Key, h uint64, now int64) Ref {
	r := t.find(k, h)
	if r == None || !t.expireAt(uint32(r>>1), now) {
		return r
	}
	return None
}

func (t *Table) find(k *Key, h uint64) Ref {
	i := h & t.mask
	for range window {
		b := &t.buckets[i]
		for m := b.matches(h); m != 0; m &= m - 1 {
			r := b.ref(m)
			if uint64(r) < uint64(len(t.dirs)) && same(&t.dirs[r].Key, k) {
				return r
			}
		}
		i = t.second(h)
	}
	return None
}

// roomy is how full a first bucket may be before the second one is considered:
// a key in its first bucket is found with one miss.
const roomy = 6

// place puts a ref into one of the two buckets of its hash: the first while it has fewer
// than roomy refs, then the emptier one. When that is full both are, which is rare: then
// one of their refs is moved to its other bucket.
func (t *Table) place(h uint64, r Ref) bool {
	b := &t.buckets[h&t.mask]
	if b.used() < roomy {
		return b.put(tag(h), r)
	}
	return t.placeInFuller(h, r)
}

// placeInFuller is place where the first bucket is not roomy.
func (t *Table) placeInFuller(h uint64, r Ref) bool {
	i, j := h&t.mask, t.second(h)
	if t.buckets[j].used() < t.buckets[i].used() {
		i, j = j, i
	}
	return t.buckets[i].put(tag(h), r) || t.shift(i) && t.buckets[i].put(tag(h), r) ||
		t.shift(j) && t.buckets[j].put(tag(h), r)
}

// ones is the lowest bit of each lane, which is set in every tag and in no free slot.
const ones = 0x0001000100010001

// put puts a ref into a free slot, and reports whether there was one.
func (b *bucket) put(tag uint64, r Ref) bool {
	w := &b.tags[0]
	s := 0
	if *w&ones == ones {
		w, s = &b.tags[1], 4
	}
	free := ^*w & ones
	if free == 0 {
		return false
	}
	at := bits.TrailingZeros64(free) & 63 // of the lane
	*w |= tag << at
	b.refs[(s+at>>4)&(slots-1)] = r
	return true
}

// shift moves one ref of the full bucket i to its other bucket, if one of those has room.
func (t *Table) shift(i uint64) bool {
	b := &t.buckets[i]
	for s, r := range b.refs {
		h := t.Hash(&t.Dir(r).Key)
		to := h & t.mask
		if to == i {
			to = t.second(h)
		}
		if t.buckets[to].put(tag(h), r) { // to may be i, which is full
			w, sh := s>>2, uint(s&3*16)
			b.tags[w] &^= 0xffff << sh
			b.refs[s] = None
			return true
		}
	}
	return false
}

// used returns how many slots are taken.
func (b *bucket) used() uint64 {
	// The product's highest lane is the sum of all lanes.
	return (b.tags[0]&ones + b.tags[1]&ones) * ones >> 48
}

// unplace takes a ref out of the index.
func (t *Table) unplace(k *Key, r Ref) {
	h := t.Hash(k)
	i := h & t.mask
	for range window {
		b := &t.buckets[i]
		for w := range b.tags {
			// match may set a lane falsely, but only above a true one.
			for m := match(b.tags[w], spread(tag(h))); m != 0; m &= m - 1 {
				lane := bits.TrailingZeros64(m) >> 4
				if s := (4*w + lane) & (slots - 1); b.refs[s] == r {
					b.tags[w] &^= 0xffff << (16 * lane)
					b.refs[s] = None
					return
				}
			}
		}
		i = t.second(h)
	}
}

// Insert makes a flow whose original direction has key k and is translated to out; the keys
// of both directions must be new. path is that of the original direction. It returns None
// when the table is full even after reclaiming expired and half-open flows.
func (t *Table) Insert(k *Key, out *packet.Rewrite, state State, path Path, now int64) Ref {
	var reply Key
	reply.Set(out.Dst, out.Src, out.DstPort, out.SrcPort, k.Proto)
	return t.InsertHash(k, out, t.Hash(&reply), state, path, now)
}

// InsertHash is Insert where the hash of the reply direction's key is known.
func (t *Table) InsertHash(k *Key, out *packet.Rewrite, hr uint64, state State, path Path, now int64) Ref {
	i, ok := t.takeFree(now)
	if !ok {
		t.C.Full++
		return None
	}
	t.nextID += t.step
	r := Ref(i << 1)
	// Cleared, and then written where they lie: a literal is built elsewhere and copied.
	f := &t.shared[i]
	*f = Shared{}
	f.ID, f.Created, f.Pool = t.nextID, now, -1
	d := &t.dirs[r]
	*d = Dir{}
	d.Out.Set(out.Src, out.Dst, out.SrcPort, out.DstPort)
	d.Key, d.LastSeen, d.State, d.Path = *k, now, state, path
	d = &t.dirs[r|1]
	*d = Dir{}
	d.Key.Set(out.Dst, out.Src, out.DstPort, out.SrcPort, k.Proto)
	d.Out.Set(k.Dst, k.Src, k.DstPort, k.SrcPort)
	d.LastSeen, d.State, d.Path = now, state, path.Reverse()
	h := t.Hash(k)
	if !t.place(h, r) {
		t.giveFree(i)
		t.C.Full++
		return None
	}
	if !t.place(hr, r|1) {
		t.unplace(k, r)
		t.giveFree(i)
		t.C.Full++
		return None
	}
	t.live++
	t.note(h)
	t.note(hr)
	t.count(k.Src, 1)
	t.turn(r, 0, state)
	t.C.Inserts++
	t.C.HighWater = max(t.C.HighWater, t.live)
	return r
}

// Taken reports whether a direction with key k is in the table, expired or not.
func (t *Table) Taken(k *Key) bool { return t.find(k, t.Hash(k)) != None }

// Remove removes a flow from the table.
func (t *Table) Remove(r Ref, why Removal) { t.remove(uint32(r>>1), why) }

func (t *Table) remove(i uint32, why Removal) {
	r := Ref(i << 1)
	if t.Dir(r).State == 0 {
		return
	}
	if t.Removed != nil {
		t.Removed(r, why)
	}
	t.unplace(&t.Dir(r).Key, r)
	t.unplace(&t.Dir(r^1).Key, r^1)
	t.live--
	t.count(t.Dir(r).Key.Src, ^uint32(0))
	t.turn(r, t.Dir(r).State, 0)
	t.C.Evictions[why]++
	t.giveFree(i)
}

func (t *Table) giveFree(i uint32) {
	t.dirs[2*i].State, t.dirs[2*i+1].State = 0, 0
	t.shared[i].Created = int64(t.freeHead)
	t.freeHead = i + 1
}

func (t *Table) takeFree(now int64) (uint32, bool) {
	if t.freeHead == 0 && t.fresh == uint32(len(t.shared)) {
		t.reclaim(now)
	}
	if t.freeHead != 0 {
		i := t.freeHead - 1
		t.freeHead = uint32(t.shared[i].Created)
		t.fetchNext()
		return i, true
	}
	if t.fresh < uint32(len(t.shared)) {
		t.fresh++
		t.fetchNext()
		return t.fresh - 1, true
	}
	return 0, false
}

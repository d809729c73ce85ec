// Package reassembly is the table of IPv4 datagrams some of whose fragments
// have come. A fragment waits, in the buffer in which it arrived, until its
// datagram is complete; nothing is copied.
//
// A Table takes fragments and the time, and returns what to do: to hold or to
// drop the fragment, to go on with a datagram that is complete, and which
// fragments of others to drop. It reads no frame. Fragments that overlap poison
// their datagram, with what still comes of it (after RFC 5722); only an exact
// repetition is dropped alone. Memory and time are bounded, and what one source
// may hold of them (RFC 4787 REQ-14a): at a limit the oldest incomplete datagram
// of the source that has most gives way.
//
// Its size is fixed, nothing allocates after New, and one goroutine uses it.
// Times are monotonic nanoseconds.
package reassembly

import (
	"math"
	"math/bits"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Bounds of a table.
const (
	MaxDatagrams   = 128 // at a time
	MaxFragments   = 256 // held at a time
	MaxPerDatagram = 64
	MaxPerSource   = 96
)

// Timeout is how long a datagram waits for its fragments, from the first on,
// in nanoseconds.
const Timeout = 30 * int64(1e9)

// sources are counted by groups, of a keyed hash.
const sourceGroups = 256

// A Key names a datagram (RFC 791 section 3.2), and where its fragments arrive.
type Key struct {
	Src, Dst packet.Addr
	ID       uint16 // identification
	Proto    uint8
	Link     uint8 // number of the link
}

// A slotKey is a Key in a slot of the table: addresses; and link,
// identification, protocol and a bit that no free slot has.
type slotKey struct{ addrs, rest uint64 }

func (k *Key) slot() slotKey {
	return slotKey{uint64(k.Src)<<32 | uint64(k.Dst), 1<<63 | uint64(k.Link)<<32 | uint64(k.ID)<<8 | uint64(k.Proto)}
}

// A Fragment is a frame and what it has of its datagram, as packet.PieceOf has
// found it.
type Fragment struct {
	Key
	packet.Piece
	Frame framebuf.Frame
}

// A Result is what is to be done after a fragment has come.
type Result struct {
	// Reason is why the fragment is to be dropped. 0: it is held, or complete
	// is a datagram of which it is.
	Reason verdict.Reason
	// Complete are the fragments of a datagram that is complete, in order; its
	// payload has Length bytes. Empty: there is none.
	Complete framebuf.Queue
	Length   int
	// Drop are fragments that were held and are to be dropped before that,
	// each queue those of one datagram; it may be empty.
	Drop [3]framebuf.Queue
}

// A datagram is one that is not complete.
type datagram struct {
	list     framebuf.Queue // its fragments, in order; their tags are extents
	expires  int64
	have     uint32 // bytes of payload
	total    uint32 // length of the payload, 0: not known yet
	last     extent // the one furthest back; zero: there is none
	group    uint8  // of its source
	poisoned bool   // two fragments overlapped or contradicted each other
}

// A Table holds incomplete datagrams.
type Table struct {
	key       [MaxDatagrams]slotKey
	dg        [MaxDatagrams]datagram
	fragments [sourceGroups]uint16 // held, by group of sources
	datagrams [sourceGroups]uint8  // by group of sources
	used      int                  // datagrams
	held      int                  // fragments
	hand      int                  // where Expired goes on; 0: it begins
	links     framebuf.Links
	secret    uint64
}

// New makes a table. The secret keys its hash, so that nobody can choose whose
// share of the table is counted as his; links are those of the frames it holds.
func New(secret uint64, links framebuf.Links) *Table {
	return &Table{secret: secret | 1, links: links}
}

// Len returns the number of incomplete datagrams.
func (t *Table) Len() int { return t.used }

// Held returns how many fragments they have.
func (t *Table) Held() int { return t.held }

// Add takes a fragment and fills r, which is zero.
func (t *Table) Add(f *Fragment, r *Result, now int64) {
	k := f.slot()
	n := t.find(&k)
	if n >= 0 && now >= t.dg[n].expires {
		r.Drop[0] = t.evict(n)
		n = -1
	}
	if n < 0 {
		var evicted framebuf.Queue
		if n, evicted = t.begin(&k, t.group(f.Src), now); evicted.Len() > 0 {
			r.Drop[0] = evicted
		}
	}
	d := &t.dg[n]
	w := extent{uint16(f.Off), uint16(f.Len)}
	if f.More == (w.end() != d.total) && t.repeats(d, w) { // a poisoned one holds nothing
		r.Reason = verdict.FragmentedIPv4
		return
	}
	if d.poisoned || !t.insert(d, f.Frame, w, f.More) {
		d.poisoned = true
		r.Drop[1] = t.release(d)
		r.Reason = verdict.FragmentedIPv4
		return
	}
	t.held++
	t.fragments[d.group]++
	if d.have != d.total {
		t.relieve(n, r)
		return
	}
	r.Length = int(d.total)
	r.Complete = t.evict(n)
}

// find returns the slot of a datagram, or -1.
func (t *Table) find(k *slotKey) int {
	if t.used == 0 {
		return -1
	}
	for i := range t.key {
		if t.key[i] == *k {
			return i
		}
	}
	return -1
}

// group returns the group of a source.
func (t *Table) group(src packet.Addr) uint8 {
	hi, lo := bits.Mul64(uint64(src)^t.secret, t.secret)
	return uint8(hi ^ lo)
}

// begin takes a slot. In a full table the oldest datagram of the source that has
// most gives way; its fragments are to be dropped.
func (t *Table) begin(k *slotKey, group uint8, now int64) (n int, evicted framebuf.Queue) {
	if t.used == MaxDatagrams {
		evicted = t.evict(t.oldestOfMost())
	}
	for n < MaxDatagrams-1 && t.key[n].rest != 0 {
		n++
	}
	t.key[n] = *k
	t.dg[n] = datagram{expires: now + Timeout, group: group}
	t.used++
	t.datagrams[group]++
	return n, evicted
}

// Due returns when the first incomplete datagram expires, or math.MaxInt64.
func (t *Table) Due() int64 {
	if t.used == 0 {
		return math.MaxInt64
	}
	return t.dg[t.oldest(anyDatagram, 0, -1)].expires
}

// Expired forgets the next datagram whose time is over and returns its fragments,
// which are to be dropped. It is called until it reports false.
func (t *Table) Expired(now int64) (drop framebuf.Queue, ok bool) {
	for t.used > 0 && t.hand < MaxDatagrams {
		n := t.hand
		t.hand++
		if t.key[n].rest != 0 && now >= t.dg[n].expires {
			return t.evict(n), true
		}
	}
	t.hand = 0
	return framebuf.Queue{}, false
}

package reassembly

import (
	"math"
	"slices"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// Which datagrams oldest looks at.
const (
	anyDatagram = iota
	anyHolding  // fragments, other than one datagram
	ofGroup     // that hold fragments, of a group of sources
	ofMost      // of sources that have so many datagrams; in a full table
	ofHolders   // that hold fragments, of sources that have so many of these, other than one datagram
)

// oldest returns the datagram of a kind that expires first, or -1.
func (t *Table) oldest(kind, which, other int) int {
	best, at := int64(math.MaxInt64), -1
	for i := range t.dg {
		d := &t.dg[i]
		var ok bool
		switch kind {
		case anyDatagram:
			ok = t.key[i].rest != 0
		case anyHolding:
			ok = d.list.Len() > 0 && i != other // a free slot holds nothing
		case ofGroup:
			ok = d.list.Len() > 0 && int(d.group) == which
		case ofMost:
			ok = int(t.datagrams[d.group]) == which
		case ofHolders:
			ok = d.list.Len() > 0 && i != other && int(t.fragments[d.group]) == which
		}
		if ok && d.expires < best {
			best, at = d.expires, i
		}
	}
	return at
}

// oldestOfMost returns the oldest datagram of the source that has most of them.
func (t *Table) oldestOfMost() int {
	return t.oldest(ofMost, int(slices.Max(t.datagrams[:])), -1)
}

// relieve keeps the limits of fragments: the oldest datagram of the source, or
// of the one that holds most, other than datagram n, gives way.
func (t *Table) relieve(n int, r *Result) {
	group := t.dg[n].group
	if t.fragments[group] > MaxPerSource {
		r.Drop[1] = t.evict(t.oldest(ofGroup, int(group), -1))
	}
	if t.held > MaxFragments {
		at := t.oldest(ofHolders, int(slices.Max(t.fragments[:])), n)
		if at < 0 {
			at = t.oldest(anyHolding, 0, n) // n is all that the largest holder has
		}
		r.Drop[2] = t.evict(at) // there is one: n alone does not hold so many
	}
}

// evict forgets a datagram and returns its fragments.
func (t *Table) evict(n int) framebuf.Queue {
	fragments := t.release(&t.dg[n])
	t.key[n] = slotKey{}
	t.datagrams[t.dg[n].group]--
	t.used--
	return fragments
}

// release takes the fragments that a datagram holds.
func (t *Table) release(d *datagram) framebuf.Queue {
	q := d.list
	t.held -= q.Len()
	t.fragments[d.group] -= uint16(q.Len())
	d.list = framebuf.Queue{}
	return q
}

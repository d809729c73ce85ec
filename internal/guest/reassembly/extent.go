package reassembly

import "github.com/thurward/thurward/internal/guest/framebuf"

// An extent is what a held fragment has of its datagram's payload, in bytes.
type extent struct{ off, len uint16 }

func (x extent) end() uint32 { return uint32(x.off) + uint32(x.len) }

// overlaps reports whether two extents have a byte in common.
func (x extent) overlaps(y extent) bool { return uint32(x.off) < y.end() && uint32(y.off) < x.end() }

// tag and extentOf turn an extent into what its frame's link notes, and back.
func (x extent) tag() uint32 { return uint32(x.off)<<16 | uint32(x.len) }

func extentOf(tag uint32) extent { return extent{uint16(tag >> 16), uint16(tag)} }

// repeats reports whether a datagram has exactly this extent already.
func (t *Table) repeats(d *datagram, w extent) bool {
	f := d.list.First()
	for range d.list.Len() {
		if t.links.Tag(f) == w.tag() {
			return true
		}
		f = t.links.Next(f)
	}
	return false
}

// insert puts a fragment in its place. It reports false when it overlaps
// another, contradicts what is known of the datagram's length, or is one too
// many.
func (t *Table) insert(d *datagram, f framebuf.Frame, w extent, more bool) bool {
	switch {
	case d.list.Len() == MaxPerDatagram:
		return false
	case d.total != 0 && w.end() > d.total:
		return false // behind the end
	case !more && d.last.end() > w.end():
		return false // the end lies before what is there; a second one overlaps
	}
	if !more {
		d.total = w.end()
	}
	d.have += uint32(w.len)
	if uint32(w.off) >= d.last.end() {
		t.links.Push(&d.list, f, w.tag())
		d.last = w
		return true
	}
	// Before the first that begins behind it.
	at := d.list.First()
	for i := range d.list.Len() {
		v := extentOf(t.links.Tag(at))
		if v.overlaps(w) {
			return false
		}
		if v.off > w.off {
			t.links.Insert(&d.list, i, f, w.tag())
			return true
		}
		at = t.links.Next(at)
	}
	return false // not reached: the last one lies behind w
}

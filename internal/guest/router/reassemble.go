package router

import (
	"math"
	"math/bits"
	"slices"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Fragments, where the policy wants them reassembled. They wait, each in the
// buffer in which it arrived, until their datagram is complete. Then it is
// checked, looked up, filtered and translated like any packet, with the ports
// of its first fragment and the checksum of all, and its fragments leave as
// they came, in order. Nothing is copied, and nothing leaves of a datagram that
// has not been checked as a whole (ADR 0007).
//
// Fragments that overlap make their datagram void, with what still comes of it
// (after RFC 5722); only an exact repetition is dropped alone. Memory and time
// are bounded, and what one source may hold of them (RFC 4787 REQ-14a): at the
// limit the oldest incomplete datagram of the source that has most gives way.

const (
	datagramMax  = 128 // datagrams at a time
	gatheredMax  = 256 // fragments at a time
	perDatagram  = 64  // fragments of one datagram
	perSource    = 96  // fragments of one source
	gatherFor    = 30 * second
	sourceGroups = 256 // sources are counted by groups, of a keyed hash
)

// A piece is what a held fragment has of its datagram's payload.
type piece struct{ off, len uint16 }

func (p piece) end() uint32 { return uint32(p.off) + uint32(p.len) }

// tag and pieceOf turn a piece into what its frame's link notes, and back.
func (p piece) tag() uint32 { return uint32(p.off)<<16 | uint32(p.len) }

func pieceOf(tag uint32) piece { return piece{uint16(tag >> 16), uint16(tag)} }

// A fragKey names a datagram: addresses, and identification, protocol, port and
// a bit that no free slot has.
type fragKey struct{ addrs, rest uint64 }

type datagram struct {
	list    framebuf.Queue
	expires int64
	have    uint32 // bytes of payload
	total   uint32 // length of the payload, 0: not known yet
	last    piece  // the one furthest back
	group   uint8
	void    bool // two fragments overlapped or contradicted each other
}

// gathering is the table of incomplete datagrams.
type gathering struct {
	on    bool
	key   [datagramMax]fragKey
	dg    [datagramMax]datagram
	group [sourceGroups]uint16 // fragments held, by group of sources
	slots [sourceGroups]uint8  // datagrams, by group of sources
	used  int                  // slots
	held  int                  // fragments
}

// gather takes a fragment. It reports true when that completes a
// datagram, which then stands in its place, with the fragments but the first in
// the list of the first's buffer. Otherwise the fragment is held or dropped.
func (e *Engine) gather(p *received, now int64) bool {
	g := &e.frags
	fr := p.frame
	f := e.pool.Bytes(fr)
	c, ok := packet.PieceOf(f, &p.Packet)
	if !ok {
		e.dropPacket(p, verdict.MalformedPacket, now)
		return false
	}
	if e.martian(p) {
		e.dropPacket(p, verdict.Martian, now)
		return false
	}
	key := fragKey{uint64(p.Src)<<32 | uint64(p.Dst), 1<<63 | uint64(p.in.n)<<32 | uint64(packet.FragmentID(f))<<8 | uint64(p.Proto)}
	n := g.find(&key)
	if n >= 0 && now >= g.dg[n].expires {
		e.abandon(n, now)
		n = -1
	}
	if n < 0 {
		n = e.newDatagram(&key, p.Src, now)
	}
	d := &g.dg[n]
	w := piece{uint16(c.Off), uint16(c.Len)}
	if c.More == (w.end() != d.total) && e.repeats(d, w) { // a void one holds nothing
		e.dropPacket(p, verdict.FragmentedIPv4, now)
		return false
	}
	if d.void || !e.insert(d, fr, w, c.More) {
		e.void(n, now)
		e.dropPacket(p, verdict.FragmentedIPv4, now)
		return false
	}
	g.held++
	g.group[d.group]++
	if d.total == 0 || d.have != d.total {
		e.relieve(n, now)
		return false
	}
	return e.complete(p, n, now)
}

func (g *gathering) find(k *fragKey) int {
	if g.used == 0 {
		return -1
	}
	for i := range g.key {
		if g.key[i] == *k {
			return i
		}
	}
	return -1
}

// newDatagram takes a slot. In a full table the oldest datagram of the source
// that has most gives way.
func (e *Engine) newDatagram(k *fragKey, src packet.Addr, now int64) int {
	g := &e.frags
	hi, lo := bits.Mul64(uint64(src)^e.rndKey, e.rndKey)
	group := uint8(hi ^ lo)
	if g.used == datagramMax {
		e.abandon(g.oldest(ofMost, int(slices.Max(g.slots[:])), -1), now)
	}
	n := 0
	for n < datagramMax-1 && g.key[n].rest != 0 {
		n++
	}
	g.key[n] = *k
	g.dg[n] = datagram{expires: now + gatherFor, group: group}
	g.used++
	g.slots[group]++
	return n
}

// Which datagrams oldest looks at.
const (
	anyDatagram = iota
	anyHolding  // fragments
	ofGroup     // that hold fragments, of a group of sources
	ofMost      // of sources that have so many datagrams
	ofHolders   // that hold fragments, of sources that have so many of these
)

// oldest returns the datagram of a kind that expires first, other than one, or -1.
func (g *gathering) oldest(kind, which, other int) int {
	best, at := int64(math.MaxInt64), -1
	for i := range g.dg {
		d := &g.dg[i]
		ok := g.key[i].rest != 0 && i != other
		switch kind {
		case anyHolding:
			ok = ok && d.list.Len() > 0
		case ofGroup:
			ok = ok && d.list.Len() > 0 && int(d.group) == which
		case ofMost:
			ok = ok && int(g.slots[d.group]) == which
		case ofHolders:
			ok = ok && d.list.Len() > 0 && int(g.group[d.group]) == which
		}
		if ok && d.expires < best {
			best, at = d.expires, i
		}
	}
	return at
}

// repeats reports whether the datagram has exactly this piece already.
func (e *Engine) repeats(d *datagram, w piece) bool {
	fr := d.list.First()
	for range d.list.Len() {
		if e.links.Tag(fr) == w.tag() {
			return true
		}
		fr = e.links.Next(fr)
	}
	return false
}

// insert puts a fragment in its place. It reports false when it overlaps
// another, contradicts what is known of the datagram's length, or is one too
// many.
func (e *Engine) insert(d *datagram, fr framebuf.Frame, w piece, more bool) bool {
	switch {
	case d.list.Len() == perDatagram:
		return false
	case d.total != 0 && (!more || w.end() > d.total):
		return false // a second end, or behind the end
	case !more && d.list.Len() > 0 && d.last.end() > w.end():
		return false // the end lies before what is there
	}
	if !more {
		d.total = w.end()
	}
	d.have += uint32(w.len)
	if d.list.Len() == 0 || uint32(w.off) >= d.last.end() {
		e.links.Push(&d.list, fr, w.tag())
		d.last = w
		return true
	}
	// Before the first that begins behind it.
	at := d.list.First()
	for j := range d.list.Len() {
		v := pieceOf(e.links.Tag(at))
		if uint32(w.off) < v.end() && uint32(v.off) < w.end() {
			return false
		}
		if v.off > w.off {
			e.links.Insert(&d.list, j, fr, w.tag())
			return true
		}
		at = e.links.Next(at)
	}
	return false // not reached: the last one lies behind w
}

// relieve keeps the limits: the oldest datagram of the source, or of the one that
// holds most, other than datagram n, gives way.
func (e *Engine) relieve(n int, now int64) {
	g := &e.frags
	group := g.dg[n].group
	if g.group[group] > perSource {
		e.abandon(g.oldest(ofGroup, int(group), -1), now)
	}
	if g.held > gatheredMax {
		at := g.oldest(ofHolders, int(slices.Max(g.group[:])), n)
		if at < 0 {
			at = g.oldest(anyHolding, 0, n) // n is all that the largest holder has
		}
		e.abandon(at, now)
	}
}

// void drops what is held of a datagram, and remembers it, so that what still
// comes of it is dropped too.
func (e *Engine) void(n int, now int64) {
	d := &e.frags.dg[n]
	d.void = true
	e.discard(d, now)
}

// abandon drops an incomplete datagram and forgets it.
func (e *Engine) abandon(n int, now int64) {
	if n < 0 {
		return
	}
	e.discard(&e.frags.dg[n], now)
	e.frags.free(n)
}

func (g *gathering) free(n int) {
	g.key[n] = fragKey{}
	g.slots[g.dg[n].group]--
	g.used--
}

// discard drops the fragments that a datagram holds, with one event.
func (e *Engine) discard(d *datagram, now int64) {
	g := &e.frags
	g.held -= d.list.Len()
	g.group[d.group] -= uint16(d.list.Len())
	for first := true; d.list.Len() > 0; first = false {
		fr := e.links.Pop(&d.list)
		e.c.DropReasons[verdict.FragmentedIPv4]++
		if first && e.events != nil {
			var p received
			packet.ParseIPv4(e.pool.Bytes(fr), &p.Packet) // a fragment: addresses and protocol
			p.in = e.route(p.Src)
			e.emitPacket(&p, verdict.Drop, verdict.FragmentedIPv4, e.policy.DefaultRule(), naming{}, now)
		}
		e.pool.Put(fr.Buf)
	}
}

// complete makes packet p the datagram n, all of whose fragments
// are there, and reports whether it is well formed; otherwise it is dropped.
func (e *Engine) complete(p *received, n int, now int64) bool {
	g := &e.frags
	d := &g.dg[n]
	head := d.list.First()
	f := e.pool.Bytes(head)
	var rest uint64
	short, df := false, false
	fr := head
	for j := range d.list.Len() {
		b := e.pool.Bytes(fr)
		short = short || b[packet.EthLen+8] <= 1
		df = df || b[packet.EthLen+6]&0x40 != 0
		if j > 0 {
			hl := int(b[packet.EthLen]&15) * 4
			rest += uint64(packet.Sum(b[packet.EthLen+hl:], 0))
		}
		fr = e.links.Next(fr)
	}
	packet.ParseIPv4(f, &p.Packet) // valid but for being a fragment
	p.Fragment, p.Parts, p.DF = false, uint8(d.list.Len()-1), df
	p.frame = head
	g.held -= d.list.Len()
	g.group[d.group] -= uint16(d.list.Len())
	total := int(d.total)
	d.list = framebuf.Queue{}
	g.free(n)
	why := verdict.MalformedPacket
	if int(p.L4)-packet.EthLen+total <= math.MaxUint16 {
		why = packet.ParseFirst(f, &p.Packet, total, rest)
	}
	switch {
	case why != 0:
	case p.Class == packet.Error:
		why = verdict.FragmentedIPv4 // no router sends one that needs it
	case short && p.TTL > 1:
		why = verdict.TTLExpired // not that of the first fragment, which is what an answer would quote
	default:
		e.c.Reassembled++
		return true
	}
	e.dropPacket(p, why, now)
	return false
}

// gatherTick abandons the datagrams whose time is over.
func (e *Engine) gatherTick(now int64) {
	g := &e.frags
	if g.used == 0 {
		return
	}
	for i := range g.dg {
		if g.key[i].rest != 0 && now >= g.dg[i].expires {
			e.abandon(i, now)
		}
	}
}

// due returns when the first incomplete datagram expires.
func (g *gathering) due() int64 {
	if g.used == 0 {
		return math.MaxInt64
	}
	return g.dg[g.oldest(anyDatagram, 0, -1)].expires
}

// release gives back the buffers of a packet and returns how many frames it
// was.
func (e *Engine) release(p *received) uint64 {
	fr := p.frame
	n := uint64(p.Parts)
	for range n {
		next := e.links.Next(fr)
		e.pool.Put(fr.Buf)
		fr = next
	}
	e.pool.Put(fr.Buf)
	return n + 1
}

// linear copies the fragments of a packet together into its first buffer, for
// what the firewall itself reads or answers. It reports false when they do not
// fit.
func (e *Engine) linear(p *received) bool {
	if p.Parts == 0 {
		return true
	}
	fr := &p.frame
	if packet.EthLen+int(p.Total) > framebuf.MaxLen {
		return false
	}
	next := e.links.Next(*fr)
	for ; p.Parts > 0; p.Parts-- {
		b := e.pool.Bytes(next)
		b = b[packet.EthLen+int(b[packet.EthLen]&15)*4:]
		at := int(fr.Len)
		fr.Len += uint32(len(b))
		copy(e.pool.Bytes(*fr)[at:], b)
		buf := next.Buf
		next = e.links.Next(next)
		e.pool.Put(buf)
		e.c.Joined++
	}
	packet.Unfragment(e.pool.Bytes(*fr))
	return true
}

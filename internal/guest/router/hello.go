package router

import (
	"bytes"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Places for the first messages of TLS connections whose server's name must be
// known. They are few: whoever opens many connections, and says nothing on them,
// takes them from himself.

const (
	maxHellos    = 64          // connections whose first message is not whole
	maxUnsettled = 192         // connections whose server has not answered it
	heldHello    = 6           // segments of one
	helloWithin  = 10 * second // from the first byte to the last
	answerWithin = 30 * second // from then to the server's answer
)

// A hello is a first message on its way.
type hello struct {
	flow    conntrack.Ref // of the client's direction
	place   uint8         // of it
	passed  bool          // it has gone on
	early   bool          // data may follow before the answer
	again   bool          // it is the second: the server has asked for it
	clock   packet.Clock  // the client's
	first   uint32        // sequence number of the message's first byte
	len     int           // bytes of data without a gap
	n       int           // segments held, in order of their numbers; they may overlap
	held    [heldHello]received
	server  uint32 // sequence number of the server's next byte
	said    int    // how many of its bytes are known, since the message went on
	says    [clienthello.ResponseLen]byte
	answer  clienthello.Response
	nameLen uint8
	name    [fqdn.MaxName]byte // of the first message, in wire form
	data    [clienthello.MaxLen]byte
}

// A place is what all places are looked at for.
type place struct {
	flow   conntrack.Ref // None: free
	source packet.Addr   // the client
	due    int64
	share  uint16 // places of the same kind that the same client has
	kind   uint8
}

// Kinds of places.
const (
	incomplete = iota // the message is not whole
	unsettled         // the server has not answered it
	helloKinds
)

var helloLimit = [helloKinds]int{maxHellos, maxUnsettled}

// hellos has no places when the policy has no such rule.
type hellos struct {
	at    []hello
	place []place
	free  []uint8
	n     [helloKinds]int // places taken
	held  int             // segments
}

// HelloBytes returns the memory that a policy's places for first messages take.
func HelloBytes(p *ruleset.Policy) int {
	for i := range p.Rules {
		if p.Rules[i].SNI != 0 {
			return (maxHellos + maxUnsettled) * int(unsafe.Sizeof(hello{})+unsafe.Sizeof(place{})+1)
		}
	}
	return 0
}

func newHellos(p *ruleset.Policy) hellos {
	if HelloBytes(p) == 0 {
		return hellos{}
	}
	const n = maxHellos + maxUnsettled
	hs := hellos{at: make([]hello, n), place: make([]place, n), free: make([]uint8, n)}
	for i := range hs.at {
		hs.place[i].flow, hs.free[i] = conntrack.None, uint8(i)
	}
	return hs
}

// any reports whether a place is taken.
func (hs *hellos) any() bool { return len(hs.free) < len(hs.at) }

// helloOf returns the place of a flow by its client's direction, or nil.
func (e *Engine) helloOf(r conntrack.Ref) *hello {
	hs := &e.names.hellos
	if !hs.any() {
		return nil
	}
	for i := range hs.place {
		if hs.place[i].flow == r {
			return &hs.at[i]
		}
	}
	return nil
}

// count makes a place one of a kind, or takes it out of it.
func (hs *hellos) count(p *place, d int) {
	hs.n[p.kind] += d
	p.share = 0
	for i := range hs.place {
		if q := &hs.place[i]; q != p && q.flow != conntrack.None && q.kind == p.kind && q.source == p.source {
			q.share += uint16(d)
			p.share = q.share
		}
	}
	if p.share == 0 {
		p.share = 1
	}
}

// openHello gives a flow a place. Nothing of its client's has passed, so that its
// stream begins where the server is.
func (e *Engine) openHello(r conntrack.Ref, now int64) *hello {
	hs := &e.names.hellos
	source := e.flows.Dir(r).Key.Src
	e.makeRoom(incomplete, source, now)
	i := hs.free[len(hs.free)-1] // there is one: the kinds' limits are as many as there are
	hs.free = hs.free[:len(hs.free)-1]
	h, p := &hs.at[i], &hs.place[i]
	*p = place{flow: r, source: source, due: now + helloWithin, kind: incomplete}
	hs.count(p, 1)
	h.flow, h.place, h.first = r, i, e.flows.Acknowledged(r)
	h.passed, h.early, h.again, h.len, h.n, h.nameLen, h.clock = false, false, false, 0, 0, 0, packet.Clock{}
	return h
}

// turnHello makes a place one of another kind, until due.
func (e *Engine) turnHello(h *hello, kind uint8, due, now int64) {
	hs := &e.names.hellos
	p := &hs.place[h.place]
	e.makeRoom(kind, p.source, now)
	hs.count(p, -1)
	p.kind, p.due = kind, due
	hs.count(p, 1)
	h.passed = kind == unsettled
}

// makeRoom ends a connection where there is no room for another of its kind: the
// oldest of the client that has the most, when the one that is to come is counted.
func (e *Engine) makeRoom(kind uint8, source packet.Addr, now int64) {
	hs := &e.names.hellos
	if hs.n[kind] < helloLimit[kind] {
		return
	}
	victim, most := 0, uint16(0)
	for i := range hs.place {
		p := &hs.place[i]
		if p.flow == conntrack.None || p.kind != kind {
			continue
		}
		n := p.share
		if p.source == source {
			n++
		}
		if n > most || n == most && p.due < hs.place[victim].due {
			victim, most = i, n
		}
	}
	e.refuseHello(nil, &hs.at[victim], nil, now)
}

// closeHello frees a place, and what is held there.
func (e *Engine) closeHello(h *hello) {
	hs := &e.names.hellos
	for k := range h.n {
		e.pool.Put(h.held[k].frame.Buf)
	}
	hs.held -= h.n
	h.n = 0
	p := &hs.place[h.place]
	hs.count(p, -1)
	p.flow = conntrack.None
	hs.free = append(hs.free, h.place)
}

// helloRemoved forgets what is held of a flow that is removed.
func (e *Engine) helloRemoved(r conntrack.Ref) {
	r &^= 1
	if h := e.helloOf(r); h != nil {
		e.c.Drops[e.flows.Dir(r).Rule] += uint64(h.n)
		e.c.DropReasons[verdict.SNIRefused] += uint64(h.n)
		e.closeHello(h)
	}
}

// hellosTick ends connections whose first message, or the server's answer, does
// not come in time.
func (e *Engine) hellosTick(now int64) {
	if !e.names.hellos.any() {
		return
	}
	for i := range e.names.hellos.place {
		p := &e.names.hellos.place[i]
		if p.flow == conntrack.None || now < p.due {
			continue
		}
		if s := e.flows.Dir(p.flow).State; s == conntrack.Close || s == conntrack.TimeWait {
			e.flows.Remove(p.flow, conntrack.Closed) // it is over; nobody is to be told
		} else {
			e.refuseHello(nil, &e.names.hellos.at[i], nil, now)
		}
	}
}

// A coverage says what a segment is to those that are held.
type coverage uint8

const (
	fresh coverage = iota // some of its data are new, the others are the same
	known                 // all of its data are held, or lie before the message
	alien                 // some of its data are held, but with other bytes
)

// covers compares data, which begin at a place of the message, with what is held.
func (h *hello) covers(at uint32, data []byte) coverage {
	if int32(at) < 0 {
		return known
	}
	end := at + uint32(len(data))
	upTo := at
	for k := range h.n {
		a, b := h.begin(k), h.end(k)
		if lo, hi := max(at, a), min(end, b); lo < hi && !bytes.Equal(data[lo-at:hi-at], h.data[lo:hi]) {
			return alien
		}
		if a <= upTo && b > upTo {
			upTo = b
		}
	}
	if upTo >= end {
		return known
	}
	return fresh
}

// begin and end return where held segment k lies in the message.
func (h *hello) begin(k int) uint32 { return h.held[k].Seq - h.first }
func (h *hello) end(k int) uint32   { return h.begin(k) + uint32(h.held[k].Payload) }

// insert holds a segment. There must be room for it.
func (h *hello) insert(p *received) {
	k := h.n
	for ; k > 0 && h.begin(k-1) > p.Seq-h.first; k-- {
		h.held[k] = h.held[k-1]
	}
	h.held[k] = *p
	h.n++
}

// grow moves len behind all that is there without a gap.
func (h *hello) grow() {
	for k := range h.n {
		if h.begin(k) <= uint32(h.len) {
			h.len = max(h.len, int(h.end(k)))
		}
	}
}

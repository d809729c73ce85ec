package differential

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// What the ends of a connection accept, by the packets that both firewalls have forwarded
// so far. Differences about TCP are allowed only with this in view: Linux may forward more,
// or less; thurward may drop only what the receiving end would neither accept nor
// challenge, and pass only what it would accept.

// A talk is a connection as its ends see it.
type talk struct {
	half [2]half // by direction: of the beginner, and the other
	over bool    // reset, or closed by both
}

// A half is what one end has sent.
type half struct {
	sent   bool
	own    uint32   // the number after the SYN that began it
	other  []uint32 // numbers after earlier SYNs or SYN-ACKs, while each may be the one that counts
	noted  []uint32 // numbers after SYNs within the connection, each with the end of its data
	data   uint32   // behind the SYN that began it
	end    uint32   // after the highest number that it has sent
	acked  bool
	ack    uint32 // the highest that it has sent
	edge   uint32 // up to where the other end may send
	win    uint32 // the largest that it has offered
	scale  int    // of its windows; -1: none
	fin    bool
	closed bool // the fin has been acknowledged
	reset  bool // it has sent a RST that ends
	wants  []uint32
}

const slack = 1 << 16

// A tcpSegment is a segment as it arrives.
type tcpSegment struct {
	packet.Packet
	scale int
}

func (s *tcpSegment) kind() uint8 { return s.Flags & (syn | ack | rst | fin) }

func (s *tcpSegment) last() uint32 {
	e := s.Seq + uint32(s.Payload)
	if s.Flags&(syn|fin) != 0 {
		e++
	}
	return e
}

// segmentOf parses a step's segment, or returns nil where it is none.
func (w *world) segmentOf(st *step) *tcpSegment {
	if st.embed != nil || st.spec.proto != packet.TCP {
		return nil
	}
	f := w.frame(st)
	s := &tcpSegment{scale: -1}
	if _, why := packet.ParseIPv4(f, &s.Packet); why != 0 || s.Class != packet.ClassTCP {
		return nil
	}
	l4 := f[s.L4:]
	o := l4[20 : int(l4[12]>>4)*4]
	for i := 0; i < len(o) && o[i] != 0; {
		if o[i] == 1 {
			i++
			continue
		}
		if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
			break
		}
		if o[i] == 3 && o[i+1] == 3 {
			s.scale = int(min(o[i+2], 14))
		}
		i += int(o[i+1])
	}
	return s
}

func before(a, b uint32) bool { return int32(a-b) < 0 }

// between reports whether n lies from lo to hi.
func between(n, lo, hi uint32) bool { return n-lo <= hi-lo && int32(hi-lo) >= 0 }

// takes reports whether a segment's receiver would accept it, or answer it with a challenge
// ACK.
func (t *talk) takes(s *tcpSegment, reply bool) bool {
	if s == nil {
		return false
	}
	i := side(reply)
	me, to := &t.half[i], &t.half[1-i]
	if n := s.kind() &^ ack; n&(n-1) != 0 {
		return false
	}
	switch {
	case s.Flags&rst != 0:
		return t.takesReset(s, me, to)
	case s.kind() == syn:
		return true
	case s.Flags&syn != 0:
		return t.takesAnswer(s, me, to, reply)
	case s.Flags&ack == 0:
		return false
	case !me.sent:
		return to.sent && s.kind() == ack && s.Payload == 0 // a challenge
	case !to.sent:
		return false
	}
	// The window.
	hi := to.edge
	if before(hi, me.own) {
		hi = me.own
	}
	if before(hi, s.last()) || before(s.last(), me.end-max(to.win, slack)) {
		return false
	}
	if me.acked {
		return !before(to.end, s.Ack) && !before(s.Ack, me.ack-max(me.win, slack)-1)
	}
	return between(s.Ack, to.own, to.end) || slices.Contains(to.other, s.Ack)
}

// acknowledges reports whether n acknowledges a SYN that began the connection or
// an attempt, with its data or without.
func (h *half) acknowledges(n uint32) bool {
	return h.sent && (between(n, h.own, h.own+h.data) || slices.Contains(h.other, n))
}

func (h *half) acknowledgesNoted(n uint32) bool {
	for i := 0; i < len(h.noted); i += 2 {
		if n == h.noted[i] || n == h.noted[i+1] {
			return true
		}
	}
	return false
}

func (t *talk) takesReset(s *tcpSegment, me, to *half) bool {
	if s.Flags&ack != 0 && (to.acknowledgesNoted(s.Ack) || !to.acked && to.acknowledges(s.Ack) && me == &t.half[1]) {
		return true // it refuses a SYN
	}
	if !me.sent {
		return false
	}
	if !to.sent {
		return s.Seq == me.end || s.Seq == me.own || slices.Contains(to.wants, s.Seq)
	}
	return s.Seq == me.end || to.acked && between(s.Seq, to.ack, to.ack+max(to.win, 1))
}

func (t *talk) takesAnswer(s *tcpSegment, me, to *half, reply bool) bool {
	switch {
	case !to.sent:
		return false
	case !me.sent:
		return reply && to.acknowledges(s.Ack)
	case before(to.end, s.Ack):
		return false
	case !me.acked || !to.acked: // the handshake goes on
		return s.Seq+1 == me.own && between(s.Ack, to.own, to.end) || reply && to.acknowledges(s.Ack)
	}
	near := between(s.Seq+1, me.end-slack, me.end) && between(s.Ack, to.end-slack, to.end)
	return near || s.Ack == to.own && !to.acknowledgesNoted(s.Ack)
}

// notes updates the connection with a forwarded segment.
func (t *talk) notes(s *tcpSegment, reply bool) {
	i := side(reply)
	me, to := &t.half[i], &t.half[1-i]
	switch {
	case s.Flags&rst != 0:
		if !me.sent && (!to.acknowledges(s.Ack) || to.own != s.Ack && s.Ack != to.own+to.data) {
			return
		}
		exact := me.sent && (s.Seq == me.end || to.acked && s.Seq == to.ack || !to.sent && s.Seq == me.own)
		if s.Flags&ack != 0 && (to.acknowledgesNoted(s.Ack) || !to.acked && to.acknowledges(s.Ack)) {
			exact = true
		}
		t.over, me.reset = t.over || exact, me.reset || exact
	case s.kind() == syn:
		fresh := !to.sent && !reply && !t.over
		if t.over && !reply && (s.Seq+1 != me.own || !to.sent) {
			*t, fresh = talk{}, true
		}
		switch {
		case fresh && me.sent && s.Seq+1 == me.own: // repeated
			me.data = max(me.data, uint32(s.Payload))
			me.end = me.own + me.data
			me.offer(s, to)
		case fresh && me.sent: // another attempt
			old := *me
			me.begin(s)
			me.other = append(old.other, old.own)
			me.scale, me.win = max(old.scale, me.scale), max(old.win, me.win)
		case fresh:
			me.begin(s)
		case !me.sent && reply: // both begin
			me.begin(s)
			me.edge, to.edge = to.own+me.win, me.own+to.win
		case s.Seq+1 == me.own && !(me.acked && to.acked):
			me.offer(s, to)
		default:
			me.noted = append(me.noted, s.Seq+1, s.Seq+1+uint32(s.Payload))
		}
	case s.Flags&syn != 0:
		if me.acked && to.acked {
			return
		}
		if !me.sent || s.Seq+1 != me.own && !to.acked { // an answer, or another one
			old := *me
			me.begin(s)
			if old.acked {
				me.other = append(old.other, old.own)
			}
			if old.sent {
				me.scale, me.win = max(old.scale, me.scale), max(old.win, me.win)
			}
			if slices.Contains(to.other, s.Ack) && s.Ack != to.own {
				to.noted, to.own, to.end, to.other = append(to.noted, to.own, to.own), s.Ack, s.Ack, nil
			}
			to.edge = me.own + to.win
		}
		me.acked, me.ack = true, s.Ack
		me.edge = to.own
		if before(me.edge, to.end) {
			me.edge = to.end
		}
		me.edge += me.win
		me.offer(s, to)
		t.over = t.over && me.reset
	case !me.sent: // a challenge
		me.wants = append(me.wants, s.Ack)
	default:
		if !me.acked && slices.Contains(to.other, s.Ack) && s.Ack != to.own {
			to.own, to.end = s.Ack, s.Ack
			me.edge = s.Ack + me.win
		}
		to.other = nil
		if before(me.end, s.last()) {
			me.end = s.last()
		}
		if !me.acked || before(me.ack, s.Ack) {
			me.acked, me.ack = true, s.Ack
		}
		me.offer(s, to)
		me.fin = me.fin || s.Flags&fin != 0
		if to.fin && s.Ack == to.end {
			to.closed = true
		}
		if !me.reset && t.over { // it goes on
			t.over, to.reset = false, false
		}
		t.over = t.over || me.closed && to.closed
	}
}

// begin notes the SYN or SYN-ACK that begins an end's half.
func (h *half) begin(s *tcpSegment) {
	*h = half{sent: true, own: s.Seq + 1, data: uint32(s.Payload), end: s.last(), win: max(uint32(s.Window), 1), scale: s.scale, noted: h.noted, wants: h.wants}
	if s.Flags&ack != 0 {
		h.acked, h.ack = true, s.Ack
	}
}

// offer notes the window that a segment offers.
func (h *half) offer(s *tcpSegment, to *half) {
	w := uint32(s.Window)
	if s.Flags&syn != 0 {
		h.scale = max(h.scale, s.scale)
	} else if h.scale > 0 && to.scale >= 0 {
		w <<= h.scale
	}
	h.win = max(h.win, w)
	if e := s.Ack + max(w, 1); s.Flags&ack != 0 && before(h.edge, e) {
		h.edge = e
	}
}

// talk returns the last step's connection before it, and its segment, or nil when
// it is none. With dropped, what left neither firewall is noted as well.
func (d *difference) talk(dropped bool) (*talk, *tcpSegment) {
	w, t := newWorld(d.flows), &talk{}
	n := len(d.steps) - 1
	for i := range d.steps[:n] {
		st := &d.steps[i]
		if s := w.segmentOf(st); s != nil && (d.passed[i] && st.spec.ttl > 1 || dropped) && d.same(st) {
			t.notes(s, st.reply)
		}
	}
	return t, w.segmentOf(&d.steps[n])
}

// underWay reports whether a segment that an ICMP error quotes may have been sent
// within the last window (RFC 5927 section 4.1).
func (t *talk) underWay(seq uint32, reply bool) bool {
	i := side(reply)
	me, to := &t.half[i], &t.half[1-i]
	for j := 0; j < len(me.noted); j += 2 {
		if seq+1 == me.noted[j] {
			return true
		}
	}
	lo := me.end - slack
	if to.acked {
		lo = to.ack - to.win - 1
	}
	return me.sent && between(seq, lo, me.end)
}

package conntrack

import "github.com/thurward/thurward/internal/shared/packet"

// A side is what has been seen of the sequence space of one end of a TCP connection. The
// checks follow G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001):
// what a side may send is bounded by what the other side has acknowledged and by the window
// it has offered.
type side struct {
	end    uint32 // highest sequence number sent, plus one
	limit  uint32 // highest number that the other side's ACK and window allow
	window uint32 // largest window that this side has offered, in bytes
	ack    uint32 // last acknowledgement that this side has sent
	flags  uint16
	syn    uint16 // the low half of the number after a SYN: see Shared.syn
}

// Flags of a side. The highest four bits are its window scale.
const (
	sideSeen      = 1 << iota // sent anything: end is valid
	sideScale                 // its SYN carried a window scale
	sideFin                   // has sent a FIN
	sideAcked                 // sent an ACK: ack is valid
	sideFinAck                // its FIN has been acknowledged
	sideReset                 // sent the RST that ended the connection
	sideChallenge             // answered a SYN with an ACK alone: ack is what it waits for
	sideSYN                   // sent a SYN that may not belong to this connection: syn is of that
	sideSYNData               // which carried data
	sideOwn                   // syn is of the SYN that began the connection
	sideOver                  // its SYN was answered by an end that has no connection
	sideMore                  // see choose
	sideScaleBit  = iota
)

func (s *side) scale() uint16 { return s.flags >> sideScaleBit }

// offers records a SYN's window scale. Where several SYNs differ, it is not known which of
// them the other end accepted; the largest scale is safe for all.
func (s *side) offers(opts []byte) {
	if n, ok := windowScale(opts); ok {
		s.flags = max(s.scale(), uint16(n))<<sideScaleBit | s.flags&(1<<sideScaleBit-1) | sideScale
	}
}

// Sequence numbers are compared modulo 2^32 (RFC 9293 section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return int32(a-b) > 0 }

// slack is how old an acknowledgement may be, in bytes: the largest unscaled window.
const slack = 1 << 16

// A Verdict of the TCP state machine.
type Verdict uint8

// The verdicts.
const (
	Pass    Verdict = iota // belongs to the connection
	Invalid                // violates it: drop
	Restart                // a new connection in place of one that is over: remove the flow and begin another
	Quiet                  // belongs to the connection, and does not refresh its timeout
)

// seqEnd returns the sequence number after the packet.
func seqEnd(p *packet.Packet) uint32 {
	e := p.Seq + uint32(p.Payload)
	if p.Flags&packet.SYN != 0 {
		e++
	}
	if p.Flags&packet.FIN != 0 {
		e++
	}
	return e
}

// StartTCP initialises the flow of r with its SYN. opts are the TCP options.
func (t *Table) StartTCP(r Ref, p *packet.Packet, opts []byte) {
	t.Shared(r).begin(r, p, opts)
	t.setState(r, SynSent)
}

// begin records a SYN of direction r. Until the other side answers, limit is the lowest
// acknowledgement that is an answer: with TCP fast open (RFC 7413) a SYN carries data,
// which may be acknowledged or not.
func (f *Shared) begin(r Ref, p *packet.Packet, opts []byte) {
	s := &f.tcp[r&1]
	*s = side{end: seqEnd(p), limit: p.Seq + 1, window: max(uint32(p.Window), 1), flags: sideSeen | sideOwn}
	f.setSYN(r, p.Seq+1)
	s.offers(opts)
	if p.Flags&packet.ACK != 0 {
		s.ack = p.Ack
		s.flags |= sideAcked
	}
}

// Acknowledged returns the last acknowledgement number that the other side has sent for
// direction r.
func (t *Table) Acknowledged(r Ref) uint32 { return t.Shared(r).tcp[r&1^1].ack }

// windowScale finds the window scale option (RFC 7323 section 2.2). Of several the last one
// counts, as in TCP implementations.
func windowScale(o []byte) (n uint8, ok bool) {
	for i := 0; i < len(o); {
		switch o[i] {
		case 0:
			return n, ok
		case 1:
			i++
			continue
		}
		if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
			return n, ok
		}
		if o[i] == 3 && o[i+1] == 3 {
			n, ok = min(o[i+2], 14), true
		}
		i += int(o[i+1])
	}
	return n, ok
}

// TCP checks a segment of direction r against the connection, and advances its state. opts
// are the TCP options.
func (t *Table) TCP(r Ref, p *packet.Packet, opts []byte) Verdict {
	f := t.Shared(r)
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	st := t.Dir(r).State
	fl := p.Flags & (packet.SYN | packet.ACK | packet.RST | packet.FIN)

	if n := fl &^ packet.ACK; n&(n-1) != 0 {
		return Invalid // more than one of SYN, FIN and RST
	}
	if fl == packet.SYN && f.reopens(r, p, st) {
		return Restart
	}
	switch {
	case fl&packet.RST != 0:
		return t.reset(r, me, other, p, st)
	case fl&packet.SYN != 0:
		return t.doSYN(r, p, opts, st)
	case fl&packet.ACK == 0:
		return Invalid // every segment after the first SYN carries ACK (RFC 9293 section 3.1)
	}
	if st == SynSent && r.Reply() && fl == packet.ACK && p.Payload == 0 {
		// The server has a connection that the client has lost, and challenges its SYN (RFC
		// 5961 section 4.2, RFC 9293 section 3.5.1). The client's RST will end it.
		me.ack = p.Ack
		me.flags |= sideChallenge
		return Quiet
	}
	if f.tcp[1].flags&sideSeen == 0 { // in SYN-SENT, or reset in it
		return Invalid // data before the handshake
	}
	if !inWindow(me, other, p) && !f.choose(r, p) {
		return Invalid
	}
	if !r.Reply() {
		f.chosen(r)
	}
	if st == Close {
		if me.flags&sideReset != 0 {
			// It was in flight when its sender's RST overtook it, or the RST was forged,
			// which the other side's acknowledgement of it will show.
			me.advance(other, p)
			return Quiet
		}
		st = t.revive(r, me, other)
	}
	me.advance(other, p)
	t.progress(r, me, other, p, st)
	return Pass
}

// TCPFast checks a segment with n bytes of data that carries ACK, and none of SYN, FIN and
// RST, of a connection that is established, and records what it shows. It reports false,
// and records nothing, for segments that TCP must handle. For most of those that are valid it
// does what inWindow and advance do, with one branch for all bounds: each difference has its
// sign bit set beyond its bound.
func (t *Table) TCPFast(r Ref, seq, ack, n, window uint32) bool {
	f := &t.shared[r>>1]
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	e, last, acked := seq+n, me.end, me.ack
	beyond := (me.limit - e) | (e - last + max(other.window, slack)) |
		(other.end - ack) | (ack - acked + max(me.window, slack) + 1)
	if int32(beyond) < 0 || me.flags&sideAcked == 0 {
		return false
	}
	if after(e, last) {
		last = e
	}
	if after(ack, acked) {
		acked = ack
	}
	if other.flags&sideScale != 0 {
		window <<= me.scale()
	}
	limit := other.limit
	if l := ack + max(window, 1); after(l, limit) {
		limit = l
	}
	me.end, me.ack, me.window, other.limit = last, acked, max(me.window, window), limit
	return true
}

// inWindow is the check of sequence and acknowledgement numbers.
func inWindow(me, other *side, p *packet.Packet) bool {
	e := seqEnd(p)
	w := max(other.window, slack)
	// RFC 9293 section 3.10.7.4: a segment whose end is in the window is acceptable,
	// wherever it begins.
	if after(e, me.limit) || before(e, me.end-w) {
		return false
	}
	if after(p.Ack, other.end) {
		return false
	}
	// RFC 5961 section 5.2: not older than the largest window before what has been
	// acknowledged. The first acknowledgement is of the other's SYN, as SYN-RECEIVED
	// requires (RFC 9293 section 3.10.7.4).
	least := other.first(me)
	if me.flags&sideAcked != 0 {
		least = me.ack - max(me.window, slack) - 1
	}
	return !before(p.Ack, least)
}

// first returns the sequence number after a side's SYN, while the other side has
// acknowledged nothing: neither window nor limit has changed since answer.
func (s *side) first(other *side) uint32 { return s.limit - other.window }

// revive restores a connection after a RST that its receiver has not accepted: it goes on
// sending (RFC 7857 section 2.2).
func (t *Table) revive(r Ref, me, other *side) State {
	me.flags &^= sideOver
	other.flags &^= sideReset | sideOver
	t.setState(r, SynRecv) // progress advances it from there
	return SynRecv
}

// advance records what the segment shows of both sides.
func (s *side) advance(other *side, p *packet.Packet) {
	e := seqEnd(p)
	if after(e, s.end) {
		s.end = e
	}
	win := uint32(p.Window)
	if other.flags&sideScale != 0 {
		win <<= s.scale() // 0 if its SYN carried none
	}
	s.window = max(s.window, win)
	if s.flags&sideAcked == 0 || after(p.Ack, s.ack) {
		s.ack = p.Ack
		s.flags |= sideAcked
	}
	if l := p.Ack + max(win, 1); after(l, other.limit) {
		other.limit = l
	}
	if p.Flags&packet.FIN != 0 {
		s.flags |= sideFin
	}
}

// progress advances the state machine after a valid segment.
func (t *Table) progress(r Ref, me, other *side, p *packet.Packet, st State) {
	if other.flags&sideFin != 0 && p.Ack == other.end {
		other.flags |= sideFinAck
	}
	switch {
	case me.flags&sideFinAck != 0 && other.flags&sideFinAck != 0:
		t.setState(r, TimeWait)
	case me.flags&sideFin != 0 && other.flags&sideFin != 0:
		t.setState(r, LastAck)
	case (me.flags|other.flags)&sideFinAck != 0:
		t.setState(r, CloseWait)
	case (me.flags|other.flags)&sideFin != 0:
		t.setState(r, FinWait)
	case st == SynRecv && (!r.Reply() || me.flags&other.flags&sideAcked != 0):
		t.setState(r, Established)
	}
}

// reset handles RST (RFC 5961 section 3.2): only the exact next sequence number ends the
// connection; others in the window pass, so that the end can challenge them, and change
// nothing; the rest is invalid. The next number is what the other side has acknowledged, or
// what this side has sent if that is still in flight. The entry stays (RFC 7857 section
// 2.2).
func (t *Table) reset(r Ref, me, other *side, p *packet.Packet, st State) Verdict {
	if st == SynSent {
		if r.Reply() {
			// The answer to a SYN must acknowledge exactly that. The answer to an earlier
			// attempt passes, and changes nothing.
			if p.Flags&packet.ACK != 0 && t.Shared(r).answersNoted(r, p.Ack) {
				return Quiet
			}
			if p.Flags&packet.ACK == 0 || before(p.Ack, other.limit) || after(p.Ack, other.end) {
				return Invalid
			}
			t.setState(r, Close)
			return Pass
		}
		if other.flags&sideChallenge != 0 && p.Seq == other.ack {
			return Quiet // the answer to a challenge; the SYN will be retransmitted
		}
		if p.Seq != me.end && p.Seq != me.limit {
			return Invalid
		}
		t.setState(r, Close)
		return Pass
	}
	acked := other.flags&sideAcked != 0
	if p.Flags&packet.ACK != 0 && t.Shared(r).answersNoted(r, p.Ack) {
		// A connection that neither end has any more, and a new one refused (RFC 9293
		// section 3.10.7.1).
		other.flags |= sideOver
		if st == Close {
			return Quiet
		}
		me.flags |= sideReset
		t.setState(r, Close)
		return Pass
	}
	if r.Reply() && !acked && p.Flags&packet.ACK != 0 && me.answers(other, p) {
		// The client may still be in SYN-SENT, since the SYN-ACK was lost, and the server
		// no longer listens.
		if st == Close {
			return Quiet
		}
		me.flags |= sideReset
		t.setState(r, Close)
		return Pass
	}
	if acked && p.Seq == other.ack || p.Seq == me.end {
		if st == Close {
			return Quiet
		}
		me.flags |= sideReset
		t.setState(r, Close)
		return Pass
	}
	if acked && !before(p.Seq, other.ack) && !after(p.Seq, other.ack+other.window) {
		return Quiet
	}
	return Invalid
}

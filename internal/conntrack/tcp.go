package conntrack

import "github.com/thurward/thurward/internal/packet"

// A side is what one end of a TCP connection has shown of its sequence space.
// The checks follow G. van Rooij, "Real Stateful TCP Packet Filtering in IP
// Filter" (2001): what a side may send is bounded by what the other side has
// acknowledged and by the window it has offered.
type side struct {
	end    uint32 // highest sequence number sent, plus one
	limit  uint32 // highest that the other side's ACK and window allow
	window uint32 // largest window this side has offered, scaled
	ack    uint32 // last acknowledgement this side has sent
	scale  uint8
	flags  uint8
	_      [2]byte
}

const (
	sideSeen   = 1 << iota // sent anything: end is valid
	sideScale              // its SYN carried a window scale
	sideFin                // has sent a FIN
	sideAcked              // sent an ACK: ack is valid
	sideFinAck             // its FIN has been acknowledged
)

// Sequence numbers are compared modulo 2^32 (RFC 9293 section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return int32(a-b) > 0 }

// slack is how far an acknowledgement may lie behind: the largest window.
const slack = 1 << 16

// A Verdict of the TCP state machine.
type Verdict uint8

// The verdicts.
const (
	Pass    Verdict = iota // belongs to the connection
	Invalid                // violates it: drop
	Restart                // a new connection on a finished one: remove the flow and start afresh
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
	t.Shared(r).tcp[r&1].begin(p, opts)
	t.setState(r, SynSent)
}

func (s *side) begin(p *packet.Packet, opts []byte) {
	s.end = seqEnd(p)
	s.limit = s.end
	s.window = max(uint32(p.Window), 1)
	s.flags |= sideSeen
	if n, ok := windowScale(opts); ok {
		s.scale = n
		s.flags |= sideScale
	}
	if p.Flags&packet.ACK != 0 {
		s.ack = p.Ack
		s.flags |= sideAcked
	}
}

// windowScale finds the window scale option (RFC 7323 section 2.2).
func windowScale(o []byte) (uint8, bool) {
	for i := 0; i < len(o); {
		switch o[i] {
		case 0:
			return 0, false
		case 1:
			i++
			continue
		}
		if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
			return 0, false
		}
		if o[i] == 3 && o[i+1] == 3 {
			return min(o[i+2], 14), true
		}
		i += int(o[i+1])
	}
	return 0, false
}

// TCP checks a packet of the flow's direction r against the connection and
// moves its state on.
func (t *Table) TCP(r Ref, p *packet.Packet, opts []byte) Verdict {
	f := t.Shared(r)
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	st := t.Dir(r).State
	fl := p.Flags & (packet.SYN | packet.ACK | packet.RST | packet.FIN)

	if n := fl &^ packet.ACK; n&(n-1) != 0 {
		return Invalid // more than one of SYN, FIN and RST
	}
	if fl == packet.SYN && (st == TimeWait || st == Close) && !r.Reply() {
		return Restart
	}
	switch {
	case fl&packet.RST != 0:
		return t.reset(r, me, other, p, st)
	case fl&packet.SYN != 0:
		return t.syn(r, me, other, p, opts, st)
	case fl&packet.ACK == 0 && fl&packet.FIN == 0:
		return Invalid // neither SYN, ACK, FIN nor RST: no TCP sends this
	}
	if st == SynSent || me.flags&sideSeen == 0 || other.flags&sideSeen == 0 {
		return Invalid // data before the handshake
	}
	if fl&packet.ACK == 0 {
		return Invalid
	}
	if !inWindow(me, other, p) {
		return Invalid
	}
	me.advance(other, p)
	t.progress(r, me, other, p, st)
	return Pass
}

// inWindow is the check of sequence and acknowledgement numbers.
func inWindow(me, other *side, p *packet.Packet) bool {
	e := seqEnd(p)
	w := max(other.window, slack)
	if after(e, me.limit) || before(p.Seq, me.end-w) {
		return false
	}
	return !after(p.Ack, other.end) && !before(p.Ack, other.end-max(me.window, slack)-1)
}

// advance notes what the packet shows of both sides.
func (s *side) advance(other *side, p *packet.Packet) {
	e := seqEnd(p)
	if after(e, s.end) {
		s.end = e
	}
	win := uint32(p.Window)
	if s.flags&sideScale != 0 && other.flags&sideScale != 0 && p.Flags&packet.SYN == 0 {
		win <<= s.scale
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

// progress moves the state machine on after a valid packet.
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

// syn handles SYN and SYN-ACK.
func (t *Table) syn(r Ref, me, other *side, p *packet.Packet, opts []byte, st State) Verdict {
	switch st {
	case SynSent:
		if !r.Reply() {
			if p.Flags&packet.ACK != 0 {
				return Invalid
			}
			if seqEnd(p) != me.end { // the client has given up and tries anew
				*me = side{}
				me.begin(p, opts)
			}
			return Pass
		}
		// SYN-ACK, or a SYN that crossed ours (simultaneous open).
		if p.Flags&packet.ACK != 0 && p.Ack != other.end {
			return Invalid
		}
		me.begin(p, opts)
		if me.flags&sideScale == 0 || other.flags&sideScale == 0 {
			me.scale, other.scale = 0, 0
		}
		other.limit = other.end + me.window // the first window is not scaled
		me.limit = me.end + other.window
		t.setState(r, SynRecv)
		return Pass
	case SynRecv:
		// A repeated SYN or SYN-ACK, or the SYN-ACKs of a simultaneous open.
		if seqEnd(p) != me.end || p.Flags&packet.ACK != 0 && after(p.Ack, other.end) {
			return Invalid
		}
		if p.Flags&packet.ACK != 0 {
			me.ack = p.Ack
			me.flags |= sideAcked
		}
		return Pass
	}
	// A SYN inside a live connection: the end answers with a challenge ACK
	// (RFC 5961 section 4.2), so let it through, but learn nothing from it.
	if p.Flags&packet.ACK == 0 && (st == Established || st == FinWait || st == CloseWait || st == LastAck) {
		return Pass
	}
	if seqEnd(p) == me.end || p.Flags&packet.ACK != 0 && !after(seqEnd(p), me.end) {
		return Pass // a repeated SYN-ACK
	}
	return Invalid
}

// reset handles RST (RFC 5961 section 3.2): only the exact next sequence
// number ends the connection; others in the window pass, so that the end can
// challenge them, and change nothing; the rest is dropped.
func (t *Table) reset(r Ref, me, other *side, p *packet.Packet, st State) Verdict {
	if st == SynSent {
		// The answer to a SYN: it must acknowledge just that.
		if other.flags&sideSeen == 0 || p.Flags&packet.ACK == 0 || p.Ack != other.end {
			return Invalid
		}
		t.setState(r, Close)
		return Pass
	}
	if other.flags&sideAcked != 0 && p.Seq == other.ack || other.flags&sideAcked == 0 && p.Seq == me.end {
		t.setState(r, Close)
		return Pass
	}
	if other.flags&sideAcked != 0 && !before(p.Seq, other.ack) && !after(p.Seq, other.ack+max(other.window, 1)) {
		return Pass
	}
	return Invalid
}

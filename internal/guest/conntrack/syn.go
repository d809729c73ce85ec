package conntrack

import "github.com/thurward/thurward/internal/shared/packet"

// SYNs: those that begin a connection, are retransmitted, or arrive when there is a
// connection.

// syn returns the sequence number after a SYN of direction r: of the one that began the
// connection (sideOwn), of one that may not belong to it (sideSYN), or of an earlier answer
// (sideMore; see choose).
func (f *Shared) syn(r Ref) uint32 { return uint32(f.synHigh[r&1])<<16 | uint32(f.tcp[r&1].syn) }

func (f *Shared) setSYN(r Ref, n uint32) {
	f.synHigh[r&1], f.tcp[r&1].syn = uint16(n>>16), uint16(n)
}

// noteSYN records a SYN that may be another connection's.
func (f *Shared) noteSYN(r Ref, p *packet.Packet) {
	s := &f.tcp[r&1]
	if r.Reply() && s.flags&sideMore != 0 {
		return // syn is needed
	}
	if f.syn(r) != p.Seq+1 {
		s.flags &^= sideOwn
	}
	f.setSYN(r, p.Seq+1)
	s.flags = s.flags&^sideSYNData | sideSYN
	if p.Payload > 0 {
		s.flags |= sideSYNData
	}
}

// fastData is the most data that a SYN carries, in bytes.
const fastData = 1460

// answersNoted reports whether an acknowledgement in direction r is of a SYN of the other
// direction that passed although it was not the connection's, or of its TCP fast open data.
func (f *Shared) answersNoted(r Ref, ack uint32) bool {
	other := &f.tcp[r&1^1]
	n := ack - f.syn(r^1)
	return other.flags&sideSYN != 0 && (n == 0 || other.flags&sideSYNData != 0 && n <= fastData)
}

// near reports whether the sequence number n is at most slack before end.
func near(n, end uint32) bool { return !after(n, end) && !before(n, end-slack) }

// reopens reports whether a SYN of direction r begins a new connection in place of one that
// is over. A late copy of the one that began it does not: its sequence number is the same,
// or, in TIME-WAIT, not newer than what has been sent (RFC 9293 section 3.6.1), unless its
// receiver has answered such a SYN already as one without a connection.
func (f *Shared) reopens(r Ref, p *packet.Packet, st State) bool {
	me := &f.tcp[r&1]
	n := p.Seq + 1
	switch {
	case st != Close && st != TimeWait:
		return false
	case me.flags&sideOver != 0 || f.tcp[1].flags&sideSeen == 0: // no connection existed
		return true
	case me.flags&sideOwn != 0 && n == f.syn(r):
		return false
	case st == TimeWait:
		return !near(n, me.end)
	}
	return me.flags&sideOwn != 0 || n == f.syn(r) || !near(n, me.end)
}

// doSYN handles SYN and SYN-ACK.
func (t *Table) doSYN(r Ref, p *packet.Packet, opts []byte, st State) Verdict {
	f := t.Shared(r)
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	acks := p.Flags&packet.ACK != 0
	switch st {
	case SynSent:
		switch {
		case r.Reply():
			return t.answer(r, p, opts)
		case acks:
			return Invalid
		}
		f.beginAgain(r, p, opts)
		return Pass
	case SynRecv:
		return t.synAgain(r, p, opts)
	}
	if me.flags&sideSeen == 0 {
		// A late answer to a SYN that was abandoned or refused: the client will answer it
		// with a RST, or the server has not received the RST. It carries ACK, otherwise it
		// would reopen.
		if before(p.Ack, other.limit) || after(p.Ack, other.end) {
			return Invalid
		}
		return t.answer(r, p, opts)
	}
	// A SYN inside an established connection: the end answers with a challenge ACK (RFC
	// 5961 section 4.2), so it passes, but changes nothing.
	if !acks {
		f.noteSYN(r, p)
		return Quiet
	}
	if near(p.Seq+1, me.end) && near(p.Ack, other.end) {
		return Quiet // a late copy of the connection's
	}
	if other.flags&sideOwn != 0 && other.flags&sideSYN == 0 && p.Ack == f.syn(r^1) {
		// Another answer to the SYN that began the connection (see synAgain), too late: it
		// will be challenged as well.
		return Quiet
	}
	return t.forgotten(r, p)
}

// beginAgain handles a further SYN of a client before any answer: a retransmission, perhaps
// with other data or options, or a new attempt. The earlier attempt may still be answered
// (RFC 9293 section 3.5, figure 9).
func (f *Shared) beginAgain(r Ref, p *packet.Packet, opts []byte) {
	me := &f.tcp[r&1]
	was := *me
	if p.Seq+1 != was.limit {
		f.begin(r, p, opts)
		f.setSYN(r, was.limit)
		me.flags = me.flags&^sideOwn | sideSYN
		if was.end != was.limit {
			me.flags |= sideSYNData
		}
		if was.flags&sideScale != 0 {
			me.offers([]byte{3, 3, byte(was.scale())})
		}
		me.window = max(me.window, was.window)
		return
	}
	if e := seqEnd(p); after(e, me.end) {
		me.end = e
	}
	me.window = max(me.window, uint32(p.Window))
	me.offers(opts)
}

// synAgain handles SYN and SYN-ACK when both sides have sent a SYN, but the
// handshake is not complete.
func (t *Table) synAgain(r Ref, p *packet.Packet, opts []byte) Verdict {
	f := t.Shared(r)
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	acks := p.Flags&packet.ACK != 0
	lo, hi := me.end-slack, me.end // the range of its SYN, where that is not known
	switch {
	case me.flags&sideOwn != 0:
		lo = f.syn(r)
		hi = lo
	case other.flags&sideAcked == 0:
		lo = me.first(other) // data may have followed
		hi = lo
	}
	least := other.first(me) // the lowest number that it may acknowledge
	switch {
	case other.flags&sideOwn != 0:
		least = f.syn(r ^ 1)
	case me.flags&sideAcked != 0:
		least = me.ack - fastData
	}
	switch n := p.Seq + 1; {
	case !before(n, lo) && !after(n, hi) && !(acks && (after(p.Ack, other.end) || before(p.Ack, least))):
		// Retransmitted, or the SYN-ACKs of a simultaneous open.
		if w := uint32(p.Window); w > me.window {
			other.limit += w - me.window
			me.window = w
		}
		if acks {
			me.ack = p.Ack
			me.flags |= sideAcked
			if !r.Reply() {
				me.flags &^= sideMore // ack is the client's own
			}
		}
		return Pass
	case acks && r.Reply() && me.flags&other.flags&sideAcked == 0 && me.answers(other, p):
		// Another answer to the SYN, none of which the client has acknowledged: of a server
		// with SYN cookies, which does not remember the first (RFC 4987 section 3.6). Or
		// the first genuine answer: an earlier SYN from there, without an acknowledgement,
		// may have been forged.
		return t.answer(r, p, opts)
	case acks:
		return t.forgotten(r, p)
	}
	f.noteSYN(r, p)
	return Quiet // a new attempt: the other end challenges it
}

// answers reports whether a server's segment acknowledges the client's SYN: with all its
// data, or without, as the server's previous answer did.
func (s *side) answers(other *side, p *packet.Packet) bool {
	return p.Ack == other.end || s.flags&sideAcked != 0 && p.Ack == s.ack
}

// forgotten handles a SYN-ACK that is not the connection's. If it answers a SYN that passed
// although that was not the connection's either, the end has no connection here: it has
// restarted, or has closed it and the last segments were lost. The SYN will be
// retransmitted and begin a new flow, which the policy decides. A forged answer is
// harmless: data revive the connection.
func (t *Table) forgotten(r Ref, p *packet.Packet) Verdict {
	if f := t.Shared(r); f.answersNoted(r, p.Ack) {
		other := &f.tcp[r&1^1]
		other.flags = other.flags&^sideSYN | sideOver
		t.setState(r, Close)
	}
	return Invalid
}

// answer handles the answer to a flow's SYN: SYN-ACK, or a SYN that crossed it
// (simultaneous open). In SYN-RECEIVED it is another SYN-ACK.
func (t *Table) answer(r Ref, p *packet.Packet, opts []byte) Verdict {
	f := t.Shared(r)
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	own := other.limit
	st := t.Dir(r).State
	if p.Flags&packet.ACK != 0 && st == SynSent && (before(p.Ack, other.limit) || after(p.Ack, other.end)) {
		if !f.answersNoted(r, p.Ack) {
			return Invalid
		}
		// It answers the earlier of two attempts, which need not be the one that the client
		// has abandoned: an old SYN may have arrived late.
		other.end = p.Ack
		f.setSYN(r^1, own)
		other.flags &^= sideSYNData
	} else if st == SynSent { // sideOwn, whether or not it is the only attempt
		f.setSYN(r^1, own)
		other.flags = other.flags&^(sideSYN|sideSYNData) | sideOwn
	}
	was, first, more := *me, me.first(other), f.syn(r)
	f.begin(r, p, opts)
	if was.flags&sideAcked != 0 { // not its first answer
		f.keep(r, &was, first, more)
	}
	// These windows are not scaled, and begin after the SYN: see first. After a fast open
	// the client may have sent more than that.
	if me.flags&sideAcked != 0 {
		other.limit = other.end
	}
	other.limit += me.window
	me.limit = p.Seq + 1 + other.window
	t.setState(r, SynRecv)
	return Pass
}

// keep records the answers before the one that has just begun r's side: the side as it was,
// with first the sequence number after its SYN and, with sideMore, more that of a still
// earlier one. A third is in the client's ack, until the client sends one. So the first and
// the last two are known.
func (f *Shared) keep(r Ref, was *side, first, more uint32) {
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	now := f.syn(r)
	switch {
	case was.flags&sideMore == 0 || more == now:
		more = first
	default:
		other.ack = first
		other.flags |= sideMore
	}
	f.setSYN(r, more)
	me.flags = me.flags&^sideOwn | sideMore
	if was.flags&sideScale != 0 {
		me.offers([]byte{3, 3, byte(was.scale())})
	}
	me.window = max(me.window, was.window)
}

// choose reports whether the client's segment p acknowledges one of the server's earlier
// answers and lies in the window; the connection then continues from that answer. The
// client may have received any of the forwarded answers.
func (f *Shared) choose(r Ref, p *packet.Packet) bool {
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	if r.Reply() || other.flags&sideMore == 0 || me.flags&sideAcked != 0 {
		return false
	}
	if p.Ack != f.syn(r^1) && (me.flags&sideMore == 0 || p.Ack != me.ack) {
		return false
	}
	was := *other
	other.end, other.limit = p.Ack, p.Ack+me.window
	if !inWindow(me, other, p) {
		*other = was
		return false
	}
	return true
}

// chosen discards the answers that the client, direction r, has not acknowledged.
func (f *Shared) chosen(r Ref) {
	me, other := &f.tcp[r&1], &f.tcp[r&1^1]
	if me.flags&sideAcked == 0 && other.flags&sideMore != 0 {
		f.setSYN(r^1, other.first(me))
		other.flags |= sideOwn
	}
	me.flags &^= sideMore
	other.flags &^= sideMore
}

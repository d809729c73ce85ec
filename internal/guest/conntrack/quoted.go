package conntrack

// sentBefore bounds what a side has sent while the other has acknowledged nothing, in
// bytes: a SYN, perhaps with data.
const sentBefore = 1 << 16

// UnderWay reports whether an ICMP error may quote a segment of direction r with this
// sequence number (RFC 5927 section 4.1): it has been sent, and is at most a window older
// than what the other side has acknowledged, since errors may be late.
func (t *Table) UnderWay(r Ref, seq uint32) bool {
	s := t.Shared(r)
	from, to := &s.tcp[r&1], &s.tcp[r&1^1]
	if from.flags&sideSYN != 0 && seq+1 == s.syn(r) {
		return true // a SYN that may begin another connection
	}
	first := from.end - sentBefore
	if to.flags&sideAcked != 0 {
		first = to.ack - to.window - 1 // a keepalive lies before the window
	}
	return from.flags&sideSeen != 0 && !before(from.end, seq) && !before(seq, first)
}

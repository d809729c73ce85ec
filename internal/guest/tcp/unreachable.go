package tcp

// Unreachable handles an ICMP destination unreachable message about a segment with
// this sequence number. It removes a connection in state SYN-SENT, if the number is
// that of its SYN; in all other states the error is soft and ignored (RFC 5927
// section 5.2). It reports whether it has removed one.
func (s *Stack) Unreachable(t *Tuple, seq uint32, now int64) bool {
	s.now = now
	c := s.find(t)
	if c == nil || c.state != synSent || seq != c.una {
		return false
	}
	s.c.Failed++
	s.remove(c)
	return true
}

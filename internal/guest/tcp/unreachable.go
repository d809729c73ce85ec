package tcp

// Unreachable handles an ICMP error that says that a segment of a connection,
// with this sequence number, did not arrive. It ends a connection of our own
// that the other side has not answered yet, if the number is that of its SYN;
// a connection that exists goes on (RFC 5927 section 5.2), as do those of
// clients. It reports whether it ended one.
func (s *Stack) Unreachable(t *Tuple, seq uint32, now int64) bool {
	s.now = now
	c := s.find(t)
	if c == nil || c.state != synSent || seq != c.una {
		return false
	}
	s.c.Failed++
	s.drop(c)
	return true
}

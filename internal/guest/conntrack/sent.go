package conntrack

// Sent returns the highest sequence number that direction r has sent, plus one. See also
// Acknowledged.
func (t *Table) Sent(r Ref) uint32 { return t.Shared(r).tcp[r&1].end }

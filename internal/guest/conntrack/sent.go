package conntrack

// Sent returns the number behind all that direction r has sent of its stream. See
// also Acknowledged.
func (t *Table) Sent(r Ref) uint32 { return t.Shared(r).tcp[r&1].end }

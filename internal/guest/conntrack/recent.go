package conntrack

// recent are the hashes of the keys that were inserted since the last Prepare, or what looks
// like them: a bit for each of 4096 classes of hashes. A key of that batch that Prepare has
// found in neither bucket is looked for again only if it may be among them.
type recent struct {
	bits  [64]uint64
	any   bool
	batch *Batch // that was prepared last
}

// class returns the word and the bit of a hash: other bits than those of buckets and tags.
func class(h uint64) (int, uint64) { return int(h >> 32 & 63), 1 << (h >> 38 & 63) }

// begin forgets what was inserted: b has been looked up by the index as it is.
func (n *recent) begin(b *Batch) {
	if n.any {
		n.bits, n.any = [64]uint64{}, false
	}
	n.batch = b
}

// note records that a key with hash h is in the table.
func (t *Table) note(h uint64) {
	w, bit := class(h)
	t.recent.bits[w] |= bit
	t.recent.any = true
}

// has reports whether a key with hash h may have been inserted since b was prepared.
func (n *recent) has(b *Batch, h uint64) bool {
	w, bit := class(h)
	return n.batch != b || n.bits[w]&bit != 0
}

package conntrack

// sweepStep bounds how many records one Sweep looks at.
const sweepStep = 1024

// Sweep removes flows whose time is over. It looks at a bounded number of
// records and goes on where it stopped; a whole turn takes Len/1024 calls.
func (t *Table) Sweep(now int64) {
	if t.live == 0 {
		return
	}
	n := min(sweepStep, t.fresh)
	for range n {
		if t.hand >= t.fresh {
			t.hand = 0
		}
		t.expireAt(t.hand, now)
		t.hand++
	}
}

// expireAt removes flow i when its time is over.
func (t *Table) expireAt(i uint32, now int64) bool {
	a, b := &t.dirs[0][i], &t.dirs[1][i]
	if a.State == 0 || now-max(a.LastSeen, b.LastSeen) < t.timeouts.of(a.State) {
		return false
	}
	t.remove(i, Expired)
	return true
}

// reclaim makes room in a full table: from where the sweep is, it looks at a
// bounded number of records and removes the first that has expired, or else
// the first that is half-open.
func (t *Table) reclaim(now int64) {
	half := -1
	n := min(uint32(64), uint32(len(t.shared)))
	for range n {
		if t.hand >= uint32(len(t.shared)) {
			t.hand = 0
		}
		i := t.hand
		t.hand++
		if t.expireAt(i, now) {
			return
		}
		if half < 0 && t.dirs[0][i].State.halfOpen() {
			half = int(i)
		}
	}
	if half >= 0 {
		t.remove(uint32(half), Reclaimed)
	}
}

// RemoveOver removes flow i, by its number, if its time has passed or its
// connection is over, and reports whether it did.
func (t *Table) RemoveOver(i uint32, now int64) bool {
	if i >= t.fresh {
		return false
	}
	if t.expireAt(i, now) {
		return true
	}
	if s := t.dirs[0][i].State; s != TimeWait && s != Close {
		return false
	}
	t.remove(i, Reclaimed)
	return true
}

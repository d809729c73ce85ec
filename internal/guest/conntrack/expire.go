package conntrack

// sweepLooks and sweepEnds bound how many records one Sweep examines, and how many flows it
// removes, which costs ten times as much.
const (
	sweepLooks = 1024
	sweepEnds  = 128
)

// sweepGroup is how many expired flows are found before they are removed, so that what their
// removal needs is on its way from the memory.
const sweepGroup = 16

// Sweep removes expired flows. It examines a bounded number of records and continues where
// it stopped. It reports whether there may be more to remove at once.
func (t *Table) Sweep(now int64) (more bool) {
	if t.live == 0 {
		return false
	}
	var over [sweepGroup]uint32
	n, ends := 0, 0
	for range min(sweepLooks, t.fresh) {
		if t.hand >= t.fresh {
			t.hand = 0
		}
		i := t.hand
		t.hand++
		if !t.expired(i, now) {
			continue
		}
		t.fetchEnd(i)
		over[n%sweepGroup] = i
		if n++; n == sweepGroup {
			t.removeAll(over[:])
			n = 0
			if ends += sweepGroup; ends >= sweepEnds {
				return true
			}
		}
	}
	t.removeAll(over[:n])
	return false
}

// removeAll removes flows that have expired.
func (t *Table) removeAll(flows []uint32) {
	if t.Removing != nil {
		for _, i := range flows {
			t.Removing(Ref(i << 1))
		}
	}
	for _, i := range flows {
		t.remove(i, Expired)
	}
}

// expired reports whether there is a flow i that has expired.
func (t *Table) expired(i uint32, now int64) bool {
	a := &t.dirs[2*i]
	idle := t.timeouts.of(a.State)
	return a.State != 0 && now-a.LastSeen >= idle && now-t.dirs[2*i+1].LastSeen >= idle
}

// expireAt removes flow i if it has expired.
func (t *Table) expireAt(i uint32, now int64) bool {
	if !t.expired(i, now) {
		return false
	}
	t.remove(i, Expired)
	return true
}

// reclaimLooks bounds how many records of a full table are examined for one to evict, and
// reclaimGood how many once there is a candidate.
const (
	reclaimLooks = 64
	reclaimGood  = 8
)

// reclaim makes room in a full table: from the sweep's position on it examines a bounded
// number of records, and removes the first that has expired, is over, or is of a large
// holder and not firm; or else the one with the highest State.spare.
func (t *Table) reclaim(now int64) {
	best, victim := 0, uint32(0)
	for n := range min(uint32(reclaimLooks), uint32(len(t.shared))) {
		if t.hand >= uint32(len(t.shared)) {
			t.hand = 0
		}
		i := t.hand
		t.hand++
		if t.expireAt(i, now) {
			return
		}
		d := &t.dirs[2*i]
		s := d.State.spare()
		if s > 0 && t.Share(d.Key.Src) > len(t.shared)/largePart {
			s += spareOver
		}
		if s > best {
			best, victim = s, i
		}
		if best >= spareOver || best > 0 && n >= reclaimGood {
			break
		}
	}
	if best > 0 {
		t.remove(victim, Reclaimed)
	}
}

// RemoveOver removes flow number i if it has expired or its connection is over, and reports
// whether it did.
func (t *Table) RemoveOver(i uint32, now int64) bool {
	if i >= t.fresh {
		return false
	}
	if t.expireAt(i, now) {
		return true
	}
	if t.dirs[2*i].State.spare() < spareOver {
		return false
	}
	t.remove(i, Reclaimed)
	return true
}

// When external ports are scarce, an answered UDP flow counts as idle after idleFor
// nanoseconds, the lifetime of an unanswered one (RFC 4787 REQ-5), and an unanswered flow
// as stale after staleFor, when its sender has stopped retransmitting.
const (
	idleFor  = 120e9
	staleFor = 16e9
)

// How readily a flow is evicted for its external port, in ascending order; see Spare.
const (
	Keep   = iota // never
	Unsure        // in a handshake, unanswered, answered once, or idle: only for a host with fewer flows
	Stale         // unanswered, or answered once, for staleFor: for any host
	Over          // over
)

// Spare returns how readily flow number i is evicted for its external port: Keep, Unsure,
// Stale or Over.
func (t *Table) Spare(i uint32, now int64) int {
	if i >= t.fresh {
		return Keep
	}
	a, b := &t.dirs[2*i], &t.dirs[2*i+1]
	idle := now - max(a.LastSeen, b.LastSeen)
	switch s := a.State.spare(); {
	case s == spareOver:
		return Over
	case s == spareUnanswered && idle >= staleFor:
		return Stale
	case s > 0, a.State == UDPReplied && idle >= idleFor:
		return Unsure
	}
	return Keep
}

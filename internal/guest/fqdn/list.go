package fqdn

// A list is a list of bindings by age: those of a share, or those that have expired.
type list struct{ oldest, newest, n uint32 }

// listOf returns the list of a binding.
func (s *Set) listOf(b *binding) *list {
	if b.share == 0 {
		return &s.expired
	}
	return &s.shares.h[b.share-1].list
}

// class returns the class of a name's bindings.
func (r *record) class() uint32 {
	if r.inPolicy() {
		return inPolicy
	}
	return outsidePolicy
}

// addToShare appends binding i, which is in no list, to the share of its client.
func (s *Set) addToShare(i uint32) {
	b := &s.b[i-1]
	r := &s.names.rec[b.name-1]
	if b.share = s.shareOf(b.client, r.class()); b.share == 0 {
		b.share = s.newShare(b.client, r.class())
	}
	s.append(i)
	h := &s.shares.h[b.share-1]
	h.cells += cellsOf(int(r.len))
	s.shares.n[h.class]++
	s.fixHeap(b.share)
}

// addToExpired appends binding i, which is in no list, to the expired ones.
func (s *Set) addToExpired(i uint32) {
	s.b[i-1].share = 0
	s.append(i)
}

func (s *Set) append(i uint32) {
	b := &s.b[i-1]
	l := s.listOf(b)
	b.age = link{prev: l.newest}
	if l.newest != 0 {
		s.b[l.newest-1].age.next = i
	} else {
		l.oldest = i
	}
	l.newest = i
	l.n++
}

// removeFromList removes binding i from its list.
func (s *Set) removeFromList(i uint32) {
	b := &s.b[i-1]
	l := s.listOf(b)
	if b.age.prev != 0 {
		s.b[b.age.prev-1].age.next = b.age.next
	} else {
		l.oldest = b.age.next
	}
	if b.age.next != 0 {
		s.b[b.age.next-1].age.prev = b.age.prev
	} else {
		l.newest = b.age.prev
	}
	l.n--
	if b.share == 0 {
		return
	}
	h := &s.shares.h[b.share-1]
	h.cells -= cellsOf(int(s.names.rec[b.name-1].len))
	s.shares.n[h.class]--
	if l.n == 0 {
		s.freeShare(b.share)
	} else {
		s.fixHeap(b.share)
	}
}

// evict removes binding i, and counts it unless it has expired.
func (s *Set) evict(i uint32, counter *uint64) {
	if s.b[i-1].share != 0 {
		*counter++
	}
	s.remove(i)
}

// Sweep examines the next n bindings and moves those that have expired to the list
// of expired bindings, from which eviction takes first.
func (s *Set) Sweep(n int, now int64) {
	s.begin()
	defer s.end()
	now += s.away
	for range min(n, len(s.b)) {
		if s.sweepAt++; s.sweepAt >= uint32(len(s.b)) {
			s.sweepAt = 0
		}
		b := &s.b[s.sweepAt]
		if b.share != 0 && b.expires <= now {
			s.removeFromList(s.sweepAt + 1)
			s.addToExpired(s.sweepAt + 1)
			s.c.Expired++
		}
	}
}

package fqdn

// A list is bindings by age: those of a holder, or those that have expired.
type list struct{ oldest, newest, n uint32 }

// listOf returns the list that a binding is in.
func (s *Set) listOf(b *binding) *list {
	if b.holder == 0 {
		return &s.dead
	}
	return &s.hold.h[b.holder-1].list
}

// class returns which class the bindings of a name are.
func (r *record) class() uint32 {
	if r.ruled() {
		return ruled
	}
	return plain
}

// enlist puts binding i, which is in no list, at the young end of its client's.
func (s *Set) enlist(i uint32) {
	b := &s.b[i-1]
	r := &s.names.rec[b.name-1]
	if b.holder = s.holder(b.client, r.class()); b.holder == 0 {
		b.holder = s.newHolder(b.client, r.class())
	}
	s.append(i)
	h := &s.hold.h[b.holder-1]
	h.charge += charge(int(r.len))
	s.hold.n[h.class]++
	s.settle(b.holder)
}

// bury puts binding i, which is in no list, with those that have expired.
func (s *Set) bury(i uint32) {
	s.b[i-1].holder = 0
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

// unlist takes binding i out of its list.
func (s *Set) unlist(i uint32) {
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
	if b.holder == 0 {
		return
	}
	h := &s.hold.h[b.holder-1]
	h.charge -= charge(int(s.names.rec[b.name-1].len))
	s.hold.n[h.class]--
	if l.n == 0 {
		s.dropHolder(b.holder)
	} else {
		s.settle(b.holder)
	}
}

// evict forgets binding i and counts it, unless it was expired anyway.
func (s *Set) evict(i uint32, counter *uint64) {
	if s.b[i-1].holder != 0 {
		*counter++
	}
	s.remove(i)
}

// Sweep looks at the next n bindings and sets aside those that have expired.
// They are never found again anyway, but now give their places first.
func (s *Set) Sweep(n int, now int64) {
	for range min(n, len(s.b)) {
		if s.hand++; s.hand >= uint32(len(s.b)) {
			s.hand = 0
		}
		b := &s.b[s.hand]
		if b.holder != 0 && b.expires <= now {
			s.unlist(s.hand + 1)
			s.bury(s.hand + 1)
			s.c.Expired++
		}
	}
}

package fqdn

// Bindings are in one of three lists, by age. What has expired gives its place
// first; it is kept until then, so that events can say that it was known. Then
// names that no rule has, which only serve events: clients cannot push out what
// rules need by asking for anything. Then the rest.
const (
	dead = iota
	plain
	ruled
	numLists
)

type list struct {
	oldest, newest uint32
	n              int
}

// enlist puts binding i, which is in no list, at the young end of the one that
// it belongs to while it is alive.
func (s *Set) enlist(i uint32) {
	l := uint8(plain)
	if s.names.rec[s.b[i-1].name-1].ruled() {
		l = ruled
	}
	s.put(i, l)
}

func (s *Set) put(i uint32, to uint8) {
	b, l := &s.b[i-1], &s.lists[to]
	b.list = to
	b.age = link{prev: l.newest}
	if l.newest != 0 {
		s.b[l.newest-1].age.next = i
	} else {
		l.oldest = i
	}
	l.newest = i
	l.n++
}

func (s *Set) unlist(i uint32) {
	b := &s.b[i-1]
	l := &s.lists[b.list]
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
}

// oldest returns the binding that gives way next, 0 when there is none.
func (s *Set) oldest() uint32 {
	for i := range s.lists {
		if s.lists[i].n > 0 {
			return s.lists[i].oldest
		}
	}
	return 0
}

// evict forgets binding i and counts it, unless it was expired anyway.
func (s *Set) evict(i uint32, counter *uint64) {
	if s.b[i-1].list != dead {
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
		if b.name != 0 && b.list != dead && b.expires <= now {
			s.unlist(s.hand + 1)
			s.put(s.hand+1, dead)
			s.c.Expired++
		}
	}
}

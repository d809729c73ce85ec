package nat

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Ports move between the parts of a pool. Each begins with the part that partOf says, its
// home, so that ports are preserved; but hosts may all use the ports of one part (300 hosts
// whose IPsec has port 4500), for which that part has not enough while others have plenty.
// Then another part lends some that are free. It takes them out of its own pool and tells the
// borrower, which puts them into its pool: a port is never in two. Answers find the borrower
// by a table that all parts read, and that is written only when ports move.

// away says which part has each port of a divided pool.
type away struct {
	_     [64]byte
	ports atomic.Int32 // that are not at home; while there are none nobody reads part
	_     [60]byte
	part  [protos][1 << 16 / perWord]atomic.Uint32 // four bits for each port: the part, less its home (modulo 16)
}

const perWord = 8 // ports in a word of away.part

// of returns the part of a port in a protocol's space.
func (a *away) of(sp int, port, mask uint16) int {
	home := partOf(port, mask)
	if a == nil || sp < 0 || a.ports.Load() == 0 {
		return home
	}
	return (home + int(a.part[sp][port/perWord].Load()>>(port%perWord*4))) & int(mask)
}

// set notes that a part has a port from now on. Nobody else does that for the same port: its
// part has lent it, and no other has it.
func (a *away) set(sp int, port, mask uint16, part int) {
	home, w, shift := partOf(port, mask), &a.part[sp][port/perWord], port%perWord*4
	by := uint32(part-home) & uint32(mask)
	was := w.Load() >> shift & 15
	w.And(^(uint32(15) << shift))
	w.Or(by << shift)
	switch {
	case was == 0 && by != 0:
		a.ports.Add(1)
	case was != 0 && by == 0:
		a.ports.Add(-1)
	}
}

// Join has a part share with the first one where ports are that are not at home.
func (n *NAT) Join(first *NAT) {
	if n.part.N <= 1 {
		return
	}
	if first.away == nil {
		first.away = make([]*away, len(first.pools))
		for i := range first.away {
			if !first.whole[i] {
				first.away[i] = new(away)
			}
		}
	}
	n.away = first.away
}

// SharedBytes returns the memory of what n parts of a policy's translation share, in bytes.
func SharedBytes(p *ruleset.Policy, n int) int {
	if n <= 1 {
		return 0
	}
	var s source
	plans, _ := s.plan(p, 0) // New reports errors
	return len(plans) * int(unsafe.Sizeof(away{}))
}

// A Wish is for ports of a pool, which a part has too few of.
type Wish struct {
	Pool   int16
	Proto  uint8
	Lo, Hi uint16
	Free   uint32 // those from Lo to Hi that the part has free
}

// Wish returns what Map has found too little of for a source, and false where other parts
// cannot help.
func (n *NAT) Wish(proto uint8, addr packet.Addr) (w Wish, ok bool) {
	e, sp := n.source.find(addr), spaceOf(proto)
	if e == nil || sp < 0 || n.away == nil {
		return w, false
	}
	m := n.source.member(e, addr)
	if n.away[m.pool] == nil {
		return w, false
	}
	q := n.pools[m.pool]
	return Wish{m.pool, proto, m.lo, m.hi, uint32(q.spare(q.space[sp], m.lo, m.hi))}, true
}

// A Loan is ports that go to another part: those of the set in a word of the pool's bitmap.
type Loan struct {
	Pool  int16
	Proto uint8
	Word  uint16
	Set   uint64
}

// spare returns how many ports from lo to hi are free and not kept.
func (p *Pool) spare(s *space, lo, hi uint16) int {
	return max(0, min(s.freeIn(lo, hi), len(s.byExt)-s.reserved-s.inUse-max(0, s.kept-s.own)))
}

// Lend takes some of the ports that are wished for out of the pool, those free ones of a word,
// and reports whether there are any to be lent: up to half of what the part has more than the
// one that wishes, so that both have as many in the end.
func (n *NAT) Lend(w *Wish) (l Loan, ok bool) {
	sp := spaceOf(w.Proto)
	if sp < 0 || uint(w.Pool) >= uint(len(n.away)) || n.away[w.Pool] == nil {
		return l, false
	}
	q := n.pools[w.Pool]
	s := q.space[sp]
	most := (q.spare(s, w.Lo, w.Hi) - int(w.Free)) / 2
	if most <= 0 {
		return l, false
	}
	first, last := int(w.Lo)/64, int(w.Hi)/64
	for range last - first + 1 {
		if s.lends++; s.lends < first || s.lends > last {
			s.lends = first
		}
		set := ^s.used[s.lends] & between(s.lends, w.Lo, w.Hi)
		for bits.OnesCount64(set) > most {
			set &= set - 1
		}
		if set != 0 {
			q.lose(s, n.part, s.lends, set)
			w.Free += uint32(bits.OnesCount64(set))
			return Loan{w.Pool, w.Proto, uint16(s.lends), set}, true
		}
	}
	return l, false
}

// Receive puts ports into the pool that another part has lent, or given back.
func (n *NAT) Receive(l *Loan) {
	sp := spaceOf(l.Proto)
	if sp < 0 || uint(l.Pool) >= uint(len(n.away)) || n.away[l.Pool] == nil || l.Word >= 1<<16/64 {
		return
	}
	q, a, mask := n.pools[l.Pool], n.away[l.Pool], uint16(n.part.N-1)
	s := q.space[sp]
	set := l.Set & s.used[l.Word] & between(int(l.Word), q.Lo, q.Hi)
	for b := set; b != 0; b &= b - 1 {
		a.set(sp, l.Word*64+uint16(bits.TrailingZeros64(b)), mask, n.part.K)
	}
	s.used[l.Word] &^= set
	s.reserved -= bits.OnesCount64(set)
	s.guests += bits.OnesCount64(set &^ homes(n.part))
	s.freed++ // what was guessed is no good
}

// lose takes free ports out of the pool.
func (p *Pool) lose(s *space, part Part, word int, set uint64) {
	s.used[word] |= set
	s.reserved += bits.OnesCount64(set)
	s.guests -= bits.OnesCount64(set &^ homes(part))
}

// GoHome returns free ports that are to be given back to their home, where the part has them
// no longer needed: when half of the ports that are at home here are free. looks bounds how
// many words of the bitmap are looked at.
func (n *NAT) GoHome(pool int, proto uint8, looks int) (l Loan, home int, ok bool) {
	sp := spaceOf(proto)
	if sp < 0 || uint(pool) >= uint(len(n.away)) || n.away[pool] == nil {
		return l, 0, false
	}
	q := n.pools[pool]
	s := q.space[sp]
	if s.guests == 0 || q.spare(s, q.Lo, q.Hi) < len(s.byExt)/n.part.N/2 {
		return l, 0, false
	}
	first, last := int(q.Lo)/64, int(q.Hi)/64
	for range min(looks, last-first+1) {
		if s.gives++; s.gives < first || s.gives > last {
			s.gives = first
		}
		set := ^s.used[s.gives] &^ homes(n.part) & between(s.gives, q.Lo, q.Hi)
		if set == 0 {
			continue
		}
		home = partOf(uint16(bits.TrailingZeros64(set)), uint16(n.part.N-1))
		set &= homes(Part{home, n.part.N})
		q.lose(s, n.part, s.gives, set)
		return Loan{int16(pool), proto, uint16(s.gives), set}, home, true
	}
	return l, 0, false
}

// Guests returns how many ports of a protocol the part has whose home is another one.
func (p *Pool) Guests(proto uint8) int {
	if sp := spaceOf(proto); sp >= 0 {
		return p.space[sp].guests
	}
	return 0
}

// homes returns the ports of a word of the bitmap that are at home in a part, which are the
// same in each word.
func homes(p Part) (set uint64) {
	for port := range uint16(64) {
		if partOf(port, uint16(p.N-1)) == p.K {
			set |= 1 << port
		}
	}
	return set
}

// between returns the ports from lo to hi in a word of the bitmap.
func between(word int, lo, hi uint16) uint64 {
	set := ^uint64(0)
	if word == int(lo)/64 {
		set &= ^uint64(0) << (lo % 64)
	}
	if word == int(hi)/64 {
		set &= ^uint64(0) >> (63 - hi%64)
	}
	return set
}

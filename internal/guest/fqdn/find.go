package fqdn

import "github.com/thurward/thurward/internal/shared/packet"

// Found is what a look-up found. It is large; keep one and use it again.
type Found struct {
	IDs  []uint32 // the patterns, by index in Policy.Names; each once
	Full bool     // there were more than fit: those are missing
	// The names, the newest first among those that the policy has patterns
	// for, and then among the others.
	Names []Known
	ids   [4 * PerAddress]uint32
	names [MaxKnown]Known
}

// MaxKnown is how many names a look-up returns at most.
const MaxKnown = 8

// Known is one name of an address.
type Known struct {
	Name     Name
	InPolicy bool   // the policy has a pattern for it
	Learned  int64  // when
	Lookup   uint64 // by which query
	Expires  int64  // when it ends, or has ended
}

func (f *Found) reset() { f.IDs, f.Full, f.Names = f.ids[:0], false, f.names[:0] }

// Find looks up by what names client knows addr at time now.
func (s *Set) Find(client, addr packet.Addr, now int64, f *Found) {
	f.reset()
	s.find(client, addr, now, f)
	if s.everyone > 0 && client != Everyone {
		s.find(Everyone, addr, now, f)
	}
}

func (s *Set) find(client, addr packet.Addr, now int64, f *Found) {
	for i := s.both[s.bothOf(client, addr)]; i != 0; i = s.b[i-1].byBoth.next {
		if b := &s.b[i-1]; b.addr == addr && b.client == client && b.expires > now {
			s.add(b, f)
		}
	}
}

// FindExpired looks up names that client knew at addr and that have expired: what
// has expired is kept for as long as nothing else needs its place.
func (s *Set) FindExpired(client, addr packet.Addr, now int64, f *Found) {
	f.reset()
	for _, c := range [...]packet.Addr{client, Everyone} {
		for i := s.both[s.bothOf(c, addr)]; i != 0; i = s.b[i-1].byBoth.next {
			if b := &s.b[i-1]; b.addr == addr && b.client == c && b.expires <= now {
				s.add(b, f)
			}
		}
	}
}

// FindAnyClient looks up by what names any client knows addr. It looks at a
// limited number of them.
func (s *Set) FindAnyClient(addr packet.Addr, now int64, f *Found) {
	f.reset()
	left := 2 * PerAddress
	for i := s.addrs[s.addrOf(addr)]; i != 0 && left > 0; i = s.b[i-1].byAddr.next {
		if b := &s.b[i-1]; b.addr == addr && b.expires > now {
			s.add(b, f)
		}
		left--
	}
}

// FindName looks up whether client knew addr by this name at time at, and the
// patterns of this name alone.
func (s *Set) FindName(client, addr packet.Addr, name []byte, at int64, f *Found) bool {
	f.reset()
	n := s.findName(name, s.hashName(name)) // 0, which no binding has, if nobody knows it
	for _, c := range [...]packet.Addr{client, Everyone} {
		for i := s.both[s.bothOf(c, addr)]; i != 0; i = s.b[i-1].byBoth.next {
			if b := &s.b[i-1]; b.addr == addr && b.client == c && b.name == n && b.expires > at {
				s.add(b, f)
				return true
			}
		}
	}
	return false
}

// Patterns returns the patterns of one name of the set, in place of what f
// held.
func (s *Set) Patterns(n Name, f *Found) {
	f.reset()
	if n != 0 && int(n) <= len(s.names.rec) {
		s.addIDs(&s.names.rec[n-1], f)
	}
}

// Knows reports whether client has learned name, at any address, and still may
// use it: a link of an alias chain that it may ask for again.
func (s *Set) Knows(client packet.Addr, name []byte, now int64) bool {
	n := s.findName(name, s.hashName(name))
	if n == 0 {
		return false
	}
	left := 4 * PerAddress
	for i := s.names.rec[n-1].first; i != 0 && left > 0; i = s.b[i-1].byName.next {
		if b := &s.b[i-1]; (b.client == client || b.client == Everyone) && b.expires > now {
			return true
		}
		left--
	}
	return false
}

// add notes a binding's name and patterns.
func (s *Set) add(b *binding, f *Found) {
	r := &s.names.rec[b.name-1]
	k := Known{Name: Name(b.name), InPolicy: r.ruled(), Learned: b.learned, Lookup: b.lookup, Expires: b.expires}
	s.addIDs(r, f)
	if n := len(f.Names); n < len(f.names) {
		f.Names = f.names[:n+1]
	} else if !k.before(&f.names[n-1]) {
		return
	}
	i := len(f.Names) - 1
	for ; i > 0 && k.before(&f.names[i-1]); i-- {
		f.names[i] = f.names[i-1]
	}
	f.names[i] = k
}

func (k *Known) before(o *Known) bool {
	if k.InPolicy != o.InPolicy {
		return k.InPolicy
	}
	return k.Learned > o.Learned
}

func (s *Set) addIDs(r *record, f *Found) {
	for _, i := range r.pattern {
	next:
		for ; i != 0; i = s.cfg.Patterns.at[i-1].next {
			for _, v := range f.IDs {
				if v == i-1 {
					continue next
				}
			}
			if len(f.IDs) == cap(f.ids[:]) {
				f.Full = true
				return
			}
			f.IDs = append(f.IDs, i-1)
		}
	}
}

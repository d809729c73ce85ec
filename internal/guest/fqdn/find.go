package fqdn

import "github.com/thurward/thurward/internal/shared/packet"

// Found is the result of a lookup. It is large: reuse one.
type Found struct {
	IDs  []uint32 // patterns of the names, as indexes of Policy.Names, without duplicates
	Full bool     // IDs is incomplete: there were more than fit
	// The names: those with patterns in the policy first, then the newest first.
	Names []Known
	ids   [4 * PerAddress]uint32
	names [MaxKnown]Known
}

// MaxKnown is the maximum number of names that a lookup returns.
const MaxKnown = 8

// Known is a binding of the address.
type Known struct {
	Name     Name
	InPolicy bool   // the policy has a pattern for the name
	Learned  int64  // time of the last response with it
	Lookup   uint64 // number of the query
	Expires  int64
}

func (f *Found) reset() { f.IDs, f.Full, f.Names = f.ids[:0], false, f.names[:0] }

// Find looks up the unexpired bindings of client and of Everyone for addr.
func (s *Set) Find(client, addr packet.Addr, now int64, f *Found) {
	f.reset()
	now += s.away
	s.find(client, addr, now, f)
	if s.everyone > 0 && client != Everyone {
		s.find(Everyone, addr, now, f)
	}
}

func (s *Set) find(client, addr packet.Addr, now int64, f *Found) {
	for i := s.pairs[s.pairHead(client, addr)]; i != 0; i = s.b[i-1].byPair.next {
		if b := &s.b[i-1]; b.addr == addr && b.client == client && b.expires > now {
			s.add(b, f)
		}
	}
}

// FindExpired looks up the expired bindings of client and of Everyone for addr. They
// are kept until their memory is needed.
func (s *Set) FindExpired(client, addr packet.Addr, now int64, f *Found) {
	f.reset()
	now += s.away
	for _, c := range [...]packet.Addr{client, Everyone} {
		for i := s.pairs[s.pairHead(c, addr)]; i != 0; i = s.b[i-1].byPair.next {
			if b := &s.b[i-1]; b.addr == addr && b.client == c && b.expires <= now {
				s.add(b, f)
			}
		}
	}
}

// FindAnyClient looks up the unexpired bindings of all clients for addr. It examines
// a bounded number.
func (s *Set) FindAnyClient(addr packet.Addr, now int64, f *Found) {
	f.reset()
	now += s.away
	left := 2 * PerAddress
	for i := s.addrs[s.addrHead(addr)]; i != 0 && left > 0; i = s.b[i-1].byAddr.next {
		if b := &s.b[i-1]; b.addr == addr && b.expires > now {
			s.add(b, f)
		}
		left--
	}
}

// FindName looks up the binding of this name to addr for client or Everyone at time
// at, and the patterns of this name alone. It returns false if there is none.
func (s *Set) FindName(client, addr packet.Addr, name []byte, at int64, f *Found) bool {
	f.reset()
	at += s.away
	n := s.findName(name, s.hashName(name)) // 0, which no binding has, if the name is not stored
	for _, c := range [...]packet.Addr{client, Everyone} {
		for i := s.pairs[s.pairHead(c, addr)]; i != 0; i = s.b[i-1].byPair.next {
			if b := &s.b[i-1]; b.addr == addr && b.client == c && b.name == n && b.expires > at {
				s.add(b, f)
				return true
			}
		}
	}
	return false
}

// Patterns sets f to the patterns of one name of the set.
func (s *Set) Patterns(n Name, f *Found) {
	f.reset()
	if n != 0 && int(n) <= len(s.names.rec) {
		s.addIDs(&s.names.rec[n-1], f)
	}
}

// Knows reports whether client or Everyone has an unexpired binding of name to any
// address. It examines a bounded number of bindings.
func (s *Set) Knows(client packet.Addr, name []byte, now int64) bool {
	n := s.findName(name, s.hashName(name))
	if n == 0 {
		return false
	}
	now += s.away
	left := 4 * PerAddress
	for i := s.names.rec[n-1].first; i != 0 && left > 0; i = s.b[i-1].byName.next {
		if b := &s.b[i-1]; (b.client == client || b.client == Everyone) && b.expires > now {
			return true
		}
		left--
	}
	return false
}

// add adds a binding and the patterns of its name.
func (s *Set) add(b *binding, f *Found) {
	r := &s.names.rec[b.name-1]
	k := Known{Name: Name(b.name), InPolicy: r.inPolicy(), Learned: b.learned - s.away, Lookup: b.lookup, Expires: b.expires - s.away}
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

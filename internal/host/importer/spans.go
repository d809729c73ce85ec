package importer

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// A span is an inclusive range of addresses or ports.
type span struct{ lo, hi uint32 }

// spans is a set of values, nil for all; an empty set that is not nil holds
// nothing.
type spans []span

// normal returns the set with its ranges in order and apart.
func (s spans) normal() spans {
	if s == nil {
		return nil
	}
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	out := spans{}
	for _, v := range s {
		if n := len(out); n > 0 && (out[n-1].hi == ^uint32(0) || v.lo <= out[n-1].hi+1) {
			out[n-1].hi = max(out[n-1].hi, v.hi)
			continue
		}
		out = append(out, v)
	}
	return out
}

// and returns what is in both sets.
func (s spans) and(t spans) spans {
	if s == nil {
		return t
	}
	if t == nil {
		return s
	}
	out := spans{}
	for i, j := 0, 0; i < len(s) && j < len(t); {
		if lo, hi := max(s[i].lo, t[j].lo), min(s[i].hi, t[j].hi); lo <= hi {
			out = append(out, span{lo, hi})
		}
		if s[i].hi < t[j].hi {
			i++
		} else {
			j++
		}
	}
	return out
}

// not returns what is not in the set, up to the largest value.
func (s spans) not(largest uint32) spans {
	out := spans{}
	if s == nil {
		return out
	}
	next := uint32(0)
	for _, v := range s.normal() {
		if v.lo > next {
			out = append(out, span{next, v.lo - 1})
		}
		if v.hi >= largest {
			return out
		}
		next = v.hi + 1
	}
	return append(out, span{next, largest})
}

// prefixes returns the networks that make up a set of addresses.
func (s spans) prefixes() (ps []netip.Prefix) {
	for _, v := range s {
		for lo := uint64(v.lo); lo <= uint64(v.hi); {
			bits := 32
			for bits > 0 && lo&(1<<(33-bits)-1) == 0 && lo+1<<(33-bits)-1 <= uint64(v.hi) {
				bits--
			}
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], uint32(lo))
			ps = append(ps, netip.PrefixFrom(netip.AddrFrom4(b), bits))
			lo += 1 << (32 - bits)
		}
	}
	return ps
}

func prefixSpan(p netip.Prefix) span {
	a := p.Masked().Addr().As4()
	lo := binary.BigEndian.Uint32(a[:])
	return span{lo, lo | uint32(uint64(^uint32(0))>>p.Bits())}
}

func addrSpan(a netip.Addr) span { return prefixSpan(netip.PrefixFrom(a, 32)) }

func (s span) addr() netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], s.lo)
	return netip.AddrFrom4(b)
}

// minus returns what is in s and not in t.
func (s spans) minus(t spans, largest uint32) spans {
	if s == nil {
		s = spans{{0, largest}}
	}
	return s.and(t.not(largest))
}

// holds reports whether t lies within s, which is normal.
func (s spans) holds(t spans, largest uint32) bool {
	if s == nil {
		return true
	}
	if t == nil {
		t = spans{{0, largest}}
	}
	for _, v := range t {
		i, _ := slices.BinarySearchFunc(s, v.lo, func(x span, lo uint32) int { return cmp.Compare(x.hi, lo) })
		if i == len(s) || s[i].lo > v.lo || s[i].hi < min(v.hi, largest) {
			return false
		}
	}
	return true
}

// meets reports whether s and t have a number in common, without making what they have.
func (s spans) meets(t spans) bool {
	if s == nil || t == nil {
		return s == nil && t == nil || len(s)+len(t) > 0
	}
	for i, j := 0, 0; i < len(s) && j < len(t); {
		switch {
		case s[i].hi < t[j].lo:
			i++
		case t[j].hi < s[i].lo:
			j++
		default:
			return true
		}
	}
	return false
}

// has reports whether a value is in the set.
func (s spans) has(v uint32) bool {
	return s == nil || slices.ContainsFunc(s, func(x span) bool { return x.lo <= v && v <= x.hi })
}

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

// words is a set of words; nil is all.
type words []string

func (s words) and(t words) words {
	if s == nil {
		return t
	}
	if t == nil {
		return s
	}
	out := words{}
	for _, v := range s {
		if slices.Contains(t, v) {
			out = append(out, v)
		}
	}
	return out
}

// An iface is a condition on an interface.
type iface struct {
	names []string // a * at the end stands for anything
	not   bool
}

// A cond is what a rule looks at; all of it must hold.
type cond struct {
	in, out  []iface
	src, dst spans
	ports    spans // destination ports
	protos   words
	states   words // new, established, related, invalid, untracked, dnat
	icmp     words // types
	hard     []string
	ipv6     bool // it is about IPv6
	never    bool // nothing matches it
}

// and returns the conditions of both.
func (c cond) and(d cond) cond {
	return cond{
		in: slices.Concat(c.in, d.in), out: slices.Concat(c.out, d.out),
		src: c.src.and(d.src), dst: c.dst.and(d.dst), ports: c.ports.and(d.ports),
		protos: c.protos.and(d.protos), states: c.states.and(d.states), icmp: c.icmp.and(d.icmp),
		hard: slices.Concat(c.hard, d.hard), ipv6: c.ipv6 || d.ipv6, never: c.never || d.never,
	}
}

// empty reports whether nothing matches.
func (c *cond) empty() bool {
	return c.never || c.src != nil && len(c.src) == 0 || c.dst != nil && len(c.dst) == 0 || c.ports != nil && len(c.ports) == 0 ||
		c.protos != nil && len(c.protos) == 0 || c.states != nil && len(c.states) == 0 || c.icmp != nil && len(c.icmp) == 0
}

// any reports whether everything matches.
func (c *cond) any() bool {
	return len(c.in)+len(c.out)+len(c.hard) == 0 && c.src == nil && c.dst == nil && c.ports == nil && c.protos == nil && c.states == nil && c.icmp == nil && !c.ipv6 && !c.never
}

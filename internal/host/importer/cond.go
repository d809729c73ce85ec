package importer

import (
	"slices"
)

// A mask is a set of the few values of a small field; 0 stands for all of them.
type mask uint8

// The small fields.
const (
	fWay   = iota // where a packet comes from and goes to
	fState        // of its connection
	fDNAT         // whether destination NAT has translated the connection
	fTCP          // what the flags of TCP say
	fLocal        // whether the destination is the router's own
	fPath         // whether the source lies where the packet came from
	fCast         // whether it is for one host
	numMasks
)

// Ways.
const (
	wayEgress  mask = 1 << iota // from the LAN to the WAN
	wayIngress                  // from the WAN to the LAN
	wayHairpin                  // from the LAN back to it
	wayNone                     // no packet: keeps a condition about other interfaces from being one about all
)

// States.
const (
	stNew mask = 1 << iota
	stEstablished
	stRelated
	stInvalid
	stUntracked
)

// Whether destination NAT has translated.
const (
	dnatNo mask = 1 << iota
	dnatYes
)

// What the flags of TCP say. Combinations of which no host makes sense are dropped
// by the kernel's connection tracking and by thurward.
const (
	tcpSYN   mask = 1 << iota // the beginning of a connection
	tcpOther                  // what follows
	tcpBogus                  // no connection has it
)

// No and yes, of fields with two values.
const (
	isNo mask = 1 << iota
	isYes
)

var allOf = [numMasks]mask{fWay: 15, fState: 31, fDNAT: 3, fTCP: 7, fLocal: 3, fPath: 3, fCast: 3}

// The fields that are sets of numbers.
const (
	fProto = iota
	fSrc
	fDst
	fPort // of the destination
	fSport
	fICMP // type
	numSpans
)

const maxAddr = ^uint32(0)

var largestOf = [numSpans]uint32{fProto: 255, fSrc: maxAddr, fDst: maxAddr, fPort: 65535, fSport: 65535, fICMP: 255}

// Protocols.
const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

func only(protos ...uint32) (s spans) {
	for _, p := range protos {
		s = append(s, span{p, p})
	}
	return s.normal()
}

// withPorts are the protocols whose ports conditions can look at.
var withPorts = only(protoTCP, protoUDP, 33, 132, 136)

// An iface is a condition on an interface.
type iface struct {
	names []string // a * at the end stands for anything
	not   bool
}

// A cond is what a rule looks at; all of it must hold. Without hard conditions and
// interfaces it is an exact set of packets.
type cond struct {
	in, out []iface
	masks   [numMasks]mask
	sets    [numSpans]spans
	hard    []string // what has no counterpart
	never   bool     // nothing matches it
	ipv6    bool     // for it is about IPv6
}

// withMask returns the condition that a small field has one of some values.
func withMask(field int, m mask) (c cond) {
	c.masks[field] = m
	c.never = m == 0
	if field == fTCP {
		c.sets[fProto] = only(protoTCP)
	}
	return c
}

// withSet returns the condition that a field has one of some numbers.
func withSet(field int, s spans) (c cond) {
	c.sets[field] = s
	switch field {
	case fPort, fSport:
		c.sets[fProto] = withPorts
	case fICMP:
		c.sets[fProto] = only(protoICMP)
	}
	c.never = s != nil && len(s) == 0
	return c
}

func withHard(what string) cond { return cond{hard: []string{shorten(what)}} }

// and returns the conditions of both.
func (c cond) and(d cond) cond {
	r := cond{in: slices.Concat(c.in, d.in), out: slices.Concat(c.out, d.out), hard: union(c.hard, d.hard), never: c.never || d.never, ipv6: c.ipv6 || d.ipv6}
	for i := range r.masks {
		r.masks[i] = c.masks[i] & d.masks[i]
		switch {
		case c.masks[i] == 0:
			r.masks[i] = d.masks[i]
		case d.masks[i] == 0:
			r.masks[i] = c.masks[i]
		case r.masks[i] == 0:
			r.never = true
		}
	}
	for i := range r.sets {
		if r.sets[i] = c.sets[i].and(d.sets[i]); r.sets[i] != nil && len(r.sets[i]) == 0 {
			r.never = true
		}
	}
	return r
}

func union(a, b []string) []string {
	if len(a) == 0 {
		return b
	}
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = slices.Concat(a, []string{s})
		}
	}
	return a
}

// any reports whether everything matches.
func (c *cond) any() bool {
	return len(c.in)+len(c.out)+len(c.hard) == 0 && !c.never && c.masks == [numMasks]mask{} &&
		!slices.ContainsFunc(c.sets[:], func(s spans) bool { return s != nil })
}

// exact reports whether it is known which packets match.
func (c *cond) exact() bool { return len(c.hard) == 0 && len(c.in)+len(c.out) == 0 }

// minus returns what matches c and not d, in parts that have no packet in common.
// d is exact.
func (c cond) minus(d cond) (parts []cond) {
	if !c.meets(&d) {
		return []cond{c}
	}
	left := c
	for i := range c.masks {
		if d.masks[i] == 0 {
			continue
		}
		have := left.masks[i]
		if have == 0 {
			have = allOf[i]
		}
		if out := have &^ d.masks[i]; out != 0 {
			p := left
			p.masks[i] = out
			parts = append(parts, p)
		}
		left.masks[i] = have & d.masks[i]
	}
	for i := range c.sets {
		if d.sets[i] == nil {
			continue
		}
		if out := left.sets[i].minus(d.sets[i], largestOf[i]); len(out) > 0 {
			p := left
			p.sets[i] = out
			parts = append(parts, p)
		}
		left.sets[i] = left.sets[i].and(d.sets[i])
	}
	return parts
}

// ranges returns how many a condition has.
func (c *cond) ranges() (n int) {
	for i := range c.sets {
		n += len(c.sets[i])
	}
	return n
}

// holds reports whether all that matches d matches c, which is exact.
func (c *cond) holds(d *cond) bool {
	if c.never {
		return d.never
	}
	for i := range c.masks {
		have := d.masks[i]
		if have == 0 {
			have = allOf[i]
		}
		if c.masks[i] != 0 && have&^c.masks[i] != 0 {
			return false
		}
	}
	for i := range c.sets {
		if len(c.sets[i]) == 1 && !c.sets[i].holds(d.sets[i], largestOf[i]) {
			return false // what is soon said comes first
		}
	}
	for i := range c.sets {
		if len(c.sets[i]) != 1 && !c.sets[i].holds(d.sets[i], largestOf[i]) {
			return false
		}
	}
	return true
}

// meets reports whether something may match both.
func (c *cond) meets(d *cond) bool {
	if c.never || d.never {
		return false
	}
	for i := range c.masks {
		if c.masks[i] != 0 && d.masks[i] != 0 && c.masks[i]&d.masks[i] == 0 {
			return false
		}
	}
	for i := range c.sets {
		if !c.sets[i].meets(d.sets[i]) {
			return false
		}
	}
	return true
}

package packetset

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A Description is a set of packets in words: all combinations of its fields. An
// address or port is a network, a single value, a range, or any. Its fields are
// those of thurward diff --format json.
type Description struct {
	Directions  []string `json:"direction"`
	States      []string `json:"state"`
	Protocols   []string `json:"protocol"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Port        string   `json:"destination_port"`
	Names       []string `json:"names,omitempty"`     // patterns that a name of the destination has
	NotNames    []string `json:"not_names,omitempty"` // and that none has
}

// ClassNames are the words for the classes of protocols.
var ClassNames = [NumClasses]string{TCP: "tcp", UDP: "udp", ICMP: "icmp", Other: "other"}

// Words for both values of direction and state.
var (
	directions = []string{"egress", "ingress"}
	states     = []string{"new", "established"}
)

// Describe returns a Region in words: as one Description, if its kinds are a
// product of directions, states and protocols.
func (s *Space) Describe(r *Region) (ds []Description) {
	add := func(classes Kinds, dirs, sts []string) {
		if classes == 0 {
			return
		}
		b := Description{Directions: dirs, States: sts, Source: addresses(r.Lo[Src], r.Hi[Src]), Destination: addresses(r.Lo[Dst], r.Hi[Dst]), Port: "any"}
		for i, name := range ClassNames {
			if classes>>i&1 != 0 {
				b.Protocols = append(b.Protocols, name)
			}
		}
		if lo, hi := r.Lo[Port], r.Hi[Port]; r.Kinds&Portless == 0 && (lo != 0 || hi != maxValue[Port]) {
			if b.Port = fmt.Sprint(lo); hi != lo {
				b.Port = fmt.Sprintf("%d-%d", lo, hi)
			}
		}
		b.Names, b.NotNames = s.NamesOf(r, true)
		ds = append(ds, b)
	}
	// The classes of each combination: bit 0 is the direction, bit 1 the state.
	var p [4]Kinds
	for i := range p {
		p[i] = r.Kinds >> (i * NumClasses) & (1<<NumClasses - 1)
	}
	// There are no answers of other protocols, so that nothing is listed for them.
	p[2] |= p[0] & (1 << Other)
	p[3] |= p[1] & (1 << Other)
	if both := p[0] | p[1]; p[2]|p[3] == 1<<Other || both == 1<<Other {
		p[2], p[3] = p[2]&^(1<<Other), p[3]&^(1<<Other)
	}
	switch {
	case p[0] == p[1] && p[2] == p[3] && p[0] == p[2]:
		add(p[0], directions, states)
	case p[0] == p[2] && p[1] == p[3]:
		add(p[0], directions[:1], states)
		add(p[1], directions[1:], states)
	case p[0] == p[1] && p[2] == p[3]:
		add(p[0], directions, states[:1])
		add(p[2], directions, states[1:])
	default:
		for k := range 4 {
			add(p[k], directions[k%2:][:1], states[k/2:][:1])
		}
	}
	return ds
}

// NamesOf returns the patterns that a name of a Region's destinations has, and
// those that none has. With brief the latter leave out what a wildcard among them
// says already.
func (s *Space) NamesOf(r *Region, brief bool) (yes, no []string) {
	for i, n := range s.patterns {
		if s.has(r.Names, i) {
			yes = append(yes, n)
		}
		if w := s.wildcard[i]; s.hasNot(r.Names, i) && !(brief && w >= 0 && s.hasNot(r.Names, w)) {
			no = append(no, n)
		}
	}
	return yes, no
}

// addresses writes a range of addresses.
func addresses(lo, hi uint32) string {
	addr := func(v uint32) netip.Addr { return netip.AddrFrom16(packet.Addr(v).To16()).Unmap() }
	switch size := hi - lo; {
	case size == ^uint32(0):
		return "any"
	case size == 0:
		return addr(lo).String()
	case size&(size+1) == 0 && lo&size == 0:
		bits := 32
		for n := size; n != 0; n >>= 1 {
			bits--
		}
		return netip.PrefixFrom(addr(lo), bits).String()
	}
	return addr(lo).String() + "-" + addr(hi).String()
}

// String writes the set as: egress new tcp 10.0.0.0/24 -> any :443.
func (d *Description) String() string {
	var s []string
	if len(d.Directions) == 1 {
		s = append(s, d.Directions[0])
	}
	if len(d.States) == 1 {
		s = append(s, d.States[0])
	}
	switch len(d.Protocols) {
	case NumClasses:
		s = append(s, "all protocols")
	case NumClasses - 1:
		if slices.Contains(d.Protocols, ClassNames[Other]) {
			s = append(s, strings.Join(d.Protocols, ","))
		}
	default:
		s = append(s, strings.Join(d.Protocols, ","))
	}
	s = append(s, d.Source, "->", d.Destination)
	if d.Port != "any" {
		s = append(s, ":"+d.Port)
	}
	if len(d.Names) > 0 {
		s = append(s, "named "+strings.Join(d.Names, " and "))
	}
	if len(d.NotNames) > 0 {
		s = append(s, "not named "+strings.Join(d.NotNames, " or "))
	}
	return strings.Join(s, " ")
}

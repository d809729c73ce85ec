package importer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/printable"
)

// An Effect is what it means that something was not converted.
type Effect string

// The effects, the worst last.
const (
	Nothing    Effect = "no effect"       // thurward does the same by itself, or such traffic never arrives
	Differs    Effect = "differs"         // traffic passes as before, but addresses or contents are not as they were
	Stricter   Effect = "stricter"        // traffic is denied that was accepted
	Permissive Effect = "MORE PERMISSIVE" // traffic is accepted that was denied
)

var effects = []Effect{Nothing, Differs, Stricter, Permissive}

// worse returns the effect that matters more.
func worse(a, b Effect) Effect {
	if slices.Index(effects, a) > slices.Index(effects, b) {
		return a
	}
	return b
}

// A Note is something that was not converted as it stands.
type Note struct {
	Place   string // where it stands
	Text    string // as it stands there, shortened
	Comment string // what its author says about it
	Why     string
	Effect  Effect
	Traffic string // the packets that it is about, "" where they are not known
	Packets Packets
}

// rule returns the rule of a note with what its author says about it.
func (n *Note) rule() string {
	if n.Comment != "" && !strings.Contains(n.Text, n.Comment) {
		return n.Text + " (" + n.Comment + ")"
	}
	return n.Text
}

// String returns the note on one line.
func (n Note) String() string {
	s := n.rule()
	if n.Traffic != "" && n.Effect != Nothing {
		return printable.Sprintf("%s: %s: %s (%s: %s)", n.Place, s, n.Why, n.Effect, n.Traffic)
	}
	return printable.Sprintf("%s: %s: %s (%s)", n.Place, s, n.Why, n.Effect)
}

// A Design is something that thurward does for every policy, whatever its rules
// say, and that a rule set of Linux may do otherwise.
type Design struct {
	What   string
	Effect Effect
	Rules  int // of the rule set that are about it
}

// String returns it on one line.
func (d Design) String() string {
	rules := fmt.Sprintf("%d rules are", d.Rules)
	switch d.Rules {
	case 0:
		return fmt.Sprintf("%s (%s)", d.What, d.Effect)
	case 1:
		rules = "1 rule is"
	}
	return fmt.Sprintf("%s (%s; %s about it)", d.What, d.Effect, rules)
}

// A design is the number of one.
type design int

const (
	byOther design = iota + 1
	byICMP
	byErrors
	byInvalid
	byFragments
	bySpoof
	byCast
	byOwn
	byIPv6
	byMSS
	byDirect
	byFast
	numDesigns
)

var designs = [numDesigns]Design{
	byOther:     {What: "protocols other than TCP, UDP and ICMP, as GRE, ESP and SCTP, are dropped", Effect: Stricter},
	byICMP:      {What: "of ICMP, echo is decided by rules, and errors pass that belong to a connection; the rest is dropped", Effect: Stricter},
	byErrors:    {What: "ICMP errors about a connection that passes are passed on, also where rules deny them", Effect: Permissive},
	byInvalid:   {What: "packets that belong to no connection and cannot begin one are dropped: INVALID, TCP that does not begin with SYN; what another connection announces (RELATED, as of FTP) meets the rules as any other", Effect: Stricter},
	byFragments: {What: "IPv4 fragments are dropped, or reassembled with defaults.fragments: reassemble", Effect: Stricter},
	bySpoof:     {What: "sources that cannot be where a packet comes from are dropped (reverse path, martians)", Effect: Stricter},
	byCast:      {What: "multicasts and broadcasts are not forwarded", Effect: Stricter},
	byOwn:       {What: "the firewall itself answers ping, and DNS to the LAN, where rules accept it, offers no other service, and begins nothing but DNS", Effect: Stricter},
	byIPv6:      {What: "IPv6 is not forwarded", Effect: Stricter},
	byMSS:       {What: "the MSS of TCP handshakes is lowered to what both links carry (defaults.tcp_mss_clamp)", Effect: Differs},
	byDirect:    {What: "a host whose source is translated is not reached from the WAN by its inside address, only by nat.dnat", Effect: Stricter},
	byFast:      {What: "established connections take a fast path, are logged and counted without rules for it", Effect: Nothing},
}

// A Result is a policy and what it lacks.
type Result struct {
	YAML        []byte
	Assumptions []string // what was guessed, and why
	Notes       []Note
	Designs     []Design
}

// Permissive reports whether the policy accepts anything that the rule set
// denied, as far as is known.
func (r *Result) Permissive() bool {
	return slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Effect == Permissive })
}

// Count returns how many notes have an effect.
func (r *Result) Count(e Effect) (n int) {
	for i := range r.Notes {
		if r.Notes[i].Effect == e {
			n++
		}
	}
	return n
}

// A Packet is one that Packets may hold: the first of a connection, or of what
// answers it.
type Packet struct {
	FromLAN, Answer bool
	Protocol        uint8
	Src, Dst        uint32 // as the filter sees them: after destination NAT, before source NAT
	SrcPort, Port   uint16 // 0 where the protocol has none
	Type            uint8  // of ICMP
}

// Packets is a set of packets.
type Packets struct{ of []cond }

// Has reports whether a packet is in the set, or may be.
func (p Packets) Has(k Packet) bool {
	return slices.ContainsFunc(p.of, func(c cond) bool { return !c.never && c.matches(&k) })
}

func (c *cond) matches(k *Packet) bool {
	way, state := wayIngress, stNew
	if k.FromLAN {
		way = wayEgress | wayHairpin
	}
	if k.Answer {
		state = stEstablished
	}
	for i, m := range [numMasks]mask{fWay: way, fState: state} {
		if c.masks[i] != 0 && m != 0 && c.masks[i]&m == 0 {
			return false
		}
	}
	ports := withPorts.has(uint32(k.Protocol))
	return c.sets[fProto].has(uint32(k.Protocol)) && c.sets[fSrc].has(k.Src) && c.sets[fDst].has(k.Dst) &&
		(c.sets[fPort] == nil || ports && c.sets[fPort].has(uint32(k.Port))) &&
		(c.sets[fSport] == nil || ports && c.sets[fSport].has(uint32(k.SrcPort))) &&
		(c.sets[fICMP] == nil || k.Protocol == protoICMP && c.sets[fICMP].has(uint32(k.Type)))
}

// words returns what a condition says, for people.
func (c *cond) words() string {
	var w []string
	if ps := c.sets[fProto]; ps != nil {
		names := ""
		for _, p := range ps {
			if len(names) > 60 {
				names += "/..."
				break
			}
			for n := p.lo; n <= p.hi && n < p.lo+4; n++ {
				names += "/" + protoName(n)
			}
		}
		w = append(w, strings.TrimPrefix(names, "/"))
	}
	if s := c.sets[fICMP]; s != nil {
		w = append(w, "of type "+numberList(s))
	}
	addresses := func(word string, s spans) {
		if s == nil {
			return
		}
		var l []string
		ps := s.prefixes()
		if but := s.not(maxAddr).prefixes(); len(but) < len(ps) {
			ps, word = but, word+" all but"
		}
		for i, p := range ps {
			if i == 4 {
				l = append(l, "...")
				break
			}
			l = append(l, prefix(p))
		}
		w = append(w, word, strings.Join(l, ", "))
	}
	addresses("from", c.sets[fSrc])
	if s := c.sets[fSport]; s != nil {
		w = append(w, "port "+numberList(s))
	}
	addresses("to", c.sets[fDst])
	if s := c.sets[fPort]; s != nil {
		w = append(w, "port "+numberList(s))
	}
	if len(w) == 0 {
		w = append(w, "everything")
	}
	switch c.masks[fWay] & (wayEgress | wayIngress | wayHairpin) {
	case wayEgress, wayEgress | wayHairpin:
		w = append(w, "from the LAN")
	case wayIngress:
		w = append(w, "from the WAN")
	}
	switch c.masks[fState] {
	case stNew:
		w = append(w, "that begins a connection")
	case stEstablished, stEstablished | stRelated:
		w = append(w, "that answers")
	}
	return shorten(strings.Join(w, " "))
}

func numberList(s spans) string {
	var l []string
	for i, p := range s {
		switch {
		case i == 6:
			return strings.Join(append(l, "..."), ",")
		case p.lo == p.hi:
			l = append(l, fmt.Sprint(p.lo))
		default:
			l = append(l, fmt.Sprintf("%d-%d", p.lo, p.hi))
		}
	}
	return strings.Join(l, ",")
}

// everything is what a note is about of which nothing is known.
var everything = Packets{[]cond{{}}}

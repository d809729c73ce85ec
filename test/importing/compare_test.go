package importing

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/thurward/thurward/internal/host/importer"
	"github.com/thurward/thurward/internal/shared/packet"
)

// The kinds of difference. The first three are what a note of the importer says of a rule.
const (
	permissive = string(importer.Permissive) // the kernel does not forward the packet, thurward does
	stricter   = string(importer.Stricter)   // the other way round
	differs    = string(importer.Differs)    // both do, but not with the same addresses, ports or MSS
	answer     = "answer"                    // neither does, but only one tells the sender: any note announces it
)

// A step is a packet that both firewalls were given.
type step struct {
	in      int
	sent    datagram // to the kernel; thurward's may have another port of its own choice
	what    string
	loose   bool // it is of no flow, on purpose
	about   bool // an ICMP error about a packet that was forwarded
	answers bool // it is of the answering direction of its flow
	k, t    outcome
	kind    string // of difference, "" for none
	class   string
	met     places
	last    string // of them
}

// places are those of the rules that a flow has met so far, with its packets as each rule saw them.
type places map[string][]importer.Packet

// A comparison is of one rule set.
type comparison struct {
	a       *about
	k       *kernel
	g       *guard
	notes   []importer.Note
	tally   tally
	probes  int
	excuses []class          // what is no silent difference
	found   map[string]*step // silent differences by signature, an example of each
}

// A tally counts packets.
type tally struct {
	packets, equal    int
	announced, silent map[string]int // by kind
	byDesign          map[string]int // by class and pair
}

// dns reports whether a step is a question of the LAN's to the firewall that was redirected or
// sent there.
func (c *comparison) dns(s *step) bool {
	return s.in == c.g.lan && (s.k.fate == arrived && s.k.port == 53 || s.t.fate == arrived && s.t.port == 53)
}

// kindOf compares what both did.
func (c *comparison) kindOf(s *step) string {
	k, t := &s.k, &s.t
	switch {
	case k.fate == forwarded && t.fate == forwarded:
		if k.out != t.out || k.d.src != t.d.src || k.d.dst != t.d.dst ||
			k.d.dport != t.d.dport && k.d.proto != packet.ICMP || k.d.mss != t.d.mss ||
			k.d.src == s.sent.src && k.d.sport != t.d.sport {
			return differs
		}
	case k.fate == forwarded && t.fate == arrived:
		return differs
	case k.fate == forwarded:
		return stricter
	case t.fate == forwarded:
		return permissive
	case k.fate == arrived && t.fate != arrived && k.port == 53 && c.dns(s):
		return stricter
	case t.fate == arrived && k.fate != arrived && t.port == 53 && c.dns(s):
		return permissive
	case k.fate != t.fate:
		return answer
	}
	return ""
}

// announced reports whether a note says of a rule that the flow has met, and of the packet as that
// rule saw it, what is different.
func (c *comparison) announced(s *step) bool {
	return slices.ContainsFunc(c.notes, func(n importer.Note) bool {
		ps, ok := s.met[placeOf(n.Place)]
		return ok && (s.kind == answer || string(n.Effect) == s.kind && slices.ContainsFunc(ps, n.Packets.Has))
	})
}

// placeOf returns the place of a rule as traces name it: notes may add to it.
func placeOf(place string) string {
	if m := rePlace.FindString(place); m != "" {
		return m
	}
	return place
}

var rePlace = regexp.MustCompile(`^line \d+|^.* handle \d+`)

// packets returns a packet that a rule met as a note tells of it. What is of no flow may count as
// either direction of one.
func (s *step) packets(lan int, as *datagram) []importer.Packet {
	p := importer.Packet{FromLAN: s.in == lan, Protocol: as.proto, Type: as.typ, Answer: s.answers,
		Src: number(as.src), Dst: number(as.dst), SrcPort: as.sport, Port: as.dport}
	if as.proto == packet.ICMP {
		p.SrcPort, p.Port = 0, 0
	}
	ps := []importer.Packet{p}
	if s.loose {
		p.Answer = true
		ps = append(ps, p)
	}
	return ps
}

func number(a netip.Addr) uint32 { return uint32(addr(a)) }

// judge gives a packet to both. It reports whether both forwarded it.
func (c *comparison) judge(s *step, toKernel, toThurward []datagram, met places) bool {
	s.sent = toKernel[0]
	s.k = c.k.judge(s.in, toKernel)
	s.t = c.g.judge(s.in, toThurward)
	for i, r := range s.k.met.rules {
		if p := c.k.places[r]; p != "" {
			met[p] = append(met[p], s.packets(c.g.lan, &s.k.met.as[i])...)
			s.last = p
		}
	}
	s.met = met
	c.tally.packets++
	s.kind = c.kindOf(s)
	if s.kind == "" {
		c.tally.equal++
		return s.k.fate == forwarded
	}
	if s.class = c.excuse(s); s.class != "" {
		c.tally.byDesign[s.class]++
		return false
	}
	if c.announced(s) {
		c.tally.announced[s.kind]++
		return s.kind == differs && s.t.fate == forwarded
	}
	c.tally.silent[s.kind]++
	if sig := c.signature(s); c.found[sig] == nil {
		e := *s
		c.found[sig] = &e
	}
	return false
}

// signature names a silent difference: its kind, the interface, and the rule that decided.
func (c *comparison) signature(s *step) string {
	at := s.last
	if at == "" {
		at = "no rule"
	}
	return fmt.Sprintf("%s | %s | in %s | %s", c.a.name, s.kind, c.a.Interfaces[s.in].Name, at)
}

// own gives a flow a port or identifier of its own, so that it is new to both. Where the port
// matters, and now and then, what they know is forgotten, which takes milliseconds.
func (c *comparison) own(p *probe) error {
	port := uint16(20000 + c.probes%40000)
	fresh := c.probes%lives == 0
	c.probes++
	p.first = slices.Clone(p.first)
	for i := range p.first {
		d := &p.first[i]
		switch {
		case d.proto == packet.ICMP && d.quoted == nil:
			d.sport, d.dport = port, port
		case d.sport == clientPort:
			d.sport = port
		case d.dport == clientPort:
			d.dport = port
		default:
			fresh = true
		}
	}
	if !fresh {
		return nil
	}
	c.k.reset()
	return c.g.reset()
}

// lives is how many probes use the same tables of flows.
const lives = 200

// probe goes through a flow, as far as both forward it.
func (c *comparison) probe(p *probe) error {
	if err := c.own(p); err != nil {
		return err
	}
	met := places{}
	s := &step{in: p.in, what: "first", loose: p.loose}
	if !c.judge(s, p.first, p.first, met) || p.loose {
		return nil
	}
	k, t := s.k.d, s.t.d
	// The other end answers what it received.
	if s.k.out != c.g.lan && s.k.out != c.g.wan || s.t.out != s.k.out {
		return nil
	}
	back := &step{in: s.k.out, what: "answer", answers: true}
	ka, ta := reply(&k), reply(&t)
	ok := c.judge(back, []datagram{ka}, []datagram{ta}, met)
	if ok {
		again := &step{in: p.in, what: "again"}
		d := p.first[0]
		if d.proto == packet.TCP {
			d.flags, d.seq, d.ack, d.mss = ack, 1001, 9001, 0
		}
		ok = c.judge(again, []datagram{d}, []datagram{d}, met)
	}
	if ok || p.first[0].proto != packet.TCP {
		e := &step{in: s.k.out, what: "error", about: true, answers: true}
		c.judge(e, []datagram{unreachable(&k)}, []datagram{unreachable(&t)}, met)
	}
	return nil
}

// reply is what the receiver of a packet answers.
func reply(d *datagram) datagram {
	r := *d
	r.src, r.dst, r.sport, r.dport = d.dst, d.src, d.dport, d.sport
	switch d.proto {
	case packet.TCP:
		r.flags, r.seq, r.ack, r.mss = syn|ack, 9000, d.seq+1, mss
	case packet.UDP:
		r.data = payload(r.sport, true)
	case packet.ICMP:
		r.typ = packet.EchoReply
	}
	return r
}

// unreachable is the error by which the receiver's host refuses a packet.
func unreachable(d *datagram) datagram {
	return datagram{src: d.dst, dst: d.src, proto: packet.ICMP, typ: packet.Unreachable, code: 3, quoted: d.bytes()}
}

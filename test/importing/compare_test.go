package importing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/importer"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// The kinds of difference. The first three are what a note of the importer says of a rule.
const (
	permissive = string(importer.Permissive) // the kernel does not forward the packet, thurward does
	stricter   = string(importer.Stricter)   // the other way round
	differs    = string(importer.Differs)    // both do, but not with the same addresses, ports or MSS
	answer     = "answer"                    // neither does, but only one tells the sender: any note announces it
)

// A class is what thurward does by design for every policy, whatever was imported.
type class struct {
	name string
	why  string
	is   func(c *comparison, s *step) bool
}

// classes are tried in order for what is different. Each looks at what both did, at the packet,
// and at thurward's own reason: a difference that a rule makes is in none of them.
var classes = []class{
	{"other protocols", "protocols other than TCP, UDP and ICMP, such as GRE and ESP, are not forwarded",
		func(_ *comparison, s *step) bool {
			p := s.sent.proto
			return s.kind == stricter && p != packet.TCP && p != packet.UDP && p != packet.ICMP
		}},
	{"fragments", "fragments are dropped where the policy does not say `fragments: reassemble`",
		func(_ *comparison, s *step) bool {
			return s.kind == stricter && (s.sent.more || s.sent.offset > 0) && s.t.reason == verdict.FragmentedIPv4
		}},
	{"ICMP of no flow", "of ICMP, echo is forwarded, and errors about packets of a flow",
		func(_ *comparison, s *step) bool {
			return s.kind != permissive && s.sent.proto == packet.ICMP && s.loose && s.sent.typ != packet.EchoRequest
		}},
	{"ICMP errors of flows", "errors about packets of a flow pass, whatever the rules say",
		func(_ *comparison, s *step) bool {
			return s.kind == permissive && s.sent.proto == packet.ICMP && s.about
		}},
	{"no connection", "TCP segments other than a SYN begin nothing",
		func(_ *comparison, s *step) bool {
			return s.loose && s.sent.proto == packet.TCP && s.sent.flags&(syn|ack|rst) != syn && s.t.fate != forwarded &&
				(s.kind == answer || s.kind == stricter && s.t.reason == verdict.ConntrackInvalid)
		}},
	{"martians", "a packet whose source or destination cannot be at its interface is dropped",
		func(c *comparison, s *step) bool {
			return s.kind == stricter && s.t.reason == verdict.Martian && c.a.behind(s.sent.src) != s.in
		}},
	{"hosts behind translation", "from the WAN, a host that source NAT covers is reached by destination NAT only",
		func(c *comparison, s *step) bool {
			return s.kind == stricter && s.t.reason == verdict.UntranslatedDestination && s.in == c.g.wan
		}},
	{"own services", "the firewall itself answers ping and DNS of the LAN, and has no other service",
		func(c *comparison, s *step) bool {
			return s.kind == answer && c.a.own(s.sent.dst) && !c.dns(s)
		}},
}

// A step is a packet that both firewalls were given.
type step struct {
	in    int
	sent  datagram // to the kernel; thurward's may have another port of its own choice
	what  string
	loose bool // it is of no flow, on purpose
	about bool // an ICMP error about a packet that was forwarded
	k, t  outcome
	kind  string // of difference, "" for none
	class string
	met   map[string]bool // places of rules that the flow has met so far
	last  string          // of them
}

// A comparison is of one rule set.
type comparison struct {
	a      *about
	k      *kernel
	g      *guard
	notes  []importer.Note
	tally  tally
	probes int
	found  map[string]*step // silent differences by signature, an example of each
}

// A tally counts packets.
type tally struct {
	packets, equal    int
	announced, silent map[string]int // by kind
	byDesign          map[string]int // by class
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

// announced reports whether a note says of a rule that the flow has met what is different.
func (c *comparison) announced(s *step) bool {
	for _, n := range c.notes {
		if string(n.Effect) != s.kind && s.kind != answer {
			continue
		}
		for p := range s.met {
			if rest, ok := strings.CutPrefix(n.Place, p); ok && (rest == "" || rest[0] < '0' || rest[0] > '9') {
				return true
			}
		}
	}
	return false
}

// judge gives a packet to both. It reports whether both forwarded it.
func (c *comparison) judge(s *step, toKernel, toThurward []datagram, met map[string]bool) bool {
	s.sent = toKernel[0]
	s.k = c.k.judge(s.in, toKernel)
	s.t = c.g.judge(s.in, toThurward)
	for _, r := range s.k.met.rules {
		if p := c.k.places[r]; p != "" {
			met[p] = true
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
	for i := range classes {
		if classes[i].is(c, s) {
			s.class = classes[i].name
			c.tally.byDesign[s.class]++
			return false
		}
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
	met := map[string]bool{}
	s := &step{in: p.in, what: "first", loose: p.loose}
	if !c.judge(s, p.first, p.first, met) || p.loose {
		return nil
	}
	k, t := s.k.d, s.t.d
	// The other end answers what it received.
	if s.k.out != c.g.lan && s.k.out != c.g.wan || s.t.out != s.k.out {
		return nil
	}
	back := &step{in: s.k.out, what: "answer"}
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
		e := &step{in: s.k.out, what: "error", about: true}
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
		r.data = []byte("answer")
	case packet.ICMP:
		r.typ = packet.EchoReply
	}
	return r
}

// unreachable is the error by which the receiver's host refuses a packet.
func unreachable(d *datagram) datagram {
	return datagram{src: d.dst, dst: d.src, proto: packet.ICMP, typ: packet.Unreachable, code: 3, quoted: d.bytes()}
}

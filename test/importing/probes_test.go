package importing

import (
	"hash/fnv"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A probe is a packet that may begin a flow, with what follows it where it is forwarded.
type probe struct {
	in    int // interface
	first []datagram
	loose bool   // it belongs to no flow and begins none: an answer that nobody asked for, an error about nothing
	from  string // the rule whose edges it tests
}

// Limits, so that a rule set with many rules takes no longer than others.
const (
	maxPerRule = 160
	maxProbes  = 2600
)

// An edges is what one line of a rule set names, with its neighbours.
type edges struct {
	addrs  []netip.Addr
	ports  []uint16 // of destinations, or of either side
	sports []uint16
	protos []uint8
}

var (
	reAddr   = regexp.MustCompile(`\b((?:\d{1,3}\.){3}\d{1,3})(?:/(\d{1,2}))?(?:-((?:\d{1,3}\.){3}\d{1,3}))?`)
	reNumber = regexp.MustCompile(`\b\d{1,5}\b`)
	reNoise  = regexp.MustCompile(`# handle \d+|packets \d+|bytes \d+|0x[0-9a-fA-F]+(/0x[0-9a-fA-F]+)?|--limit\S* \S+|` +
		`limit rate \S+( burst \d+ packets)?|"[^"]*"|--comment \S+|--log-\S+ \S+|--icmp-type \S+|--ctstate \S+|--set-\S+ \S+`)
	reSource = regexp.MustCompile(`(?:--sports?|sport) (?:\{ )?([\d:, -]+)`)
)

// edgesOf reads a line of either format.
func edgesOf(line string) (e edges) {
	line = reNoise.ReplaceAllString(line, " ")
	for _, m := range reAddr.FindAllStringSubmatch(line, -1) {
		a, err := netip.ParseAddr(m[1])
		if err != nil {
			continue
		}
		last := a
		if m[2] != "" {
			n, _ := strconv.Atoi(m[2])
			if n > 32 {
				continue
			}
			p := netip.PrefixFrom(a, n).Masked()
			a, last = p.Addr(), lastOf(p)
		} else if m[3] != "" {
			if last, err = netip.ParseAddr(m[3]); err != nil {
				last = a
			}
		}
		for _, b := range []netip.Addr{a.Prev(), a, a.Next(), last.Prev(), last, last.Next()} {
			if b.Is4() && !slices.Contains(e.addrs, b) {
				e.addrs = append(e.addrs, b)
			}
		}
	}
	rest := reAddr.ReplaceAllString(line, " ")
	if m := reSource.FindStringSubmatch(rest); m != nil {
		e.sports = numbers(m[1])
		rest = strings.Replace(rest, m[0], " ", 1)
	}
	if strings.Contains(rest, "port") || strings.Contains(line, ":") || strings.Contains(line, "elements") {
		e.ports = numbers(rest)
	}
	for p, words := range map[uint8][]string{packet.TCP: {"tcp"}, packet.UDP: {"udp"}, packet.ICMP: {"icmp"}} {
		for _, w := range words {
			if strings.Contains(rest, w) {
				e.protos = append(e.protos, p)
			}
		}
	}
	slices.Sort(e.protos)
	return e
}

// numbers returns the ports that a text names, with those beside them.
func numbers(s string) (ps []uint16) {
	for _, w := range reNumber.FindAllString(s, -1) {
		n, _ := strconv.Atoi(w)
		for _, v := range []int{n - 1, n, n + 1} {
			if n > 0 && v > 0 && v < 65536 && !slices.Contains(ps, uint16(v)) {
				ps = append(ps, uint16(v))
			}
		}
	}
	return ps
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// internet is a host that no rule set names.
var internet = netip.MustParseAddr("198.51.100.77")

// host returns an ordinary host behind an interface.
func (a *about) host(i int) netip.Addr {
	if i == a.index(a.WAN) {
		return internet
	}
	p := a.Interfaces[i].Addresses[0]
	for h := p.Masked().Addr(); p.Contains(h); h = h.Next() {
		if h.As4()[3] == 57 || p.Bits() > 24 && !a.own(h) && !a.broadcast(h) {
			return h
		}
	}
	return p.Addr().Next()
}

// A generator collects the probes of a rule set, each once.
type generator struct {
	a    *about
	seen map[string]bool
	list []probe
}

// probesOf makes the probes from the lines of a rule set.
func probesOf(a *about, lines []string) []probe {
	g := &generator{a: a, seen: map[string]bool{}}
	g.rule("", edges{addrs: a.Hosts, ports: []uint16{22, 53, 80, 443, 40000}})
	g.odd()
	general := len(g.list)
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && l[0] != '#' {
			g.rule(l, edgesOf(l))
		}
	}
	if len(g.list) <= maxProbes {
		return g.list
	}
	// Some of each rule's, always the same.
	rest := g.list[general:]
	out := slices.Clone(g.list[:general])
	for _, p := range rest {
		h := fnv.New32a()
		h.Write([]byte(p.key()))
		if int(h.Sum32()%uint32(len(rest))) < maxProbes-general {
			out = append(out, p)
		}
	}
	return out
}

func (p *probe) key() string {
	s := strconv.Itoa(p.in)
	for i := range p.first {
		s += " " + p.first[i].String() + strconv.Itoa(int(p.first[i].sport))
	}
	return s
}

func (g *generator) add(p probe) {
	for _, d := range p.first {
		if d.src == d.dst || g.a.broadcast(d.src) || g.a.own(d.src) || g.a.broadcast(d.dst) {
			return
		}
	}
	if k := p.key(); !g.seen[k] {
		g.seen[k] = true
		g.list = append(g.list, p)
	}
}

// first returns the packet that begins a flow.
func first(proto uint8, src, dst netip.Addr, sport, dport uint16) datagram {
	d := datagram{src: src, dst: dst, proto: proto, sport: sport, dport: dport}
	switch proto {
	case packet.TCP:
		d.flags, d.seq, d.mss = syn, 1000, mss
	case packet.UDP:
		d.data = payload(dport, false)
	case packet.ICMP:
		d.typ = packet.EchoRequest
		d.dport = d.sport
	}
	return d
}

// payload is what a datagram says to a server's port, or from there. The kernel's helpers drop what
// is not of their protocol, and name servers answer no nonsense.
func payload(port uint16, answer bool) []byte {
	switch {
	case port == 53 && !answer:
		return []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01")
	case port == 161: // a GetRequest of SNMP, or a GetResponse
		pdu := "\xa0"
		if answer {
			pdu = "\xa2"
		}
		return []byte("\x30\x26\x02\x01\x00\x04\x06public" + pdu + "\x19\x02\x01\x01\x02\x01\x00\x02\x01\x00" +
			"\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\x00\x05\x00")
	}
	return []byte("a packet of the comparison")
}

const clientPort = 45678

// rule adds the probes of one rule's edges.
func (g *generator) rule(line string, e edges) {
	a := g.a
	protos := e.protos
	if protos == nil {
		protos = []uint8{packet.TCP, packet.UDP, packet.ICMP}
	}
	ports := e.ports
	if ports == nil {
		ports = []uint16{443}
	}
	before := len(g.list)
	for in := range a.Interfaces {
		srcs := []netip.Addr{a.host(in)}
		var dsts []netip.Addr
		for i, n := range a.Interfaces {
			if i != in {
				dsts = append(dsts, a.host(i))
			}
			dsts = append(dsts, n.Addresses[0].Addr())
		}
		for _, b := range e.addrs {
			if a.behind(b) == in && !a.own(b) {
				srcs = append(srcs, b)
			}
			if a.behind(b) != in || a.own(b) {
				dsts = append(dsts, b)
			}
		}
		for _, proto := range protos {
			ports := ports
			if proto == packet.ICMP {
				ports = ports[:1]
			}
			for i, src := range srcs {
				for j, dst := range dsts {
					for k, port := range ports {
						// All pairs, but not all triples: one of the three is the ordinary one.
						if i > 0 && j >= 2*len(a.Interfaces) && k > 1 {
							continue
						}
						g.add(probe{in: in, from: line, first: []datagram{first(proto, src, dst, clientPort, port)}})
					}
				}
			}
			for _, sport := range e.sports {
				for _, dst := range dsts {
					g.add(probe{in: in, from: line, first: []datagram{first(proto, srcs[0], dst, sport, ports[0])}})
				}
			}
		}
	}
	if n := len(g.list) - before; n > maxPerRule {
		all := slices.Clone(g.list[before:])
		g.list = g.list[:before]
		for i := range maxPerRule {
			g.list = append(g.list, all[i*n/maxPerRule])
		}
	}
}

// odd adds what begins no flow, between all interfaces: answers and segments of no connection,
// ICMP that asks and reports, fragments, other protocols, senders that cannot be there.
func (g *generator) odd() {
	a := g.a
	for in := range a.Interfaces {
		for out, n := range a.Interfaces {
			for _, dst := range []netip.Addr{a.host(out), n.Addresses[0].Addr()} {
				src := a.host(in)
				if in == out && dst == a.host(out) {
					continue
				}
				one := func(d datagram) { g.add(probe{in: in, loose: true, from: "", first: []datagram{d}}) }
				tcp := first(packet.TCP, src, dst, 443, clientPort)
				tcp.mss, tcp.seq, tcp.ack = 0, 5000, 1001
				for _, f := range []uint8{syn | ack, ack, ack | psh, fin | ack, rst} {
					tcp.flags = f
					one(tcp)
				}
				one(first(packet.UDP, src, dst, 53, clientPort))
				for _, t := range []uint8{0, 13, 17, 3, 11, 5} {
					d := datagram{src: src, dst: dst, proto: packet.ICMP, typ: t, sport: 99, dport: 99}
					if t == 3 || t == 11 || t == 5 {
						q := first(packet.UDP, dst, src, clientPort, 53)
						d.quoted = q.bytes()
					}
					one(d)
				}
				for _, p := range []uint8{47, 50, 51, 132, 4, 89} {
					one(datagram{src: src, dst: dst, proto: p, data: []byte("another protocol")})
				}
				whole := first(packet.UDP, src, dst, clientPort, 443)
				whole.data = make([]byte, 24)
				part, rest := whole, whole
				part.more, part.data = true, whole.data[:16]
				rest.proto, rest.data, rest.offset = packet.UDP, whole.data[16:], 24
				g.add(probe{in: in, loose: true, first: []datagram{part, rest}})
			}
			// A sender that is elsewhere.
			if in != out {
				d := first(packet.UDP, a.host(out), a.host((out+1)%len(a.Interfaces)), clientPort, 443)
				g.add(probe{in: in, loose: true, first: []datagram{d}})
			}
		}
	}
}

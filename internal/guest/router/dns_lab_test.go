package router

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	upstreamAddr = "198.51.100.53"
	lanAddr      = "10.0.0.1"
	toDNS        = rule("accept egress udp any -> 10.0.0.1 :53")
	toDNSTCP     = rule("accept egress tcp any -> 10.0.0.1 :53")
)

// A dnsLab is a lab whose policy has an upstream, and plays the upstream.
type dnsLab struct {
	*lab
	port uint16 // of the client's next query
	id   uint16
}

// named gives the matches of a rule a pattern of names, one for each.
func named(p *ruleset.Policy, rule int, patterns ...string) {
	for i := range p.Matches {
		if p.Matches[i].Rule != uint32(rule) {
			continue
		}
		m := p.Matches[i]
		p.Matches = append(p.Matches[:i], p.Matches[i+1:]...)
		for _, s := range patterns {
			p.Names = append(p.Names, nameOf(p, s))
			m.Name = uint32(len(p.Names))
			p.Matches = append(p.Matches, ruleset.Match{})
			copy(p.Matches[i+1:], p.Matches[i:])
			p.Matches[i] = m
		}
		return
	}
}

func nameOf(p *ruleset.Policy, s string) ruleset.Name {
	rest, wild := strings.CutPrefix(s, "*.")
	n := ruleset.Name{Text: ruleset.Text{Off: uint32(len(p.Strings)), Len: uint32(len(rest))}}
	if wild {
		n.Wildcard = 1
	}
	p.Strings = append(p.Strings, rest...)
	return n
}

// newDNSLab makes a lab whose first rules accept queries of LAN hosts to the proxy, and
// whose third accepts connections to the given names.
func newDNSLab(t testing.TB, edit func(p *ruleset.Policy), rules ...rule) *dnsLab {
	t.Helper()
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Upstreams = []ruleset.Upstream{{Address: ip(upstreamAddr).To16(), Port: 53}}
		p.Settings.DNSNames = 2048 // a lab is made sooner than with 16384
		if edit != nil {
			edit(p)
		}
	}, append([]rule{toDNS, toDNSTCP}, rules...)...)
	return &dnsLab{lab: l, port: 20000, id: 100}
}

// query makes a query with the next identifier.
func (l *dnsLab) query(name string, typ uint16) *dns.Msg {
	l.id++
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), typ)
	m.Id = l.id
	return m
}

// asked sends a query of a client and returns the message that the upstream
// gets, and the packet in which it lies.
func (l *dnsLab) asked(client string, m *dns.Msg) (*view, *dns.Msg) {
	l.t.Helper()
	across, back := l.ask(client, m)
	if len(across) != 1 || len(back) != 0 {
		l.t.Fatalf("%d packets to the upstream and %d back; drops %s", len(across), len(back), l.drops())
	}
	return across[0], l.message(across[0])
}

func (l *dnsLab) ask(client string, m *dns.Msg) (across, back []*view) {
	l.t.Helper()
	return l.put(lan, l.datagram(client, m))
}

// datagram is a message of a client to the firewall, from a port of its own.
func (l *dnsLab) datagram(client string, m *dns.Msg) pkt {
	l.t.Helper()
	b, err := m.Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	l.port++
	p := udp(client, l.port, lanAddr, 53)
	p.data = b
	return p
}

// message reads the DNS message of a packet.
func (l *dnsLab) message(v *view) *dns.Msg {
	l.t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(v.frame[v.L4+packet.UDPLen:]); err != nil {
		l.t.Fatal(err)
	}
	return m
}

// answers sends the upstream's response to the query in q and returns what the
// client gets.
func (l *dnsLab) answers(q *view, m *dns.Msg) *dns.Msg {
	l.t.Helper()
	v := l.answersRaw(q, m)
	if v == nil {
		l.t.Fatalf("the client got no answer; drops %s", l.drops())
	}
	return l.message(v)
}

func (l *dnsLab) answersRaw(q *view, m *dns.Msg) *view {
	l.t.Helper()
	b, err := m.Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	p := udp(addr(q.Dst).String(), q.DstPort, addr(q.Src).String(), q.SrcPort)
	p.data = b
	across, back := l.put(wan, p)
	if len(across)+len(back) > 1 || len(back) != 0 {
		l.t.Fatalf("%d packets to the client, %d back", len(across), len(back))
	}
	if len(across) == 0 {
		return nil
	}
	return across[0]
}

// reply makes a response with records, in the format of zone files. "@" is the
// name of the question.
func reply(q *dns.Msg, records ...string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	m.Compress = true
	for _, r := range records {
		rr, err := dns.NewRR(strings.Replace(r, "@", q.Question[0].Name, 1))
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, o.Do())
	}
	return m
}

// resolve has a client resolve a name, the upstream answering with records.
func (l *dnsLab) resolve(client, name string, records ...string) *dns.Msg {
	l.t.Helper()
	v, q := l.asked(client, l.query(name, dns.TypeA))
	return l.answers(v, reply(q, records...))
}

// connects reports whether a host can begin a connection.
func (l *dnsLab) connects(client, dst string, port uint16) bool {
	l.t.Helper()
	l.port++
	across, _ := l.put(lan, tcpSeg(client, l.port, dst, port, packet.SYN, 1, 0))
	return len(across) == 1
}

// lastQuery returns the last event about a query.
func (l *dnsLab) lastQuery() event.Record {
	l.t.Helper()
	for i := len(l.seen) - 1; i >= 0; i-- {
		if l.seen[i].Kind == event.DNSQuery {
			return l.seen[i]
		}
	}
	l.t.Fatal("no event about a query")
	panic("unreachable")
}

// lastName returns the name in the last event.
func (l *lab) lastName() string { return l.names[len(l.names)-1] }

package evasions

import (
	"strings"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A zone says what the upstream answers: records for "name. TYPE", in the
// format of zone files, each in its section.
type zone map[string]answer

type answer struct {
	answer, authority, additional []string
	raw                           func(q []byte) []byte // in place of all that
	silent                        bool
	long                          bool // too long for UDP
}

// answerQuery has the upstream answer.
func (a *arena) answerQuery(v *view) {
	q := new(dns.Msg)
	if q.Unpack(v.data) != nil || len(q.Question) != 1 {
		return
	}
	z, ok := a.zone[strings.ToLower(q.Question[0].Name)+" "+dns.TypeToString[q.Question[0].Qtype]]
	if z.silent {
		return
	}
	full := z
	if z.long {
		z = answer{}
	}
	b, err := reply(q, z, ok)
	if full.long && err == nil {
		b[2] |= 2 // TC
	}
	if z.raw != nil {
		b, err = z.raw(v.data), nil
	}
	if err != nil {
		a.t.Fatal(err)
	}
	p := udp(v.dst, v.dport, v.src, v.sport, string(b))
	a.fw.put(wan, a.frame(wan, p))
}

// answerStream has the upstream answer over TCP what is whole of a stream.
func (a *arena) answerStream(c *stream) {
	for len(c.data) >= 2 {
		n := 2 + int(c.data[0])<<8 + int(c.data[1])
		if len(c.data) < n {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(c.data[2:n]) == nil && len(q.Question) == 1 {
			z, ok := a.zone[strings.ToLower(q.Question[0].Name)+" "+dns.TypeToString[q.Question[0].Qtype]]
			if b, err := reply(q, z, ok); err == nil && !z.silent {
				c.out = append(c.out, sized(2, b)...)
			}
		}
		c.data = c.data[n:]
	}
}

func reply(q *dns.Msg, z answer, ok bool) ([]byte, error) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable, m.Compress = true, true
	if !ok {
		m.Rcode = dns.RcodeNameError
	}
	for i, rs := range [][]string{z.answer, z.authority, z.additional} {
		for _, r := range rs {
			rr, err := dns.NewRR(strings.Replace(r, "@", q.Question[0].Name, 1))
			if err != nil {
				return nil, err
			}
			switch i {
			case 0:
				m.Answer = append(m.Answer, rr)
			case 1:
				m.Ns = append(m.Ns, rr)
			case 2:
				m.Extra = append(m.Extra, rr)
			}
		}
	}
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, o.Do())
	}
	return m.Pack()
}

// is has the upstream answer A questions for a name with these addresses.
func (a *arena) is(name string, addrs ...string) {
	var rs []string
	for _, x := range addrs {
		rs = append(rs, "@ 300 IN A "+x)
	}
	a.zone[name+". A"] = answer{answer: rs}
}

// ask sends a question of a host and returns the answer that it gets, or nil.
func (a *arena) ask(host, name string, typ uint16) *dns.Msg {
	a.id++
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), typ)
	m.Id = a.id
	return a.askMsg(host, m)
}

func (a *arena) askMsg(host string, m *dns.Msg) *dns.Msg {
	b, err := m.Pack()
	if err != nil {
		a.t.Fatal(err)
	}
	b = a.askRaw(host, b)
	r := new(dns.Msg)
	if b == nil || r.Unpack(b) != nil {
		return nil
	}
	return r
}

// askRaw sends a datagram to the name server, and returns what is answered.
func (a *arena) askRaw(host string, b []byte) []byte {
	port, n := a.next(), len(a.seen[lan])
	a.put(lan, udp(host, port, fwLAN, 53, string(b)))
	for _, v := range a.seen[lan][n:] {
		if v.bad == "" && v.proto == packet.UDP && v.src == fwLAN && v.sport == 53 && v.dst == host && v.dport == port {
			return v.data
		}
	}
	return nil
}

// learns has a host resolve a name to addresses.
func (a *arena) learns(host, name string, addrs ...string) {
	a.is(name, addrs...)
	a.ask(host, name, dns.TypeA)
}

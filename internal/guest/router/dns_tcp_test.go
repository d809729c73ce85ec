package router

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A tcpHost is a host at one of the lab's wires that speaks TCP.
type tcpHost struct {
	l      *dnsLab
	side   int
	s      *tcp.Stack
	out    [][]byte
	rnd    uint64
	answer func(q *dns.Msg) *dns.Msg // of a server
	got    []*dns.Msg                // by a client
	closed int
	asked  []*dns.Msg
}

func (l *dnsLab) tcpHost(side int) *tcpHost {
	h := &tcpHost{l: l, side: side}
	h.s = tcp.New(h, 1500, 1500, 0)
	return h
}

func (h *tcpHost) Random() uint64 { h.rnd += 0x9e3779b97f4a7c15; return h.rnd }

func (h *tcpHost) StreamReady(uint32, uint32) {}

func (h *tcpHost) Closed(uint32, uint32, *tcp.Tuple, bool) { h.closed++ }

func (h *tcpHost) Emit(s *tcp.Segment) {
	p := tcpSeg(addr(s.Local).String(), s.LocalPort, addr(s.Remote).String(), s.RemotePort, s.Flags, s.Seq, s.Ack)
	p.win, p.data = s.Window, slices.Clone(s.Data)
	if s.MSS != 0 {
		p.opts = binary.BigEndian.AppendUint32(nil, 2<<24|4<<16|uint32(s.MSS))
	}
	h.out = append(h.out, p.frame([2][6]byte{lanMAC, wanMAC}[h.side]))
}

func (h *tcpHost) Message(id uint32, msg []byte) {
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		h.l.t.Fatal(err)
	}
	if h.answer == nil {
		h.got = append(h.got, m)
		return
	}
	h.asked = append(h.asked, m)
	if r := h.answer(m); r != nil {
		b, err := r.Pack()
		if err != nil {
			h.l.t.Fatal(err)
		}
		h.s.Send(id, b, h.l.now)
	}
}

// exchange lets TCP hosts and the firewall talk until nothing moves, and
// returns the UDP packets that came out on both sides.
func (l *dnsLab) exchange(hosts ...*tcpHost) (grams [2][]*view) {
	l.t.Helper()
	for range 1000 {
		moved := false
		for _, h := range hosts {
			l.port2(h.side).in = append(l.port2(h.side).in, h.out...)
			moved = moved || len(h.out) > 0
			h.out = nil
		}
		l.run()
		for side := range 2 {
			for _, v := range l.taken(side) {
				moved = true
				if v.Proto != packet.TCP {
					grams[side] = append(grams[side], v)
					continue
				}
				for _, h := range hosts {
					if h.side == side {
						h.arrive(v)
					}
				}
			}
		}
		if !moved {
			return grams
		}
	}
	l.t.Fatal("it does not come to rest")
	return
}

func (l *dnsLab) port2(i int) *wire { return l.lab.port[i] }

func (h *tcpHost) arrive(v *view) {
	t := tcp.Tuple{Local: v.Dst, Remote: v.Src, LocalPort: v.DstPort, RemotePort: v.SrcPort}
	l4 := v.frame[v.L4:]
	o := l4[packet.TCPLen : int(l4[12]>>4)*4]
	data := v.frame[len(v.frame)-int(v.Payload):]
	if _, ok := h.s.Owns(&t); ok {
		h.s.Input(&t, &v.Packet, o, data, h.l.now)
	} else if v.Flags&(packet.SYN|packet.ACK) == packet.SYN && h.answer != nil {
		h.s.Accept(&t, &v.Packet, o, 0, h.l.now)
	}
}

// askTCP has a client begin a connection with a first query.
func (h *tcpHost) askTCP(client, server string, m *dns.Msg) {
	h.l.t.Helper()
	b, err := m.Pack()
	if err != nil {
		h.l.t.Fatal(err)
	}
	h.l.port++
	t := tcp.Tuple{Local: ip(client), Remote: ip(server), LocalPort: h.l.port, RemotePort: 53}
	if !h.s.Connect(&t, 1, b, h.l.now) {
		h.l.t.Fatal("no connection")
	}
}

// manyAddresses answers with n addresses of a name.
func manyAddresses(n int) func(q *dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		m := reply(q)
		for i := range n {
			h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: net.IPv4(9, 0, byte(i>>8), byte(i))})
		}
		return m
	}
}

// truncated answers a query in packet v with TC set, and nothing else.
func (l *dnsLab) truncated(v *view) {
	l.t.Helper()
	q := l.message(v)
	r := reply(q)
	r.Truncated = true
	b, _ := r.Pack()
	p := udp(addr(v.Dst).String(), v.DstPort, addr(v.Src).String(), v.SrcPort)
	p.data = b
	l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
}

// TestS30_Truncated: an answer that does not fit is asked for again over TCP;
// the client gets it whole over UDP if its buffer allows, else over TCP.
func TestS30_Truncated(t *testing.T) {
	for _, c := range []struct {
		n      int
		size   uint16 // EDNS; 0: none
		whole  bool
		bufsiz string
	}{{20, 4096, true, "large"}, {80, 4096, true, "large"}, {80, 1232, false, "1232"}, {20, 0, true, "none"}, {40, 0, false, "none"}, {3000, 65535, false, "huge"}} {
		t.Run(fmt.Sprintf("%d addresses, buffer %s", c.n, c.bufsiz), func(t *testing.T) {
			l := githubLab(t, nil)
			up := l.tcpHost(wan)
			up.answer = manyAddresses(c.n)
			ask := func() *dns.Msg {
				q := l.query("GitHub.com", dns.TypeA)
				if c.size != 0 {
					q.SetEdns0(c.size, false)
				}
				return q
			}
			v, _ := l.asked(host, ask())
			l.truncated(v)
			grams := l.exchange(up)
			if len(grams[lan]) != 1 || len(up.asked) != 1 {
				t.Fatalf("%d answers to the client, %d queries over TCP; drops %s", len(grams[lan]), len(up.asked), l.drops())
			}
			m := l.message(grams[lan][0])
			if m.Truncated == c.whole || c.whole && len(m.Answer) != c.n || !c.whole && len(m.Answer) != 0 || (m.IsEdns0() != nil) != (c.size != 0) {
				t.Fatalf("whole %v: TC %v, %d records", c.whole, m.Truncated, len(m.Answer))
			}
			if l.connects(host, "9.0.0.5", 443) != c.whole {
				t.Fatal("what was bound is not what the client knows")
			}
			if c.whole {
				return
			}
			cl := l.tcpHost(lan)
			cl.askTCP(host, lanAddr, ask())
			grams = l.exchange(up, cl)
			if len(grams[wan]) != 1 {
				t.Fatalf("%d queries to the upstream", len(grams[wan]))
			}
			l.truncated(grams[wan][0])
			l.exchange(up, cl)
			if len(cl.got) != 1 || len(cl.got[0].Answer) != c.n || cl.got[0].Truncated || cl.got[0].Question[0].Name != "GitHub.com." {
				t.Fatalf("%d answers over TCP", len(cl.got))
			}
			if !l.connects(host, "9.0.0.5", 443) || l.lastQuery().Proto != packet.TCP {
				t.Fatal("not bound, or not answered")
			}
			cl.s.Close(1<<16|1, l.now)
			for range 20 {
				l.pass(1)
				cl.s.Tick(l.now)
				up.s.Tick(l.now)
				l.exchange(up, cl)
			}
			if n := l.e.host.Conns().Len(); n != 0 {
				t.Fatalf("%d connections are left: %+v", n, l.e.host.Conns().Counters())
			}
			for _, p := range l.e.Pools() {
				if p.InUse(packet.TCP) > 1 { // the connection of the test
					t.Fatalf("%d ports are held", p.InUse(packet.TCP))
				}
			}
			l.buffers()
		})
	}
}

// TestTCPNeedsARule: the connection is the policy's to allow, each packet
// counts on its rule, and no other port is open.
func TestTCPNeedsARule(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Matches[1].Src, p.Matches[1].SrcMask = ip("10.0.0.3").To16(), mask(32) })
	l.dropped(lan, syn(host, 4000, lanAddr, 53), verdict.NoMatchingAllowRule)
	l.dropped(wan, syn("203.0.113.1", 4000, ours, 53), verdict.NoMatchingAllowRule)
	cl := l.tcpHost(lan)
	cl.askTCP("10.0.0.3", lanAddr, l.query("github.com", dns.TypeA))
	if g := l.exchange(cl); len(g[wan]) != 1 {
		t.Fatalf("%d queries; drops %s", len(g[wan]), l.drops())
	}
	if n := l.e.c.Accepts[1]; n != 2 && n != 3 { // SYN, ACK with the query, or both apart
		t.Fatalf("%d packets on the rule", n)
	}
	// What belongs to no connection is reset.
	_, back := l.put(lan, tcpSeg("10.0.0.3", 9, lanAddr, 53, packet.ACK, 5, 5))
	if len(back) != 1 || back[0].Flags&packet.RST == 0 {
		t.Fatalf("%v", back)
	}
}

// TestInterceptTCP: also a connection to another server is answered.
func TestS29_InterceptTCP(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.Flags |= ruleset.FlagDNSIntercept })
	cl := l.tcpHost(lan)
	cl.askTCP(host, "9.9.9.9", l.query("github.com", dns.TypeA))
	g := l.exchange(cl)
	if len(g[wan]) != 1 {
		t.Fatalf("%d queries; drops %s", len(g[wan]), l.drops())
	}
	b, _ := reply(l.message(g[wan][0]), "@ 60 IN A "+github).Pack()
	p := udp(upstreamAddr, 53, ours, g[wan][0].SrcPort)
	p.data = b
	l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
	l.exchange(cl)
	if len(cl.got) != 1 || !l.connects(host, github, 443) {
		t.Fatalf("%d answers", len(cl.got))
	}
}

// TestUpstreamTCPFails: truncated over UDP, and no server over TCP.
func TestS30_TCPFails(t *testing.T) {
	l := githubLab(t, nil)
	v, _ := l.asked(host, l.query("github.com", dns.TypeA))
	l.truncated(v)
	var got []*view
	for i := 0; i < 40 && len(got) == 0; i++ {
		g := l.exchange()
		got = g[lan]
		for _, v := range g[wan] { // asked again over UDP: truncated again
			l.truncated(v)
		}
		l.pass(0.25)
	}
	if len(got) != 1 || l.message(got[0]).Rcode != dns.RcodeServerFailure || l.lastQuery().Duration > 7*second {
		t.Fatalf("%d answers, %+v", len(got), l.e.host.DNS().Counters())
	}
	// A server that does not keep the case of the name is asked over TCP.
	up := l.tcpHost(wan)
	up.answer = manyAddresses(1)
	v, q := l.asked(host, l.query("www.GitHub.com", dns.TypeA))
	r := reply(q, "@ 60 IN A 192.0.2.66")
	r.Question[0].Name = "www.github.com."
	b, _ := r.Pack()
	p := udp(upstreamAddr, 53, ours, v.SrcPort)
	p.data = b
	l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
	g := l.exchange(up)
	if len(g[lan]) != 1 || len(up.asked) != 1 || l.e.host.DNS().Counters().WrongCase != 1 {
		t.Fatalf("%d answers, %d queries over TCP", len(g[lan]), len(up.asked))
	}
	// So is one whose answer an attacker tries to forge.
	v, q = l.asked(host, l.query("x.github.com", dns.TypeA))
	for i := range 8 {
		r := reply(q, "@ 60 IN A 192.0.2.66")
		r.Id += uint16(i + 1)
		b, _ := r.Pack()
		p := udp(upstreamAddr, 53, ours, v.SrcPort)
		p.data = b
		l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
	}
	if g := l.exchange(up); len(g[lan]) != 1 || len(up.asked) != 2 {
		t.Fatalf("%d answers, %d queries over TCP", len(g[lan]), len(up.asked))
	}
}

// TestTCPInFragments: a connection of the firewall's own reads segments that
// come in fragments whole, and drops what does not fit a buffer.
func TestTCPInFragments(t *testing.T) {
	l := githubLab(t, nil)
	l.e.defrag = true
	s := large(syn(host, 4000, lanAddr, 53), 600)
	l.feed(lan, fragments(s, lanMAC, 300, 6)...) // with data, which may be ignored
	l.taken(lan)
	_, back := l.put(lan, syn(host, 4001, lanAddr, 53))
	if len(back) != 1 || back[0].Flags != packet.SYN|packet.ACK {
		t.Fatalf("%v", back)
	}
	q, _ := l.query("github.com", dns.TypeA).Pack()
	p := tcpSeg(host, 4001, lanAddr, 53, packet.ACK|packet.PSH, 1001, back[0].Seq+1)
	p.data = append(append([]byte{byte(len(q) >> 8), byte(len(q))}, q...), make([]byte, 4000)...)
	if got := l.feed(lan, fragments(p, lanMAC, 1500, 7)...); len(got) != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4] != 3 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	p.data = p.data[:2+len(q)]
	if got := l.feed(lan, fragments(p, lanMAC, 44, 8)...); len(got) != 1 || got[0].DstPort != 53 {
		t.Fatalf("%v asked; drops: %s", got, l.drops())
	}
	l.pass(1)
	l.buffers()
}

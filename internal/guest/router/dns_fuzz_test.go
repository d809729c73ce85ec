package router

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// hostile is a hostile client and a hostile upstream at once: queries and
// answers with bytes changed, segments of TCP connections that end at the
// firewall, TLS connections that are held, and time.
type hostile struct {
	*dnsLab
	hellos [2][]byte
	asked  *view // the last query to an upstream
	seg    *view // the last segment of a connection that ends here
	flow   *view // the last segment of a forwarded connection, as it left
	sport  uint16
	dst    string
}

func newHostile(t testing.TB) *hostile {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		named(p, 2, "github.com", "*.githubusercontent.com")
		p.Rules[2].SNI = 1
		p.SNAT[0].PortHi = 4096
		p.Settings.MaxFlows = 1024
		p.Settings.Flags |= ruleset.FlagDNSIntercept
		p.Settings.DNSNames = 4
		p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip("198.51.100.54").To16(), Port: 53})
		p.Blocked = []ruleset.Name{nameOf(p, "ads.example")}
	}, "accept egress tcp any -> any :443", established)
	return &hostile{dnsLab: l, hellos: [2][]byte{clientHello(t, "github.com"), clientHello(t, "evil.example")}}
}

func (h *hostile) note(vs []*view) {
	for _, v := range vs {
		switch {
		case v.Proto == packet.UDP && v.DstPort == 53:
			h.asked = v
		case v.Proto == packet.TCP && (v.SrcPort == 53 || v.DstPort == 53):
			h.seg = v
		case v.Proto == packet.TCP:
			h.flow = v
		}
	}
}

func (h *hostile) put(side int, p pkt) {
	a, b := h.lab.put(side, p)
	h.note(a)
	h.note(b)
}

var hostileNames = [...]string{"github.com", "raw.githubusercontent.com", "x.ads.example", "a.example"}

// step does what four bytes of the input encode.
func (h *hostile) step(op, a, b, c byte) {
	l := h.dnsLab
	spoil := func(m []byte) []byte {
		if b != 0 && len(m) > 0 {
			m[int(b)*len(m)/256] ^= c
		}
		return m
	}
	if op >= 0xf0 { // a router says that a packet of ours did not arrive
		v := h.asked
		if a&1 != 0 {
			v = h.seg
		}
		if v != nil {
			h.put(wan, quoted("192.0.2.1", ours, []uint8{packet.Unreachable, packet.TimeExceeded}[a>>1&1], a>>2&15, v.frame, 28+int(a>>6)*30, func(q []byte) { spoil(q) }))
		}
		l.invariants()
		return
	}
	switch op % 8 {
	case 0: // a client asks
		q := l.query(hostileNames[a%4], []uint16{dns.TypeA, dns.TypeHTTPS, dns.TypeAAAA, dns.TypeANY}[a>>2%4])
		if a&16 != 0 {
			q.SetEdns0(uint16(c)<<5, true)
		}
		m, _ := q.Pack()
		p := udp(host, 3000+uint16(c%3), []string{lanAddr, "8.8.8.8"}[a>>5&1], 53)
		p.data = spoil(m)
		h.put(lan, p)
	case 1: // an upstream answers
		if h.asked == nil {
			return
		}
		m := new(dns.Msg)
		if m.Unpack(h.asked.frame[h.asked.L4+packet.UDPLen:]) != nil {
			l.t.Fatal("the upstream got what is no query")
		}
		r := reply(m, "@ 60 IN CNAME x.example.", "x.example. 30 IN A "+cdn, "@ 5 IN A "+github)
		r.Truncated = a&1 != 0
		if a&2 != 0 {
			r.Answer = r.Answer[2:]
		}
		raw, _ := r.Pack()
		p := udp(addr(h.asked.Dst).String(), 53, addr(h.asked.Src).String(), h.asked.SrcPort)
		p.data = spoil(raw)
		h.put(wan, p)
	case 2: // a segment for a connection that ends here, or the first of one
		p := tcpSeg(host, 4000+uint16(b%2), lanAddr, 53, a&0x1f, 1000, 0)
		side := lan
		if h.seg != nil {
			p.seq, p.ack = h.seg.Ack+uint32(int32(int8(b))), h.seg.Seq+uint32(h.seg.Payload)+uint32(int32(int8(c)))
			p.src, p.dst, p.sport, p.dport = addr(h.seg.Dst).String(), addr(h.seg.Src).String(), h.seg.DstPort, h.seg.SrcPort
			if h.seg.Flags&(packet.SYN|packet.FIN) != 0 {
				p.ack++
			}
			if h.seg.DstPort == 53 {
				side = wan
			}
		}
		if a&0x20 != 0 {
			q, _ := l.query("github.com", dns.TypeA).Pack()
			p.data = append(binary.BigEndian.AppendUint16(nil, uint16(len(q))+uint16(c&1)), q...)
		}
		if a&0x40 != 0 {
			h.seg = nil
		}
		h.put(side, p)
	case 3:
		l.pass(float64(a) / 64)
		h.note(l.taken(wan))
		h.note(l.taken(lan))
	case 4: // a connection begins
		h.flow, h.sport, h.dst = nil, 6000+uint16(a%4), []string{cdn, github}[a>>2&1]
		h.put(lan, syn(host, h.sport, h.dst, 443))
	case 5: // and is answered
		if h.flow != nil {
			h.put(wan, tcpSeg(addr(h.flow.Dst).String(), 443, ours, h.flow.SrcPort, packet.SYN|packet.ACK, 5000, h.flow.Seq+1))
			h.put(lan, tcpSeg(host, h.sport, h.dst, 443, packet.ACK, 1001, 5001))
		}
	case 6: // and has a first message, whole or a part of it
		if h.sport == 0 {
			return
		}
		m := h.hellos[a&1]
		for lo := int(b) * len(m) / 256; lo < len(m); lo += 1000 {
			p := tcpSeg(host, h.sport, h.dst, 443, packet.ACK, 1001+uint32(lo), 5001)
			p.data = spoil(append([]byte(nil), m[lo:min(len(m), lo+1000)]...))
			h.put(lan, p)
			if a&2 != 0 {
				return
			}
		}
	case 7: // a segment of a connection begins, whose last is forgotten
		h.seg = nil
		h.put(lan, tcpSeg(host, 4000+uint16(b%4), lanAddr, 53, packet.SYN, uint32(a)<<24, 0))
	}
	l.invariants()
}

// rest lets everything end, and fails when something is left: a query, a port,
// a connection, a buffer.
func (h *hostile) rest() {
	l := h.dnsLab
	for range 100 {
		l.pass(4)
		l.taken(wan)
		l.taken(lan)
	}
	if n, m := l.e.host.DNS().Outstanding(), l.e.host.Conns().Len(); n != 0 || m != 0 || l.e.sni.Any() {
		l.t.Fatalf("%d queries, %d connections, %d messages are left", n, m, l.e.sni.Segments())
	}
	if l.e.Flows().Len() == 0 {
		for _, p := range l.e.Pools() {
			if p.InUse(packet.TCP)+p.InUse(packet.UDP) != 0 {
				l.t.Fatalf("%d and %d ports are held", p.InUse(packet.TCP), p.InUse(packet.UDP))
			}
		}
	}
	l.invariants()
}

// TestHostileBoth takes steps at random.
func TestHostileBoth(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 5))
	h := newHostile(t)
	for range 20 {
		for range 200 {
			op, b := byte(rnd.Uint32()), byte(0)
			if rnd.IntN(3) == 0 {
				b = byte(rnd.Uint32())
			}
			h.step(op, byte(rnd.Uint32()), b, byte(rnd.Uint32()))
		}
		h.rest()
	}
	p, c := h.e.host.DNS().Counters(), h.e.host.Conns().Counters()
	if p.Bound == 0 || p.Malformed == 0 || p.Mismatched == 0 || p.OverTCP == 0 || c.Accepted == 0 || c.Connected == 0 || c.Reset == 0 || p.Unreachable == 0 ||
		h.e.c.ServerNamesAccepted == 0 || h.e.c.DropReasons[verdict.SNIRefused] == 0 {
		t.Fatalf("the test does not reach everything: %+v, %+v, %d hellos accepted", p, c, h.e.c.ServerNamesAccepted)
	}
}

// FuzzNames runs the steps in the input, four bytes each.
func FuzzNames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x05\x00\x00\x00\x06\x00\x20\x00\x03\x10\x00\x00"))
	f.Add([]byte("\x10\x00\x00\x00\x02\x02\x00\x00\x02\x10\x00\x00\x02\x18\x00\x00\x07\x12\x00\x00\x07\x10\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h := newHostile(t)
		for k := 0; len(in) >= 4 && k < 80; k++ {
			h.step(in[0], in[1], in[2], in[3])
			in = in[4:]
		}
		h.rest()
	})
}

package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// RFC 5382: what a NAT does with TCP.

func TestRFC5382_REQ1_EndpointIndependentMapping(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, syn("10.0.0.3", 4000, web, 80)) // takes the preserved port
	a := l.one(lan, syn(host, 4000, web, 80)).SrcPort
	for i := range uint16(20) {
		if b := l.one(lan, syn(host, 4000, addr(ip("192.0.2.9")+packet.Addr(i)).String(), 80+i)).SrcPort; b != a || a == 4000 {
			t.Fatalf("ports %d and %d", a, b)
		}
	}
}

// segments is a valid exchange, by its sequence of packets; each must pass and
// lead to the state.
type segments []struct {
	from     int
	flags    uint8
	seq, ack uint32
	n        int // bytes of data
	state    string
}

const (
	fSYN = packet.SYN
	fACK = packet.ACK
	fFIN = packet.FIN
	fRST = packet.RST
)

// TestRFC5382_REQ2_AllValidSequences: RFC 9293 allows more than the handshake of
// books.
func TestRFC5382_REQ2_AllValidSequences(t *testing.T) {
	open := segments{{lan, fSYN, 1000, 0, 0, "syn_sent"}, {wan, fSYN | fACK, 5000, 1001, 0, "syn_recv"}, {lan, fACK, 1001, 5001, 0, "established"}}
	for name, s := range map[string]segments{
		"repeated SYN":               {{lan, fSYN, 1000, 0, 0, "syn_sent"}, {lan, fSYN, 1000, 0, 0, "syn_sent"}, {wan, fSYN | fACK, 5000, 1001, 0, "syn_recv"}, {wan, fSYN | fACK, 5000, 1001, 0, "syn_recv"}, {lan, fACK, 1001, 5001, 0, "established"}},
		"SYN of another attempt":     {{lan, fSYN, 1000, 0, 0, "syn_sent"}, {lan, fSYN, 9000, 0, 0, "syn_sent"}, {wan, fSYN | fACK, 5000, 9001, 0, "syn_recv"}, {lan, fACK, 9001, 5001, 0, "established"}},
		"SYN-ACK repeated after ACK": append(open[:3:3], segments{{wan, fSYN | fACK, 5000, 1001, 0, "established"}, {lan, fACK, 1001, 5001, 0, "established"}}...),
		"data with the ACK":          append(open[:2:2], segments{{lan, fACK, 1001, 5001, 50, "established"}, {wan, fACK, 5001, 1051, 70, "established"}}...),
		"data before the ACK":        append(open[:2:2], segments{{wan, fACK, 5001, 1001, 50, "syn_recv"}, {lan, fACK, 1001, 5051, 0, "established"}}...),
		"FIN with the ACK":           append(open[:2:2], segments{{lan, fACK | fFIN, 1001, 5001, 5, "fin_wait"}, {wan, fACK, 5001, 1007, 0, "close_wait"}}...),
		"client closes":              append(open[:3:3], segments{{lan, fFIN | fACK, 1001, 5001, 0, "fin_wait"}, {wan, fACK, 5001, 1002, 0, "close_wait"}, {wan, fACK, 5001, 1002, 90, "close_wait"}, {lan, fACK, 1002, 5091, 0, "close_wait"}, {wan, fFIN | fACK, 5091, 1002, 0, "last_ack"}, {lan, fACK, 1002, 5092, 0, "time_wait"}, {wan, fFIN | fACK, 5091, 1002, 0, "time_wait"}, {lan, fACK, 1002, 5092, 0, "time_wait"}}...),
		"server closes":              append(open[:3:3], segments{{wan, fFIN | fACK, 5001, 1001, 0, "fin_wait"}, {lan, fFIN | fACK, 1001, 5002, 0, "last_ack"}, {wan, fACK, 5002, 1002, 0, "time_wait"}}...),
		"both close at once":         append(open[:3:3], segments{{lan, fFIN | fACK, 1001, 5001, 0, "fin_wait"}, {wan, fFIN | fACK, 5001, 1001, 0, "last_ack"}, {lan, fACK, 1002, 5002, 0, "last_ack"}, {wan, fACK, 5002, 1002, 0, "time_wait"}}...),
		"reordered data":             append(open[:3:3], segments{{wan, fACK, 5101, 1001, 100, "established"}, {wan, fACK, 5001, 1001, 100, "established"}, {lan, fACK, 1001, 5201, 0, "established"}, {wan, fACK, 5001, 1001, 100, "established"}}...),
		"keep-alive":                 append(open[:3:3], segments{{wan, fACK, 5000, 1001, 0, "established"}, {lan, fACK, 1001, 5001, 0, "established"}, {lan, fACK, 1000, 5001, 1, "established"}}...),
		"refused":                    {{lan, fSYN, 1000, 0, 0, "syn_sent"}, {wan, fRST | fACK, 0, 1001, 0, "close"}},
		"given up":                   {{lan, fSYN, 1000, 0, 0, "syn_sent"}, {lan, fRST, 1001, 0, 0, "close"}},
		"reset in the handshake":     append(open[:2:2], segments{{lan, fRST, 1001, 0, 0, "close"}}...),
		"new connection after it":    append(open[:3:3], segments{{wan, fRST, 5001, 0, 0, "close"}, {lan, fSYN, 700, 0, 0, "syn_sent"}, {wan, fSYN | fACK, 8000, 701, 0, "syn_recv"}, {lan, fACK, 701, 8001, 0, "established"}}...),
		"sequence numbers wrap":      {{lan, fSYN, 0xfffffff0, 0, 0, "syn_sent"}, {wan, fSYN | fACK, 0xffffffff, 0xfffffff1, 0, "syn_recv"}, {lan, fACK, 0xfffffff1, 0, 0, "established"}, {lan, fACK, 0xfffffff1, 0, 100, "established"}, {wan, fACK, 0, 85, 50, "established"}, {lan, fFIN | fACK, 85, 50, 0, "fin_wait"}, {wan, fACK, 50, 86, 0, "close_wait"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "accept egress", established)
			port := uint16(0)
			for i, x := range s {
				var p pkt
				if x.from == lan {
					p = tcpSeg(host, 4000, web, 80, x.flags, x.seq, x.ack)
				} else {
					p = tcpSeg(web, 80, ours, port, x.flags, x.seq, x.ack)
				}
				p.data = make([]byte, x.n)
				v := l.one(x.from, p)
				if x.from == lan {
					port = v.SrcPort
				}
				if got := l.e.flows.Dir(0).State.String(); got != x.state {
					t.Fatalf("after packet %d the state is %s, want %s", i, got, x.state)
				}
			}
		})
	}
}

func TestRFC5382_REQ2a_SimultaneousOpen(t *testing.T) {
	for _, answer := range []uint8{fSYN | fACK, fACK} { // both are seen in practice
		l := newLab(t, "accept egress", established)
		v := l.one(lan, tcpSeg(host, 4000, web, 5000, fSYN, 1000, 0))
		l.one(wan, tcpSeg(web, 5000, ours, v.SrcPort, fSYN, 9000, 0))
		a, b := uint32(1000), uint32(9000)
		if answer == fACK {
			a, b = 1001, 9001
		}
		l.one(lan, tcpSeg(host, 4000, web, 5000, answer, a, 9001))
		l.one(wan, tcpSeg(web, 5000, ours, v.SrcPort, answer, b, 1001))
		d := tcpSeg(web, 5000, ours, v.SrcPort, fACK, 9001, 1001)
		d.data = []byte("hello")
		l.one(wan, d)
		l.one(lan, tcpSeg(host, 4000, web, 5000, fACK, 1001, 9006))
		l.state("established")
	}
}

func TestRFC5382_REQ3_FilteringIsAddressAndPortDependent(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, syn(host, 4000, web, 80))
	l.dropped(wan, syn(web, 81, ours, v.SrcPort), verdict.NoMatchingAllowRule)
	l.dropped(wan, syn("198.51.100.81", 80, ours, v.SrcPort), verdict.NoMatchingAllowRule)
}

func TestRFC5382_REQ5_Timers(t *testing.T) {
	for steps, seconds := range map[int]float64{1: 240, 2: 240, 3: 7440, 4: 240} {
		l := newLab(t, "accept egress", established)
		port := l.one(lan, tcpSeg(host, 4000, web, 80, fSYN, 1000, 0)).SrcPort
		if steps > 1 {
			l.one(wan, tcpSeg(web, 80, ours, port, fSYN|fACK, 5000, 1001))
		}
		if steps > 2 {
			l.one(lan, tcpSeg(host, 4000, web, 80, fACK, 1001, 5001))
		}
		if steps > 3 {
			l.one(lan, tcpSeg(host, 4000, web, 80, fFIN|fACK, 1001, 5001))
		}
		l.pass(seconds - 1)
		if l.e.flows.Len() != 1 {
			t.Errorf("after %d packets: gone within %v s", steps, seconds)
		}
	}
}

func TestRFC5382_REQ6_NoALGs(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 21)
	p := tcpSeg(host, 4000, web, 21, fACK, 1001, 5001)
	p.data = []byte("PORT 10,0,0,2,15,161\r\n")
	v := l.one(lan, p)
	if got := string(v.frame[int(v.L4)+packet.TCPLen:]); got != string(p.data) {
		t.Fatalf("payload %q", got)
	}
	l.dropped(wan, syn(web, 20, ours, 4001), verdict.NoMatchingAllowRule)
	_ = port
}

func TestRFC5382_REQ7_NoPortOverloading(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3009 }, "accept egress", established)
	seen := map[uint16]bool{}
	for h := range packet.Addr(10) {
		p := l.one(lan, syn(addr(ip("10.0.0.100")+h).String(), 4000, addr(ip("192.0.2.9")+h).String(), 80)).SrcPort
		if seen[p] {
			t.Fatalf("port %d twice", p)
		}
		seen[p] = true
	}
	l.dropped(lan, syn("10.0.0.200", 4000, "192.0.2.99", 80), verdict.NATPortPoolExhausted)
}

func TestRFC5382_REQ10_ICMPErrorsDoNotEndConnections(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	d := tcpSeg(host, 4000, web, 80, fACK, 1001, 5001)
	d.data = []byte("GET /")
	v := l.one(lan, d)
	for _, typ := range []uint8{packet.Unreachable, packet.TimeExceeded, packet.ParamProblem} {
		l.one(wan, embed("192.0.2.1", ours, typ, 1, v))
	}
	l.state("established")
	l.one(wan, tcpSeg(web, 80, ours, port, fACK, 5001, 1006)).is(t, web, 80, host, 4000)
}

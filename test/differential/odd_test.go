package differential

import (
	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
)

// oddity adds a step that no well-behaved host would send, or not now.
func (g *generator) oddity(n int) {
	switch g.r.IntN(10) {
	case 0, 1, 2, 3:
		if g.flows[n].proto == packet.TCP {
			g.oddTCP(n)
		} else {
			g.oddDatagram(n)
		}
	case 4, 5, 6:
		g.icmpError(n)
	case 7, 8:
		g.mangled(n)
	case 9:
		g.stray(n)
	}
}

func (g *generator) oddTCP(n int) {
	reply := g.chance(50)
	t := &g.tcp[n]
	i := side(reply)
	far := pick(g, uint32(1), 10, 500, 1000, 5000, 70000, 200000, 1<<31)
	if g.chance(40) {
		far = -far
	}
	switch g.r.IntN(16) {
	case 0: // an earlier segment again
		for range 5 {
			st := g.steps[g.r.IntN(len(g.steps))]
			if st.flow == n && st.embed == nil && st.spec.proto == packet.TCP {
				st.why = "again: " + st.why
				g.steps = append(g.steps, st)
				return
			}
		}
	case 1:
		s := g.seg(n, reply, ack, g.data(50))
		s.seq += far
		g.add(n, reply, s, "wrong sequence number")
	case 2:
		s := g.seg(n, reply, ack, g.data(50))
		s.ack += far
		g.add(n, reply, s, "wrong acknowledgement")
	case 3:
		s := g.seg(n, reply, uint8(g.r.Uint32()), g.data(10))
		g.add(n, reply, s, "odd flags")
	case 4:
		s := g.seg(n, reply, pick(g, uint8(rst), rst|ack), nil)
		g.add(n, reply, s, "reset")
	case 5:
		s := g.seg(n, reply, pick(g, uint8(rst), rst|ack), nil)
		s.seq += far
		g.add(n, reply, s, "reset with a wrong sequence number")
	case 6:
		s := g.seg(n, reply, syn, nil)
		if g.chance(50) {
			s.seq = g.r.Uint32()
		}
		s.opts = g.synOptions()
		g.add(n, reply, s, "SYN")
	case 7:
		s := g.seg(n, true, syn, nil)
		g.add(n, true, s, "simultaneous open")
		if !t.seen[1] {
			g.sent(n, true, &s)
			t.ack[1] = 0
		}
	case 8:
		s := g.seg(n, reply, syn|ack, nil)
		if g.chance(50) {
			s.seq--
		}
		if g.chance(30) {
			s.ack += far
		}
		g.add(n, reply, s, "SYN-ACK")
	case 9:
		s := g.seg(n, reply, ack, g.data(100))
		s.win = pick(g, uint16(0), 1, 65535)
		g.add(n, reply, s, "other window")
		g.sent(n, reply, &s)
	case 10:
		s := g.seg(n, reply, fin|ack, nil)
		s.seq += far
		g.add(n, reply, s, "FIN with a wrong sequence number")
	case 11: // beyond what the other end has acknowledged
		s := g.seg(n, reply, ack|psh, make([]byte, 1200))
		s.seq = t.ack[1-i] + uint32(t.win) - 600
		g.add(n, reply, s, "beyond the window")
	case 12: // of the last SYN
		if st := g.earlier(n, !reply, syn, true); st != nil {
			s := g.seg(n, reply, rst|ack, nil)
			s.seq, s.ack = pick(g, 0, s.seq), st.spec.seq+1+uint32(len(st.spec.data))
			g.add(n, reply, s, "refusal")
		}
	case 13:
		if st := g.earlier(n, reply, syn, false); st != nil {
			again := *st
			again.why = "the first SYN again"
			g.steps = append(g.steps, again)
		}
	case 14:
		if st := g.earlier(n, !reply, syn|ack, g.chance(50)); st != nil {
			s := g.seg(n, reply, ack, g.data(50))
			s.ack = st.spec.seq + 1
			g.add(n, reply, s, "acknowledgement of a SYN-ACK")
		}
	case 15:
		s := g.seg(n, reply, ack, make([]byte, 1400))
		s.seq -= pick(g, uint32(100), 1000, 1399, 1400, slack, slack+700, slack+1400, slack+1500)
		g.add(n, reply, s, "overlap")
	}
}

// earlier returns a step of flow n that a direction has sent with these flags, the
// last or the first one, or nil.
func (g *generator) earlier(n int, reply bool, flags uint8, last bool) (found *step) {
	for i := range g.steps {
		s := &g.steps[i]
		if s.flow != n || s.embed != nil || s.reply != reply || s.spec.proto != packet.TCP || s.spec.flags&(syn|ack|rst|fin) != flags {
			continue
		}
		if found = s; !last {
			break
		}
	}
	return found
}

func (g *generator) oddDatagram(n int) {
	f := &g.flows[n]
	reply := g.chance(50)
	if f.proto == packet.UDP {
		s := spec{proto: packet.UDP, data: g.data(30)}
		switch g.r.IntN(3) {
		case 0:
			s.udpLen = pick(g, -1, -4, -8, 1, 10, -100)
		case 1:
			s.badL4 = true
		case 2:
			s.noL4 = true
		}
		g.add(n, reply, s, "odd UDP")
		return
	}
	typ := pick(g, uint8(packet.EchoRequest), packet.EchoReply, 13, 14, 15, 17, 5, 9, 10, 40)
	s := spec{proto: packet.ICMP, typ: typ, code: pick(g, uint8(0), 0, 1), data: g.data(30), badL4: g.chance(10)}
	g.add(n, reply, s, "odd ICMP")
}

// icmpError adds an error about a packet of the flow, as it was sent or not.
func (g *generator) icmpError(n int) {
	f := &g.flows[n]
	if f.kind == local {
		g.datagram2(n)
		return
	}
	reply := g.chance(50)
	// About a packet of this direction, which left through the other side.
	out := 1 - entry(f, reply)
	if f.kind == hairpin {
		out = replay.LAN
	}
	in := spec{proto: f.proto, ttl: 60, id: g.id, data: g.data(40)}
	switch f.proto {
	case packet.TCP:
		in = g.seg(n, reply, ack, in.data)
		in.ttl = 60
		if g.chance(20) {
			in.seq += 1 << 20
		}
	case packet.ICMP:
		in.typ = packet.EchoRequest
		if reply {
			in.typ = packet.EchoReply
		}
	}
	if g.chance(10) {
		in.ipopts = []byte{1, 1, 1, 0}
	}
	s := spec{proto: packet.ICMP, ttl: 64, typ: packet.Unreachable, code: pick(g, uint8(3), 1, 0, 13)}
	switch g.r.IntN(6) {
	case 0:
		s.typ, s.code = packet.TimeExceeded, pick(g, uint8(0), 1)
	case 1:
		s.code, s.rest = 4, uint32(pick(g, 1400, 576, 68))
	case 2:
		s.typ, s.code, s.rest = packet.ParamProblem, 0, 1<<24
	case 3:
		s.typ, s.code = 4, 0 // source quench
	}
	why := "ICMP error"
	switch g.r.IntN(12) {
	case 0:
		in.embedCut = pick(g, 8, 19, 20, 24, 27, 28, 36)
		why = "ICMP error with a short packet"
	case 1:
		in.embedBad = true
		why = "ICMP error with a wrong inner checksum"
	case 2:
		in.frag = pick(g, uint16(0x2000), 100)
		why = "ICMP error about a fragment"
	case 3:
		s.badL4 = true
		why = "ICMP error with a wrong checksum"
	case 4:
		in.badL4 = true
		why = "ICMP error with a wrong inner transport checksum"
	case 5:
		s.typ, s.code, s.rest = 5, 1, uint32(ip("10.0.0.77"))
		why = "redirect"
	}
	g.id++
	s.id = g.id
	st := step{flow: n, side: out, reply: reply, spec: s, embed: &in, why: why}
	if g.chance(50) {
		st.from = ip(gateway)
		if out == replay.LAN {
			st.from = ip(lanHosts[0])
		}
	}
	g.steps = append(g.steps, st)
}

func (g *generator) datagram2(n int) {
	if g.flows[n].proto == packet.TCP {
		g.progress(n)
	} else {
		g.datagram(n)
	}
}

// mangled sends the flow's next packet with something wrong in it.
func (g *generator) mangled(n int) {
	g.datagram2(n)
	st := &g.steps[len(g.steps)-1]
	s := &st.spec
	switch g.r.IntN(15) {
	case 0:
		s.badIP = true
		st.why += ", wrong header checksum"
	case 1:
		s.badL4 = true
		st.why += ", wrong transport checksum"
	case 2:
		s.ttl = pick(g, uint8(1), 1, 2)
		st.why += ", TTL ends"
	case 3:
		s.cut = 1 + g.r.IntN(30)
		st.why += ", cut off"
	case 4:
		s.pad = 1 + g.r.IntN(30)
		st.why += ", padded"
	case 5:
		s.totalLen = pick(g, -1, -5, 1, 5, -30)
		st.why += ", wrong total length"
	case 6:
		s.version = pick(g, uint8(5), 6, 15)
		st.why += ", other version"
	case 7:
		s.ihl = pick(g, uint8(1), 4, 6, 15)
		st.why += ", wrong header length"
	case 8:
		s.offset = pick(g, uint8(1), 4, 6, 15)
		st.why += ", wrong data offset"
	case 9:
		s.ipopts = pick(g, []byte{1, 1, 1, 0}, []byte{148, 4, 0, 0}, []byte{131, 3, 4, 0}, []byte{137, 7, 4, 1, 2, 3, 4, 0}, []byte{7, 7, 4, 0, 0, 0, 0, 0}, []byte{68, 0, 0, 0})
		st.why += ", IP options"
	case 10:
		s.frag = pick(g, uint16(0x2000), 0x2001, 1, 0x8000)
		st.why += ", fragment"
	case 11:
		s.tos, s.df = pick(g, uint8(0xb8), 3, 1), true
		st.why += ", DSCP and DF"
	case 12:
		s.reserved, s.urg, s.flags = pick(g, uint8(0), 1, 8), 5, s.flags|0x20
		st.why += ", urgent"
	case 13:
		s.opts = append(s.opts, pick(g, []byte{1, 1, 1, 1}, []byte{8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, []byte{99, 0, 0, 0}, []byte{99, 40, 0, 0}, []byte{3, 3, 200, 0})...)
		st.why += ", TCP options"
	case 14:
		s.data = make([]byte, 1400)
		st.why += ", large"
	}
	if s.ttl == 0 {
		s.ttl = 64
	}
}

// stray sends packets of no flow: unsolicited packets, spoofed ones, other protocols.
func (g *generator) stray(n int) {
	f := g.flows[n]
	switch g.r.IntN(6) {
	case 0: // from another host to the mapping of this flow
		f.b.addr, f.b.port = ip(wanHosts[2]), 999
	case 1: // from an address of the LAN's
		f.b.addr = ip("10.0.0.3")
	case 2: // to an unused port
		f.a.port = 9999
	case 3:
		f.b.addr = ip("127.0.0.1")
	case 4:
		f.b.addr = ip("224.0.0.5")
	case 5:
		s := spec{proto: pick(g, uint8(47), 50, 132, 2), ttl: 64, data: append(make([]byte, 8), g.data(30)...)}
		g.id++
		s.id = g.id
		reply := g.chance(50)
		g.steps = append(g.steps, step{flow: n, side: entry(&f, reply), reply: reply, spec: s, why: "other protocol"})
		return
	}
	// Strays are flows of their own.
	f.stray = true
	if f.b != g.flows[n].b && (f.kind == local || f.kind == hairpin) {
		f.kind, f.to = outbound, endpoint{}
	}
	g.flows = append(g.flows, f)
	g.tcp = append(g.tcp, tcpSim{seq: [2]uint32{1000, 2000}, win: 8192})
	n = len(g.flows) - 1
	reply := g.chance(70)
	switch f.proto {
	case packet.TCP:
		g.add(n, reply, g.seg(n, reply, pick(g, uint8(syn), ack, rst, syn|ack, fin|ack), nil), "stray segment")
	case packet.UDP:
		g.add(n, reply, spec{proto: packet.UDP, data: g.data(20)}, "stray datagram")
	default:
		g.add(n, reply, spec{proto: packet.ICMP, typ: pick(g, uint8(0), 8), data: g.data(20)}, "stray echo")
	}
}

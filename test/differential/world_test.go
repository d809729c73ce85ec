package differential

import (
	"encoding/binary"
	"fmt"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A kind says who begins a flow and how it is translated.
type kind uint8

const (
	outbound kind = iota // from the LAN, masqueraded
	inbound              // from the WAN to a DNAT entry
	hairpin              // from the LAN to a DNAT entry, back into the LAN
	local                // from the LAN to the firewall itself
)

// A flow is a conversation that steps belong to.
type flow struct {
	kind  kind
	proto uint8
	a     endpoint // who begins
	b     endpoint // whom it is meant for, as seen by a
	to    endpoint // inbound, hairpin: the server behind b
	stray bool     // its sequence numbers are made up
}

type endpoint struct {
	addr packet.Addr
	port uint16
}

// A step is one packet: of a flow, in one of its directions, at one side.
type step struct {
	flow  int
	side  replay.Side
	reply bool
	spec  spec
	// An ICMP error about a packet of the flow that left through side; reply
	// is the direction of that packet. It comes from the packet's
	// destination, or from "from".
	embed *spec
	from  packet.Addr
	why   string // what the generator meant
}

// A world is one of the two firewalls as the steps see it: which external port
// each flow got.
type world struct {
	flows []flow
	ext   map[int]uint16
	id    uint16 // added to identifications, which fragments of other sequences must not have
}

func newWorld(fs []flow) *world { return &world{flows: fs, ext: map[int]uint16{}} }

// at returns the addresses of a flow's packets, in its forward direction, on a side. For a
// hairpin, entering selects the initiator's view, else the server's.
func (w *world) at(n int, s replay.Side, entering bool) ends {
	f := &w.flows[n]
	port := f.a.port
	if p, ok := w.ext[n]; ok {
		port = p
	} else {
		for m, p := range w.ext {
			if g := &w.flows[m]; g.kind == f.kind && g.proto == f.proto && g.a == f.a {
				port = p // mappings do not depend on the destination (RFC 4787 REQ-1)
			}
		}
	}
	e := ends{f.a.addr, f.b.addr, f.a.port, f.b.port}
	switch {
	case f.kind == outbound && s == replay.WAN:
		e.src, e.sport = ip(wanAddr), port
	case f.kind == inbound && s == replay.LAN:
		e.dst, e.dport = f.to.addr, f.to.port
	case f.kind == hairpin && !entering:
		e = ends{ip(wanAddr), f.to.addr, port, f.to.port}
	}
	if f.proto == packet.ICMP {
		e.dport = e.sport
	}
	return e
}

// frame builds a step's frame for this world.
func (w *world) frame(st *step) []byte {
	// A hairpinned reply enters from the server.
	e := w.at(st.flow, st.side, !st.reply)
	if st.reply {
		e = e.swap()
	}
	if st.embed == nil {
		s := st.spec
		s.id += w.id
		return s.frame(st.side, e)
	}
	e = w.at(st.flow, st.side, st.reply) // of a packet that left
	if st.reply {
		e = e.swap()
	}
	s := st.spec
	inner := st.embed.ip(e)
	if st.embed.embedBad {
		inner[10] ^= 0x5a
	}
	if st.embed.embedCut > 0 && st.embed.embedCut < len(inner) {
		inner = inner[:st.embed.embedCut]
	}
	s.data = inner
	from := st.from
	if from == 0 {
		from = e.dst
	}
	return s.frame(st.side, ends{src: from, dst: e.src})
}

// join reassembles the fragments among frames, which are all of one packet, and leaves them
// as they are when some are missing.
func join(fs [][]byte) [][]byte {
	parts, end := map[int][]byte{}, -1
	var head []byte
	for _, f := range fs {
		if len(f) < 34 || f[14] != 0x45 {
			return fs
		}
		v := binary.BigEndian.Uint16(f[20:])
		off, total := int(v&0x1fff)*8, int(binary.BigEndian.Uint16(f[16:]))
		if v&0x3fff == 0 || total < 20 || 14+total > len(f) || packet.Sum(f[14:34], 0) != 0xffff {
			return fs
		}
		parts[off] = f[34 : 14+total]
		if v&0x2000 == 0 {
			end = off + total - 20
		}
		if off == 0 {
			head = f[:34]
		}
	}
	if head == nil || end < 0 {
		return fs
	}
	b := append([]byte(nil), head...)
	for len(b)-34 < end {
		p := parts[len(b)-34]
		if len(p) == 0 {
			return fs
		}
		b = append(b, p...)
	}
	put16(b[16:], len(b)-14)
	b[20], b[21] = 0, 0
	fixSum(b[14:34])
	return [][]byte{b}
}

// learn records the external port of a flow whose forward packet has left.
func (w *world) learn(st *step, out [2][][]byte) {
	f := &w.flows[st.flow]
	if st.embed != nil || st.reply || f.kind == inbound || f.kind == local {
		return
	}
	side := replay.WAN
	dst := f.b
	if f.kind == hairpin {
		side, dst = replay.LAN, f.to
	}
	// A SYN may begin a new connection on one that is over, with a new port.
	if _, ok := w.ext[st.flow]; ok && !(st.spec.proto == packet.TCP && st.spec.flags&(syn|ack) == syn) {
		return
	}
	for _, fr := range out[side] {
		var p packet.Packet
		if _, why := packet.ParseIPv4(fr, &p); why == 0 && p.Class != packet.ClassICMPError && p.Src == ip(wanAddr) && p.Proto == f.proto && p.Dst == dst.addr && (p.DstPort == dst.port || p.Proto == packet.ICMP) {
			w.ext[st.flow] = p.SrcPort
		}
	}
}

// canonical rewrites a frame that left so that frames of both worlds can be compared:
// external ports become those of the flow's initiator, and fields without meaning are
// cleared in the firewall's own messages.
func (w *world) canonical(in, side replay.Side, f []byte) []byte {
	b := append([]byte(nil), f...)
	if len(b) < packet.EthLen+packet.MinIPv4 {
		return b
	}
	h := b[packet.EthLen:]
	w.rename(h, false)
	if hl := int(h[0]&15) * 4; hl >= 20 && hl <= len(h) && packet.Sum(h[:hl], 0) == 0xffff {
		h[4], h[5] = 0, 0 // identification: a translator may choose its own (RFC 6864 section 5.3.1)
		fixSum(h[:hl])
	}
	own := ip(lanAddr)
	if side == replay.WAN {
		own = ip(wanAddr)
	}
	if in == side && packet.Addr(binary.BigEndian.Uint32(h[12:])) == own {
		h[1] = 0                               // type of service
		h[4], h[5] = 0, 0                      // identification
		h[6] &^= 0x40                          // don't fragment
		h[8] = 0                               // TTL
		fixSum(h[:min(len(h), 20)])            // its options, if any, are compared
		if h[9] == packet.TCP && len(h) > 35 { // window of a reset
			h[20+14], h[20+15] = 0, 0
			retcp(h)
		}
	}
	return b
}

func fixSum(h []byte) {
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h, 0))
}

func retcp(h []byte) {
	t := h[20:]
	t[16], t[17] = 0, 0
	sum := uint64(binary.BigEndian.Uint32(h[12:])) + uint64(binary.BigEndian.Uint32(h[16:])) + packet.TCP + uint64(len(t))
	binary.BigEndian.PutUint16(t[16:], ^packet.Sum(t, sum))
}

// rename replaces external ports in an IPv4 packet and in what it quotes.
func (w *world) rename(h []byte, quoted bool) {
	hl := int(h[0]&15) * 4
	if len(h) < hl+8 || hl < 20 || binary.BigEndian.Uint16(h[6:])&0x1fff != 0 {
		return
	}
	l4 := h[hl:]
	src, dst := packet.Addr(binary.BigEndian.Uint32(h[12:])), packet.Addr(binary.BigEndian.Uint32(h[16:]))
	proto := h[9]
	sum := map[uint8]int{packet.TCP: 16, packet.UDP: 6, packet.ICMP: 2}[proto]
	swap := func(off int, remote packet.Addr, rport uint16) {
		old := binary.BigEndian.Uint16(l4[off:])
		for n, e := range w.ext {
			f := &w.flows[n]
			to := f.b
			if f.kind == hairpin {
				to = f.to
			}
			if e == old && f.proto == proto && to.addr == remote && (proto == packet.ICMP || to.port == rport) && f.a.port != old {
				binary.BigEndian.PutUint16(l4[off:], f.a.port)
				if len(l4) < sum+2 {
					return
				}
				if c := binary.BigEndian.Uint16(l4[sum:]); c != 0 || proto != packet.UDP {
					s := uint32(^c) + uint32(^old) + uint32(f.a.port)
					s = s&0xffff + s>>16
					s = s&0xffff + s>>16
					binary.BigEndian.PutUint16(l4[sum:], ^uint16(s))
				}
				return
			}
		}
	}
	switch {
	case proto != packet.TCP && proto != packet.UDP && proto != packet.ICMP:
		return
	case proto == packet.ICMP && !isQuery(l4[0]):
		if !quoted && len(l4) >= 28 {
			before := ^packet.Sum(l4, 0)
			w.rename(l4[8:], true)
			if before == 0 { // it was right
				l4[2], l4[3] = 0, 0
				binary.BigEndian.PutUint16(l4[2:], ^packet.Sum(l4, 0))
			}
		}
	case proto == packet.ICMP:
		if src == ip(wanAddr) {
			swap(4, dst, 0)
		} else if dst == ip(wanAddr) {
			swap(4, src, 0)
		}
	case src == ip(wanAddr):
		swap(0, dst, binary.BigEndian.Uint16(l4[2:]))
	case dst == ip(wanAddr):
		swap(2, src, binary.BigEndian.Uint16(l4))
	}
}

// describe prints a frame for people.
func describe(f []byte) string {
	if len(f) < 34 {
		return fmt.Sprintf("%x", f)
	}
	h := f[14:]
	hl := int(h[0]&15) * 4
	s := fmt.Sprintf("%s > %s ttl %d len %d", str(packet.Addr(binary.BigEndian.Uint32(h[12:]))), str(packet.Addr(binary.BigEndian.Uint32(h[16:]))), h[8], binary.BigEndian.Uint16(h[2:]))
	if len(h) < hl+8 || hl < 20 {
		return s
	}
	l4 := h[hl:]
	switch h[9] {
	case packet.TCP:
		if len(l4) < 20 {
			return s + " tcp, short"
		}
		s += fmt.Sprintf(" tcp %d > %d flags %s seq %d ack %d win %d", binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:]), flagNames(l4[13]),
			binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]), binary.BigEndian.Uint16(l4[14:]))
	case packet.UDP:
		s += fmt.Sprintf(" udp %d > %d", binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:]))
	case packet.ICMP:
		s += fmt.Sprintf(" icmp %d/%d", l4[0], l4[1])
		if isQuery(l4[0]) {
			s += fmt.Sprintf(" id %d", binary.BigEndian.Uint16(l4[4:]))
		} else if len(l4) >= 28 {
			s += " {" + describe(append(make([]byte, 14), l4[8:]...)) + "}"
		}
	default:
		s += fmt.Sprintf(" proto %d", h[9])
	}
	return s
}

func flagNames(f uint8) string {
	s := ""
	for i, n := range []string{"F", "S", "R", "P", "A", "U", "E", "C"} {
		if f>>i&1 != 0 {
			s += n
		}
	}
	if s == "" {
		return "-"
	}
	return s
}

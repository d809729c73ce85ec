package differential

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
)

// The network of the comparison.
const (
	lanAddr = "10.0.0.1"
	wanAddr = "203.0.113.10"
	gateway = "203.0.113.1"
	server  = "10.0.0.5" // has DNAT entries
	syncLAN = "10.0.0.250"
	syncWAN = "203.0.113.250"
)

var (
	lanHosts = []string{"10.0.0.2", "10.0.0.3", server}
	wanHosts = []string{"198.51.100.80", "192.0.2.7", "203.0.113.77"}
)

func ip(s string) packet.Addr {
	a := netip.MustParseAddr(s).As4()
	return packet.Addr(binary.BigEndian.Uint32(a[:]))
}

func macOf(a packet.Addr) [6]byte {
	return [6]byte{2, 9, byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}
}

func str(a packet.Addr) string {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}).String()
}

// ends are the addresses and ports of a packet. For ICMP, sport is the
// identifier.
type ends struct {
	src, dst     packet.Addr
	sport, dport uint16
}

func (e ends) swap() ends { return ends{e.dst, e.src, e.dport, e.sport} }

// A spec is a packet without its addresses.
type spec struct {
	proto     uint8
	flags     uint8 // TCP
	seq, ack  uint32
	win       uint16
	opts      []byte // TCP options
	typ, code uint8  // ICMP
	rest      uint32 // second word of an ICMP error
	data      []byte
	ttl       uint8
	id        uint16
	df        bool
	ipopts    []byte
	badIP     bool   // wrong header checksum
	badL4     bool   // wrong transport checksum
	noL4      bool   // UDP without a checksum
	udpLen    int    // added to the UDP length
	totalLen  int    // added to the IP total length, after the checksum is right
	cut       int    // bytes cut off the frame's end
	pad       int    // bytes added behind the IP packet
	frag      uint16 // flags and offset field
	offset    uint8  // TCP data offset, if not 0
	reserved  uint8  // other bits of byte 12 of the TCP header
	urg       uint16
	version   uint8 // IP version, if not 0
	ihl       uint8 // header length in words, if not 0
	tos       uint8
	embedCut  int   // bytes kept of an embedded packet; 0: all
	embedBad  bool  // wrong header checksum in the embedded packet
	part      *part // only this fragment of the packet
}

func put16(b []byte, v int) { binary.BigEndian.PutUint16(b, uint16(v)) }

// l4 builds the transport part.
func (s *spec) l4(e ends) []byte {
	var b []byte
	off := -1
	switch s.proto {
	case packet.TCP:
		b = make([]byte, 20+len(s.opts))
		binary.BigEndian.PutUint32(b[4:], s.seq)
		binary.BigEndian.PutUint32(b[8:], s.ack)
		b[12] = byte(len(b)/4)<<4 | s.reserved
		if s.offset != 0 {
			b[12] = s.offset<<4 | s.reserved
		}
		b[13] = s.flags
		binary.BigEndian.PutUint16(b[14:], s.win)
		binary.BigEndian.PutUint16(b[18:], s.urg)
		copy(b[20:], s.opts)
		off = 16
	case packet.UDP:
		b = make([]byte, 8)
		put16(b[4:], 8+len(s.data)+s.udpLen)
		off = 6
	case packet.ICMP:
		b = make([]byte, 8)
		b[0], b[1] = s.typ, s.code
		if isQuery(s.typ) {
			binary.BigEndian.PutUint16(b[4:], e.sport)
			binary.BigEndian.PutUint16(b[6:], uint16(s.seq))
		} else {
			binary.BigEndian.PutUint32(b[4:], s.rest)
		}
		off = 2
	}
	if s.proto == packet.TCP || s.proto == packet.UDP {
		binary.BigEndian.PutUint16(b, e.sport)
		binary.BigEndian.PutUint16(b[2:], e.dport)
	}
	b = append(b, s.data...)
	if off < 0 || s.proto == packet.UDP && s.noL4 {
		return b
	}
	start := uint64(0)
	if s.proto != packet.ICMP {
		start = uint64(e.src) + uint64(e.dst) + uint64(s.proto) + uint64(len(b))
	}
	c := ^packet.Sum(b, start)
	if c == 0 && s.proto == packet.UDP {
		c = 0xffff
	}
	if s.badL4 { // by a difference that translation keeps
		d := uint32(^c) + 0x1234
		c = ^uint16(d&0xffff + d>>16)
	}
	binary.BigEndian.PutUint16(b[off:], c)
	return b
}

func isQuery(typ uint8) bool {
	switch typ {
	case 0, 8, 13, 14, 15, 16, 17, 18:
		return true
	}
	return false
}

// ip builds the IPv4 packet.
func (s *spec) ip(e ends) []byte {
	l4 := s.l4(e)
	hl := 20 + len(s.ipopts)
	b := make([]byte, hl, hl+len(l4))
	b[0], b[1] = 0x40|byte(hl/4), s.tos
	if s.version != 0 {
		b[0] = s.version<<4 | byte(hl/4)
	}
	if s.ihl != 0 {
		b[0] = b[0]&0xf0 | s.ihl
	}
	put16(b[2:], hl+len(l4)+s.totalLen)
	binary.BigEndian.PutUint16(b[4:], s.id)
	f := s.frag
	if s.df {
		f |= 0x4000
	}
	binary.BigEndian.PutUint16(b[6:], f)
	b[8] = s.ttl
	b[9] = s.proto
	binary.BigEndian.PutUint32(b[12:], uint32(e.src))
	binary.BigEndian.PutUint32(b[16:], uint32(e.dst))
	copy(b[20:], s.ipopts)
	c := ^packet.Sum(b, 0)
	if s.badIP {
		c ^= 0x4321
	}
	binary.BigEndian.PutUint16(b[10:], c)
	return append(b, l4...)
}

// A part is a fragment: some bytes of a packet behind its header.
type part struct{ off, n int }

// of cuts the fragment out of a whole packet.
func (p *part) of(b []byte) []byte {
	hl := int(b[0]&15) * 4
	to := min(p.off+p.n, len(b)-hl)
	f := append(append([]byte(nil), b[:hl]...), b[hl+p.off:hl+to]...)
	put16(f[2:], len(f))
	v := uint16(p.off / 8)
	if to < len(b)-hl {
		v |= 0x2000
	}
	binary.BigEndian.PutUint16(f[6:], v)
	f[10], f[11] = 0, 0
	binary.BigEndian.PutUint16(f[10:], ^packet.Sum(f[:hl], 0))
	return f
}

// frame builds the frame that arrives at a side: from the neighbour that would
// send it, to the firewall's port.
func (s *spec) frame(side replay.Side, e ends) []byte {
	f := make([]byte, packet.EthLen, 1600)
	from := macOf(hop(side, e.src))
	packet.PutEth(f, &replay.DefaultMAC[side], &from, packet.TypeIPv4)
	b := s.ip(e)
	if s.part != nil {
		b = s.part.of(b)
	}
	f = append(f, b...)
	if s.cut > 0 && s.cut < len(f)-packet.EthLen {
		f = f[:len(f)-s.cut]
	}
	return append(f, make([]byte, s.pad)...)
}

// hop is the neighbour behind which an address is.
func hop(side replay.Side, a packet.Addr) packet.Addr {
	if side == replay.WAN && a>>8 != ip(wanAddr)>>8 {
		return ip(gateway)
	}
	return a
}

// marker is the frame that follows each packet through the router.
func marker(seq uint64) []byte {
	s := spec{proto: packet.UDP, ttl: 64, data: []byte(fmt.Sprintf("differential marker %016x", seq))}
	return s.frame(replay.LAN, ends{ip(syncLAN), ip(syncWAN), 7, 7})
}

// greeting is the ARP request by which a neighbour makes itself known to the
// firewall.
func greeting(side replay.Side, a string) []byte {
	own := [2]string{lanAddr, wanAddr}[side]
	f := make([]byte, 60)
	packet.PutARP(f, &replay.DefaultMAC[side], &packet.ARPMessage{Op: packet.ARPRequest, SenderMAC: macOf(ip(a)), SenderAddr: ip(a), TargetAddr: ip(own)})
	return f
}

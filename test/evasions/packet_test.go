package evasions

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

func ip(s string) packet.Addr {
	a := netip.MustParseAddr(s).As4()
	return packet.Addr(binary.BigEndian.Uint32(a[:]))
}

func text(a packet.Addr) string {
	return fmt.Sprintf("%d.%d.%d.%d", byte(a>>24), byte(a>>16), byte(a>>8), byte(a))
}

const urg = 1 << 5

// A pkt describes a packet to send. Fields that are zero take what is usual.
type pkt struct {
	src, dst     string
	sport, dport uint16
	proto        uint8
	flags        uint8 // of TCP
	seq, ack     uint32
	win, urgent  uint16
	opts         []byte // of TCP, a multiple of 4
	typ, code    uint8  // of ICMP
	rest         uint32 // of ICMP: the second word
	ttl          uint8
	id           uint16
	frag         uint16 // flags and offset of the IP header
	ipopts       []byte // a multiple of 4
	data         []byte
	offset       uint8 // TCP's data offset, in place of the right one
	length       int   // that the IP header says, in place of the right one
	badIP, bad4  bool  // wrong checksums
	to, from     *[6]byte
}

func tcp(src string, sport uint16, dst string, dport uint16, flags uint8, seq, ack uint32, data ...byte) pkt {
	return pkt{src: src, sport: sport, dst: dst, dport: dport, proto: packet.TCP, flags: flags, seq: seq, ack: ack, data: data}
}

func udp(src string, sport uint16, dst string, dport uint16, data string) pkt {
	return pkt{src: src, sport: sport, dst: dst, dport: dport, proto: packet.UDP, data: []byte(data)}
}

func icmp(src, dst string, typ, code uint8, rest uint32, data []byte) pkt {
	return pkt{src: src, dst: dst, proto: packet.ICMP, typ: typ, code: code, rest: rest, data: data}
}

func echo(src, dst string, id uint16) pkt {
	return icmp(src, dst, packet.EchoRequest, 0, uint32(id)<<16|1, []byte("abcdefgh"))
}

// transport returns what follows the IP header.
func (p pkt) transport() []byte {
	var b []byte
	sum := -1
	switch p.proto {
	case packet.TCP:
		b = make([]byte, 20, 20+len(p.opts)+len(p.data))
		binary.BigEndian.PutUint32(b[4:], p.seq)
		binary.BigEndian.PutUint32(b[8:], p.ack)
		b[12] = byte(5+len(p.opts)/4) << 4
		if p.offset != 0 {
			b[12] = p.offset << 4
		}
		b[13] = p.flags
		win := p.win
		if win == 0 {
			win = 60000
		}
		binary.BigEndian.PutUint16(b[14:], win)
		binary.BigEndian.PutUint16(b[18:], p.urgent)
		b = append(b, p.opts...)
		sum = 16
	case packet.UDP:
		b = make([]byte, 8, 8+len(p.data))
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(p.data)))
		sum = 6
	case packet.ICMP:
		b = make([]byte, 8, 8+len(p.data))
		b[0], b[1] = p.typ, p.code
		binary.BigEndian.PutUint32(b[4:], p.rest)
		sum = 2
	}
	if p.proto == packet.TCP || p.proto == packet.UDP {
		binary.BigEndian.PutUint16(b, p.sport)
		binary.BigEndian.PutUint16(b[2:], p.dport)
	}
	b = append(b, p.data...)
	if sum >= 0 {
		var pseudo uint64
		if p.proto != packet.ICMP {
			pseudo = uint64(ip(p.src)) + uint64(ip(p.dst)) + uint64(p.proto) + uint64(len(b))
		}
		binary.BigEndian.PutUint16(b[sum:], ^packet.Sum(b, pseudo))
		if p.bad4 {
			b[sum] ^= 0x55
		}
	}
	return b
}

// network returns an IP packet around what follows its header.
func (p pkt) network(l4 []byte) []byte {
	b := make([]byte, 20, 60+len(l4))
	ttl := p.ttl
	if ttl == 0 {
		ttl = 64
	}
	b[0], b[8], b[9] = 0x40|byte(5+len(p.ipopts)/4), ttl, p.proto
	b = append(b, p.ipopts...)
	n := len(b) + len(l4)
	if p.length != 0 {
		n = p.length
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], p.frag)
	binary.BigEndian.PutUint32(b[12:], uint32(ip(p.src)))
	binary.BigEndian.PutUint32(b[16:], uint32(ip(p.dst)))
	binary.BigEndian.PutUint16(b[10:], ^packet.Sum(b, 0))
	if p.badIP {
		b[10] ^= 0x55
	}
	return append(b, l4...)
}

func (p pkt) frame(to, from [6]byte) []byte { return ethernet(to, from, p.network(p.transport())) }

func ethernet(to, from [6]byte, ip []byte) []byte {
	f := make([]byte, packet.EthLen, packet.EthLen+len(ip))
	packet.PutEth(f, &to, &from, packet.TypeIPv4)
	return append(f, ip...)
}

// A piece is a fragment: where it begins, what is in it, and whether others
// follow.
type piece struct {
	at   int
	data []byte
	more bool
}

// cut divides what follows p's IP header into pieces, each but the last of n
// bytes.
func (p pkt) cut(n int) (ps []piece) {
	b := p.transport()
	for at := 0; at < len(b); at += n {
		end := min(at+n, len(b))
		ps = append(ps, piece{at, slices.Clone(b[at:end]), end < len(b)})
	}
	return ps
}

// fragments are the frames of pieces of p.
func (a *arena) fragments(s side, p pkt, ps ...piece) (fs [][]byte) {
	a.id++
	p.id = a.id
	for _, x := range ps {
		p.frag = p.frag&0x4000 | uint16(x.at/8)
		if x.more {
			p.frag |= 0x2000
		}
		f := a.frame(s, pkt{src: p.src, dst: p.dst, id: p.id}) // for its addresses
		fs = append(fs, append(slices.Clone(f[:packet.EthLen]), p.network(x.data)...))
	}
	return fs
}

// A view is a packet that left the firewall.
type view struct {
	src, dst     string
	proto        uint8
	ttl          uint8
	id           uint16
	sport, dport uint16
	flags        uint8
	seq, ack     uint32
	win, urgent  uint16
	opts         []byte
	typ, code    uint8
	rest         uint32
	data         []byte // behind the transport header
	ip           []byte
	bad          string  // why a host would not take it
	to           [6]byte // the frame's destination
}

func (v *view) String() string {
	return fmt.Sprintf("%s:%d > %s:%d proto %d ttl %d flags %#x seq %d ack %d type %d/%d %d bytes %s", v.src, v.sport, v.dst, v.dport, v.proto, v.ttl, v.flags, v.seq, v.ack, v.typ, v.code, len(v.data), v.bad)
}

// look reads an IP packet that is whole.
func look(b []byte) *view {
	v := &view{ip: b}
	if len(b) < 20 || b[0]>>4 != 4 || int(b[0]&15)*4 > len(b) || int(binary.BigEndian.Uint16(b[2:])) > len(b) || int(b[0]&15)*4 > int(binary.BigEndian.Uint16(b[2:])) {
		v.bad = "no IP packet"
		return v
	}
	hl := int(b[0]&15) * 4
	b = b[:binary.BigEndian.Uint16(b[2:])]
	v.ip = b
	v.ttl, v.proto, v.id = b[8], b[9], binary.BigEndian.Uint16(b[4:])
	src, dst := packet.Addr(binary.BigEndian.Uint32(b[12:])), packet.Addr(binary.BigEndian.Uint32(b[16:]))
	v.src, v.dst = text(src), text(dst)
	if packet.Sum(b[:hl], 0) != 0xffff {
		v.bad = "IP checksum"
	}
	l4 := b[hl:]
	unsummed := false
	pseudo := uint64(src) + uint64(dst) + uint64(v.proto) + uint64(len(l4))
	switch {
	case v.proto == packet.TCP && len(l4) >= 20 && int(l4[12]>>4) >= 5 && int(l4[12]>>4)*4 <= len(l4):
		v.seq, v.ack, v.flags = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]), l4[13]
		v.win, v.urgent = binary.BigEndian.Uint16(l4[14:]), binary.BigEndian.Uint16(l4[18:])
		n := int(l4[12]>>4) * 4
		v.opts, v.data = l4[20:n], l4[n:]
	case v.proto == packet.UDP && len(l4) >= 8 && int(binary.BigEndian.Uint16(l4[4:])) == len(l4):
		v.data = l4[8:]
		unsummed = binary.BigEndian.Uint16(l4[6:]) == 0
	case v.proto == packet.ICMP && len(l4) >= 8:
		v.typ, v.code, v.rest, v.data = l4[0], l4[1], binary.BigEndian.Uint32(l4[4:]), l4[8:]
		pseudo = 0
	default:
		v.bad = "transport header"
		v.data = l4
		return v
	}
	if v.proto != packet.ICMP {
		v.sport, v.dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	}
	if !unsummed && packet.Sum(l4, pseudo) != 0xffff {
		v.bad = "checksum"
	}
	return v
}

// A whole is a datagram of which fragments have come.
type whole struct {
	head []byte
	data []byte
	have []bool
	end  int // 0: not known
}

// maxWhole bounds a datagram: more than IP can say, which is what "ping of
// death" is about.
const maxWhole = 70000

// add takes a frame with IP and returns the packet when it is whole. Hosts keep
// what came first where fragments overlap.
func (ws wholes) add(f []byte) *view {
	if packet.Type(f) != packet.TypeIPv4 || len(f) < packet.EthLen+20 {
		return look(nil)
	}
	b := f[packet.EthLen:]
	w := binary.BigEndian.Uint16(b[6:])
	hl, n := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if w&0x3fff == 0 || hl < 20 || n < hl || n > len(b) {
		return look(slices.Clone(b))
	}
	key := string(b[4:6]) + string(b[9:10]) + string(b[12:20])
	d := ws[key]
	if d == nil {
		d = &whole{data: make([]byte, maxWhole), have: make([]bool, maxWhole)}
		ws[key] = d
	}
	at := int(w&0x1fff) * 8
	if at == 0 {
		d.head = slices.Clone(b[:hl])
	}
	for i, c := range b[hl:n] {
		if at+i < maxWhole && !d.have[at+i] {
			d.data[at+i], d.have[at+i] = c, true
		}
	}
	if w&0x2000 == 0 {
		d.end = at + n - hl
	}
	if d.end == 0 || d.head == nil || d.end > maxWhole || slices.Contains(d.have[:d.end], false) {
		return nil
	}
	delete(ws, key)
	binary.BigEndian.PutUint16(d.head[2:], uint16(len(d.head)+d.end))
	binary.BigEndian.PutUint16(d.head[6:], 0)
	binary.BigEndian.PutUint16(d.head[10:], 0)
	binary.BigEndian.PutUint16(d.head[10:], ^packet.Sum(d.head, 0))
	return look(append(d.head, d.data[:d.end]...))
}

type wholes map[string]*whole

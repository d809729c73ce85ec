package main

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/thurward/thurward/internal/shared/packet"
)

// endpoints is how many internal endpoints there are: flows beyond it are to other servers.
const endpoints = 60 << 10

// host returns the host of an internal endpoint.
func (m *machine) host(e int) packet.Addr {
	h := 10<<24 | 1<<16 | 2 + packet.Addr(e>>14)
	if m.others {
		h |= 1 << 15
	}
	return h
}

// frame makes the shortest frame of flow i, 60 bytes: a datagram, or a segment with flags of
// a connection.
func (m *machine) frame(i int, proto, flags uint8) []byte {
	e := i % endpoints
	data, seq := make([]byte, 60-packet.EthLen-packet.MinIPv4-packet.UDPLen), uint32(1000)
	if proto == packet.TCP {
		data = make([]byte, 60-packet.EthLen-packet.MinIPv4-packet.TCPLen)
		if flags&packet.SYN != 0 {
			data = nil
		} else {
			seq++
		}
	}
	t := packet.Tuple{Src: m.host(e), Dst: web + packet.Addr(i/endpoints), SrcPort: uint16(16384 + e&0x3fff), DstPort: port, Proto: uint32(proto)}
	return build(m.dev[lan].mac, &t, flags, seq, 5001, data)
}

// build makes a frame. The last arguments are of TCP, but for the data.
func build(to [6]byte, t *packet.Tuple, flags uint8, seq, ack uint32, data []byte) []byte {
	n, sum := packet.UDPLen, 6
	if t.Proto == packet.TCP {
		n, sum = packet.TCPLen, 16
	}
	f := make([]byte, packet.EthLen+packet.MinIPv4+n+len(data))
	packet.PutEth(f, &to, &peerMAC, packet.TypeIPv4)
	ip := f[packet.EthLen:]
	packet.PutIPv4(ip, t.Src, t.Dst, uint8(t.Proto), 64, n+len(data))
	packet.SetDF(ip) // as practically all hosts do
	l4 := ip[packet.MinIPv4:]
	binary.BigEndian.PutUint16(l4, t.SrcPort)
	binary.BigEndian.PutUint16(l4[2:], t.DstPort)
	copy(l4[n:], data)
	if t.Proto == packet.TCP {
		binary.BigEndian.PutUint32(l4[4:], seq)
		binary.BigEndian.PutUint32(l4[8:], ack)
		l4[12], l4[13] = packet.TCPLen/4<<4, flags
		binary.BigEndian.PutUint16(l4[14:], 0xffff)
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	}
	binary.BigEndian.PutUint16(l4[sum:], ^packet.Sum(l4, uint64(t.Src)+uint64(t.Dst)+uint64(t.Proto)+uint64(len(l4))))
	return f
}

// shake returns the answer to a segment of a handshake, or nil.
func (m *machine) shake(side int, f []byte) []byte {
	var p packet.Packet
	if _, why := packet.ParseIPv4(f, &p); why != 0 || p.Class != packet.ClassTCP {
		return nil
	}
	back := packet.Tuple{Src: p.Dst, Dst: p.Src, SrcPort: p.DstPort, DstPort: p.SrcPort, Proto: packet.TCP}
	switch p.Flags {
	case packet.SYN:
		return build(m.dev[side].mac, &back, packet.SYN|packet.ACK, 5000, p.Seq+1, nil)
	case packet.SYN | packet.ACK:
		return build(m.dev[side].mac, &back, packet.ACK, p.Ack, p.Seq+1, nil)
	}
	return nil
}

// set makes the frames that are received the first of each of n flows.
func (m *machine) set(n int, proto, flags uint8) {
	m.size = len(m.frame(0, proto, flags))
	m.frames, m.at = huge(n*m.size, true), 0
	for i := range n {
		copy(m.frames[i*m.size:], m.frame(i, proto, flags))
	}
}

// shuffle puts the frames into another order than that in which flows began.
func (m *machine) shuffle() {
	to := huge(len(m.frames), true)
	for i, j := range rand.New(rand.NewPCG(1, 2)).Perm(len(m.frames) / m.size) {
		copy(to[j*m.size:], m.frames[i*m.size:][:m.size])
	}
	m.frames = to
}

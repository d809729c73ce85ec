package main

import "encoding/binary"

// endpoints is how many LAN endpoints the flows come from. It is below the
// number of ports of one external address: with endpoint-independent mapping
// (RFC 4787 REQ-1) each takes one. More flows than that go to more destinations.
const endpoints = 32768

// imix is the mix of frame lengths (without FCS) of the usual "simple IMIX".
var imix = [...]int{60, 60, 60, 60, 60, 60, 60, 590, 590, 590, 590, 1514}

// A stream makes the frames of a set of flows from LAN hosts to servers.
type stream struct {
	tcp      bool // large segments
	pair     int  // its flows are those of one of so many workers
	pairs    int
	flows    int
	size     int  // frame length; 0: IMIX
	fresh    bool // each frame begins a new flow
	next     uint64
	template [1514]byte
	ipSum    uint32 // of the header without addresses, identification and length
}

// newStream makes a stream whose frames are for the firewall's LAN address.
func newStream(flows, size int, fresh bool, src, dst [6]byte) *stream {
	s := &stream{pairs: 1, flows: flows, size: size, fresh: fresh}
	f := s.template[:]
	copy(f[0:], dst[:])
	copy(f[6:], src[:])
	copy(f[12:], []byte{8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17})
	for i := 42; i < len(f); i++ {
		f[i] = byte(i)
	}
	s.ipSum = 0x4500 + 0x4000 + 64<<8 + 17
	return s
}

// flow returns the number of the next flow of its stream.
func (s *stream) flow() uint64 {
	i := s.next
	s.next++
	if !s.fresh {
		i %= uint64(s.flows)
	}
	if s.pairs == 1 {
		return i
	}
	// Of two workers each has every other pair of ports (docs/adr/0044).
	return i>>1<<2 | uint64(s.pair)<<1 | i&1
}

// endpoint returns the addresses of flow i.
func endpoint(i uint64) (src, sport, dst uint32) {
	e := uint32(i % endpoints)
	src = 10<<24 | 1<<16 | e>>7<<8 | e&0x7f + 1                                // 10.1.0.1 to 10.1.255.128
	return src, 1024 + e, uint32(198<<24|18<<16) + uint32(i/endpoints)&0x1ffff // 198.18.0.0/15 (RFC 2544)
}

// fill writes the next frame of UDP and returns its length.
func (s *stream) fill(b []byte) int {
	i := s.flow()
	ln := s.size
	if ln == 0 {
		ln = imix[s.next%uint64(len(imix))]
	}
	src, sport, dst := endpoint(i)
	f := b[:ln]
	copy(f, s.template[:ln])
	ip, udp := f[14:34], f[34:]
	total, ulen := uint32(ln-14), uint32(ln-34)
	binary.BigEndian.PutUint16(ip[2:], uint16(total))
	binary.BigEndian.PutUint32(ip[12:], src)
	binary.BigEndian.PutUint32(ip[16:], dst)
	addrs := src>>16 + src&0xffff + dst>>16 + dst&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^fold(s.ipSum+total+addrs))
	binary.BigEndian.PutUint16(udp, uint16(sport))
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(ulen))
	if ln == 60 { // the payload's sum is known
		binary.BigEndian.PutUint16(udp[6:], ^fold(addrs+17+2*ulen+sport+9+payload60))
	} else {
		binary.BigEndian.PutUint16(udp[6:], 0) // none (RFC 768)
	}
	return ln
}

// payload60 is the sum of the template's payload in a 60-byte frame.
var payload60 = func() (s uint32) {
	for i := 42; i < 60; i += 2 {
		s += uint32(i)<<8 | uint32(i+1)
	}
	return s
}()

func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s)
}

// answer turns a frame that reached the WAN into its answer: addresses and
// ports exchanged, which leaves checksums as they are.
func answer(f []byte) []byte {
	r := append([]byte(nil), f...)
	copy(r[0:], f[6:12])
	copy(r[6:], f[0:6])
	copy(r[26:], f[30:34])
	copy(r[30:], f[26:30])
	copy(r[34:], f[36:38])
	copy(r[36:], f[34:36])
	return r
}

// isUDP reports whether a frame carries IPv4 and UDP without options.
func isUDP(f []byte) bool {
	return len(f) >= 42 && f[12] == 8 && f[13] == 0 && f[14] == 0x45 && f[23] == 17
}

package packet

import "encoding/binary"

// ARP operations (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// An ARP message for IPv4 over Ethernet.
type ARPMessage struct {
	Op         uint16
	SenderMAC  [6]byte
	SenderAddr Addr
	TargetMAC  [6]byte
	TargetAddr Addr
}

// ParseARP reads the ARP message in a frame. It reports false for a message that is too
// short or not for IPv4 over Ethernet.
func ParseARP(f []byte, m *ARPMessage) bool {
	if len(f) < EthLen+ARPLen {
		return false
	}
	a := f[EthLen : EthLen+ARPLen]
	if binary.BigEndian.Uint64(a)>>16 != 0x000108000604 {
		return false
	}
	m.Op = binary.BigEndian.Uint16(a[6:])
	m.SenderMAC = [6]byte(a[8:])
	m.SenderAddr = Addr(binary.BigEndian.Uint32(a[14:]))
	m.TargetMAC = [6]byte(a[18:])
	m.TargetAddr = Addr(binary.BigEndian.Uint32(a[24:]))
	return m.Op == ARPRequest || m.Op == ARPReply
}

// PutARP writes a whole frame with message m to f, padded to the minimum of 60
// bytes, and returns its length.
func PutARP(f []byte, dst *[6]byte, m *ARPMessage) int {
	const n = 60
	clear(f[:n])
	PutEth(f, dst, &m.SenderMAC, TypeARP)
	a := f[EthLen:]
	binary.BigEndian.PutUint16(a, 1)
	binary.BigEndian.PutUint16(a[2:], TypeIPv4)
	a[4], a[5] = 6, 4
	binary.BigEndian.PutUint16(a[6:], m.Op)
	copy(a[8:], m.SenderMAC[:])
	binary.BigEndian.PutUint32(a[14:], uint32(m.SenderAddr))
	copy(a[18:], m.TargetMAC[:])
	binary.BigEndian.PutUint32(a[24:], uint32(m.TargetAddr))
	return n
}

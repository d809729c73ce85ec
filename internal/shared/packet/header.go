package packet

import "encoding/binary"

// SetDF, SetID and SetTOS change one field of the IPv4 header at the beginning of ip, and
// its checksum.

// SetDF sets the don't fragment flag. The packet is then atomic, and its identification
// without meaning (RFC 6864 section 4.1).
func SetDF(ip []byte) { setWord(ip, offFrag, binary.BigEndian.Uint16(ip[offFrag:])|flagDF) }

// SetID sets the identification: see SetDF.
func SetID(ip []byte, id uint16) { setWord(ip, offID, id) }

// SetTOS sets the type of service, today's DS field and ECN: see SetDF.
func SetTOS(ip []byte, tos uint8) { setWord(ip, 0, uint16(ip[0])<<8|uint16(tos)) }

// TOS returns the type of service.
func TOS(ip []byte) uint8 { return ip[1] }

func setWord(ip []byte, off int, v uint16) {
	_ = ip[MinIPv4-1]
	old := binary.BigEndian.Uint16(ip[off:])
	binary.BigEndian.PutUint16(ip[off:], v)
	binary.BigEndian.PutUint16(ip[offSum:], update(binary.BigEndian.Uint16(ip[offSum:]), delta16(old, v)))
}

package packet

import "encoding/binary"

// TCP options (RFC 9293 section 3.1).
const (
	optEnd = 0
	optNop = 1
	optMSS = 2 // of length 4
)

// ClampMSS lowers the maximum segment size of a SYN to limit, if it is larger, and reports
// whether it was. l4 begins with the TCP header, whose data offset must lie inside l4. The
// checksum stays correct. A SYN without the option is not changed: its sender gets segments
// of at most 536 bytes. If the option is repeated all are lowered: ends use the last.
func ClampMSS(l4 []byte, limit uint16) (lowered bool) {
	end := int(l4[12]>>4) * 4
	for i := TCPLen; i < end && l4[i] != optEnd; {
		if l4[i] == optNop {
			i++
			continue
		}
		if i+1 >= end || l4[i+1] < 2 || i+int(l4[i+1]) > end {
			break
		}
		if l4[i] == optMSS && l4[i+1] == 4 {
			lowered = lower(l4, i+2, limit) || lowered
		}
		i += int(l4[i+1])
	}
	return lowered
}

// lower writes limit over the 16-bit number at i of the TCP header at the beginning of l4,
// if that is larger, and reports whether it was.
func lower(l4 []byte, i int, limit uint16) bool {
	old := binary.BigEndian.Uint16(l4[i:])
	if old <= limit {
		return false
	}
	binary.BigEndian.PutUint16(l4[i:], limit)
	d := delta16(old, limit)
	if i%2 != 0 { // its bytes lie in two words of the sum, swapped
		d = delta16(old<<8|old>>8, limit<<8|limit>>8)
	}
	binary.BigEndian.PutUint16(l4[offTCPSum:], update(binary.BigEndian.Uint16(l4[offTCPSum:]), d))
	return true
}

// PutReset writes the RST that answers the TCP segment at l4, whose payload has n bytes, to
// m, which must have TCPLen bytes; src and dst are the RST's addresses (RFC 9293 section
// 3.10.7.1).
func PutReset(m, l4 []byte, n int, src, dst Addr) {
	m = m[:TCPLen]
	clear(m)
	copy(m, l4[2:4])
	copy(m[2:], l4[:2])
	m[12] = TCPLen / 4 << 4
	if flags := l4[13]; flags&ACK != 0 {
		copy(m[4:8], l4[8:12]) // <SEQ=SEG.ACK><CTL=RST>
		m[13] = RST
	} else {
		next := binary.BigEndian.Uint32(l4[4:]) + uint32(n) // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
		if flags&SYN != 0 {
			next++
		}
		if flags&FIN != 0 {
			next++
		}
		binary.BigEndian.PutUint32(m[8:], next)
		m[13] = RST | ACK
	}
	p := Packet{Src: src, Dst: dst, Proto: TCP}
	binary.BigEndian.PutUint16(m[offTCPSum:], ^Sum(m, pseudo(&p, TCPLen)))
}

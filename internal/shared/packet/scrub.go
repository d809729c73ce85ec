package packet

import "encoding/binary"

// URG is the TCP flag of urgent data. Only the inspection of streams uses it.
const URG = 1 << 5

// Options that ScrubTCP keeps, beside those that ClampMSS reads.
const (
	optScale         = 3 // of length 3
	optSACKPermitted = 4 // 2
	optSACK          = 5 // 2 + 8n
	optTimestamps    = 8 // 10
)

// A Clock is the newest timestamp of one end of a TCP connection (RFC 7323).
type Clock struct {
	Value uint32
	Known bool
}

// ScrubTCP changes the options of the TCP segment at the beginning of l4 so that every end
// accepts the segment and interprets it in the same way. It keeps, once each, window scale,
// maximum segment size and SACK-permitted in a SYN, SACK in other segments, and timestamps.
// All others become no-operations: ends drop segments with an unexpected signature, and
// some options determine where data belong (RFC 8684). A timestamp older than c, for which
// an end would drop the segment (RFC 7323 section 5.3), becomes c's; c takes a newer one.
// The data offset must lie inside l4. The checksum stays correct.
func ScrubTCP(l4 []byte, c *Clock) {
	end := int(l4[12]>>4) * 4
	if end == TCPLen {
		return
	}
	syn := l4[13]&SYN != 0
	var clean [40]byte
	n := copy(clean[:], l4[TCPLen:end])
	o := clean[:n]
	var seen uint64 // kinds
	for i := 0; i < len(o); {
		kind := o[i]
		if kind == optNop {
			i++
			continue
		}
		if kind == optEnd {
			clear(o[i:])
			break
		}
		size := len(o) - i // an invalid length: all the rest
		if i+1 < len(o) && int(o[i+1]) >= 2 && int(o[i+1]) <= size {
			size = int(o[i+1])
		} else {
			kind = optNop
		}
		if !keeps(kind, size, syn) || seen>>kind&1 != 0 {
			for j := range size {
				o[i+j] = optNop
			}
		} else if seen |= 1 << kind; kind == optTimestamps {
			v := binary.BigEndian.Uint32(o[i+2:])
			if c.Known && int32(v-c.Value) < 0 {
				v = c.Value
				binary.BigEndian.PutUint32(o[i+2:], v)
			}
			*c = Clock{v, true}
		}
		i += size
	}
	// d does not tell whether anything changes: it is 0 for ones that become zeros.
	var d uint32
	changed := false
	for i := 0; i < len(o); i += 2 {
		old, new := binary.BigEndian.Uint16(l4[TCPLen+i:]), binary.BigEndian.Uint16(o[i:])
		if old != new {
			d += delta16(old, new)
			changed = true
		}
	}
	if changed {
		copy(l4[TCPLen:end], o)
		binary.BigEndian.PutUint16(l4[offTCPSum:], update(binary.BigEndian.Uint16(l4[offTCPSum:]), d))
	}
}

// keeps reports whether an option of this kind and length is kept.
func keeps(kind byte, size int, syn bool) bool {
	switch kind {
	case optMSS:
		return syn && size == 4
	case optScale:
		return syn && size == 3
	case optSACKPermitted:
		return syn && size == 2
	case optSACK:
		return !syn && size >= 10 && size%8 == 2
	case optTimestamps:
		return size == 10
	}
	return false
}

// RaiseTTL raises the TTL of the IPv4 packet in frame f, which p describes, to at least
// ttl.
func RaiseTTL(f []byte, p *Packet, ttl uint8) {
	if p.TTL >= ttl {
		return
	}
	p.TTL = ttl
	setWord(f[EthLen:], offTTL, uint16(ttl)<<8|uint16(p.Proto))
}

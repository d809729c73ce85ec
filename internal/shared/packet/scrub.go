package packet

import "encoding/binary"

// URG is the TCP flag of urgent data. It is apart from those that matter to most:
// only who reads a stream has to know it.
const URG = 1 << 5

// Options that ScrubTCP leaves, beside those that ClampMSS knows.
const (
	optScale         = 3 // its length is 3
	optSACKPermitted = 4 // 2
	optSACK          = 5 // 2 + 8n
	optTimestamps    = 8 // 10
)

// A Clock is the newest timestamp of one end of a TCP connection (RFC 7323).
type Clock struct {
	Value uint32
	Known bool
}

// ScrubTCP makes the options of the TCP segment that l4 begins with such that
// every end takes the segment, and reads it in the same way: what remains of
// them are, once each, window scale, segment size and whether selective
// acknowledgements are welcome in a SYN, selective acknowledgements in others, and
// timestamps. The rest becomes no-operations: ends drop segments with a signature
// that they do not expect, and some options say where data belong (RFC 8684). A
// timestamp older than c, for which an end would drop the segment (RFC 7323 section
// 5.3), becomes c's; a newer one is c's from then on. The data offset must lie
// inside l4. The checksum stays right.
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
		size := len(o) - i // of what nobody can read: all the rest
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
	// Whether anything changes is not what d says: it is 0 for ones that become
	// zeros.
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

// keeps reports whether an option of this length may remain.
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

// RaiseTTL makes the TTL of the IPv4 packet in frame f, which p describes, at least
// ttl.
func RaiseTTL(f []byte, p *Packet, ttl uint8) {
	if p.TTL >= ttl {
		return
	}
	p.TTL = ttl
	setWord(f[EthLen:], offTTL, uint16(ttl)<<8|uint16(p.Proto))
}

package dnsproxy

import "encoding/binary"

// Messages (RFC 1035 section 4) are parsed in place, with bounded work: compression
// pointers must point backwards, so that there are no loops, and names have at most
// 255 bytes. Responses are relayed only if all names are such: see wellformed.go.

const (
	headerLen = 12
	maxName   = 255
	maxMsg    = 65535
	minUDP    = 512 // what every client accepts (RFC 1035 section 4.2.1)

	// upstreamSize is the UDP payload size announced to upstreams and to
	// clients. It avoids fragmentation on almost all paths.
	upstreamSize = 1232
)

// Bits of the header's second word.
const (
	flagQR     = 1 << 15
	opcodeMask = 15 << 11
	flagTC     = 1 << 9
	flagRD     = 1 << 8
	flagRA     = 1 << 7
	flagZ      = 1 << 6
	flagAD     = 1 << 5
	flagCD     = 1 << 4
	rcodeMask  = 15
)

// Response codes.
const (
	rcodeNoError  = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeBadVers  = 16 // extended (RFC 6891 section 9)
)

// Types and the class.
const (
	typeA     = 1
	typeCNAME = 5
	typeOPT   = 41
	typeSVCB  = 64
	typeHTTPS = 65
	typeIXFR  = 251
	typeAXFR  = 252
	typeANY   = 255
	classIN   = 1
)

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// skipName returns the offset behind the name at off.
func skipName(m []byte, off int) (int, bool) {
	for n := 0; off < len(m) && n < maxName; {
		switch c := m[off]; {
		case c == 0:
			return off + 1, true
		case c&0xc0 == 0xc0:
			return off + 2, off+2 <= len(m)
		case c > 63:
			return 0, false
		default:
			off += 1 + int(c)
			n += 1 + int(c)
		}
	}
	return 0, false
}

// maxPointers is the maximum number of compression pointers of a name: one after each
// label that fits but the last, which needs none.
const maxPointers = maxName/2 - 1

// expand writes the name at off to buf without compression, in lower case, and
// returns its length, or 0 if it is not valid. A pointer must point to a name that
// ends before the one with the pointer, and not into the header, which is modified
// before the client gets it.
func expand(m []byte, off int, buf *[maxName]byte) int {
	n := 0
	start, stop := off, len(m) // of the current segment of labels, between two pointers
	for left := maxPointers; off < stop; {
		c := m[off]
		switch {
		case c == 0:
			buf[n] = 0 // n is at most maxName-1, see below
			return n + 1
		case c&0xc0 == 0xc0:
			if off+2 > stop {
				return 0
			}
			to := int(be16(m[off:]) & 0x3fff)
			if left--; left < 0 || to >= start || to < headerLen {
				return 0
			}
			stop = start
			off, start = to, to
		case c > 63 || off+1+int(c) > stop || n+1+int(c) > maxName-1:
			return 0
		default:
			buf[n] = c
			for i := 1; i <= int(c); i++ {
				buf[n+i] = lower(m[off+i])
			}
			n += 1 + int(c)
			off += 1 + int(c)
		}
	}
	return 0
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

func letter(c byte) bool { c |= 0x20; return c >= 'a' && c <= 'z' }

// An rr is a resource record in a message, by offsets.
type rr struct {
	owner, typ, class int
	ttl               uint32
	data, end         int // its RDATA
}

// record parses the record at off. It returns false if it is cut off.
func record(m []byte, off int, r *rr) bool {
	e, ok := skipName(m, off)
	if !ok || e+10 > len(m) {
		return false
	}
	*r = rr{owner: off, typ: int(be16(m[e:])), class: int(be16(m[e+2:])), ttl: be32(m[e+4:]), data: e + 10}
	r.end = r.data + int(be16(m[e+8:]))
	return r.end <= len(m)
}

// EDNS options. Those that are not forwarded are hop-by-hop (RFC 6891 section 6.1.1),
// reveal the client (Client Subnet, RFC 7871), or are unknown.
const (
	optNSID          = 3
	optDAU           = 5
	optDHU           = 6
	optN3U           = 7
	optPadding       = 12 // RFC 7830
	optEDE           = 15 // RFC 8914
	optReportChannel = 18 // RFC 9567
	optZoneVersion   = 19 // RFC 9660

	edeBlocked = 15
)

// forwardOption reports whether an option of a query is forwarded to the upstream.
func forwardOption(code uint16) bool {
	return code == optNSID || code >= optDAU && code <= optN3U || code == optZoneVersion
}

// returnOption reports whether an option of a response is forwarded to the client.
func returnOption(code uint16) bool {
	return code == optNSID || code == optEDE || code == optReportChannel || code == optZoneVersion
}

// options appends the options of the RDATA d for which passes is true to dst, up to
// its capacity. ok is false if d is malformed.
func options(d []byte, passes func(uint16) bool, dst []byte) (_ []byte, ok bool) {
	for len(d) > 0 {
		if len(d) < 4 || 4+int(be16(d[2:])) > len(d) {
			return dst, false
		}
		n := 4 + int(be16(d[2:]))
		if passes(be16(d)) && len(dst)+n <= cap(dst) {
			dst = append(dst, d[:n]...)
		}
		d = d[n:]
	}
	return dst, true
}

// appendOPT appends an OPT record (RFC 6891 section 6.1.2).
func appendOPT(m []byte, size uint16, extended uint8, do bool, opts []byte) []byte {
	flags := byte(0)
	if do {
		flags = 0x80
	}
	m = append(m, 0, 0, typeOPT, byte(size>>8), byte(size), extended, 0, flags, 0)
	m = append(m, byte(len(opts)>>8), byte(len(opts)))
	return append(m, opts...)
}

// A question is a parsed query with its EDNS.
type question struct {
	id, flags     uint16
	name          []byte // in the message, in its case
	end           int    // of the question section
	typ, class    uint16
	edns, do      bool
	version       uint8
	size          uint16 // maximum length of a UDP response
	opts          []byte // options to forward
	wellFormed    bool   // the question section is valid
	ednsMalformed bool
}

// parseQuery parses a query. It returns false if the message is not a query at all: it
// has no header, or is a response.
func parseQuery(m []byte, q *question, opts []byte) bool {
	if len(m) < headerLen || len(m) > maxMsg {
		return false
	}
	*q = question{id: be16(m), flags: be16(m[2:]), size: minUDP, opts: opts[:0]}
	if q.flags&flagQR != 0 {
		return false
	}
	if be16(m[4:]) != 1 {
		return true
	}
	e, ok := skipName(m, headerLen)
	if !ok || e+4 > len(m) {
		return true
	}
	for i := headerLen; m[i] != 0; i += 1 + int(m[i]) {
		if m[i]&0xc0 != 0 {
			return true // a compressed name: there is nothing to point to
		}
	}
	q.name, q.typ, q.class, q.end = m[headerLen:e], be16(m[e:]), be16(m[e+2:]), e+4
	q.wellFormed = true
	off := q.end
	n := int(be16(m[6:])) + int(be16(m[8:]))
	for i := range n + int(be16(m[10:])) {
		var r rr
		if !record(m, off, &r) {
			q.ednsMalformed = true
			return true
		}
		off = r.end
		if r.typ != typeOPT {
			continue
		}
		if q.edns || i < n || m[r.owner] != 0 {
			q.ednsMalformed = true // at most one, at the root, in the additional section
			return true
		}
		q.edns, q.version, q.do = true, uint8(r.ttl>>16), r.ttl>>15&1 != 0
		q.size = max(uint16(r.class), minUDP) // RFC 6891 section 6.2.3
		if q.opts, ok = options(m[r.data:r.end], forwardOption, q.opts); !ok {
			q.ednsMalformed = true
		}
	}
	return true
}

// Package clienthello reads the server name from the first message of a TLS
// connection (RFC 8446 section 4.1.2, RFC 6066 section 3).
//
// The server parses the same bytes with a parser of its own. Everything that two
// parsers may read differently is therefore refused, even where it looks harmless:
// a message that is accepted has one meaning.
package clienthello

import "encoding/binary"

// MaxLen is the maximum length of the message in bytes. A ClientHello with
// post-quantum key shares has about 1800.
const MaxLen = 6 << 10

// A State is the result of parsing.
type State uint8

// The states.
const (
	Incomplete State = iota // the message is not complete
	Found                   // it has a server name
	NoName                  // it is a ClientHello without a server name
	Invalid                 // it is not a valid ClientHello, or an ambiguous one
)

// A Hello is what is parsed of a ClientHello.
type Hello struct {
	Name  []byte // server name as sent: labels of letters, digits, hyphens and underscores
	Len   int    // length of the message with its record headers, in bytes
	Early bool   // it has the early_data extension (RFC 8446 section 4.2.10)
}

// TLS content types and message types.
const (
	typeChangeCipherSpec = 20
	typeHandshake        = 22
	typeApplicationData  = 23
	clientHello          = 1
	serverHello          = 2
)

// Extensions.
const (
	extServerName = 0
	extEarlyData  = 42
)

// Read parses the ClientHello at the beginning of a stream, of which stream is a
// prefix of any length. A result other than Incomplete does not change with more of
// the stream. The message may be fragmented over several records, but nothing may
// precede it, come between them, or follow it in the last one. The name is written
// to dst.
func Read(stream []byte, dst *[255]byte) (Hello, State) {
	var msg [MaxLen]byte
	n := 0
	for b := stream; ; {
		if len(b) > 0 && b[0] != typeHandshake || len(b) > 1 && b[1] != 3 {
			return Hello{}, Invalid // another content type or protocol
		}
		if len(b) < 5 {
			return Hello{}, Incomplete
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		b = b[5:]
		if size == 0 || n+size > MaxLen {
			return Hello{}, Invalid
		}
		end := n + size // of the message's fragment in this record
		k := min(size, len(b))
		n += copy(msg[n:], b[:k])
		b = b[k:]
		if n > 0 && msg[0] != clientHello {
			return Hello{}, Invalid
		}
		if n >= 4 {
			want := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
			if want > MaxLen || end > want {
				return Hello{}, Invalid // too long, or its record has more
			}
			if n == want {
				h, s := parseHello(msg[4:want], dst)
				h.Len = len(stream) - len(b)
				return h, s
			}
		}
	}
}

// ReadSecond is Read for the ClientHello after a HelloRetryRequest: it may be preceded
// by a change_cipher_spec record (RFC 8446 appendix D.4).
func ReadSecond(stream []byte, dst *[255]byte) (Hello, State) {
	const ccs = "\x14\x03\x03\x00\x01\x01"
	if len(stream) == 0 || stream[0] != typeChangeCipherSpec {
		return Read(stream, dst)
	}
	k := min(len(stream), len(ccs))
	if string(stream[:k]) != ccs[:k] {
		return Hello{}, Invalid
	}
	h, s := Read(stream[k:], dst)
	h.Len += k
	return h, s
}

// AllowsTrailing reports whether rest, the stream behind the ClientHello, is what a
// client may send before the server responds: early data.
func (h *Hello) AllowsTrailing(rest []byte) bool {
	return len(rest) == 0 || h.Early && (rest[0] == typeChangeCipherSpec || rest[0] == typeApplicationData)
}

// MayBeginSecond reports whether a second ClientHello, or the change_cipher_spec
// before it, may begin with a record of this content type.
func MayBeginSecond(contentType byte) bool {
	return contentType == typeHandshake || contentType == typeChangeCipherSpec
}

// A Response is a server's response to a ClientHello.
type Response uint8

// The responses.
const (
	Undecided    Response = iota // it is not complete enough to tell
	RetryRequest                 // HelloRetryRequest: another ClientHello follows, whose name counts
	NoRetry                      // any other message
)

// ResponseLen is the maximum number of bytes that ReadResponse needs.
const ResponseLen = 5 + 4 + 2 + 32

// retryRandom is the random field of a ServerHello that is a HelloRetryRequest (RFC
// 8446 section 4.1.3).
const retryRandom = "\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91" +
	"\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C"

// ReadResponse parses the beginning of a server's stream.
func ReadResponse(stream []byte) Response {
	if len(stream) > 0 && stream[0] != typeHandshake || len(stream) > 5 && stream[5] != serverHello {
		return NoRetry
	}
	const at = ResponseLen - len(retryRandom)
	if len(stream) > at {
		k := min(len(stream)-at, len(retryRandom))
		if string(stream[at:at+k]) != retryRandom[:k] {
			return NoRetry
		}
		if k == len(retryRandom) {
			return RetryRequest
		}
	}
	return Undecided
}

// A reader reads the fields of a message. After one that is cut off it returns none.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) number(bytes int) (v int) {
	for _, c := range r.bytes(bytes) {
		v = v<<8 | int(c)
	}
	return v
}

// vector reads a field that is prefixed with its length in so many bytes.
func (r *reader) vector(bytes int) []byte { return r.bytes(r.number(bytes)) }

// parseHello parses the body of a ClientHello.
func parseHello(b []byte, dst *[255]byte) (h Hello, s State) {
	r := reader{b: b}
	version := r.bytes(2)
	r.bytes(32)            // random
	session := r.vector(1) // legacy_session_id
	suites := r.vector(2)
	methods := r.vector(1) // legacy_compression_methods
	if r.bad || version[0] != 3 || len(session) > 32 || len(suites) == 0 || len(suites)%2 != 0 || len(methods) == 0 {
		return Hello{}, Invalid
	}
	if len(r.b) == 0 {
		return Hello{}, NoName // a ClientHello without extensions (RFC 5246 section 7.4.1.2)
	}
	ext := reader{b: r.vector(2)}
	if r.bad || len(r.b) != 0 {
		return Hello{}, Invalid
	}
	for len(ext.b) > 0 {
		typ := ext.number(2)
		data := ext.vector(2)
		if ext.bad {
			return Hello{}, Invalid
		}
		switch typ {
		case extEarlyData:
			h.Early = true
		case extServerName:
			host := hostName(data)
			if h.Name != nil || host == nil {
				return Hello{}, Invalid // twice, or malformed
			}
			h.Name = dst[:copy(dst[:], host)]
		}
	}
	if h.Name == nil {
		return h, NoName
	}
	return h, Found
}

// hostName returns the name in the data of a server_name extension, or nil if there
// is not exactly one, or it is not a host name.
func hostName(ext []byte) []byte {
	data := reader{b: ext}
	list := reader{b: data.vector(2)}
	if len(data.b) != 0 || list.number(1) != 0 {
		return nil // or a name of another type
	}
	host := list.vector(2) // empty if it is cut off
	if len(list.b) != 0 || !validName(host) {
		return nil
	}
	return host
}

// validName reports whether b is a host name as of RFC 6066 section 3: labels of
// letters, digits and hyphens (and underscores, which are in use), without a
// trailing dot, and not an IP address. International names are in their ASCII form
// (A-labels), as in DNS.
func validName(b []byte) bool {
	if len(b) > 253 {
		return false
	}
	label, letters := 0, false // length of the current label, and whether it is not a number
	for _, c := range b {
		switch {
		case c == '.':
			if label == 0 {
				return false
			}
			label, letters = 0, false
			continue
		case c >= '0' && c <= '9':
		case c == '-', c == '_', c|0x20 >= 'a' && c|0x20 <= 'z':
			letters = true
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	// A name whose last label is a number is an IPv4 address to many parsers. An
	// empty last label has no letters either.
	return letters
}

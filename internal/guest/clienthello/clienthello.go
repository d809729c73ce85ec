// Package clienthello reads the server name from the first message of a TLS
// connection (RFC 8446 section 4.1.2, RFC 6066 section 3).
//
// The server at the other end reads the same bytes with a program of its own.
// So everything that two programs may read differently is refused here, however
// harmless it looks: what is accepted has one meaning.
package clienthello

import "encoding/binary"

// MaxLen is the longest beginning of a stream that is looked at. A hello with
// post-quantum key shares takes about 1800 bytes.
const MaxLen = 6 << 10

// A State says how far reading has come.
type State uint8

// The states.
const (
	Incomplete State = iota // the message has not arrived whole
	Found                   // there is a server name
	NoName                  // it is a hello without a server name
	Invalid                 // it is no hello that can be read, or one that may be read in two ways
)

// A Hello is what is read of the message.
type Hello struct {
	Name  []byte // the server's name as the client wrote it: letters, digits, hyphens and underscores between dots
	Len   int    // bytes of the stream that the message and its records take
	Early bool   // data follow before the server has answered (RFC 8446 section 4.2.10)
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

// Read reads the server name from the beginning of a stream, which may be cut
// off anywhere: what it says of a beginning other than More holds for the whole.
// The message must be whole before anything is said of it. It may be spread over
// several records, but nothing may come between, before it, or behind it in its
// last record. The name is written to dst.
func Read(stream []byte, dst *[255]byte) (Hello, State) {
	var msg [MaxLen]byte
	n := 0
	for b := stream; ; {
		if len(b) > 0 && b[0] != typeHandshake || len(b) > 1 && b[1] != 3 {
			return Hello{}, Invalid // a record of another type or protocol
		}
		if len(b) < 5 {
			return Hello{}, Incomplete
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		b = b[5:]
		if size == 0 || n+size > MaxLen {
			return Hello{}, Invalid
		}
		end := n + size // of the message's part in this record
		k := min(size, len(b))
		n += copy(msg[n:], b[:k])
		b = b[k:]
		if n > 0 && msg[0] != clientHello {
			return Hello{}, Invalid
		}
		if n >= 4 {
			want := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
			if want > MaxLen || end > want {
				return Hello{}, Invalid // too long, or something follows in its record
			}
			if n == want {
				h, s := hello(msg[4:want], dst)
				h.Len = len(stream) - len(b)
				return h, s
			}
		}
	}
}

// ReadSecond is Read for the second hello, which a server may ask for: a
// change_cipher_spec may stand before it (RFC 8446 appendix D.4).
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

// AllowsTrailing reports whether rest, the stream behind a hello, is what a client may
// send before it has an answer.
func (h *Hello) AllowsTrailing(rest []byte) bool {
	return len(rest) == 0 || h.Early && (rest[0] == typeChangeCipherSpec || rest[0] == typeApplicationData)
}

// Handshakes reports whether a record of this type may be the beginning of another
// hello.
func MayBeginSecond(contentType byte) bool {
	return contentType == typeHandshake || contentType == typeChangeCipherSpec
}

// An Answer is what a server says to a hello.
type Response uint8

// The answers.
const (
	Undecided    Response = iota // too little of it is there
	RetryRequest                 // HelloRetryRequest: it wants another hello, and takes the name from that
	NoRetry                      // anything else
)

// ResponseLen is how many bytes of a server's stream ReadResponse needs at most.
const ResponseLen = 5 + 4 + 2 + 32

// retryRandom is the random of a ServerHello that is a HelloRetryRequest (RFC
// 8446 section 4.1.3).
const retryRandom = "\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C"

// ReadResponse tells from the beginning of a server's stream whether the server asks
// for a second hello.
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

// A reader takes fields from a message. Once one is missing, all are.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) number(bytes int) (v int) {
	for _, c := range r.take(bytes) {
		v = v<<8 | int(c)
	}
	return v
}

// vector takes a field behind its length.
func (r *reader) vector(bytes int) []byte { return r.take(r.number(bytes)) }

// hello reads the message.
func hello(b []byte, dst *[255]byte) (h Hello, s State) {
	r := reader{b: b}
	version := r.take(2)
	r.take(32)             // random
	session := r.vector(1) // legacy_session_id
	suites := r.vector(2)
	methods := r.vector(1) // legacy_compression_methods
	if r.bad || version[0] != 3 || len(session) > 32 || len(suites) == 0 || len(suites)%2 != 0 || len(methods) == 0 {
		return Hello{}, Invalid
	}
	if len(r.b) == 0 {
		return Hello{}, NoName // from before extensions
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
				return Hello{}, Invalid // twice, or not to be read
			}
			h.Name = dst[:copy(dst[:], host)]
		}
	}
	if h.Name == nil {
		return h, NoName
	}
	return h, Found
}

// hostName returns the one name in the data of a server_name extension, or nil
// when there is none, there are several, or it is not a host's.
func hostName(ext []byte) []byte {
	data := reader{b: ext}
	list := reader{b: data.vector(2)}
	if len(data.b) != 0 || list.number(1) != 0 {
		return nil // or of another kind than a host name
	}
	host := list.vector(2) // empty where it is cut off
	if len(list.b) != 0 || !validName(host) {
		return nil
	}
	return host
}

// validName reports whether b is the name of a host as RFC 6066 wants it: labels
// of letters, digits and hyphens (and underscores, which exist), without a dot at
// the end, not an address. International names are in their ASCII form, as they
// are in DNS.
func validName(b []byte) bool {
	if len(b) > 253 {
		return false
	}
	label, letters := 0, false // of the label under way: its length, whether it is more than a number
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
	// What ends in a number is an IPv4 address to many programs. Where nothing is
	// behind the last dot, or nothing at all, there are no letters either.
	return letters
}

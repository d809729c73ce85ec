// Package clienthello reads the server name from the first message of a TLS
// connection (RFC 8446 section 4.1.2, RFC 6066 section 3).
package clienthello

import "encoding/binary"

// MaxLen is the longest beginning of a stream that is looked at. A hello with
// post-quantum key shares takes about 1800 bytes.
const MaxLen = 6 << 10

// A State says how far reading has come.
type State uint8

// The states.
const (
	More  State = iota // the message has not arrived whole
	Found              // there is a server name
	None               // it is a hello without a server name
	Other              // it is no hello that can be read
)

// ServerName reads the server name from the beginning of a stream, which may be
// cut off anywhere. The message must be whole before anything is said of it: it
// may be spread over several records, but nothing may come between. The name
// is text as the client wrote it and is written to dst.
func ServerName(stream []byte, dst *[255]byte) (name []byte, s State) {
	var msg [MaxLen]byte
	n := 0
	for b := stream; ; {
		if n >= 4 {
			if msg[0] != 1 { // handshake type client_hello
				return nil, Other
			}
			size := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
			if size > MaxLen {
				return nil, Other
			}
			if n >= size {
				return hello(msg[4:size], dst)
			}
		}
		if len(b) > 0 && b[0] != 22 || len(b) > 1 && b[1] != 3 {
			return nil, Other // a record of another type or protocol
		}
		if len(b) < 5 {
			return nil, More
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if size == 0 || size > 1<<14 {
			return nil, Other
		}
		b = b[5:]
		k := min(size, len(b))
		if n+k > MaxLen {
			return nil, Other
		}
		n += copy(msg[n:], b[:k])
		if k < size && n < 4 {
			return nil, More
		}
		b = b[k:]
		if k < size {
			// The rest of the record is still to come; unless the message
			// ends within what is there, so is the message.
			if want := 4 + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3]); msg[0] == 1 && want <= MaxLen && n < want {
				return nil, More
			}
		}
	}
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
func hello(b []byte, dst *[255]byte) ([]byte, State) {
	r := reader{b: b}
	r.take(2 + 32) // legacy_version, random
	r.vector(1)    // legacy_session_id
	r.vector(2)    // cipher_suites
	r.vector(1)    // legacy_compression_methods
	if r.bad {
		return nil, Other
	}
	if len(r.b) == 0 {
		return nil, None // from before extensions
	}
	ext := reader{b: r.vector(2)}
	if r.bad || len(r.b) != 0 {
		return nil, Other
	}
	var name []byte
	for len(ext.b) > 0 {
		typ := ext.number(2)
		data := reader{b: ext.vector(2)}
		if ext.bad {
			return nil, Other
		}
		if typ != 0 {
			continue
		}
		list := reader{b: data.vector(2)}
		if name != nil || data.bad || len(data.b) != 0 || list.number(1) != 0 {
			return nil, Other // twice, or of another kind than a host name
		}
		host := list.vector(2)
		if list.bad || len(list.b) != 0 || len(host) == 0 || len(host) > len(dst) {
			return nil, Other
		}
		name = dst[:copy(dst[:], host)]
	}
	if name == nil {
		return nil, None
	}
	return name, Found
}

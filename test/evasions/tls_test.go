package evasions

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// hello is a first message for a server, as Go's TLS writes it; without a
// post-quantum key, so that it fits one segment.
func hello(server string) []byte {
	helloMu.Lock()
	defer helloMu.Unlock()
	if b := helloMade[server]; b != nil {
		return b
	}
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		tls.Client(a, &tls.Config{ServerName: server, InsecureSkipVerify: server == "", CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake() //nolint:errcheck // it is cut off
		a.Close()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		panic(err)
	}
	helloMade[server] = buf[:n:n]
	return buf[:n:n]
}

var (
	helloMu   sync.Mutex
	helloMade = map[string][]byte{}
)

// An extension of a message that is built by hand.
type extension struct {
	typ  uint16
	data []byte
}

// sni is a server name extension with these names, of a type: 0 is a host name.
func sni(typ uint8, names ...string) extension {
	var b []byte
	for _, n := range names {
		b = append(append(b, typ), sized(2, []byte(n))...)
	}
	return extension{0, sized(2, b)}
}

// ech is an Encrypted Client Hello of the outer kind (RFC 9849).
var ech = extension{0xfe0d, append([]byte{0, 0, 1, 0, 1, 7, 0, 32}, append(make([]byte, 32), 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8)...)}

// built is a first message with these extensions and some that every client
// has.
func built(es ...extension) []byte {
	es = append(es, extension{43, []byte{4, 3, 4, 3, 3}}, extension{10, []byte{0, 2, 0, 29}}, extension{13, []byte{0, 4, 4, 3, 8, 4}}, extension{51, append([]byte{0, 36, 0, 29, 0, 32}, make([]byte, 32)...)})
	var all []byte
	for _, e := range es {
		all = append(binary.BigEndian.AppendUint16(all, e.typ), sized(2, e.data)...)
	}
	body := slices.Concat([]byte{3, 3}, make([]byte, 32), sized(1, nil), sized(2, []byte{0x13, 1, 0xc0, 0x2f}), sized(1, []byte{0}), sized(2, all))
	return record(22, append([]byte{1}, sized(3, body)...))
}

// sized is b with its length before it, in n bytes.
func sized(n int, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b)))[4-n:], b...)
}

func record(typ byte, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{typ, 3, 1}, uint16(len(data))), data...)
}

// records divides the message of a record into records of n bytes.
func records(b []byte, n int) (rs []byte) {
	for c := range slices.Chunk(b[5:], n) {
		rs = append(rs, record(22, c)...)
	}
	return rs
}

// reads is the server name that a server reads from what a client has sent:
// Go's TLS, which has nothing in common with the firewall's reader.
func reads(stream []byte) (name string) {
	tls.Server(&canned{bytes.NewReader(stream)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return nil, errors.New("that was all")
	}}).Handshake() //nolint:errcheck // it never succeeds
	return name
}

// canned is a connection whose client has sent all that it will.
type canned struct{ r io.Reader }

func (c *canned) Read(b []byte) (int, error)     { return c.r.Read(b) }
func (*canned) Write(b []byte) (int, error)      { return len(b), nil }
func (*canned) Close() error                     { return nil }
func (*canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*canned) SetDeadline(time.Time) error      { return nil }
func (*canned) SetReadDeadline(time.Time) error  { return nil }
func (*canned) SetWriteDeadline(time.Time) error { return nil }

// reached reports whether a server has read a name, or its letters at all: some
// server reads what Go's does not.
func (c *client) reached(name string) bool {
	if c == nil {
		return false
	}
	for _, s := range c.a.ends[1-c.side].all {
		if s.self == c.dst && s.sport == c.dport && (reads(s.data) == name || bytes.Contains(s.data, []byte(name))) {
			return true
		}
	}
	return false
}

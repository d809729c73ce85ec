package sni

import (
	"bytes"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// MaxSegments is how many segments of one message are held at most.
const MaxSegments = 6

// A Segment is a TCP segment of the client, and its frame.
type Segment struct {
	packet.Packet
	Frame framebuf.Frame
}

// A Message is the ClientHello of a connection, or the second one that its server has
// requested, from its first byte until the server's response has been read.
type Message struct {
	Flow   conntrack.Ref // of the client's direction
	Passed bool          // it has been forwarded to the server
	Clock  packet.Clock  // the client's timestamps
	slot   uint8
	early  bool   // data may follow before the server's response
	second bool   // the second ClientHello, which the server has requested
	first  uint32 // sequence number of the message's first byte
	len    int    // bytes of contiguous data

	n    int // segments held, in order of sequence numbers; they may overlap
	held [MaxSegments]Segment
	data [clienthello.MaxLen]byte

	next     uint32 // sequence number of the server's next byte
	read     int    // how many of its bytes are known, since the message was forwarded
	bytes    [clienthello.ResponseLen]byte
	response clienthello.Response

	nameLen uint8
	name    [fqdn.MaxName]byte // of the first ClientHello, in wire form
}

// An Action is what to do with a segment, or with its connection.
type Action uint8

const (
	Pass   Action = iota // forward the segment
	Hold                 // the segment is held: the message owns its frame
	Repeat               // drop it: the client retransmits it if it is needed
	Refuse               // reset the connection
	Settle               // forward the segment; the connection needs no further inspection
	Second               // forward the segment; the server requests a second ClientHello
)

// Held returns the held segments in order of their sequence numbers.
func (m *Message) Held() []Segment { return m.held[:m.n] }

// End returns the sequence number after the contiguous data of the message.
func (m *Message) End() uint32 { return m.first + uint32(m.len) }

// IsSecond reports whether the message is the second ClientHello of its connection.
func (m *Message) IsSecond() bool { return m.second }

// SetName records the server name of the first ClientHello, in wire form.
func (m *Message) SetName(wire []byte) { m.nameLen = uint8(copy(m.name[:], wire)) }

// HasName reports whether the first ClientHello has the name.
func (m *Message) HasName(wire []byte) bool { return string(m.name[:m.nameLen]) == string(wire) }

// Add takes a segment, with its data, of a message that has not been forwarded. It returns
// Hold, Repeat or Refuse.
func (m *Message) Add(s *Segment, data []byte) Action {
	at, end := s.Seq-m.first, s.Seq-m.first+uint32(len(data))
	switch m.covers(at, data) {
	case contradicts:
		return Refuse
	case known:
		return Repeat
	}
	if m.n == MaxSegments || end > uint32(len(m.data)) {
		if at > uint32(m.len) {
			return Repeat // no room until the gap is filled
		}
		return Refuse
	}
	m.insert(s)
	copy(m.data[at:], data)
	m.grow()
	return Hold
}

// Read reads the contiguous data of the message. It returns Hold while the message is
// incomplete and more data can come, Pass when it is complete, has a server name and is
// followed by nothing forbidden, and Refuse otherwise. The name is text in buf.
func (m *Message) Read(ended bool, buf *[fqdn.MaxName]byte) (name []byte, a Action) {
	read := clienthello.Read
	if m.second {
		read = clienthello.ReadSecond
	}
	h, state := read(m.data[:m.len], buf)
	switch {
	case state == clienthello.Incomplete && !ended:
		return h.Name, Hold
	case state == clienthello.Found && h.AllowsTrailing(m.data[h.Len:m.len]):
		m.early = h.Early
		return h.Name, Pass
	}
	return h.Name, Refuse
}

// Follows returns what to do with a segment of the client, with data, after the message has
// been forwarded: where it overlaps the message it must have the same data, so that the
// server reads what was read here. arrived reports that the server has acknowledged the
// message.
func (m *Message) Follows(seq uint32, data []byte, arrived bool) Action {
	at := seq - m.first
	if int32(at) < 0 || at > uint32(m.len) && !m.early {
		return Repeat // a keepalive, or too early
	}
	n := m.len - min(int(at), m.len)
	if !bytes.Equal(data[:min(n, len(data))], m.data[m.len-n:][:min(n, len(data))]) {
		return Refuse
	}
	if len(data) > n && !m.early {
		// A client sends nothing more before it has an answer. What is not a handshake
		// message does not matter once the ClientHello has arrived: if the server then
		// requests a second one, the connection is refused.
		if m.early = arrived && !clienthello.MayBeginSecond(data[n]); !m.early {
			return Repeat
		}
	}
	return Pass
}

// Respond takes a segment of the server after the message has been forwarded: data is what
// the frame has of its n bytes of data, and ended reports a FIN. It returns Pass, Settle,
// Second or Refuse.
func (m *Message) Respond(seq uint32, data []byte, n int, ended, arrived bool) Action {
	if m.response == clienthello.Undecided && seq == m.next {
		m.read += copy(m.bytes[m.read:], data)
		m.next += uint32(n)
		m.response = clienthello.ReadResponse(m.bytes[:m.read])
		if ended && m.response == clienthello.Undecided {
			m.response = clienthello.NoRetry
		}
	}
	switch {
	case m.response == clienthello.Undecided || !arrived:
		return Pass
	case m.response == clienthello.NoRetry:
		return Settle
	case m.early || m.second:
		return Refuse // data after the message have passed unread; and a server requests only one
	}
	return Second
}

// A coverage is the relation of a segment's data to the held ones.
type coverage uint8

const (
	fresh       coverage = iota // some are new, the others are equal
	known                       // all are held, or lie before the message
	contradicts                 // some differ from the held ones
)

// covers compares data at offset at of the message with the held ones.
func (m *Message) covers(at uint32, data []byte) coverage {
	if int32(at) < 0 {
		return known
	}
	end := at + uint32(len(data))
	upTo := at
	for k := range m.n {
		a, b := m.begin(k), m.end(k)
		if lo, hi := max(at, a), min(end, b); lo < hi && !bytes.Equal(data[lo-at:hi-at], m.data[lo:hi]) {
			return contradicts
		}
		if a <= upTo && b > upTo {
			upTo = b
		}
	}
	if upTo >= end {
		return known
	}
	return fresh
}

// begin and end return the offsets of held segment k in the message.
func (m *Message) begin(k int) uint32 { return m.held[k].Seq - m.first }
func (m *Message) end(k int) uint32   { return m.begin(k) + uint32(m.held[k].Payload) }

// insert adds a segment to the held ones. There must be room for it.
func (m *Message) insert(s *Segment) {
	k := m.n
	for ; k > 0 && m.begin(k-1) > s.Seq-m.first; k-- {
		m.held[k] = m.held[k-1]
	}
	m.held[k] = *s
	m.n++
}

// grow advances len to the end of the contiguous data.
func (m *Message) grow() {
	for k := range m.n {
		if m.begin(k) <= uint32(m.len) {
			m.len = max(m.len, int(m.end(k)))
		}
	}
}

// Whole reports whether the data of a held segment are contiguous with the message's
// beginning.
func (m *Message) Whole(s *Segment) bool { return s.Seq-m.first+uint32(s.Payload) <= uint32(m.len) }

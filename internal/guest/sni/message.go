package sni

import (
	"bytes"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// MaxSegments is how many segments of one message are held.
const MaxSegments = 6

// A Segment is a TCP segment of the client, with its frame.
type Segment struct {
	packet.Packet
	Frame framebuf.Frame
}

// A Message is a client's first message, or the second for which its server has
// asked, from its first byte until the server's response has been read.
type Message struct {
	Flow   conntrack.Ref // of the client's direction
	Passed bool          // it has gone on to the server
	Clock  packet.Clock  // the client's timestamps
	slot   uint8
	early  bool   // data may follow before the server's response
	second bool   // the server has asked for it
	first  uint32 // sequence number of the message's first byte
	len    int    // bytes of data without a gap

	n    int // segments held, in order of their numbers; they may overlap
	held [MaxSegments]Segment
	data [clienthello.MaxLen]byte

	next     uint32 // sequence number of the server's next byte
	read     int    // how many of its bytes are known, since the message went on
	bytes    [clienthello.ResponseLen]byte
	response clienthello.Response

	nameLen uint8
	name    [fqdn.MaxName]byte // of the first message, in wire form
}

// An Action is what is to be done with a segment, or with its connection.
type Action uint8

const (
	Pass   Action = iota // the segment goes on
	Hold                 // it is held: the frame is the message's
	Repeat               // it is dropped; the client repeats it when it is needed
	Refuse               // the connection is ended
	Settle               // the segment goes on, and the connection is one like any other
	Second               // the segment goes on, and the server asks for a second message
)

// Held returns the segments that are held, in order of their numbers.
func (m *Message) Held() []Segment { return m.held[:m.n] }

// End returns the sequence number behind all of the message that is there without a
// gap.
func (m *Message) End() uint32 { return m.first + uint32(m.len) }

// IsSecond reports whether the message is the second of its connection.
func (m *Message) IsSecond() bool { return m.second }

// SetName notes the name that the first message has, in wire form.
func (m *Message) SetName(wire []byte) { m.nameLen = uint8(copy(m.name[:], wire)) }

// HasName reports whether the first message has the name.
func (m *Message) HasName(wire []byte) bool { return string(m.name[:m.nameLen]) == string(wire) }

// Add takes a segment of a message that has not gone on, with its data. It returns
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
			return Repeat // there is no room for it yet
		}
		return Refuse
	}
	m.insert(s)
	copy(m.data[at:], data)
	m.grow()
	return Hold
}

// Read reads the message as far as it is there without a gap. It returns Hold as long
// as it is incomplete and more can come, Pass when it is whole, names a server, and
// nothing follows it that may not, and Refuse otherwise. The name is in buf, as text.
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

// Follows returns what is to be done with a segment of the client, with data, when its
// message has gone on but is not known to have arrived: where the message lies it must
// have the same data, so that the server reads what was read here. arrived says that
// the server has acknowledged the message.
func (m *Message) Follows(seq uint32, data []byte, arrived bool) Action {
	at := seq - m.first
	if int32(at) < 0 || at > uint32(m.len) && !m.early {
		return Repeat // a probe of an idle connection, or too early
	}
	n := m.len - min(int(at), m.len)
	if !bytes.Equal(data[:min(n, len(data))], m.data[m.len-n:][:min(n, len(data))]) {
		return Refuse
	}
	if len(data) > n && !m.early {
		// A client sends no more before it has an answer. What is no handshake
		// does not matter once the message has arrived: a client that is asked for
		// another after that is refused.
		if m.early = arrived && !clienthello.MayBeginSecond(data[n]); !m.early {
			return Repeat
		}
	}
	return Pass
}

// Respond takes a segment of the server when the message has gone on: its data, of
// which bytes are in the frame and n on the wire, and whether the server ends its
// stream with it. It returns Pass, Settle, Second or Refuse.
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
		return Refuse // what followed the message has passed unread, and a server asks once
	}
	return Second
}

// A coverage says what a segment is to those that are held.
type coverage uint8

const (
	fresh       coverage = iota // some of its data are new, the others are the same
	known                       // all of its data are held, or lie before the message
	contradicts                 // some of its data are held, but with other bytes
)

// covers compares data, which begin at a place of the message, with what is held.
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

// begin and end return where held segment k lies in the message.
func (m *Message) begin(k int) uint32 { return m.held[k].Seq - m.first }
func (m *Message) end(k int) uint32   { return m.begin(k) + uint32(m.held[k].Payload) }

// insert holds a segment. There must be room for it.
func (m *Message) insert(s *Segment) {
	k := m.n
	for ; k > 0 && m.begin(k-1) > s.Seq-m.first; k-- {
		m.held[k] = m.held[k-1]
	}
	m.held[k] = *s
	m.n++
}

// grow moves len behind all that is there without a gap.
func (m *Message) grow() {
	for k := range m.n {
		if m.begin(k) <= uint32(m.len) {
			m.len = max(m.len, int(m.end(k)))
		}
	}
}

// Whole reports whether all data of a held segment are there without a gap before them.
func (m *Message) Whole(s *Segment) bool { return s.Seq-m.first+uint32(s.Payload) <= uint32(m.len) }

// Package sni holds the first messages of TLS connections whose server's name must be
// known before anything of them reaches the server. It reads them, and decides about
// their segments; the router forwards, drops and resets. Two shares bound it: messages
// that are not whole, and those that the server has not answered. They are few: a
// client that opens many connections, and sends nothing on them, takes the places from
// itself.
//
// One goroutine uses a table. Time is an argument.
package sni

import (
	"unsafe"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
)

const second = int64(1e9)

// The bounds of the table.
const (
	MaxIncomplete  = 64          // connections whose first message is not whole
	MaxUnanswered  = 192         // connections whose server has not answered it
	ReadWithin     = 10 * second // from the first byte to the last
	AnsweredWithin = 30 * second // from then to the server's answer
)

// A slot is what all messages are searched by.
type slot struct {
	flow   conntrack.Ref // None: free
	source packet.Addr   // the client
	due    int64
	share  uint16 // slots of the same state that the same client has
	state  uint8
}

// States of a slot.
const (
	incomplete = iota // the message is not whole
	unanswered        // the server has not answered it
	states
)

var limit = [states]int{MaxIncomplete, MaxUnanswered}

// A Table is the messages under way. The zero Table has no room for any.
type Table struct {
	at   []Message
	slot []slot
	free []uint8
	n    [states]int // slots taken
}

// Bytes is the memory that a table takes.
const Bytes = (MaxIncomplete + MaxUnanswered) * int(unsafe.Sizeof(Message{})+unsafe.Sizeof(slot{})+1)

// New makes a table.
func New() Table {
	const n = MaxIncomplete + MaxUnanswered
	t := Table{at: make([]Message, n), slot: make([]slot, n), free: make([]uint8, n)}
	for i := range t.at {
		t.slot[i].flow, t.free[i] = conntrack.None, uint8(i)
	}
	return t
}

// On reports whether the table has room for messages at all.
func (t *Table) On() bool { return t.at != nil }

// Any reports whether there is a message.
func (t *Table) Any() bool { return len(t.free) < len(t.at) }

// Len returns how many messages are not whole, and how many are whole and not answered.
func (t *Table) Len() (reading, waiting int) { return t.n[incomplete], t.n[unanswered] }

// Segments returns how many segments are held.
func (t *Table) Segments() (n int) {
	for i := range t.slot {
		if t.slot[i].flow != conntrack.None {
			n += t.at[i].n
		}
	}
	return n
}

// Find returns the message of a flow by its client's direction, or nil.
func (t *Table) Find(r conntrack.Ref) *Message {
	if !t.Any() {
		return nil
	}
	for i := range t.slot {
		if t.slot[i].flow == r {
			return &t.at[i]
		}
	}
	return nil
}

// Open begins the message of a flow, whose first byte has number first. There must be
// room for it: see Victim.
func (t *Table) Open(r conntrack.Ref, source packet.Addr, first uint32, now int64) *Message {
	i := t.free[len(t.free)-1] // there is one: the limits are as many as there are
	t.free = t.free[:len(t.free)-1]
	t.slot[i] = slot{flow: r, source: source, due: now + ReadWithin, state: incomplete}
	t.count(&t.slot[i], 1)
	m := &t.at[i]
	m.Flow, m.slot, m.first = r, i, first
	m.Passed, m.early, m.second, m.len, m.n, m.nameLen, m.Clock = false, false, false, 0, 0, 0, packet.Clock{}
	return m
}

// Pass notes that a message goes on, and that next is the number of the server's next
// byte. There must be room for one more that is unanswered. The held segments are the
// caller's.
func (t *Table) Pass(m *Message, next uint32, now int64) {
	t.turn(m, unanswered, now+AnsweredWithin)
	m.n = 0
	m.response, m.read, m.next = clienthello.Undecided, 0, next
}

// Second notes that a server has asked for another message, which begins behind the
// first. There must be room for one more that is incomplete.
func (t *Table) Second(m *Message, now int64) {
	t.turn(m, incomplete, now+ReadWithin)
	m.second, m.first, m.len = true, m.End(), 0
}

// turn changes a message's state, until due.
func (t *Table) turn(m *Message, state uint8, due int64) {
	s := &t.slot[m.slot]
	t.count(s, -1)
	s.state, s.due = state, due
	t.count(s, 1)
	m.Passed = state == unanswered
}

// Close forgets a message. The held segments are the caller's.
func (t *Table) Close(m *Message) {
	m.n = 0
	s := &t.slot[m.slot]
	t.count(s, -1)
	s.flow = conntrack.None
	t.free = append(t.free, m.slot)
}

// ToOpen, ToPass and ToSecond return the message that must be closed first, so that
// there is room: the oldest of the client that has the most, with the one that is to
// come. It is nil where there is room.
func (t *Table) ToOpen(source packet.Addr) *Message { return t.victim(incomplete, source) }

// ToPass: see ToOpen. The message is to be passed.
func (t *Table) ToPass(m *Message) *Message { return t.victim(unanswered, t.slot[m.slot].source) }

// ToSecond: see ToOpen. The message is to have a second.
func (t *Table) ToSecond(m *Message) *Message { return t.victim(incomplete, t.slot[m.slot].source) }

func (t *Table) victim(state uint8, source packet.Addr) *Message {
	if t.n[state] < limit[state] {
		return nil
	}
	victim, most := 0, uint16(0)
	for i := range t.slot {
		s := &t.slot[i]
		if s.flow == conntrack.None || s.state != state {
			continue
		}
		n := s.share
		if s.source == source {
			n++
		}
		if n > most || n == most && s.due < t.slot[victim].due {
			victim, most = i, n
		}
	}
	return &t.at[victim]
}

// Due returns a message whose time is over, the next behind after, or nil. after is
// nil at first.
func (t *Table) Due(after *Message, now int64) *Message {
	if !t.Any() {
		return nil
	}
	i := 0
	if after != nil {
		i = int(after.slot) + 1
	}
	for ; i < len(t.slot); i++ {
		if s := &t.slot[i]; s.flow != conntrack.None && now >= s.due {
			return &t.at[i]
		}
	}
	return nil
}

// count makes a slot one of its state, or takes it out of it.
func (t *Table) count(s *slot, d int) {
	t.n[s.state] += d
	s.share = 0
	for i := range t.slot {
		if q := &t.slot[i]; q != s && q.flow != conntrack.None && q.state == s.state && q.source == s.source {
			q.share += uint16(d)
			s.share = q.share
		}
	}
	if s.share == 0 {
		s.share = 1
	}
}

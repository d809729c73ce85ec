// Package sni holds the ClientHello messages of TLS connections whose server name must be
// known before any data reach the server. It reads them, and decides about their segments;
// the router forwards, drops and resets. Incomplete messages and unanswered ones are
// bounded separately. When either bound is reached, the client with the most messages loses
// one: a client that opens many connections and sends nothing on them displaces itself.
//
// Only one goroutine may use a table. Time is an argument, in monotonic nanoseconds.
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
	MaxIncomplete  = 64          // connections whose ClientHello is incomplete
	MaxUnanswered  = 192         // connections whose server has not answered the ClientHello
	ReadWithin     = 10 * second // from the first byte to the last
	AnsweredWithin = 30 * second // from then to the server's answer
)

// A slot is what searches through all messages read.
type slot struct {
	flow   conntrack.Ref // None: free
	source packet.Addr   // the client
	due    int64
	share  uint16 // number of slots of the same client in the same state
	state  uint8
}

// States of a slot.
const (
	incomplete = iota // the message is incomplete
	unanswered        // the server has not answered it
	states
)

var limit = [states]int{MaxIncomplete, MaxUnanswered}

// A Table has the messages that are not settled. The zero Table has no room.
type Table struct {
	at   []Message
	slot []slot
	free []uint8
	n    [states]int // slots taken
}

// Bytes is the memory of a table in bytes.
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

// On reports whether the table was made by New.
func (t *Table) On() bool { return t.at != nil }

// Any reports whether the table has a message.
func (t *Table) Any() bool { return len(t.free) < len(t.at) }

// Len returns the numbers of incomplete and of unanswered messages.
func (t *Table) Len() (reading, waiting int) { return t.n[incomplete], t.n[unanswered] }

// Segments returns the number of held segments.
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

// Open begins the message of a flow, whose first byte has the sequence number first. There
// must be room for it: see ToOpen.
func (t *Table) Open(r conntrack.Ref, source packet.Addr, first uint32, now int64) *Message {
	i := t.free[len(t.free)-1] // never empty: there are as many as the limits allow
	t.free = t.free[:len(t.free)-1]
	t.slot[i] = slot{flow: r, source: source, due: now + ReadWithin, state: incomplete}
	t.count(&t.slot[i], 1)
	m := &t.at[i]
	m.Flow, m.slot, m.first = r, i, first
	m.Passed, m.early, m.second, m.len, m.n, m.nameLen, m.Clock = false, false, false, 0, 0, 0, packet.Clock{}
	return m
}

// Pass makes a message unanswered: it has been forwarded, and the server's next byte has
// the sequence number next. There must be room for it: see ToPass. The held segments become
// the caller's.
func (t *Table) Pass(m *Message, next uint32, now int64) {
	t.turn(m, unanswered, now+AnsweredWithin)
	m.n = 0
	m.response, m.read, m.next = clienthello.Undecided, 0, next
}

// Second makes a message incomplete again: the server has requested a second ClientHello,
// which follows the first. There must be room for it: see ToSecond.
func (t *Table) Second(m *Message, now int64) {
	t.turn(m, incomplete, now+ReadWithin)
	m.second, m.first, m.len = true, m.End(), 0
}

// turn sets a message's state and its deadline.
func (t *Table) turn(m *Message, state uint8, due int64) {
	s := &t.slot[m.slot]
	t.count(s, -1)
	s.state, s.due = state, due
	t.count(s, 1)
	m.Passed = state == unanswered
}

// Close removes a message. The held segments become the caller's.
func (t *Table) Close(m *Message) {
	m.n = 0
	s := &t.slot[m.slot]
	t.count(s, -1)
	s.flow = conntrack.None
	t.free = append(t.free, m.slot)
}

// ToOpen returns the message that must be closed before Open, or nil where there is room:
// the oldest of the client with the most messages, the new one included.
func (t *Table) ToOpen(source packet.Addr) *Message { return t.victim(incomplete, source) }

// ToPass is ToOpen for Pass.
func (t *Table) ToPass(m *Message) *Message { return t.victim(unanswered, t.slot[m.slot].source) }

// ToSecond is ToOpen for Second.
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

// Due returns the next message after after whose deadline has passed, or nil. after is nil
// in the first call.
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

// count adds d to the number of messages in the slot's state.
func (t *Table) count(s *slot, d int) {
	t.n[s.state] += d
	s.share = 1
	for i := range t.slot {
		if q := &t.slot[i]; q != s && q.flow != conntrack.None && q.state == s.state && q.source == s.source {
			q.share += uint16(d)
			s.share = q.share
		}
	}
}

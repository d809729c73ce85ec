package tcp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestSYNOptions: the MSS is found at any place; an option whose length is invalid
// ends the list, and parsing always ends.
func TestSYNOptions(t *testing.T) {
	for _, c := range []struct {
		what, options string
		mss           uint16
	}{
		{"none", "", 536},
		{"MSS", "\x02\x04\x05\xb4", 1460},
		{"the longest", "\x02\x04\xff\xff", 65535},
		{"64", "\x02\x04\x00\x40", 64},
		{"63", "\x02\x04\x00\x3f", 64},
		{"0", "\x02\x04\x00\x00", 64},
		{"behind NOPs", "\x01\x01\x02\x04\x02\x00", 512},
		{"behind another", "\x03\x03\x07\x02\x04\x02\x00", 512},
		{"behind an unknown one without a value", "\xfd\x02\x02\x04\x02\x00", 512},
		{"twice", "\x02\x04\x02\x00\x02\x04\x03\x00", 768},
		{"behind the end of the list", "\x00\x02\x04\x02\x00", 536},
		{"behind an end of the list that looks like an option", "\x00\x03\xff\x02\x04\x02\x00", 536},
		{"behind one NOP", "\x01\x02\x04\x02\x00", 512},
		{"before the end of the list", "\x02\x04\x02\x00\x00\xff", 512},
		{"of length 0", "\x02\x00\x02\x00", 536},
		{"behind one of length 0", "\x08\x00\x02\x04\x02\x00", 536},
		{"behind one of length 1", "\x08\x01\x02\x04\x02\x00", 536},
		{"of length 3", "\x02\x03\x02", 536},
		{"of length 5", "\x02\x05\x02\x00\x00", 536},
		{"cut off", "\x02\x04\x02", 536},
		{"only its kind", "\x02", 536},
		{"only an unknown kind", "\x08", 536},
		{"longer than there is", "\x08\xff\x02\x04\x02\x00", 536},
		{"NOPs only", "\x01\x01\x01\x01", 536},
	} {
		co := conn{mss: 536}
		co.synOptions(&packet.Packet{Window: 777}, []byte(c.options))
		if co.mss != c.mss || co.wnd != 777 || co.cwnd != initialWnd*uint32(c.mss) {
			t.Errorf("%s: an MSS of %d, windows %d and %d; want %d", c.what, co.mss, co.wnd, co.cwnd, c.mss)
		}
	}
}

// establishedByHand returns an established connection of a client, with 100 bytes of
// a response in the send buffer if unacked.
func establishedByHand(t testing.TB, unacked bool) (*hand, *conn) {
	h := byHand(t)
	h.serve = func(e *end, id uint32, msg []byte) {
		if unacked {
			e.s.Send(id, make([]byte, 98), e.s.now)
		}
	}
	h.connect()
	if unacked {
		h.send(packet.ACK, "\x00\x01a")
	}
	c := h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: h.port})
	if c == nil || c.state != established || unacked && c.max-c.una != 100 {
		t.Fatalf("%+v", c)
	}
	return h, c
}

// TestSequenceNumbers (RFC 9293 section 3.10.7.4, RFC 5961): which segments are
// accepted, by sequence number and length, at both sides of each bound, and how
// others are responded to.
func TestSequenceNumbers(t *testing.T) {
	const wnd = maxQuery
	type want struct {
		took    uint32 // bytes
		answers int
		flags   uint8
		gone    bool
		invalid uint64
	}
	for _, c := range []struct {
		what  string
		flags uint8
		off   int32 // from what is expected
		n     int
		want  want
	}{
		{"data that is expected", packet.ACK, 0, 10, want{took: 10, answers: 1, flags: packet.ACK}},
		{"none", packet.ACK, 0, 0, want{}},
		{"none, at the end of the window", packet.ACK, wnd - 1, 0, want{}},
		{"none, behind the window", packet.ACK, wnd, 0, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"none, before", packet.ACK, -1, 0, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"old data", packet.ACK, -10, 10, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"old data and one new byte", packet.ACK, -10, 11, want{took: 1, answers: 1, flags: packet.ACK}},
		{"data after a gap", packet.ACK, 1, 10, want{answers: 1, flags: packet.ACK}},
		{"data that ends behind the window", packet.ACK, wnd - 1, 10, want{answers: 1, flags: packet.ACK}},
		{"data behind the window", packet.ACK, wnd, 10, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"data half the numbers away", packet.ACK, -1 << 31, 10, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"data without ACK", 0, 0, 10, want{invalid: 1}},
		{"a FIN alone", packet.FIN, 0, 0, want{invalid: 1}},
		{"nothing at all", 0, 0, 0, want{invalid: 1}},
		{"a SYN", packet.SYN, 0, 0, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"a SYN and ACK", packet.SYN | packet.ACK, 0, 0, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"an old SYN and ACK", packet.SYN | packet.ACK, -1, 0, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"an old SYN", packet.SYN, -1, 0, want{answers: 1, flags: packet.ACK, invalid: 1}},
		{"the right RST", packet.RST, 0, 0, want{gone: true}},
		{"the right RST and ACK", packet.RST | packet.ACK, 0, 0, want{gone: true}},
		{"a RST one behind", packet.RST, 1, 0, want{answers: 1, flags: packet.ACK}},
		{"a RST at the window's end", packet.RST, wnd - 1, 0, want{answers: 1, flags: packet.ACK}},
		{"a RST behind the window", packet.RST, wnd, 0, want{invalid: 1}},
		{"an old RST", packet.RST, -1, 0, want{invalid: 1}},
	} {
		h, co := establishedByHand(t, false)
		rcv, inv := co.rcv, h.s.c.Invalid
		h.in = nil
		h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53},
			Seq: co.rcv + uint32(c.off), Ack: h.ack, Flags: c.flags, Window: 60000, Data: append([]byte{0, 50}, make([]byte, 98)...)[:c.n]}, h.now)
		got := want{answers: len(h.in), gone: h.s.Len() == 0, invalid: h.s.c.Invalid - inv}
		if !got.gone {
			got.took = co.rcv - rcv
		}
		if len(h.in) > 0 {
			if got.flags = h.in[0].Flags; h.in[0].Ack != co.rcv || h.in[0].Seq != co.nxt || h.in[0].MSS != 0 || len(h.in[0].Data) != 0 {
				t.Errorf("%s: answered by %+v", c.what, h.in[0])
			}
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
		if got.gone != (h.s.c.Reset == 1) {
			t.Errorf("%s: %d resets counted", c.what, h.s.c.Reset)
		}
	}
}

// TestWindowOfMessages: the window does not shrink within a message. It could become
// too small for the segment with the message's end and the beginning of the next,
// which a sender need not split.
func TestWindowOfMessages(t *testing.T) {
	h := byHand(t)
	h.connect()
	m := append([]byte{maxQuery >> 8, maxQuery & 255}, make([]byte, maxQuery)...)
	for _, part := range [][]byte{m[:1], m[1:1460], m[1460:2920], append(m[2920:], m[:100]...)} {
		for _, s := range h.send(packet.ACK, string(part)) {
			if s.Window != maxQuery || s.Ack != h.seq {
				t.Errorf("%d bytes: a window of %d, %d behind", len(part), s.Window, h.seq-s.Ack)
			}
		}
	}
	if h.s.c.Invalid != 0 || len(h.in) == 0 || string(h.in[0].Data[2:6]) != "re: " {
		t.Errorf("%+v, answered by %+v", h.s.c, h.in)
	}
	h.s.Connect(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 6000}, 1, []byte("q"), h.now)
	h.port = 6000
	h.ack = h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 6000}).max
	h.send(packet.SYN|packet.ACK, "")
	for range 3 {
		if in := h.send(packet.ACK, "\xff\xff"+string(make([]byte, 1000))); len(in) != 1 || in[0].Window != maxMessage {
			t.Errorf("our own: %+v", in)
		}
	}
}

// TestAcknowledgements: what an acknowledgement removes from the send buffer, by its
// number: nothing if it is old or acknowledges what was not sent.
func TestAcknowledgements(t *testing.T) {
	for _, c := range []struct {
		off     int32 // from the first byte that is not acknowledged
		left    int
		invalid bool
	}{{0, 100, false}, {1, 99, false}, {99, 1, false}, {100, 0, false}, {101, 100, true}, {1 << 30, 100, true}, {-1, 100, false}, {-1 << 30, 100, false}} {
		h, co := establishedByHand(t, true)
		una := co.una
		h.ack = co.una + uint32(c.off)
		h.send(packet.ACK, "")
		if co.tx.n != c.left || (h.s.c.Invalid == 1) != c.invalid || co.una != una+uint32(100-c.left) {
			t.Errorf("%d: %d bytes are left, %d invalid", c.off, co.tx.n, h.s.c.Invalid)
		}
		if due := co.resendAt != 0; due != (c.left > 0) {
			t.Errorf("%d: to be sent again: %v", c.off, due)
		}
		if c.invalid && (len(h.in) != 1 || h.in[0].Flags != packet.ACK) {
			t.Errorf("%d: answered by %+v", c.off, h.in)
		}
	}
	// The handshake's: exactly one.
	for _, off := range []uint32{0, 1, 2, ^uint32(0)} {
		h := byHand(t)
		h.send(packet.SYN, "")
		iss := h.in[0].Seq
		h.ack = iss + off
		h.send(packet.ACK, "")
		c := h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: h.port})
		if c == nil || (c.state == established) != (off == 1) || (h.s.c.Invalid == 0) != (off == 1) {
			t.Errorf("a SYN acknowledged by %d: %+v", int32(off), c)
		}
		if off == 1 && (c.deadline != h.now+idleTimeout || c.wnd != 60000 || c.una != iss+1) {
			t.Errorf("%+v", c)
		}
	}
}

// TestDuplicateAcknowledgements (RFC 5681 section 3.2): the third duplicate causes a
// retransmission at once. One with data or another window, or with no data
// outstanding, is no duplicate.
func TestDuplicateAcknowledgements(t *testing.T) {
	h, c := establishedByHand(t, true)
	h.ack = c.una
	for i := 1; i <= 7; i++ {
		want := 0
		if i == 3 || i == 6 {
			want = 1
		}
		if in := h.send(packet.ACK, ""); len(in) != want || want == 1 && (in[0].Seq != c.una || len(in[0].Data) != 100) {
			t.Fatalf("duplicate %d: %+v", i, in)
		}
		h.ack = c.una
	}
	if h.s.c.Resent != 2 || c.cwnd != max(initialWnd*536/4, 2*536) {
		t.Fatalf("sent again %d times, a window of %d", h.s.c.Resent, c.cwnd)
	}
	h, c = establishedByHand(t, true) // never less than two segments
	c.cwnd = 536
	for range 3 {
		h.ack = c.una
		h.send(packet.ACK, "")
	}
	if c.cwnd != 2*536 {
		t.Fatalf("a window of %d", c.cwnd)
	}
	h, c = establishedByHand(t, true) // an acknowledgement of new data begins the count anew
	for i, off := range []uint32{0, 0, 10, 0, 0, 0} {
		h.ack = c.una + off
		if in := h.send(packet.ACK, ""); (len(in) == 1) != (i == 5) {
			t.Fatalf("acknowledgement %d: %+v", i, in)
		}
	}
	for what, send := range map[string]func(h *hand, c *conn){
		"that are old":               func(h *hand, c *conn) { h.ack = c.una - 1; h.send(packet.ACK, "") },
		"with data":                  func(h *hand, c *conn) { h.send(packet.ACK, "\x01") },
		"with another window":        func(h *hand, c *conn) { c.wnd--; h.send(packet.ACK, "") },
		"with nothing under way":     func(h *hand, c *conn) { h.ack = c.max; h.send(packet.ACK, "") },
		"that acknowledge something": func(h *hand, c *conn) { h.ack = c.una + 1; h.send(packet.ACK, "") },
	} {
		h, c := establishedByHand(t, true)
		for range 9 {
			h.ack = c.una
			send(h, c)
		}
		if h.s.c.Resent != 0 {
			t.Errorf("%s: sent again %d times", what, h.s.c.Resent)
		}
	}
}

// TestMessageLengths: which lengths of messages are accepted, from clients and for
// upstreams.
func TestMessageLengths(t *testing.T) {
	for _, c := range []struct {
		n  int
		ok bool
	}{{0, false}, {1, true}, {255, true}, {256, true}, {maxQuery, true}, {maxQuery + 1, false}, {65535, false}} {
		h := byHand(t)
		h.serve = func(e *end, id uint32, msg []byte) { e.got = append(e.got, bytes.Clone(msg)) }
		h.connect()
		m := append([]byte{byte(c.n >> 8), byte(c.n)}, message(c.n, 4)...)
		for ; len(m) > 0 && h.s.Len() > 0; m = m[min(len(m), 1000):] {
			h.send(packet.ACK, string(m[:min(len(m), 1000)]))
		}
		if ok := len(h.got) == 1 && bytes.Equal(h.got[0], message(c.n, 4)); ok != c.ok || (h.s.Len() == 1) != c.ok || (h.s.c.Aborted == 0) != c.ok {
			t.Errorf("%d bytes: taken %v, %+v", c.n, ok, h.s.c)
		}
	}
	h := byHand(t)
	for _, n := range []int{0, 1, maxQuery, maxQuery + 1} {
		tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: uint16(3000 + n), RemotePort: 53}
		if got := h.s.Connect(&tu, 1, make([]byte, n), h.now); got != (n <= maxQuery) {
			t.Errorf("a question of %d bytes: %v", n, got)
		}
		if h.s.Connect(&tu, 1, nil, h.now) && n <= maxQuery {
			t.Error("two connections with the same ends")
		}
		if _, ok := h.s.ConnectStream(&tu, 1, h.now); ok {
			t.Error("a stream with the ends of a connection")
		}
		check(t, h.s)
	}
}

// TestSynSent: only a SYN that acknowledges ours establishes a connection, only a
// RST that does ends it, and an ICMP error only with its sequence number.
func TestSynSent(t *testing.T) {
	tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 5000}
	for _, c := range []struct {
		flags   uint8
		off     uint32
		open    bool
		gone    bool
		invalid uint64
	}{
		{packet.SYN | packet.ACK, 1, true, false, 0}, {packet.SYN | packet.ACK, 0, false, false, 1}, {packet.SYN | packet.ACK, 2, false, false, 1},
		{packet.SYN | packet.FIN | packet.ACK, 1, true, false, 0}, {packet.FIN | packet.ACK, 1, false, false, 1},
		{packet.SYN, 1, false, false, 1}, {packet.ACK, 1, false, false, 1}, {0, 1, false, false, 1},
		{packet.RST | packet.ACK, 1, false, true, 0}, {packet.RST | packet.ACK, 0, false, false, 0}, {packet.RST | packet.ACK, 2, false, false, 0},
		{packet.RST, 1, false, false, 0}, {packet.RST | packet.SYN | packet.ACK, 1, false, true, 0},
	} {
		h := byHand(t)
		if !h.s.Connect(&tu, 7, []byte("q"), h.now) || len(h.in) != 1 || h.in[0].Flags != packet.SYN || h.in[0].MSS != 1460 || h.in[0].Passive || h.s.c.Connected != 1 {
			t.Fatalf("begins with %+v", h.in)
		}
		if at, any := h.s.Due(); !any || at != h.now+initialRTO {
			t.Fatalf("due at %d", at-h.now)
		}
		iss := h.in[0].Seq
		h.ack = iss + c.off
		h.in = nil
		h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: 5000, RemotePort: 53}, Seq: 500, Ack: h.ack, Flags: c.flags, Window: 60000}, h.now)
		what := fmt.Sprintf("flags %x, %d", c.flags, int32(c.off))
		if gone := h.s.Len() == 0; gone != c.gone || h.s.c.Invalid != c.invalid || gone != (h.s.c.Failed == 1 && h.s.c.Reset == 1 && len(h.closed) == 1) {
			t.Errorf("%s: gone %v, %+v", what, gone, h.s.c)
		}
		if open := len(h.in) == 1 && string(h.in[0].Data) == "\x00\x01q" && h.in[0].Ack == 501 && h.in[0].Seq == iss+1; open != c.open {
			t.Errorf("%s: opened %v: %+v", what, open, h.in)
		}
		if at, any := h.s.Due(); c.open && (!any || at != h.now+initialRTO) {
			t.Errorf("%s: due at %d", what, at-h.now)
		}
	}
	for _, off := range []uint32{0, 1, ^uint32(0)} {
		h := byHand(t)
		h.s.Connect(&tu, 7, []byte("q"), h.now)
		other := tu
		other.LocalPort++
		iss := h.in[0].Seq
		if h.s.Unreachable(&other, iss, h.now) {
			t.Error("another's")
		}
		if got := h.s.Unreachable(&tu, iss+off, h.now); got != (off == 0) || (h.s.Len() == 0) != got || (h.s.c.Failed == 1) != got || (len(h.closed) == 1) != got {
			t.Errorf("%d: %v, %+v", int32(off), got, h.s.c)
		}
	}
	h, c := establishedByHand(t, true)
	if h.s.Unreachable(&c.Tuple, c.una, h.now) || h.s.Len() != 1 {
		t.Error("an ICMP error has ended a connection that exists")
	}
}

// TestChunksModel compares queues in a pool with slices, up to the last chunk and
// back.
func TestChunksModel(t *testing.T) {
	var p pool
	p.init(7)
	r := rand.New(rand.NewPCG(1, 9))
	var q [3]queue
	var want [3][]byte
	next := byte(0)
	refused := 0
	for step := range 20000 {
		i := r.IntN(3)
		k := &q[i]
		if r.IntN(2) == 0 {
			n := []int{0, 1, r.IntN(50), chunkSize - 1, chunkSize, chunkSize + 1, r.IntN(2 * chunkSize)}[r.IntN(7)]
			before := p.nFree
			more := k.moreChunks(n)
			if more > before { // it would not fit: what does stays, as makeRoom sees to it that it does
				refused++
				continue
			}
			b := make([]byte, n)
			for j := range b {
				next++
				b[j] = next ^ byte(j>>8)
			}
			if !p.append(k, b) || before-p.nFree != more {
				t.Fatalf("step %d: %d bytes took %d chunks, want %d", step, n, before-p.nFree, more)
			}
			want[i] = append(want[i], b...)
		} else if r.IntN(50) == 0 {
			p.release(k)
			want[i] = nil
		} else {
			n := r.IntN(chunkSize + 5)
			p.discard(k, n)
			want[i] = want[i][min(n, len(want[i])):]
		}
		left := len(p.mem)
		for j := range q {
			left -= q[j].chunks()
			if q[j].n != len(want[j]) || q[j].n == 0 && q[j] != (queue{}) || q[j].off >= chunkSize {
				t.Fatalf("step %d: queue %d: %+v, want %d bytes", step, j, q[j], len(want[j]))
			}
		}
		if left != p.nFree {
			t.Fatalf("step %d: %d chunks are left, noted %d", step, left, p.nFree)
		}
		off := r.IntN(len(want[i]) + 1)
		dst := make([]byte, r.IntN(3*chunkSize))
		n := p.peek(dst, k, off)
		if n != min(len(dst), len(want[i])-off) || !bytes.Equal(dst[:n], want[i][off:off+n]) {
			t.Fatalf("step %d: %d bytes from %d of %d", step, n, off, len(want[i]))
		}
	}
	if refused < 100 {
		t.Fatalf("full %d times", refused)
	}
	// What fits of too much stays.
	for i := range q {
		p.release(&q[i])
	}
	if p.append(&q[0], make([]byte, 7*chunkSize+1)) || q[0].n != 7*chunkSize || p.nFree != 0 || p.alloc() != 0 {
		t.Fatalf("%+v, %d left", q[0], p.nFree)
	}
	if p.append(&q[1], []byte{1}) || q[1] != (queue{}) {
		t.Fatalf("%+v", q[1])
	}
}

// TestClientCounts: counts by client, with the largest number of clients and
// colliding slots.
func TestClientCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 50 {
		var ta clientCounts
		want := map[packet.Addr]int{}
		var addrs []packet.Addr
		for len(addrs) < 200 {
			addrs = append(addrs, packet.Addr(r.Uint32()))
		}
		for range 1000 {
			a := addrs[r.IntN(len(addrs))]
			*ta.of(a)++
			want[a]++
		}
		for _, a := range addrs {
			if got := *ta.of(a); got != want[a] {
				t.Fatalf("%v: %d, want %d", a, got, want[a])
			}
		}
	}
}

package tcp

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// due checks when a stack has something to do.
func due(t testing.TB, s *Stack, want int64) {
	t.Helper()
	if at, any := s.Due(); any != (want != 0) || at != want {
		t.Fatalf("due at %d (%v), want %d", at, any, want)
	}
}

// tickAt lets Tick run just before a time, when nothing may happen, and at it.
func (h *hand) tickAt(at int64) []Segment {
	h.t.Helper()
	h.in = nil
	n := h.s.Len()
	if h.now < at-1 {
		h.now = at - 1
	}
	if h.s.Tick(at - 1); len(h.in) != 0 || h.s.Len() != n {
		h.t.Fatalf("too early: %+v", h.in)
	}
	h.now = at
	h.s.Tick(at)
	return h.in
}

// TestRetransmission (RFC 6298): a segment is retransmitted after 1, 2, 4, 8 and 8
// seconds, and the connection is reset after that.
func TestRetransmission(t *testing.T) {
	h, c := establishedByHand(t, true)
	c.deadline = 1000 * second // not looked at here
	at, step := h.now, second
	for i := range maxRetries {
		at += step
		due(t, h.s, at)
		in := h.tickAt(at)
		if len(in) != 1 || in[0].Seq != c.una || len(in[0].Data) != 100 || in[0].Flags != packet.ACK|packet.PSH || h.s.c.Resent != uint64(i+1) {
			t.Fatalf("try %d: %+v, %+v", i, in, h.s.c)
		}
		step = min(2*step, maxRTO)
	}
	next := c.nxt
	if in := h.tickAt(at + step); len(in) != 1 || in[0].Flags != packet.RST|packet.ACK || in[0].Seq != next || h.s.Len() != 0 || h.s.c.Timeouts != 1 {
		t.Fatalf("in the end %+v, %+v", in, h.s.c)
	}
	due(t, h.s, 0)
	// An acknowledgement of a part begins anew.
	h, c = establishedByHand(t, true)
	c.deadline = 1000 * second
	h.tickAt(h.now + second)
	h.tickAt(h.now + 2*second)
	h.ack = c.una + 40
	h.send(packet.ACK, "")
	due(t, h.s, h.now+second)
	if in := h.tickAt(h.now + second); len(in) != 1 || len(in[0].Data) != 60 || c.retries != 1 {
		t.Fatalf("%+v, %d tries", in, c.retries)
	}
	// A SYN and its answer are sent again, too, until the handshake's time is over.
	for _, ours := range []bool{false, true} {
		h := byHand(t)
		want := uint8(packet.SYN)
		if ours {
			h.s.Connect(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 5000}, 1, []byte("q"), h.now)
		} else {
			h.send(packet.SYN, "")
			want |= packet.ACK
		}
		first := h.in[0]
		begin := h.now
		due(t, h.s, begin+second)
		if in := h.tickAt(begin + second); len(in) != 1 || in[0].Flags != want || in[0].Seq != first.Seq || in[0].MSS != first.MSS {
			t.Fatalf("ours %v: %+v", ours, in)
		}
		due(t, h.s, begin+3*second)
		if h.tickAt(begin + handshakeTimeout); h.s.Len() != 0 || h.s.c.Timeouts != 1 || len(h.closed) != 1 {
			t.Fatalf("ours %v: %+v", ours, h.s.c)
		}
	}
	// A client's SYN that comes again is answered again, at once; another is not.
	h = byHand(t)
	h.send(packet.SYN, "")
	first := h.in[0]
	h.seq--
	if in := h.send(packet.SYN, ""); len(in) != 1 || in[0].Flags != packet.SYN|packet.ACK || in[0].Seq != first.Seq {
		t.Fatalf("%+v", in)
	}
	if in := h.send(packet.SYN, ""); len(in) != 1 || in[0].Flags != packet.ACK || h.s.c.Invalid != 1 {
		t.Fatalf("another SYN: %+v", in)
	}
}

// TestZeroWindowProbe (RFC 9293 section 3.8.6.1): a zero window is probed with one
// byte; when it opens, sending continues.
func TestZeroWindowProbe(t *testing.T) {
	h := byHand(t)
	h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, make([]byte, 500), e.s.now) }
	h.connect()
	c := h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: h.port})
	say := func(window uint16, data string) []Segment {
		h.in = nil
		h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}, Seq: h.seq, Ack: c.una, Flags: packet.ACK, Window: window, Data: []byte(data)}, h.now)
		h.seq += uint32(len(data))
		return h.in
	}
	if in := say(0, "\x00\x01a"); len(in) != 1 || len(in[0].Data) != 0 {
		t.Fatalf("into a shut window: %+v", in)
	}
	c.deadline = 1000 * second
	due(t, h.s, h.now+second)
	if in := h.tickAt(h.now + second); len(in) != 1 || len(in[0].Data) != 1 || in[0].Seq != c.una {
		t.Fatalf("a probe: %+v", in)
	}
	// Nothing goes out before the next probe is due, whatever is heard of the window.
	if in := say(0, ""); len(in) != 0 {
		t.Fatalf("the window is still shut: %+v", in)
	}
	// Nor with an old acknowledgement, which says nothing of the window.
	h.in = nil
	h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}, Seq: h.seq, Ack: c.una - 1,
		Flags: packet.ACK, Window: 300}, h.now)
	if len(h.in) != 0 || c.wnd != 0 {
		t.Fatalf("an old acknowledgement: %+v, a window of %d", h.in, c.wnd)
	}
	// It opens, and the probe was dropped: everything from there on.
	if in := say(300, ""); len(in) != 1 || len(in[0].Data) != 300 || in[0].Seq != c.una {
		t.Fatalf("into a window of 300: %+v", in)
	}
	h.ack = c.una + 300
	h.in = nil
	h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}, Seq: h.seq, Ack: c.una + 300, Flags: packet.ACK, Window: 1000}, h.now)
	if len(h.in) != 1 || len(h.in[0].Data) != 202 || h.in[0].Flags&packet.PSH == 0 || c.tx.n != 202 {
		t.Fatalf("the rest: %+v", h.in)
	}
}

// TestSegmentsAreBounded: segments are not longer than either MSS, the data
// outstanding does not exceed the windows, and no segment is short for want of
// window while others are outstanding (RFC 9293 section 3.8.6.2.1).
func TestSegmentsAreBounded(t *testing.T) {
	for _, c := range []struct {
		mss, window uint16
		ours        int // MTU
		longest     int
		under       int
	}{
		{1460, 60000, 1500, 1460, 14600}, {1460, 3000, 1500, 1460, 2920}, {500, 60000, 1500, 500, 5000}, {9000, 60000, 1500, 1460, 59860},
		{1460, 60000, 1400, 1360, 13600}, {1460, 60000, 9000, 1460, 14600}, {100, 777, 1500, 100, 700}, {1460, 777, 1500, 777, 777},
	} {
		h := byHand(t)
		h.s = New(h, 1500, c.ours, 1)
		h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, make([]byte, 65000), e.s.now) }
		from := Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}
		h.arrive(&Segment{Tuple: from, Seq: 1, Flags: packet.SYN, MSS: c.mss, Window: 1}, h.now)
		if h.in[0].MSS != uint16(min(c.ours, 1500)-40) || !h.in[0].Passive {
			t.Errorf("%+v: our MSS is %d", c, h.in[0].MSS)
		}
		iss := h.in[0].Seq
		h.arrive(&Segment{Tuple: from, Seq: 2, Ack: iss + 1, Flags: packet.ACK, Window: c.window}, h.now)
		h.in = nil
		h.arrive(&Segment{Tuple: from, Seq: 2, Ack: iss + 1, Flags: packet.ACK, Window: c.window, Data: []byte("\x00\x01a")}, h.now)
		longest, under := 0, 0
		for _, s := range h.in {
			longest, under = max(longest, len(s.Data)), under+len(s.Data)
		}
		if longest != c.longest || under != c.under {
			t.Errorf("%+v: segments of %d, %d under way", c, longest, under)
		}
	}
}

// TestSendBufferIsBounded: responses up to the limit of the send buffer, and one
// byte more.
func TestSendBufferIsBounded(t *testing.T) {
	for _, over := range []int{0, 1} {
		h, c := establishedByHand(t, false)
		c.wnd = 0
		id := h.s.id(c)
		n := 0
		for n < maxTxBytes-60002 {
			h.s.Send(id, make([]byte, 60000), h.now)
			n += 60002
		}
		h.s.Send(id, make([]byte, maxTxBytes-n+over), h.now)
		if (h.s.Len() == 1) != (over == 0) || h.s.c.Aborted != uint64(over) {
			t.Errorf("%d more: %+v", over, h.s.c)
		}
		check(t, h.s)
	}
}

// TestClientTimeouts: the deadlines of clients' connections: idle ones, those that
// wait for responses, and those within a message.
func TestClientTimeouts(t *testing.T) {
	// Idle: closed with a FIN, and removed after lingerTimeout.
	h, c := establishedByHand(t, false)
	begin := h.now
	due(t, h.s, begin+idleTimeout)
	if in := h.tickAt(begin + idleTimeout); len(in) != 1 || in[0].Flags != packet.ACK|packet.FIN || c.state != closing || h.s.c.Timeouts != 0 {
		t.Fatalf("idle: %+v", in)
	}
	if c.deadline != begin+idleTimeout+lingerTimeout {
		t.Fatalf("ends at %d", c.deadline-begin)
	}
	due(t, h.s, begin+idleTimeout+second)
	if in := h.tickAt(begin + idleTimeout + second); len(in) != 1 || in[0].Flags != packet.ACK|packet.FIN || in[0].Seq != c.una {
		t.Fatalf("the end again: %+v", in)
	}
	if h.s.c.Resent != 1 {
		t.Fatalf("%+v", h.s.c)
	}
	// The other side acknowledges, and says nothing: it has lingerTimeout to end its side.
	h.ack++
	h.send(packet.ACK, "")
	due(t, h.s, begin+idleTimeout+lingerTimeout)
	if in := h.tickAt(begin + idleTimeout + lingerTimeout); len(in) != 1 || in[0].Flags&packet.RST == 0 || h.s.Len() != 0 || h.s.c.Timeouts != 1 {
		t.Fatalf("lingering: %+v", in)
	}
	// It waits for an answer: for three times as long, from its question on.
	h, c = establishedByHand(t, false)
	h.serve = func(*end, uint32, []byte) {}
	h.now += 100 * second
	h.send(packet.ACK, "\x00\x01a")
	begin = h.now
	for i := int64(1); i <= 2; i++ {
		if in := h.tickAt(begin + i*idleTimeout); len(in) != 0 || h.s.Len() != 1 || c.unanswered != 1 {
			t.Fatalf("waits: %+v", in)
		}
		due(t, h.s, begin+(i+1)*idleTimeout)
	}
	if in := h.tickAt(begin + 3*idleTimeout); len(in) != 1 || in[0].Flags&packet.RST == 0 || h.s.c.Timeouts != 1 {
		t.Fatalf("nobody answers: %+v", in)
	}
	// In the middle of a message: no good order.
	h, _ = establishedByHand(t, false)
	h.now += second
	h.send(packet.ACK, "\x00")
	begin = h.now
	due(t, h.s, begin+idleTimeout)
	h.now += second
	h.send(packet.ACK, "\x05")
	due(t, h.s, begin+idleTimeout) // more bytes of it change nothing
	if in := h.tickAt(begin + idleTimeout); len(in) != 1 || in[0].Flags&packet.RST == 0 || h.s.c.Timeouts != 1 {
		t.Fatalf("half a message: %+v", in)
	}
	// A client must acknowledge minProgress of its responses, or all, within idleTimeout.
	for _, took := range []uint32{minProgress - 1, minProgress} {
		h, c := establishedByHand(t, false)
		h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, make([]byte, 60000), e.s.now) }
		h.send(packet.ACK, "\x00\x01a")
		begin := h.now
		h.now += 9 * second
		for _, part := range []uint32{5000, took - 5000} { // less is outstanding at first
			h.ack = c.una + part
			h.send(packet.ACK, "")
		}
		c.resendAt = 0
		h.tickAt(begin + idleTimeout)
		if (h.s.Len() == 1) != (took == minProgress) || h.s.c.Stalled != uint64(minProgress-took) {
			t.Errorf("%d bytes taken: %d connections, %+v", took, h.s.Len(), h.s.c)
		}
		if took == minProgress && (c.deadline != begin+2*idleTimeout || c.txAcked != 0 || c.txAtStart != c.tx.n) {
			t.Errorf("then until %d, %d of %d taken", c.deadline-begin, c.txAcked, c.txAtStart)
		}
	}
}

// TestEvictionOrder: which connections are stalled, and in which order connections
// are evicted; of queries only closing ones are.
func TestEvictionOrder(t *testing.T) {
	c := conn{lastProgress: second}
	c.tx.n = 1
	if c.stalled(second+stallTimeout-1) || !c.stalled(second+stallTimeout) {
		t.Error("stalled too early or too late")
	}
	if c.tx.n = 0; c.stalled(100 * second) {
		t.Error("stalled with nothing to take")
	}
	ranks := []rank{{0, 9, 5}, {0, 9, 6}, {0, 3, 1}, {1, 9, 0}, {1, 1, 0}, {3, 2, 7}}
	for i := range ranks {
		for j := range ranks {
			if got := ranks[i].before(&ranks[j]); got != (i < j) {
				t.Errorf("%+v before %+v: %v", ranks[i], ranks[j], got)
			}
		}
	}
	h := byHand(t)
	tu := func(i int) *Tuple {
		return &Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: uint16(3000 + i), RemotePort: 53}
	}
	for i := range maxQueries {
		if !h.s.Connect(tu(i), uint32(i), []byte("q"), h.now) {
			t.Fatalf("question %d", i)
		}
	}
	if h.s.Connect(tu(maxQueries), 99, []byte("q"), h.now) || len(h.closed) != 0 || h.s.c.Evicted != 0 {
		t.Fatal("one too many")
	}
	for i, deadline := range map[int]int64{5: 3, 9: 1, 12: 2} {
		c := h.s.find(tu(i))
		c.state, c.deadline = closing, h.now+deadline
	}
	for k, i := range []int{9, 12, 5} { // the one with the earliest deadline first
		if !h.s.Connect(tu(maxQueries+k), 99, []byte("q"), h.now) || len(h.closed) != k+1 || h.closed[k] != uint32(i) || h.s.c.Evicted != uint64(k+1) {
			t.Fatalf("%v gave way", h.closed)
		}
	}
	if h.s.Connect(tu(maxQueries+3), 99, []byte("q"), h.now) {
		t.Fatal("one too many")
	}
	check(t, h.s)
	// Ids and tags of what is gone stand for nothing.
	id := h.s.id(h.s.find(tu(0)))
	if got, tag, served := h.s.Conn(id); got != *tu(0) || tag != 0 || served {
		t.Errorf("%+v, %d, %v", got, tag, served)
	}
	for _, wrong := range []uint32{0, id + 1<<16, id&^0xffff | 0xffff, id&^0xffff | uint32(len(h.s.conn)+1), id &^ 0xffff} {
		if h.s.byID(wrong) != nil {
			t.Errorf("id %x stands for something", wrong)
		}
	}
	h.s.Cancel(3, h.now)
	if got, tag, served := h.s.Conn(id + 3); h.s.Len() != maxQueries-1 || got != (Tuple{}) || tag != 0 || served {
		t.Errorf("%d connections; %+v", h.s.Len(), got)
	}
}

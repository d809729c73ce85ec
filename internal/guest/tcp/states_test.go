package tcp

import (
	"bytes"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestInitialSequenceNumbers: they are the user's random numbers, for connections of
// each kind.
func TestInitialSequenceNumbers(t *testing.T) {
	for what, open := range map[string]func(h *hand){
		"passive": func(h *hand) { h.send(packet.SYN, "") },
		"query":   func(h *hand) { h.s.Connect(&Tuple{clientAddr, serverAddr, 40000, 53}, 1, []byte("q"), h.now) },
		"stream":  func(h *hand) { h.s.ConnectStream(&Tuple{clientAddr, serverAddr, 40000, 853}, 1, h.now) },
	} {
		u := &counter{}
		h := byHand(t)
		h.s = New(fixed{u, 0x123456789abcdef0}, 1500, 1500, 1)
		if open(h); len(u.out) != 1 || u.out[0].Seq != 0x9abcdef0 {
			t.Errorf("%s: begins with %+v", what, u.out)
		}
		check(t, h.s)
	}
}

// fixed is a counter with one random number.
type fixed struct {
	*counter
	random uint64
}

func (f fixed) Random() uint64 { return f.random }

// TestRepeatedSYN: a client's SYN that is repeated before its handshake is complete is
// answered again; one that also acknowledges is no such SYN.
func TestRepeatedSYN(t *testing.T) {
	h := byHand(t)
	h.send(packet.SYN, "")
	iss := h.in[0].Seq
	for _, c := range []struct{ flags, answer uint8 }{
		{packet.SYN, packet.SYN | packet.ACK}, {packet.SYN | packet.PSH, packet.SYN | packet.ACK}, {packet.SYN | packet.FIN, packet.SYN | packet.ACK}, {packet.SYN | packet.ACK, packet.ACK},
	} {
		h.seq--
		if in := h.send(c.flags, ""); len(in) != 1 || in[0].Flags != c.answer || in[0].Flags&packet.SYN != 0 && in[0].Seq != iss {
			t.Errorf("flags %x: %+v", c.flags, in)
		}
	}
	h.seq--
	if in := h.send(packet.FIN, ""); len(in) != 0 || h.s.c.Invalid != 2 {
		t.Errorf("a FIN: %+v", in)
	}
	if h.s.c.Invalid != 2 || h.s.Len() != 1 || h.s.c.Accepted != 1 {
		t.Errorf("%+v", h.s.c)
	}
}

// TestShutReceiveWindow (RFC 9293 section 3.10.7.4): while a stream's buffer is full,
// acknowledgements with the expected number are processed, and no other segments.
func TestShutReceiveWindow(t *testing.T) {
	for off, taken := range map[uint32]bool{0: true, 1: false, ^uint32(0): false} {
		h, id := opened(t)
		for range streamIn / 1024 {
			h.send(packet.ACK, string(make([]byte, 1024)))
		}
		if st, _ := h.s.Stream(id); st.Unread != streamIn {
			t.Fatalf("%+v", st)
		}
		h.in = nil
		h.s.Write(id, make([]byte, 100), h.now)
		if len(h.in) != 1 || h.in[0].Window != 0 {
			t.Fatalf("%+v", h.in)
		}
		h.ack = h.in[0].Seq + 100
		h.seq += off
		h.send(packet.ACK, "")
		st, _ := h.s.Stream(id)
		if (st.Room == streamOut) != taken || (h.s.c.Invalid == 0) != taken {
			t.Errorf("at %d: room for %d bytes, %+v", int32(off), st.Room, h.s.c)
		}
	}
}

// TestMessagesDoNotExtendThePeriod: a client that acknowledges nothing does not get
// more time by sending queries.
func TestMessagesDoNotExtendThePeriod(t *testing.T) {
	h, c := establishedByHand(t, true)
	h.serve = func(*end, uint32, []byte) {}
	until := c.deadline
	h.now += second
	h.ack = c.una
	h.send(packet.ACK, "\x00\x02ab\x00\x01c")
	if c.unanswered != 2 || c.deadline != until {
		t.Fatalf("%d queries, extended by %d", c.unanswered, c.deadline-until)
	}
	h.ack = c.max
	h.send(packet.ACK, "")
	until = c.deadline
	h.now += second
	if h.send(packet.ACK, "\x00\x01"); c.deadline != until+second {
		t.Fatalf("without responses under way: %d", c.deadline-until)
	}
	h.now += second
	if h.send(packet.ACK, "d"); c.deadline != until+2*second || c.unanswered != 3 {
		t.Fatalf("a complete message: %d", c.deadline-until)
	}
}

// TestSendWithoutMemory: a connection whose own client has used all memory is reset
// when there is none for a response; the client's others stay.
func TestSendWithoutMemory(t *testing.T) {
	h, c := establishedByHand(t, false)
	h.port++
	h.connect()
	o := h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: h.port})
	c.lastProgress, o.lastProgress = h.now-1, h.now
	p := &h.s.pools[kindPassive]
	p.append(&o.tx, make([]byte, (p.nFree-1)*chunkSize))
	id := h.s.id(c)
	h.s.Send(id, make([]byte, chunkSize-2), h.now) // fits exactly
	if h.s.Len() != 2 || p.nFree != 0 || h.s.c.Aborted != 0 {
		t.Fatalf("%d connections, %d chunks, %+v", h.s.Len(), p.nFree, h.s.c)
	}
	h.s.Send(id, []byte("x"), h.now)
	if h.s.byID(id) != nil || h.s.Len() != 1 || h.s.c.Aborted != 1 || h.s.c.Evicted != 0 {
		t.Fatalf("%d connections, %+v", h.s.Len(), h.s.c)
	}
	check(t, h.s)
}

// TestFINBehindAFullWindow: data that fill the window exactly are taken with the FIN
// behind them; of more data, neither the rest nor the FIN is.
func TestFINBehindAFullWindow(t *testing.T) {
	for over, fin := range map[int]bool{0: true, 1: false} {
		h, c := establishedByHand(t, false)
		data := append([]byte{1, 0}, make([]byte, 256)...)
		data = bytes.Repeat(data, maxQuery/len(data)+1)[:maxQuery+over]
		rcv := c.rcv
		h.serve = func(*end, uint32, []byte) {}
		in := h.send(packet.ACK|packet.FIN, string(data))
		want := rcv + maxQuery
		if fin {
			want++
		}
		if c.finSeen != fin || c.rcv != want || len(in) != 1 || in[0].Ack != want {
			t.Errorf("%d more: FIN %v, %d bytes, %+v", over, c.finSeen, c.rcv-rcv, in)
		}
	}
}

// TestLateFINExtendsNothing: the FIN of an upstream, after we have closed, leaves the
// deadline as it is.
func TestLateFINExtendsNothing(t *testing.T) {
	h := byHand(t)
	tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 5000}
	h.serve = func(e *end, id uint32, _ []byte) { e.s.Close(id, e.s.now) }
	h.s.Connect(&tu, 7, []byte("q"), h.now)
	h.ack = h.in[0].Seq + 1
	h.send(packet.SYN|packet.ACK, "")
	h.send(packet.ACK, "\x00\x01r")
	c := h.s.find(&tu)
	until := c.deadline
	if c.state != closing || until != h.now+lingerTimeout {
		t.Fatalf("%+v", c)
	}
	h.now += second / 2
	h.ack = c.una // our FIN is lost
	if h.send(packet.ACK|packet.FIN, ""); !c.finSeen || c.deadline != until || h.s.Len() != 1 {
		t.Fatalf("%+v", c)
	}
}

// TestNoTimerWithoutData: a zero window alone starts no timer.
func TestNoTimerWithoutData(t *testing.T) {
	h, c := establishedByHand(t, false)
	h.in = nil
	h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}, Seq: h.seq, Ack: h.ack, Flags: packet.ACK}, h.now)
	if c.wnd != 0 || c.resendAt != 0 || len(h.in) != 0 {
		t.Fatalf("%+v", c)
	}
	due(t, h.s, c.deadline)
}

// TestEvictionRank: which connections may be evicted for another client's, by what
// they do and how many either client has, and in which order.
func TestEvictionRank(t *testing.T) {
	s := New(quiet{}, 1500, 1500, 1)
	s.now = 100 * second
	const other, itself = clientAddr, clientAddr + 1
	tx := queue{n: 1}
	for _, c := range []struct {
		what  string
		conn  conn
		class uint8
		since int64
		inUse bool
	}{
		{"half-open", conn{state: synReceived, lastActive: 5, lastProgress: s.now}, 0, 5, false},
		{"stalled", conn{state: established, tx: tx, lastActive: s.now, lastProgress: s.now - stallTimeout}, 1, s.now - stallTimeout, false},
		{"closing", conn{state: closing, deadline: 6, lastActive: 5, lastProgress: s.now}, 2, 6, false},
		{"idle", conn{state: established, lastActive: 7, lastProgress: s.now}, 3, 7, false},
		{"with a query", conn{state: established, unanswered: 1, lastActive: 7, lastProgress: 8}, 4, 8, true},
		{"with a response", conn{state: established, tx: tx, lastActive: 7, lastProgress: s.now - stallTimeout + 1}, 4, s.now - stallTimeout + 1, true},
	} {
		for _, n := range []struct {
			owner   packet.Addr
			mine, n int
			unused  bool // may be evicted when it is not in use
			used    bool // also when it is
		}{
			{other, 3, 2, false, false}, {other, 3, 3, false, false}, {other, 3, 4, true, false}, {other, 3, 5, true, true},
			{itself, 3, 3, true, false}, {itself, maxPerClient, maxPerClient, true, false}, {other, maxPerClient, maxPerClient, false, false},
		} {
			k := c.conn
			k.Remote = n.owner
			want := n.unused
			switch {
			case c.inUse:
				want = n.used
			case c.what == "stalled" && n.mine < maxPerClient:
				want = true
			}
			r, ok := s.evictionRank(&k, itself, n.mine, n.n)
			if ok != want || r != (rank{class: c.class, n: n.n, since: c.since}) {
				t.Errorf("%s, of %x with %d, for one with %d: %+v, %v; want %v", c.what, n.owner, n.n, n.mine, r, ok, want)
			}
		}
	}
}

// TestMemoryOfQueries: connections to upstreams each count by themselves: the one with
// the most memory is evicted, also if all are to one address.
func TestMemoryOfQueries(t *testing.T) {
	s := New(quiet{}, 1500, 1500, 1)
	var c [3]*conn
	for i := range c {
		tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: uint16(3000 + i), RemotePort: 53}
		s.Connect(&tu, uint32(i), []byte("q"), second)
		c[i] = s.find(&tu)
		c[i].lastProgress = int64(i)
		s.pools[kindQuery].append(&c[i].rx, make([]byte, (i+2)*chunkSize))
	}
	if got := s.memoryVictim(c[0], 1); got != c[2] {
		t.Errorf("%+v", got)
	}
	if got := s.memoryVictim(c[0], 3); got != c[0] {
		t.Errorf("the largest itself: %+v", got)
	}
	if got := s.memoryVictim(c[1], 1); got != c[1] {
		t.Errorf("as large as another: %+v", got)
	}
	// Clients' memory does not count, however little they acknowledge.
	s.Accept(&tuple, &packet.Packet{Seq: 1, Window: 100}, nil, 0, second)
	k := s.find(&tuple)
	k.state = established
	s.pools[kindPassive].append(&k.tx, make([]byte, 50*chunkSize))
	if got := s.memoryVictim(c[0], 1); !k.stalled(s.now) && got != c[2] {
		t.Errorf("%+v", got)
	}
	if s.now = 100 * second; !k.stalled(s.now) || s.memoryVictim(c[0], 1) != c[2] || s.memoryVictim(k, 1) != k {
		t.Errorf("a stalled client: %+v", s.memoryVictim(c[0], 1))
	}
}

// TestCloseBeforeEstablished: a connection that is not established is removed by
// Close; its peer gets a RST if it may know of it.
func TestCloseBeforeEstablished(t *testing.T) {
	for what, c := range map[string]struct {
		open func(h *hand)
		rst  bool
	}{
		"query":   {func(h *hand) { h.s.Connect(&Tuple{serverAddr, clientAddr, 53, 5000}, 1, []byte("q"), h.now) }, false},
		"stream":  {func(h *hand) { h.s.ConnectStream(&Tuple{serverAddr, clientAddr, 53, 5000}, 1, h.now) }, false},
		"passive": {func(h *hand) { h.send(packet.SYN, "") }, true},
	} {
		h := byHand(t)
		if c.open(h); len(h.in) != 1 {
			t.Fatalf("%s: %+v", what, h.in)
		}
		first := h.in[0]
		h.in = nil
		h.s.Close(1<<16|1, h.now)
		if h.s.Len() != 0 || len(h.closed) != 1 || c.rst != (len(h.in) == 1) || c.rst && (h.in[0].Flags != packet.RST|packet.ACK || h.in[0].Seq != first.Seq+1) {
			t.Errorf("%s: %d connections, %+v", what, h.s.Len(), h.in)
		}
		check(t, h.s)
	}
}

// TestUpstreamClosesFirst: an upstream that sends its FIN without a response gets ours
// at once, and the connection is removed with its acknowledgement, or after
// lingerTimeout.
func TestUpstreamClosesFirst(t *testing.T) {
	for _, acked := range []bool{false, true} {
		h := byHand(t)
		tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 5000}
		h.s.Connect(&tu, 7, []byte("q"), h.now)
		h.ack = h.in[0].Seq + 1
		h.send(packet.SYN|packet.ACK, "")
		h.now += second / 2
		in := h.send(packet.ACK|packet.FIN, "\x00")
		c := h.s.find(&tu)
		if len(in) != 1 || in[0].Flags&packet.FIN == 0 || in[0].Ack != h.seq || c.state != closing || c.deadline != h.now+lingerTimeout || len(h.got) != 0 {
			t.Fatalf("%+v, %+v", in, c)
		}
		if acked {
			if h.send(packet.ACK, ""); h.s.Len() != 0 || len(h.closed) != 1 || h.s.c.Timeouts != 0 {
				t.Fatalf("%d connections, %+v", h.s.Len(), h.s.c)
			}
			continue
		}
		c.resendAt = 0
		h.tickAt(h.now + lingerTimeout)
		if h.s.Len() != 0 || len(h.closed) != 1 || h.s.c.Timeouts != 1 {
			t.Fatalf("%d connections, %+v", h.s.Len(), h.s.c)
		}
	}
}

// TestReceiveWithoutMemory: a connection whose own client has used all memory is reset
// when there is none for a part of a message.
func TestReceiveWithoutMemory(t *testing.T) {
	h, c := establishedByHand(t, false)
	first := h.port
	h.port++
	h.connect()
	o := h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: h.port})
	c.lastProgress, o.lastProgress = h.now-1, h.now
	p := &h.s.pools[kindPassive]
	p.append(&o.tx, make([]byte, p.nFree*chunkSize))
	h.port = first
	id := h.s.id(c)
	h.in = nil
	h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: first, RemotePort: 53}, Seq: c.rcv, Ack: c.una, Flags: packet.ACK, Window: 1000, Data: []byte("\x00\x05ab")}, h.now)
	if h.s.byID(id) != nil || h.s.Len() != 1 || h.s.c.Aborted != 1 || h.s.c.Evicted != 0 || len(h.in) != 1 || h.in[0].Flags&packet.RST == 0 {
		t.Fatalf("%d connections, %+v, %+v", h.s.Len(), h.s.c, h.in)
	}
	check(t, h.s)
}

// TestMSSBySide: the maximum segment size that we announce follows from the MTU of the
// side, and is bounded for streams.
func TestMSSBySide(t *testing.T) {
	for _, c := range []struct {
		wan, lan               int
		query, passive, stream uint16
	}{{1500, 1400, 1460, 1360, streamMSS}, {1400, 1500, 1360, 1460, streamMSS}, {9000, 9000, 1460, 1460, streamMSS}, {1000, 576, 960, 536, 960}} {
		u := &counter{}
		s := New(u, c.wan, c.lan, 1)
		s.Connect(&Tuple{clientAddr, serverAddr, 1, 53}, 1, []byte("q"), second)
		s.Accept(&Tuple{clientAddr, serverAddr, 53, 2}, &packet.Packet{Seq: 1}, nil, 0, second)
		s.ConnectStream(&Tuple{clientAddr, serverAddr, 3, 853}, 1, second)
		if len(u.out) != 3 || u.out[0].MSS != c.query || u.out[1].MSS != c.passive || u.out[2].MSS != c.stream {
			t.Errorf("%+v: %+v", c, u.out)
		}
	}
}

// TestUnusedEntriesAreNotFound: entries that are not in use have no tuple.
func TestUnusedEntriesAreNotFound(t *testing.T) {
	h, _ := establishedByHand(t, false)
	if _, ok := h.s.Owns(&Tuple{}); ok || h.s.find(&Tuple{}) != nil {
		t.Error("an unused entry was found")
	}
}

// TestSendBeforeTheFIN: a response to a connection that is being closed is sent if our
// FIN still waits behind others, and before it.
func TestSendBeforeTheFIN(t *testing.T) {
	for _, room := range []bool{true, false} {
		h, c := establishedByHand(t, true)
		if !room {
			c.cwnd = 100 // the FIN does not fit behind what is outstanding
			h.s.Send(h.s.id(c), make([]byte, 98), h.now)
		}
		id := h.s.id(c)
		h.s.Close(id, h.now)
		n := c.tx.n
		if c.state != closing || c.finSent != room {
			t.Fatalf("%+v", c)
		}
		h.s.Send(id, []byte("last"), h.now)
		if added := c.tx.n - n; room && added != 0 || !room && added != 6 {
			t.Errorf("room for the FIN: %v; %d bytes more", room, added)
		}
	}
}

// TestWindowAfterOurFIN: once our FIN is acknowledged, a window that opens causes
// nothing.
func TestWindowAfterOurFIN(t *testing.T) {
	h, c := establishedByHand(t, false)
	h.s.Close(h.s.id(c), h.now)
	say := func(window uint16) []Segment {
		h.in = nil
		h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}, Seq: h.seq, Ack: c.max,
			Flags: packet.ACK, Window: window}, h.now)
		return h.in
	}
	for _, window := range []uint16{0, 1000} {
		if in := say(window); len(in) != 0 || !c.finSent || c.una != c.max || c.resendAt != 0 {
			t.Fatalf("a window of %d: %+v, %+v", window, in, c)
		}
	}
}

// TestSendBeforeEstablished: a response to a client whose handshake is not complete is none.
func TestSendBeforeEstablished(t *testing.T) {
	u := &counter{}
	s := New(u, 1500, 1500, 1)
	s.Accept(&tuple, &packet.Packet{Seq: 1, Window: 1000}, nil, 0, second)
	c := s.find(&tuple)
	u.out = nil
	if s.Send(s.id(c), []byte("early"), second); c.tx.n != 0 || len(u.out) != 0 || s.Len() != 1 {
		t.Errorf("%d bytes wait, %+v was sent", c.tx.n, u.out)
	}
	s.Input(&tuple, &packet.Packet{Seq: 2, Ack: 1, Window: 1000, Flags: packet.ACK}, nil, nil, second)
	if s.Send(s.id(c), []byte("late"), second); len(u.out) != 1 || len(u.out[0].Data) != 6 {
		t.Errorf("afterwards %+v was sent", u.out)
	}
}

// TestOnlyTheMSSIsTheMSS: another option of as many bytes is not.
func TestOnlyTheMSSIsTheMSS(t *testing.T) {
	for opts, want := range map[string]uint16{"\x02\x04\x03\xe8": 1000, "\x05\x04\x03\xe8": 536, "\x01\x04\x03\xe8": 536, "\x03\x03\x07\x02\x04\x03\xe8": 1000} {
		u := &counter{}
		s := New(u, 1500, 1500, 1)
		s.Accept(&tuple, &packet.Packet{Seq: 1, Window: 1000}, []byte(opts), 0, second)
		if c := s.find(&tuple); c == nil || c.mss != want {
			t.Errorf("%x: %+v", opts, c)
		}
	}
}

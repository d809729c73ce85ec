package tcp

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// opened returns the id of a stream that is established with a server whose segments
// the test makes.
func opened(t *testing.T) (h *hand, id uint32) {
	t.Helper()
	h = byHand(t)
	h.port = 853
	tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 853}
	id, ok := h.s.ConnectStream(&tu, 7, h.now)
	if !ok || len(h.in) != 1 || h.in[0].Flags != packet.SYN || h.in[0].MSS != streamMSS {
		t.Fatalf("begins with %+v", h.in)
	}
	if st, ok := h.s.Stream(id); !ok || st.Open || st.Room != 0 {
		t.Fatalf("before it is open: %+v", st)
	}
	h.ack = h.in[0].Seq + 1
	if in := h.send(packet.SYN|packet.ACK, ""); len(in) != 1 || in[0].Flags != packet.ACK || in[0].Window != streamIn {
		t.Fatalf("the SYN-ACK is answered by %+v", in)
	}
	return h, id
}

// TestStreamWindow: received bytes are buffered until they are read. The window is
// the room in the buffer; it closes, and opens again when a window update is worth a
// segment.
func TestStreamWindow(t *testing.T) {
	h, id := opened(t)
	told := 0
	h.stream = func(uint32) { told++ }
	sent := message(streamIn+1000, 3)
	for k := 0; k < len(sent); {
		n := min(1400, len(sent)-k)
		in := h.send(packet.ACK, string(sent[k:k+n]))
		if len(in) != 1 {
			t.Fatalf("%d segments", len(in))
		}
		took := int(in[0].Ack - (h.seq - uint32(n)))
		if in[0].Window == 0 && took < n {
			h.seq -= uint32(n - took)
			k += took
			break
		}
		k += n
	}
	st, _ := h.s.Stream(id)
	if st.Unread != streamIn || told == 0 {
		t.Fatalf("%d bytes wait", st.Unread)
	}
	// A probe of the shut window is answered, and taken no byte of.
	if in := h.send(packet.ACK, "x"); len(in) != 1 || in[0].Window != 0 || in[0].Ack != h.seq-1 {
		t.Fatalf("a probe: %+v", in)
	}
	h.seq--
	got := make([]byte, streamIn)
	h.in = nil
	if n := h.s.Read(id, got[:streamIn/2-1], h.now); n != streamIn/2-1 || len(h.in) != 0 {
		t.Fatalf("read %d, %d segments", n, len(h.in))
	}
	if n := h.s.Read(id, got[streamIn/2-1:streamIn/2], h.now); n != 1 || len(h.in) != 1 || h.in[0].Window != streamIn/2 {
		t.Fatalf("read %d, told %+v", n, h.in)
	}
	if n := h.s.Read(id, got[streamIn/2:], h.now); n != streamIn/2 || !bytes.Equal(got, sent[:streamIn]) {
		t.Fatal("other bytes than were sent")
	}
	// The peer's FIN is reported; the stream stays open until its user closes it.
	h.send(packet.ACK|packet.FIN, "end")
	if st, ok := h.s.Stream(id); !ok || !st.Ended || st.Unread != 3 || !st.Open {
		t.Fatalf("%+v", st)
	}
	h.in = nil
	h.s.Close(id, h.now)
	if len(h.in) != 1 || h.in[0].Flags&packet.FIN == 0 {
		t.Fatalf("closed with %+v", h.in)
	}
	h.ack++
	h.send(packet.ACK, "")
	if h.s.Len() != 0 || len(h.closed) != 1 || h.closed[0] != 7 {
		t.Fatalf("%d left, told %v", h.s.Len(), h.closed)
	}
	check(t, h.s)
}

// TestStreamExchange: bytes in both directions at once arrive whole, also over a bad
// network and with a slow reader.
func TestStreamExchange(t *testing.T) {
	for _, bad := range []int{0, 3, 15} {
		t.Run(fmt.Sprintf("%d%%", bad), func(t *testing.T) {
			c, s, w := pair(t, uint64(bad))
			out, answer := message(40000, 1), message(60000, 2)
			// The other end is one of messages: 40000 bytes of queries, and
			// one long answer to the first.
			var queries []byte
			for k := 0; k < len(out); k += 4000 {
				queries = append(append(queries, 4000>>8, 4000&255), out[k:k+4000]...)
			}
			var asked []byte
			s.serve = func(e *end, id uint32, msg []byte) {
				if asked = append(asked, msg...); len(asked) == 4000 {
					e.s.Send(id, answer, e.s.now)
				} else {
					e.s.Send(id, msg[:1], e.s.now)
				}
			}
			now := int64(second)
			id, ok := c.s.ConnectStream(&tuple, 9, now)
			if !ok {
				t.Fatal("no stream")
			}
			var got []byte
			want := 2 + len(answer) + 9*3
			buf := make([]byte, 700)
			for i := 0; i < 40000 && (len(got) < want || len(asked) < len(out)); i++ {
				if _, ok := c.s.Stream(id); !ok && bad < 15 {
					t.Fatalf("gone after %d of %d bytes: %+v", len(got), want, c.s.c)
				} else if !ok {
					return // with much loss it may be given up
				}
				queries = queries[c.s.Write(id, queries[:min(len(queries), 5000)], now):]
				got = append(got, buf[:c.s.Read(id, buf, now)]...)
				for k := 0; k < 5 && len(w.queue) > 0; k++ {
					f := w.queue[0]
					w.queue = w.queue[1:]
					f.to.arrive(&f.seg, now)
				}
				now += second / 100
				c.s.Tick(now)
				s.s.Tick(now)
			}
			if !bytes.Equal(asked, out) || len(got) != want || !bytes.Equal(got[2:2+len(answer)], answer) {
				t.Fatalf("%d of %d bytes arrived, %d of %d came back", len(asked), len(out), len(got), want)
			}
			c.s.Close(id, now)
			run(c, s, now, 40)
			if c.s.Len() != 0 || len(c.closed) != 1 || c.closed[0] != 9 {
				t.Fatalf("%d streams are left, told %v", c.s.Len(), c.closed)
			}
		})
	}
}

// TestStreamGivenUp: unacknowledged segments are reported by Unacked, and end the
// stream after all retries; an idle stream stays.
func TestStreamGivenUp(t *testing.T) {
	h, id := opened(t)
	h.now += 1000 * second
	h.s.Tick(h.now)
	if st, ok := h.s.Stream(id); !ok || st.Unacked || st.Room != streamOut {
		t.Fatalf("an idle stream: %+v", st)
	}
	if _, any := h.s.Due(); any {
		t.Fatal("an idle stream has a time")
	}
	if n := h.s.Write(id, make([]byte, streamOut+10), h.now); n != streamOut || h.s.Write(id, []byte("x"), h.now) != 0 {
		t.Fatalf("took %d bytes", n)
	}
	for i := range 4 {
		h.now += second
		h.s.Tick(h.now)
		if st, _ := h.s.Stream(id); st.Unacked != (i >= 2) {
			t.Fatalf("after %d s: %+v", i+1, st)
		}
	}
	for _, s := range h.in {
		if len(s.Data) > streamMSS {
			t.Fatalf("a segment of %d bytes", len(s.Data))
		}
	}
	if st, _ := h.s.Stream(id); !st.Unacked {
		t.Fatal("4 s without an acknowledgement do not show")
	}
	for range 60 {
		h.now += second
		h.s.Tick(h.now)
	}
	if h.s.Len() != 0 || len(h.closed) != 1 {
		t.Fatal("never given up")
	}
	h, id = opened(t)
	h.in = nil
	h.s.Abort(id, h.now)
	if len(h.in) != 1 || h.in[0].Flags&packet.RST == 0 || h.s.Len() != 0 || len(h.closed) != 1 {
		t.Fatalf("abandoned with %+v", h.in)
	}
	if h.s.Read(id, make([]byte, 1), h.now) != 0 || h.s.Write(id, []byte("x"), h.now) != 0 {
		t.Fatal("a stream that is gone moves bytes")
	}
	check(t, h.s)
}

func TestStreamAllocations(t *testing.T) {
	s := New(quiet{}, 1500, 1500, 1)
	tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 5000, RemotePort: 853}
	data, buf := make([]byte, 1000), make([]byte, 1000)
	if n := testing.AllocsPerRun(100, func() {
		id, _ := s.ConnectStream(&tu, 1, second)
		s.Input(&tu, &packet.Packet{Seq: 1, Ack: 1, Window: 60000, Flags: packet.SYN | packet.ACK}, nil, nil, second)
		s.Input(&tu, &packet.Packet{Seq: 2, Ack: 1, Window: 60000, Flags: packet.ACK}, nil, data, second)
		if s.Read(id, buf, second) != len(buf) || s.Write(id, data, second) != len(data) {
			t.Fatal("nothing moves")
		}
		s.Abort(id, second)
	}); n != 0 || s.Len() != 0 {
		t.Fatalf("%v allocations, %d streams", n, s.Len())
	}
}

// TestStreamHandshakeTimeout: a stream that is not established in time is removed; one
// that is has no deadline.
func TestStreamHandshakeTimeout(t *testing.T) {
	h := byHand(t)
	id, _ := h.s.ConnectStream(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 853}, 7, h.now)
	begin := h.now
	for _, at := range []int64{second, 3*second - 1} {
		h.now = begin + at
		h.s.Tick(h.now)
	}
	if _, ok := h.s.Stream(id); !ok {
		t.Fatal("too early")
	}
	h.in = nil
	h.now = begin + handshakeTimeout
	if h.s.Tick(h.now); h.s.Len() != 0 || len(h.in) != 0 || len(h.closed) != 1 || h.s.c.Timeouts != 1 {
		t.Fatalf("%d connections, %+v, %+v", h.s.Len(), h.in, h.s.c)
	}
	h, id = opened(t)
	if c := h.s.byID(id); c.deadline != 0 {
		t.Fatalf("established: %+v", c)
	}
}

// TestStreamCallsNeedAStream: Stream, Read and Write do nothing with a connection of
// another kind, and Write nothing with a stream that is not open.
func TestStreamCallsNeedAStream(t *testing.T) {
	h, c := establishedByHand(t, false)
	h.send(packet.ACK, "\x00\x05abc")
	if h.s.Connect(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 4000, RemotePort: 53}, 1, []byte("q"), h.now); h.s.Len() != 2 {
		t.Fatal("no query")
	}
	for i := range h.s.conn {
		k := &h.s.conn[i]
		if k.state == closed {
			continue
		}
		id, tx, rx := h.s.id(k), k.tx, k.rx
		if _, ok := h.s.Stream(id); ok || h.s.Write(id, []byte("x"), h.now) != 0 || h.s.Read(id, make([]byte, 3), h.now) != 0 || k.tx != tx || k.rx != rx {
			t.Errorf("%+v is used as a stream", k)
		}
	}
	if c.rx.n != 3 {
		t.Errorf("%d bytes", c.rx.n)
	}
	id, _ := h.s.ConnectStream(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 853}, 7, h.now)
	if h.s.Write(id, []byte("x"), h.now) != 0 {
		t.Error("written before it is open")
	}
	h, id = opened(t)
	h.s.Write(id, []byte("x"), h.now)
	h.s.Close(id, h.now)
	if st, ok := h.s.Stream(id); !ok || st.Open || st.Room != 0 || h.s.Write(id, []byte("y"), h.now) != 0 {
		t.Errorf("written after Close: %+v", st)
	}
}

// TestBytesAfterClose: what arrives after a stream was closed is acknowledged and
// dropped.
func TestBytesAfterClose(t *testing.T) {
	h, id := opened(t)
	h.send(packet.ACK, "before")
	h.s.Close(id, h.now)
	c := h.s.byID(id)
	if c == nil || c.rx.n != 0 {
		t.Fatalf("%+v", c)
	}
	rcv := c.rcv
	if in := h.send(packet.ACK, "after"); c.rx.n != 0 || c.rcv != rcv+5 || len(in) != 1 || in[0].Ack != rcv+5 || in[0].Window != streamIn {
		t.Fatalf("%d bytes are kept; %+v", c.rx.n, in)
	}
	if h.s.Read(id, make([]byte, 10), h.now) != 0 {
		t.Error("read after Close")
	}
	check(t, h.s)
}

// TestTooManyStreams: as many streams may be open as New allows, and as many more that
// are being closed; those are evicted for new ones.
func TestTooManyStreams(t *testing.T) {
	h := byHand(t)
	h.s = New(h, 1500, 1500, 2)
	var ids []uint32
	open := func() bool {
		id, ok := h.s.ConnectStream(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: uint16(1000 + len(ids)), RemotePort: 853}, 7, h.now)
		ids = append(ids, id)
		return ok
	}
	for i := range 4 {
		if !open() {
			t.Fatalf("stream %d", i)
		}
	}
	if open() || h.s.Len() != 4 || len(h.closed) != 0 {
		t.Fatalf("%d streams", h.s.Len())
	}
	h.s.byID(ids[2]).state = closing
	if !open() || h.s.Len() != 4 || len(h.closed) != 1 || h.s.byID(ids[2]) != nil {
		t.Fatalf("%d streams, %d closed", h.s.Len(), len(h.closed))
	}
	check(t, h.s)
}

// TestNoWindowUpdateForNothing: Read sends no window update after the peer's FIN, nor
// after Close.
func TestNoWindowUpdateForNothing(t *testing.T) {
	for _, fin := range []bool{false, true} {
		h, id := opened(t)
		for range streamIn/1024 - 1 {
			h.send(packet.ACK, string(make([]byte, 1024)))
		}
		if fin {
			h.send(packet.ACK|packet.FIN, "")
		} else {
			h.s.Close(id, h.now)
		}
		h.in = nil
		want := streamIn - 1024
		if !fin {
			want = 0
		}
		if n := h.s.Read(id, make([]byte, streamIn), h.now); n != want || len(h.in) != 0 {
			t.Errorf("FIN %v: %d bytes, %+v", fin, n, h.in)
		}
	}
}

// TestWriteIsOfItsTime: what is written is retransmitted a second after it was, and not after
// the call before.
func TestWriteIsOfItsTime(t *testing.T) {
	h, id := opened(t)
	at := h.now + 7*second
	if n := h.s.Write(id, []byte("abc"), at); n != 3 {
		t.Fatalf("%d bytes", n)
	}
	due(t, h.s, at+second)
}

// TestWindowUpdateIsWorthIt: what has been read is told when it is half of the buffer, not
// counting what the peer has been told.
func TestWindowUpdateIsWorthIt(t *testing.T) {
	h, id := opened(t)
	const told = 1000
	sent := message(streamIn-told, 3)
	for k := 0; k < len(sent); k += 1400 {
		h.send(packet.ACK, string(sent[k:min(k+1400, len(sent))]))
	}
	h.in = nil
	got := make([]byte, streamIn)
	if n := h.s.Read(id, got[:streamIn/2-1], h.now); n != streamIn/2-1 || len(h.in) != 0 {
		t.Fatalf("read %d, told %+v", n, h.in)
	}
	if n := h.s.Read(id, got[:1], h.now); n != 1 || len(h.in) != 1 || h.in[0].Window != streamIn/2+told {
		t.Fatalf("read %d, told %+v", n, h.in)
	}
}

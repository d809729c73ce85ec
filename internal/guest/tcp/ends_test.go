package tcp

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A counter is a witness that also keeps the segments sent.
type counter struct {
	witness
	out []Segment
}

func (c *counter) Emit(s *Segment) { c.out = append(c.out, *s) }

// TestNothingAfterReset: after a segment has ended a connection, the rest of the
// segment causes nothing, and the entry is empty.
func TestNothingAfterReset(t *testing.T) {
	for _, data := range []string{"\x10\x01x", "\x00\x00", "\x00\x00\x00\x01a"} {
		for _, flags := range []uint8{packet.ACK, packet.ACK | packet.FIN} {
			u := &counter{}
			s := New(u, 1500, 1500, 1)
			s.Accept(&tuple, &packet.Packet{Seq: 1, Window: 1000}, nil, 0, second)
			s.Input(&tuple, &packet.Packet{Seq: 2, Ack: 1, Window: 1000, Flags: packet.ACK}, nil, nil, second)
			u.out = nil
			s.Input(&tuple, &packet.Packet{Seq: 2, Ack: 1, Window: 1000, Flags: flags}, nil, []byte(data), second)
			if len(u.out) != 1 || u.out[0].Flags != packet.RST|packet.ACK || u.out[0].Tuple != tuple || len(u.closed) != 1 || s.Len() != 0 {
				t.Errorf("%q, flags %x: %+v", data, flags, u.out)
			}
			for i := range s.conn {
				if c := s.conn[i]; c != (conn{gen: c.gen}) {
					t.Errorf("%q, flags %x: left %+v", data, flags, c)
				}
			}
		}
	}
}

// TestFINs: a FIN counts as one byte and is acknowledged once; ours follows the last
// byte of data.
func TestFINs(t *testing.T) {
	h := byHand(t)
	h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, make([]byte, 20000), e.s.now) }
	h.connect()
	from := Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}
	c := h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: h.port})
	h.in = nil
	h.arrive(&Segment{Tuple: from, Seq: h.seq, Ack: c.una, Flags: packet.ACK | packet.FIN, Window: 60000, Data: []byte("\x00\x01a")}, h.now)
	if c.rcv != h.seq+4 || h.in[len(h.in)-1].Ack != h.seq+4 || !c.finSeen || c.finSent {
		t.Fatalf("%+v", c)
	}
	got, fins := 0, 0
	for range 100 {
		in := h.in
		h.in = nil
		if len(in) == 0 {
			break
		}
		for _, s := range in {
			if got += len(s.Data); s.Flags&packet.FIN != 0 {
				if fins++; got != 20002 {
					t.Fatalf("our end after %d bytes", got)
				}
			}
		}
		h.arrive(&Segment{Tuple: from, Seq: h.seq + 4, Ack: c.max, Flags: packet.ACK, Window: 60000}, h.now)
	}
	if got != 20002 || fins != 1 || h.s.Len() != 0 || len(h.closed) != 1 {
		t.Fatalf("%d bytes, %d ends, %d connections", got, fins, h.s.Len())
	}
}

// TestOneFIN: what a peer sends behind its FIN is no other FIN, and acknowledged no further.
func TestOneFIN(t *testing.T) {
	u := &counter{}
	s := New(u, 1500, 1500, 1)
	s.Accept(&tuple, &packet.Packet{Seq: 1, Window: 1000}, nil, 0, second)
	s.Input(&tuple, &packet.Packet{Seq: 2, Ack: 1, Window: 1000, Flags: packet.ACK}, nil, nil, second)
	for i, seq := range []uint32{2, 3, 3, 2} {
		u.out = nil
		s.Input(&tuple, &packet.Packet{Seq: seq, Ack: 1, Window: 1000, Flags: packet.ACK | packet.FIN}, nil, nil, second)
		if c := s.find(&tuple); c == nil || c.rcv != 3 || !c.finSeen || len(u.out) > 0 && u.out[0].Ack != 3 {
			t.Fatalf("FIN %d: %+v, answered %+v", i, c, u.out)
		}
	}
}

// TestAfterATimeout (RFC 5681 section 3.1): one segment is retransmitted, and more
// are sent only as acknowledgements arrive.
func TestAfterATimeout(t *testing.T) {
	h := byHand(t)
	h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, make([]byte, 20000), e.s.now) }
	h.connect()
	h.send(packet.ACK, "\x00\x01a")
	if len(h.in) != initialWnd {
		t.Fatalf("%d segments at first", len(h.in))
	}
	c := h.s.find(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: h.port})
	if in := h.tickAt(h.now + second); len(in) != 1 || len(in[0].Data) != 536 || in[0].Seq != c.una || c.cwnd != 536 {
		t.Fatalf("%d segments after a timeout", len(in))
	}
	h.ack = c.una + 536
	if in := h.send(packet.ACK, ""); len(in) != 2 || c.cwnd != 2*536 {
		t.Fatalf("%d segments then", len(in))
	}
}

// TestResponsesExtendIdleTime: sending a response counts as activity, and once all
// is acknowledged the idle timeout starts again.
func TestResponsesExtendIdleTime(t *testing.T) {
	h, c := establishedByHand(t, false)
	h.serve = func(*end, uint32, []byte) {}
	h.send(packet.ACK, "\x00\x01a\x00\x01b")
	asked := h.now
	if c.unanswered != 2 || c.lastActive != asked {
		t.Fatalf("%d pending", c.unanswered)
	}
	h.now += 3 * second
	h.s.Send(h.s.id(c), []byte("answer"), h.now)
	if c.unanswered != 1 || c.lastActive != h.now || c.lastProgress != h.now || c.deadline != h.now+idleTimeout {
		t.Fatalf("%+v", c)
	}
	h.now += second
	h.ack = c.max
	h.send(packet.ACK, "")
	if c.lastActive != h.now || c.deadline != h.now+idleTimeout {
		t.Fatalf("active %d, ends %d", h.now-c.lastActive, c.deadline-h.now)
	}
	// More responses than queries are no debt.
	h.s.Send(h.s.id(c), []byte("answer"), h.now)
	if h.s.Send(h.s.id(c), []byte("answer"), h.now); c.unanswered != 0 {
		t.Fatalf("%d pending", c.unanswered)
	}
	h.s.Send(h.s.id(c)+1<<16, []byte("to nobody"), h.now)
	check(t, h.s)
}

// TestFINBeforeTheResponse: a client that has sent its FIN still gets its responses,
// and our FIN after the last. The beginning of a message does not extend the time to
// acknowledge responses.
func TestFINBeforeTheResponse(t *testing.T) {
	h, c := establishedByHand(t, false)
	h.serve = func(*end, uint32, []byte) {}
	if h.send(packet.ACK|packet.FIN, "\x00\x01a\x00\x01b"); c.state != established || c.unanswered != 2 || h.in[len(h.in)-1].Flags != packet.ACK {
		t.Fatalf("%+v, answered by %+v", c, h.in)
	}
	for i := range 2 {
		h.in = nil
		h.s.Send(h.s.id(c), []byte("answer"), h.now)
		if fin := h.in[len(h.in)-1].Flags&packet.FIN != 0; len(h.in) != 1 || fin != (i == 1) {
			t.Fatalf("answer %d: %+v", i, h.in)
		}
	}
	h, c = establishedByHand(t, true)
	until := c.deadline
	h.now += second
	h.ack = c.una
	if h.send(packet.ACK, "\x00"); c.deadline != until {
		t.Fatalf("prolonged by %d", c.deadline-until)
	}
}

// TestHalfClosedClient: a client that has sent its FIN has as much time for its
// responses as others, and lingerTimeout once they are acknowledged.
func TestHalfClosedClient(t *testing.T) {
	for _, took := range []uint32{minProgress - 1, minProgress} {
		h, c := establishedByHand(t, false)
		h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, make([]byte, 60000), e.s.now) }
		begin := h.now
		if h.send(packet.ACK|packet.FIN, "\x00\x01a"); c.state != closing || c.deadline != begin+idleTimeout {
			t.Fatalf("%+v", c)
		}
		h.now += 9 * second
		for _, part := range []uint32{5000, took - 5000} {
			h.ack = c.una + part
			h.send(packet.ACK, "")
		}
		c.resendAt = 0
		if h.tickAt(begin + idleTimeout); (h.s.Len() == 1) != (took == minProgress) || h.s.c.Stalled != uint64(minProgress-took) {
			t.Fatalf("%d bytes taken: %d connections, %+v", took, h.s.Len(), h.s.c)
		}
		if took < minProgress {
			continue
		}
		for c.tx.n > 0 {
			h.now += second / 10
			h.ack = c.max
			if c.finSent {
				h.ack-- // our FIN is lost
			}
			h.send(packet.ACK, "")
		}
		if c.deadline != h.now+lingerTimeout || !c.finSent {
			t.Fatalf("all is taken: %+v", c)
		}
		if h.tickAt(h.now + second); h.s.Len() != 1 || len(h.in) != 1 || h.in[0].Flags != packet.ACK|packet.FIN {
			t.Fatalf("our FIN again: %+v", h.in)
		}
		h.ack = c.max
		if h.send(packet.ACK, ""); h.s.Len() != 0 {
			t.Fatal("still there")
		}
	}
}

// TestCancel: only a pending query is cancelled by its tag.
func TestCancel(t *testing.T) {
	u := &counter{}
	s := New(u, 1500, 1500, 1)
	s.Cancel(0, second) // free places have no tag
	stream := tuple
	stream.LocalPort++
	client := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 9}
	s.ConnectStream(&stream, 4, second)
	s.Accept(&client, &packet.Packet{Seq: 1, Window: 1000}, nil, 0, second)
	s.Connect(&tuple, 4, []byte("q"), second)
	s.find(&client).tag = 4
	q := s.find(&tuple)
	q.state = closing
	if s.Cancel(4, second); s.Len() != 3 || len(u.closed) != 0 {
		t.Fatalf("%+v were dropped", u.closed)
	}
	q.state = synSent
	if s.Cancel(4, second); s.Len() != 2 || len(u.closed) != 1 || u.closed[0] != tuple || s.c.Aborted != 0 {
		t.Fatalf("%+v were dropped", u.closed)
	}
	check(t, s)
}

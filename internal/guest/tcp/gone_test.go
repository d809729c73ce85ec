package tcp

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A witness is a user that records its events.
type witness struct {
	quiet
	closed  []Tuple
	served  []bool
	tags    []uint32
	streams int
}

func (w *witness) Closed(_, tag uint32, t *Tuple, served bool) {
	w.closed, w.served, w.tags = append(w.closed, *t), append(w.served, served), append(w.tags, tag)
}
func (w *witness) StreamReady(uint32, uint32) { w.streams++ }

// TestClosedIsReported: the end of a connection is reported once, with its tuple and
// tag, and no event of it follows.
func TestClosedIsReported(t *testing.T) {
	w := &witness{}
	s := New(w, 1500, 1500, 1)
	client := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 1}
	ours := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 3000, RemotePort: 53}
	stream := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 3001, RemotePort: 853}
	if rule, ok := s.Owns(&client); rule != 0 || ok {
		t.Fatal("an empty stack owns something")
	}
	s.Accept(&client, &packet.Packet{Seq: 1, Window: 1000, Flags: packet.SYN}, nil, 17, second)
	s.Connect(&ours, 5, []byte("q"), second)
	id, _ := s.ConnectStream(&stream, 6, second)
	for _, c := range []struct {
		t    Tuple
		rule uint32
	}{{client, 17}, {ours, 0}, {stream, 0}} {
		if rule, ok := s.Owns(&c.t); rule != c.rule || !ok {
			t.Errorf("%+v: rule %d, %v", c.t, rule, ok)
		}
		for i := range 4 {
			other := c.t
			switch i {
			case 0:
				other.Local++
			case 1:
				other.Remote++
			case 2:
				other.LocalPort += 50
			case 3:
				other.RemotePort++
			}
			if rule, ok := s.Owns(&other); rule != 0 || ok {
				t.Errorf("%+v is owned", other)
			}
			s.Input(&other, &packet.Packet{Flags: packet.RST}, nil, nil, second)
		}
	}
	if len(w.closed) != 0 || s.c.Invalid != 0 {
		t.Fatalf("others' segments were taken: %+v", s.c)
	}
	s.Input(&stream, &packet.Packet{Seq: 9, Ack: 1, Window: 1000, Flags: packet.SYN | packet.ACK}, nil, nil, second)
	if st, ok := s.Stream(id); !ok || !st.Open || st.Ended || st.Unacked || st.Room != streamOut || w.streams != 1 {
		t.Fatalf("%+v, told %d times", st, w.streams)
	}
	s.Input(&client, &packet.Packet{Seq: 2, Ack: 1, Window: 1000, Flags: packet.ACK}, nil, []byte("\x00"), second)
	if w.streams != 1 {
		t.Fatalf("a client's segment is reported as a stream's: %d", w.streams)
	}
	s.Input(&stream, &packet.Packet{Seq: 10, Flags: packet.RST}, nil, nil, second)
	s.Input(&ours, &packet.Packet{Ack: 1, Flags: packet.RST | packet.ACK}, nil, nil, second)
	s.Input(&client, &packet.Packet{Seq: 3, Flags: packet.RST}, nil, nil, second)
	if w.streams != 1 || len(w.closed) != 3 || w.closed[0] != stream || w.closed[1] != ours || w.closed[2] != client || w.served[0] || w.served[1] || !w.served[2] || w.tags[0] != 6 || w.tags[1] != 5 {
		t.Fatalf("%+v", w)
	}
	if _, ok := s.Stream(id); ok || s.Len() != 0 {
		t.Fatal("it is still there")
	}
}

// TestQueryTimeout: a query is given up queryTimeout after Connect, however long its
// handshake took.
func TestQueryTimeout(t *testing.T) {
	w := &witness{}
	s := New(w, 1500, 1500, 1)
	tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 3000, RemotePort: 53}
	s.Connect(&tu, 5, []byte("q"), second)
	at := second + handshakeTimeout - 1
	s.Tick(at)
	s.Input(&tu, &packet.Packet{Seq: 9, Ack: 1, Window: 1000, Flags: packet.SYN | packet.ACK}, nil, nil, at)
	s.Input(&tu, &packet.Packet{Seq: 10, Ack: 4, Window: 1000, Flags: packet.ACK}, nil, nil, at)
	due(t, s, second+queryTimeout)
	if s.Tick(second + queryTimeout - 1); s.Len() != 1 {
		t.Fatal("too early")
	}
	if s.Tick(second + queryTimeout); s.Len() != 0 || s.c.Timeouts != 1 {
		t.Fatalf("%+v", s.c)
	}
}

// TestCloseWithinAMessage: a connection that is closed within a received message
// returns the memory to the pool of its kind.
func TestCloseWithinAMessage(t *testing.T) {
	h, c := establishedByHand(t, false)
	h.send(packet.ACK, "\x01\x00abc")
	id := h.s.id(c)
	h.s.Close(id, h.now)
	check(t, h.s)
	if c.state != closing || len(h.in) == 0 {
		t.Fatalf("%+v", c)
	}
	h.s.Abort(id, h.now)
	check(t, h.s)
	if h.s.Len() != 0 {
		t.Fatal("still there")
	}
}

// TestAnUpstreamThatIsAClient: a server in the LAN that is both an upstream and a
// client has connections of both kinds. They neither count towards each other's
// limits, nor are evicted for each other.
func TestAnUpstreamThatIsAClient(t *testing.T) {
	w := newCrowd(t, 3000)
	for i := range 4 { // pending, with nothing left to send
		f := &far{Tuple: Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: w.port(), RemotePort: 53}, seq: 7, win: 60000}
		w.conns[f.Tuple] = f
		if !w.s.Connect(&f.Tuple, uint32(i), []byte("q"), w.now) {
			t.Fatal("no question")
		}
		w.send(f, packet.SYN|packet.ACK, nil, f.ack)
		w.send(f, packet.ACK, nil, f.ack)
	}
	for i := range uint16(maxPerClient) { // at work
		f := w.connect(clientAddr, 100+i, 0)
		if w.ask(f); !f.open || w.gone != 0 {
			t.Fatalf("connection %d: open %v, %d gone", i, f.open, w.gone)
		}
	}
	f := w.connect(clientAddr, 999, 60000)
	if f.open || w.s.used[kindQuery] != 4 || w.gone != 0 || w.s.c.Refused != 1 {
		t.Fatalf("open %v, %d questions, %d gone", f.open, w.s.used[kindQuery], w.gone)
	}
}

// TestMemoryVictim compares memoryVictim with a plain description: of the client
// that would have the most memory, counting what is needed, the connection without
// progress for the longest time; of clients with as much, the one that needs memory,
// or else that of the first connection.
func TestMemoryVictim(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 3))
	itself, others := 0, 0
	for round := range 250 {
		s := New(quiet{}, 1500, 1500, 1)
		s.now = 100 * second
		var conns []*conn
		for i := range 2 + r.IntN(8) {
			s.Accept(&Tuple{Local: serverAddr, Remote: clientAddr + packet.Addr(r.IntN(3)), LocalPort: 53, RemotePort: uint16(i)}, &packet.Packet{Seq: 1, Window: 100}, nil, 0, s.now)
		}
		for i := range s.conn {
			if c := &s.conn[i]; c.state != closed {
				c.state, c.lastProgress = established, s.now-int64(r.IntN(20)) // none is stalled
				s.pools[kindPassive].append(&c.tx, make([]byte, r.IntN(4)*chunkSize))
				s.pools[kindPassive].append(&c.rx, make([]byte, r.IntN(2)*chunkSize))
				conns = append(conns, c)
			}
		}
		own := Tuple{Local: serverAddr, Remote: clientAddr + packet.Addr(r.IntN(3)), LocalPort: 999, RemotePort: 53}
		s.Connect(&own, 1, []byte("q"), s.now) // what is our own does not count
		s.pools[kindQuery].append(&s.find(&own).rx, make([]byte, 20*chunkSize))
		s.find(&own).lastProgress = 0
		c, need := conns[r.IntN(len(conns))], 1+r.IntN(5)
		has := map[packet.Addr]int{}
		for _, o := range conns {
			has[o.Remote] += o.chunks()
		}
		has[c.Remote] += need
		most := 0
		for _, n := range has {
			most = max(most, n)
		}
		who := c.Remote
		if has[who] < most {
			for _, o := range conns {
				if o.chunks() > 0 && has[o.Remote] == most {
					who = o.Remote
					break
				}
			}
		}
		var want *conn
		if who == c.Remote {
			want = c
		}
		for _, o := range conns {
			if o.Remote == who && o.chunks() > 0 && (want == nil || o.lastProgress < want.lastProgress) {
				want = o
			}
		}
		if got := s.memoryVictim(c, need); got != want {
			t.Fatalf("round %d: %+v, want %+v (%v)", round, got, want, has)
		}
		if want == c {
			itself++
		} else {
			others++
		}
		// One that is stalled goes first, the longest of them.
		c.lastProgress, c.tx.n = s.now-stallTimeout-1, max(c.tx.n, 1)
		o := conns[r.IntN(len(conns))]
		o.lastProgress, o.tx.n = s.now-stallTimeout-2, max(o.tx.n, 1)
		if got := s.memoryVictim(c, need); got != o {
			t.Fatalf("round %d: %+v, want the one that is stalled", round, got)
		}
	}
	if itself < 20 || others < 20 {
		t.Fatalf("itself %d times, others %d times", itself, others)
	}
	s := New(quiet{}, 1500, 1500, 1)
	s.Accept(&tuple, &packet.Packet{Seq: 1, Window: 100}, nil, 0, second)
	c := s.find(&tuple)
	if s.reserveChunks(c, &c.tx, passiveChunks*chunkSize+1) || !s.reserveChunks(c, &c.tx, passiveChunks*chunkSize) || s.Len() != 1 {
		t.Fatal("more memory than there is")
	}
	s.pools[kindPassive].append(&c.tx, make([]byte, passiveChunks*chunkSize))
	if c.lastProgress = s.now; s.reserveChunks(c, &c.rx, 1) || s.Len() != 1 {
		t.Fatal("the only one has pushed itself out, or has more than there is")
	}
}

package tcp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

const (
	clientAddr = packet.Addr(0x0a000002)
	serverAddr = packet.Addr(0x0a000001)
)

// An end is one of two stacks with a network between them.
type end struct {
	t      testing.TB
	s      *Stack
	peer   *end
	net    *network
	serve  func(e *end, id uint32, msg []byte)
	got    [][]byte
	closed []uint32
	rnd    *rand.Rand
	stream func(id uint32)
}

type network struct {
	queue          []flying
	rnd            *rand.Rand
	lose, dup, mix int // in a hundred
	sent           int
}

type flying struct {
	to  *end
	seg Segment
}

func (e *end) Emit(s *Segment) {
	c := *s
	c.Data = bytes.Clone(s.Data)
	e.net.sent++
	if e.net.rnd.IntN(100) < e.net.lose {
		return
	}
	n := 1
	if e.net.rnd.IntN(100) < e.net.dup {
		n = 2
	}
	for range n {
		at := len(e.net.queue)
		if at > 0 && e.net.rnd.IntN(100) < e.net.mix {
			at = e.net.rnd.IntN(at)
		}
		e.net.queue = append(e.net.queue[:at], append([]flying{{e.peer, c}}, e.net.queue[at:]...)...)
	}
}

func (e *end) Message(id uint32, msg []byte) {
	if e.serve != nil {
		e.serve(e, id, msg)
		return
	}
	e.got = append(e.got, bytes.Clone(msg))
	e.s.Close(id, e.s.now)
}

func (e *end) Closed(_, tag uint32, _ *Tuple, _ bool) { e.closed = append(e.closed, tag) }
func (e *end) StreamReady(id, _ uint32) {
	if e.stream != nil {
		e.stream(id)
	}
}
func (e *end) Random() uint64 { return e.rnd.Uint64() }

// arrive gives a segment to this end.
func (e *end) arrive(s *Segment, now int64) {
	t := Tuple{Local: s.Remote, Remote: s.Local, LocalPort: s.RemotePort, RemotePort: s.LocalPort}
	p := packet.Packet{Src: s.Local, Dst: s.Remote, SrcPort: s.LocalPort, DstPort: s.RemotePort, Flags: s.Flags, Window: s.Window, Seq: s.Seq, Ack: s.Ack}
	var o []byte
	if s.MSS != 0 {
		o = []byte{2, 4, byte(s.MSS >> 8), byte(s.MSS)}
	}
	if _, ok := e.s.Owns(&t); ok {
		e.s.Input(&t, &p, o, s.Data, now)
	} else if s.Flags&(packet.SYN|packet.ACK|packet.RST) == packet.SYN && e.serve != nil {
		e.s.Accept(&t, &p, o, 3, now)
	}
	check(e.t, e.s)
}

func pair(t testing.TB, seed uint64) (client, server *end, n *network) {
	n = &network{rnd: rand.New(rand.NewPCG(seed, 1))}
	client, server = &end{t: t, net: n, rnd: n.rnd}, &end{t: t, net: n, rnd: n.rnd}
	client.peer, server.peer = server, client
	client.s, server.s = New(client, 1500, 1500, 1), New(server, 1500, 1500, 1)
	return client, server, n
}

// run lets everything happen that happens within so many seconds.
func run(a, b *end, from int64, seconds int) int64 {
	now := from
	for range seconds * 100 {
		for k := 0; k < 5000 && len(a.net.queue) > 0; k++ {
			f := a.net.queue[0]
			a.net.queue = a.net.queue[1:]
			f.to.arrive(&f.seg, now)
		}
		now += second / 100
		a.s.Tick(now)
		b.s.Tick(now)
	}
	return now
}

func message(n int, seed byte) []byte {
	m := make([]byte, n)
	for i := range m {
		m[i] = byte(i*7) ^ byte(i>>8) ^ seed
	}
	return m
}

var tuple = Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: 40000, RemotePort: 53}

// TestExchange: messages of all lengths arrive whole, also over a network that
// loses, duplicates and reorders segments.
func TestExchange(t *testing.T) {
	for _, bad := range []int{0, 3, 15} {
		for _, n := range []int{1, 100, 1459, 1460, 1461, 2046, 2048, 30000, 65535} {
			t.Run(fmt.Sprintf("%d%%/%d", bad, n), func(t *testing.T) {
				c, s, w := pair(t, uint64(n+bad))
				w.lose, w.dup, w.mix = bad, bad, bad
				s.serve = func(e *end, id uint32, msg []byte) {
					if string(msg) != "question" {
						t.Errorf("the server got %q", msg)
					}
					e.s.Send(id, message(n, 5), e.s.now)
				}
				ok := 0
				now := int64(second)
				const rounds = 5
				for i := range rounds { // with much loss, a handshake may fail
					tu := tuple
					tu.LocalPort += uint16(i)
					c.got = nil
					if !c.s.Connect(&tu, uint32(i+1), []byte("question"), now) {
						t.Fatal("no connection")
					}
					now = run(c, s, now, 70)
					if len(c.got) == 1 {
						if !bytes.Equal(c.got[0], message(n, 5)) {
							t.Fatalf("got %d bytes that are not the message", len(c.got[0]))
						}
						ok++
					}
				}
				if ok < rounds && bad == 0 || bad == 3 && ok < rounds-1 {
					t.Fatalf("%d of %d exchanges", ok, rounds)
				}
				if c.s.Len() != 0 || s.s.Len() != 0 || len(c.closed) != rounds {
					t.Fatalf("%d and %d connections are left, %d told", c.s.Len(), s.s.Len(), len(c.closed))
				}
			})
		}
	}
}

// A hand is a client whose segments the test makes.
type hand struct {
	*end
	seq, ack uint32
	port     uint16
	in       []Segment
	now      int64
}

func (h *hand) Emit(s *Segment) {
	if s.Remote != clientAddr || s.RemotePort != h.port {
		return // another one's
	}
	c := *s
	c.Data = bytes.Clone(s.Data)
	h.in = append(h.in, c)
}

func byHand(t testing.TB) *hand {
	h := &hand{end: &end{t: t, rnd: rand.New(rand.NewPCG(1, 2))}, seq: 1000, port: 5000, now: second}
	h.s = New(h, 1500, 1500, 1)
	h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, append([]byte("re: "), msg...), e.s.now) }
	return h
}

func (h *hand) send(flags uint8, data string) []Segment {
	h.in = nil
	h.arrive(&Segment{Tuple: Tuple{Local: clientAddr, Remote: serverAddr, LocalPort: h.port, RemotePort: 53}, Seq: h.seq, Ack: h.ack, Flags: flags, Window: 60000, Data: []byte(data)}, h.now)
	h.seq += uint32(len(data))
	if flags&(packet.SYN|packet.FIN) != 0 {
		h.seq++
	}
	for _, s := range h.in {
		h.ack = s.Seq + uint32(len(s.Data))
		if s.Flags&(packet.SYN|packet.FIN) != 0 {
			h.ack++
		}
	}
	return h.in
}

func (h *hand) connect() {
	h.t.Helper()
	if in := h.send(packet.SYN, ""); len(in) != 1 || in[0].Flags != packet.SYN|packet.ACK || in[0].Ack != h.seq || in[0].MSS != 1460 {
		h.t.Fatalf("the answer to a SYN is %+v", in)
	}
	h.send(packet.ACK, "")
}

// TestPipelining (RFC 7766 section 6.2.1.1): several messages in one segment, one in
// several, and a length in two.
func TestPipelining(t *testing.T) {
	h := byHand(t)
	h.connect()
	in := h.send(packet.ACK|packet.PSH, "\x00\x01a\x00\x02bc\x00")
	got := ""
	for _, s := range in {
		got += string(s.Data)
	}
	if got != "\x00\x05re: a\x00\x06re: bc" {
		t.Fatalf("answers %q", got)
	}
	h.send(packet.ACK, "\x03")
	h.send(packet.ACK, "d")
	if in = h.send(packet.ACK, "ef\x00\x01"); len(in) != 1 || string(in[0].Data) != "\x00\x07re: def" {
		t.Fatalf("answer %+v", in)
	}
	// The client has said all: it still gets its answer, then the end.
	in = h.send(packet.ACK|packet.FIN, "g")
	got = ""
	for _, s := range in {
		got += string(s.Data)
	}
	if got != "\x00\x05re: g" || in[len(in)-1].Flags&packet.FIN == 0 {
		t.Fatalf("answer %+v", in)
	}
	h.send(packet.ACK, "")
	if h.s.Len() != 0 {
		t.Fatal("the connection is still there")
	}
}

// TestIdle (RFC 7766 section 6.2.3).
func TestIdle(t *testing.T) {
	h := byHand(t)
	h.connect()
	for range 5 {
		h.now += 9 * second
		h.s.Tick(h.now)
		h.send(packet.ACK, "\x00\x01a")
	}
	h.send(packet.ACK, "")
	h.now += idleTimeout + second
	h.in = nil
	h.s.Tick(h.now)
	if len(h.in) != 1 || h.in[0].Flags&packet.FIN == 0 {
		t.Fatalf("after %v s: %+v", idleTimeout/second, h.in)
	}
	h.ack++
	h.send(packet.ACK|packet.FIN, "")
	if h.s.Len() != 0 {
		t.Fatal("still there")
	}
	// Who sends one byte now and then does not hold a connection.
	h.connect()
	for i := 0; i < 40 && h.s.Len() > 0; i++ {
		h.now += second
		h.s.Tick(h.now)
		h.send(packet.ACK, "\x01")
	}
	if h.s.Len() != 0 {
		t.Fatal("a connection without a message is kept")
	}
}

// TestBlindAttacks (RFC 5961): segments that are not exactly right neither end a
// connection nor insert data.
func TestBlindAttacks(t *testing.T) {
	h := byHand(t)
	h.connect()
	good := h.seq
	for _, off := range []uint32{1, 100, 3000} {
		h.seq = good + off
		if in := h.send(packet.RST, ""); len(in) != 1 || in[0].Flags != packet.ACK {
			t.Fatalf("a RST at %d: %+v", off, in)
		}
	}
	for _, off := range []uint32{5000, 1 << 31, ^uint32(0)} {
		h.seq = good + off
		if in := h.send(packet.RST, ""); len(in) != 0 {
			t.Fatalf("a RST at %d: %+v", off, in)
		}
	}
	h.seq = good + 1
	h.send(packet.SYN, "")
	h.seq = good
	ack := h.ack
	h.ack += 5
	h.send(packet.ACK, "\x00\x01x") // acknowledges what was never sent
	h.seq, h.ack = good, ack
	if in := h.send(packet.ACK, "\x00\x01a"); len(in) != 1 || string(in[0].Data) != "\x00\x05re: a" {
		t.Fatalf("the connection has suffered: %+v", in)
	}
	if h.send(packet.RST, ""); h.s.Len() != 0 || h.s.c.Reset != 1 {
		t.Fatal("the right RST does not end it")
	}
}

// TestLimits: connections per client and in all, half-open ones, long messages.
func TestLimits(t *testing.T) {
	h := byHand(t)
	for range 3 * maxPerClient {
		h.port++
		h.send(packet.SYN, "")
	}
	if h.s.Len() != maxPerClient {
		t.Fatalf("%d connections of one client", h.s.Len())
	}
	// A flood of SYNs does not keep out a client that completes its handshake.
	flood := func() {
		for i := range packet.Addr(3 * maxPassive) {
			tu := Tuple{Local: serverAddr, Remote: 0x0a000100 + i, LocalPort: 53, RemotePort: 1}
			h.s.Accept(&tu, &packet.Packet{Seq: 1, Window: 100}, nil, 0, h.now)
			check(t, h.s)
		}
	}
	flood()
	if h.s.Len() != maxPassive {
		t.Fatalf("%d connections", h.s.Len())
	}
	h.port = 100
	h.connect()
	flood()
	if in := h.send(packet.ACK, "\x00\x01a"); len(in) != 1 || string(in[0].Data) != "\x00\x05re: a" {
		t.Fatalf("pushed out by a flood: %+v", in)
	}
	if in := h.send(packet.ACK, "\x10\x01"); len(in) != 1 || in[0].Flags&packet.RST == 0 {
		t.Fatalf("a message of 4097 bytes: %+v", in)
	}
	h.now += 10 * second
	h.s.Tick(h.now)
	if h.s.Len() != 0 {
		t.Fatalf("%d half-open connections are left", h.s.Len())
	}
}

// TestNoReader: a client that acknowledges no responses loses its connection, and
// its memory is freed.
func TestNoReader(t *testing.T) {
	h := byHand(t)
	big := message(60000, 1)
	h.serve = func(e *end, id uint32, _ []byte) { e.s.Send(id, big, e.s.now) }
	for p := range uint16(10) {
		h.port = 6000 + p
		h.connect()
		for range 6 {
			h.send(packet.ACK, "\x00\x01a")
			check(t, h.s)
		}
	}
	for range 100 {
		h.now += second
		h.s.Tick(h.now)
		check(t, h.s)
	}
	if h.s.Len() != 0 || h.s.c.Aborted == 0 {
		t.Fatalf("%d connections, %+v", h.s.Len(), h.s.c)
	}
}

func TestConnectFails(t *testing.T) {
	c, _, n := pair(t, 1)
	n.lose = 100
	c.s.Connect(&tuple, 7, []byte("q"), second)
	for now := int64(second); now < 10*second; now += second / 10 {
		c.s.Tick(now)
	}
	if len(c.closed) != 1 || c.closed[0] != 7 || c.s.Len() != 0 || n.sent < 2 {
		t.Fatalf("told %v, %d SYNs", c.closed, n.sent)
	}
}

func TestAllocations(t *testing.T) {
	h := byHand(t)
	h.serve = func(e *end, id uint32, msg []byte) { e.s.Send(id, msg, e.s.now) }
	s := New(quiet{}, 1500, 1500, 1)
	tu := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 1}
	p := packet.Packet{Seq: 1, Window: 1000, Flags: packet.SYN}
	if n := testing.AllocsPerRun(100, func() {
		s.Accept(&tu, &p, nil, 0, second)
		q := packet.Packet{Seq: 2, Ack: 1, Window: 1000, Flags: packet.ACK}
		s.Input(&tu, &q, nil, nil, second)
		s.Input(&tu, &q, nil, []byte("\x00\x01a"), second)
		q.Flags, q.Seq = packet.RST, 5
		s.Input(&tu, &q, nil, nil, second)
	}); n != 0 || s.Len() != 0 {
		t.Fatalf("%v allocations, %d connections", n, s.Len())
	}
}

type quiet struct{}

func (quiet) Emit(*Segment)                       {}
func (quiet) Message(uint32, []byte)              {}
func (quiet) StreamReady(uint32, uint32)          {}
func (quiet) Closed(uint32, uint32, *Tuple, bool) {}
func (quiet) Random() uint64                      { return 0 }

// FuzzInput sends arbitrary segments, near the expected sequence numbers, to
// connections of each kind.
func FuzzInput(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x10\x00\x00\x03\x10\x00\x00\x05hello"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h := byHand(t)
		mine := Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 4000, RemotePort: 53}
		h.s.Connect(&mine, 1, []byte("q"), h.now)
		raw := mine
		raw.LocalPort++
		id, _ := h.s.ConnectStream(&raw, 2, h.now)
		for k := 0; len(in) >= 4 && k < 300; k++ {
			flags, off, ack, n := in[0], int8(in[1]), int8(in[2]), int(in[3]%64)
			in = in[4:]
			n = min(n, len(in))
			t2 := mine
			if flags&0x80 != 0 {
				t2 = Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: uint16(off & 3)}
			} else if flags&0x20 != 0 {
				t2 = raw
				if ack&1 != 0 {
					h.s.Read(id, make([]byte, n), h.now)
				} else {
					h.s.Write(id, in[:n], h.now)
				}
			}
			p := packet.Packet{Flags: flags & 0x1f, Window: uint16(n) << 8}
			if c := h.s.find(&t2); c != nil {
				p.Seq, p.Ack = c.rcv+uint32(int32(off)), c.nxt+uint32(int32(ack))
				h.s.Input(&t2, &p, in[:n], in[:n], h.now)
			} else if flags&0x80 != 0 {
				h.s.Accept(&t2, &p, in[:n], 0, h.now)
			}
			in = in[n:]
			if flags&0x40 != 0 {
				h.now += int64(uint8(ack)) * second / 8 // time does not go back
				h.s.Tick(h.now)
			}
			check(t, h.s)
		}
		h.s.Close(id, h.now)
		for range 60 {
			h.now += second
			h.s.Tick(h.now)
		}
		if h.s.Len() != 0 {
			t.Fatalf("%d connections are never given up", h.s.Len())
		}
	})
}

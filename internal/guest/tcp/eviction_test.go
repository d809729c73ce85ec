package tcp

import (
	"bytes"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A crowd is a set of clients, each of which acknowledges its responses as the test
// orders.
type crowd struct {
	t     testing.TB
	s     *Stack
	now   int64
	conns map[Tuple]*far // by the stack's own view of them
	reply []byte
	gone  int
	got   [][]byte // answers to questions of our own
	rnd   uint64
	ports uint16
}

// A far is the peer of a connection: a client or an upstream.
type far struct {
	Tuple
	seq, ack, last uint32 // ours, expected, the last that was acknowledged
	win            uint16
	data           []byte
	open, ended    bool
}

func newCrowd(t testing.TB, reply int) *crowd {
	w := &crowd{t: t, now: second, conns: map[Tuple]*far{}, reply: message(reply, 9)}
	w.s = New(w, 1500, 1500, 1)
	return w
}

func (w *crowd) Random() uint64             { w.rnd += 0x9e3779b97f4a7c15; return w.rnd }
func (w *crowd) StreamReady(uint32, uint32) {}
func (w *crowd) Closed(_, _ uint32, t *Tuple, served bool) {
	if w.gone++; w.conns[*t] != nil {
		w.conns[*t].ended = true
	}
}

func (w *crowd) Message(id uint32, msg []byte) {
	if _, _, served := w.s.Conn(id); served {
		w.s.Send(id, w.reply, w.now)
		return
	}
	w.got = append(w.got, bytes.Clone(msg))
	w.s.Close(id, w.now)
}

func (w *crowd) Emit(s *Segment) {
	f := w.conns[s.Tuple]
	switch {
	case f == nil:
	case s.Flags&packet.RST != 0:
		f.ended = true
	case s.Flags&packet.SYN != 0:
		f.open, f.ack = true, s.Seq+1
	case s.Seq == f.ack:
		f.data = append(f.data, s.Data...)
		f.ack += uint32(len(s.Data))
		if s.Flags&packet.FIN != 0 {
			f.ack++
		}
	}
}

func (w *crowd) send(f *far, flags uint8, data []byte, ack uint32) {
	p := packet.Packet{Src: f.Remote, Dst: f.Local, SrcPort: f.RemotePort, DstPort: f.LocalPort, Flags: flags, Window: f.win, Seq: f.seq, Ack: ack}
	if f.last = ack; flags&(packet.SYN|packet.ACK) == packet.SYN {
		w.s.Accept(&f.Tuple, &p, []byte{2, 4, 5, 180}, 0, w.now)
		f.seq++
	} else if _, ok := w.s.Owns(&f.Tuple); ok {
		w.s.Input(&f.Tuple, &p, []byte{2, 4, 5, 180}, data, w.now)
		f.seq += uint32(len(data))
		if flags&packet.SYN != 0 {
			f.seq++
		}
	}
	check(w.t, w.s)
}

// connect begins a connection and completes it if it may.
func (w *crowd) connect(client packet.Addr, port, win uint16) *far {
	f := &far{Tuple: Tuple{Local: serverAddr, Remote: client, LocalPort: 53, RemotePort: port}, seq: 7, win: win}
	w.conns[f.Tuple] = f
	if w.send(f, packet.SYN, nil, 0); f.open {
		w.send(f, packet.ACK, nil, f.ack)
	}
	return f
}

// ask sends a query.
func (w *crowd) ask(f *far) { w.send(f, packet.ACK|packet.PSH, []byte("\x00\x01q"), f.last) }

// take acknowledges everything that has come, as long as more comes.
func (w *crowd) ackAll(f *far) {
	for range 200 {
		if f.last == f.ack || f.ended {
			return
		}
		w.send(f, packet.ACK, nil, f.ack)
	}
}

// pass lets time pass in steps of 100 ms; each calls what the clients do then.
func (w *crowd) pass(d int64, do func()) {
	for end := w.now + d; w.now < end; {
		w.now += second / 10
		w.s.Tick(w.now)
		check(w.t, w.s)
		if do != nil {
			do()
		}
	}
}

// check verifies that no memory is lost.
func check(t testing.TB, s *Stack) {
	t.Helper()
	var used, has [numKinds]int
	n := 0
	for i := range s.conn {
		c := &s.conn[i]
		if c.state == closed {
			continue
		}
		n++
		kind := c.kind()
		has[kind]++
		for _, q := range []*queue{&c.tx, &c.rx} {
			held := 0
			for k := q.head; k != 0; k = s.pools[kind].next[k-1] {
				held++
			}
			if used[kind] += held; held != q.chunks() {
				t.Fatalf("a queue has %d chunks, and says %d", held, q.chunks())
			}
		}
	}
	for kind := range s.pools {
		p := &s.pools[kind]
		left := 0
		for k := p.freeList; k != 0; k = p.next[k-1] {
			left++
		}
		if used[kind]+left != len(p.mem) || left != p.nFree || has[kind] != s.used[kind] || has[kind] > s.limit[kind] {
			t.Fatalf("kind %d: %d chunks used and %d left (%d) of %d; %d connections (%d) of %d", kind, used[kind], left, p.nFree, len(p.mem), has[kind], s.used[kind], s.limit[kind])
		}
	}
	if n != s.n {
		t.Fatalf("%d connections of %d", n, s.n)
	}
}

const attacker = packet.Addr(0x0a000050)

// TestMemoryIsShared: one client opens all connections that it may, fills all memory
// and acknowledges nothing. Another one still gets the longest responses, and
// queries and streams to upstreams have memory of their own.
func TestMemoryIsShared(t *testing.T) {
	for _, n := range []int{1, 5} {
		w := newCrowd(t, 60000)
		attack := func(round int) {
			for i := range n * maxPerClient {
				f := w.connect(attacker+packet.Addr(i/maxPerClient), uint16(1000+round*1000+i), 0)
				for range 3 {
					w.ask(f)
				}
			}
		}
		attack(0)
		if left := w.s.pools[kindPassive].nFree; left > 60000/chunkSize {
			t.Fatalf("%d chunks are left: this is no attack", left)
		}
		for round := range 5 {
			f := w.connect(clientAddr, uint16(100+round), 60000)
			for k := range 2 {
				w.ask(f)
				if w.ackAll(f); len(f.data) != (k+1)*60002 {
					t.Fatalf("%d attackers, round %d: %d bytes of the answer; %+v", n, round, len(f.data), w.s.c)
				}
			}
			attack(round + 1)
			w.upstreams()
			w.pass(second/2, nil)
		}
	}
}

// port returns a port of our own that has not been used.
func (w *crowd) port() uint16 { w.ports++; return 30000 + w.ports }

// TestStalledGiveWayFirst: many clients use all memory, each less than the response
// of another one needs: stalled connections are evicted.
func TestStalledGiveWayFirst(t *testing.T) {
	w := newCrowd(t, 15000) // 8 chunks
	for i := range maxPassive {
		w.ask(w.connect(attacker+packet.Addr(i/2), uint16(1000+i), 0))
	}
	if w.s.pools[kindPassive].nFree >= 33 {
		t.Fatal("this is no attack")
	}
	w.pass(stallTimeout, nil)
	w.reply = message(65535, 1)
	f := w.connect(clientAddr, 100, 60000)
	w.ask(f)
	if w.ackAll(f); len(f.data) != 65537 {
		t.Fatalf("%d bytes of the answer; %+v", len(f.data), w.s.c)
	}
}

// upstreams has questions of our own, and a stream, work.
func (w *crowd) upstreams() {
	w.t.Helper()
	for i := range uint32(3) {
		f := &far{Tuple: Tuple{Local: serverAddr, Remote: 0xc6336435, LocalPort: w.port(), RemotePort: 53}, seq: 7, win: 60000}
		w.conns[f.Tuple] = f
		if !w.s.Connect(&f.Tuple, i, []byte("question"), w.now) || !f.open {
			w.t.Fatal("no question of our own")
		}
		w.send(f, packet.SYN|packet.ACK, nil, f.ack)
		n := len(w.got)
		long := message(65000, 3)
		for all := append([]byte{65000 >> 8, 65000 & 255}, long...); len(all) > 0; {
			k := min(len(all), 1400)
			w.send(f, packet.ACK, all[:k], f.ack)
			all = all[k:]
		}
		if len(w.got) != n+1 || !bytes.Equal(w.got[n], long) {
			w.t.Fatalf("the answer to a question of our own: %d of %d", len(w.got)-n, 1)
		}
	}
	f := &far{Tuple: Tuple{Local: serverAddr, Remote: 0xc6336435, LocalPort: w.port(), RemotePort: 853}, seq: 7, win: 0}
	w.conns[f.Tuple] = f
	id, ok := w.s.ConnectStream(&f.Tuple, 9, w.now)
	if !ok || !f.open {
		w.t.Fatal("no stream")
	}
	w.send(f, packet.SYN|packet.ACK, nil, f.ack)
	if n := w.s.Write(id, make([]byte, 2*streamOut), w.now); n != streamOut {
		w.t.Fatalf("a stream takes %d bytes", n)
	}
	for left := streamIn; left > 0; {
		k := min(left, 1000)
		w.send(f, packet.ACK, make([]byte, k), f.ack)
		left -= k
	}
	if st, _ := w.s.Stream(id); st.Unread != streamIn {
		w.t.Fatalf("a stream keeps %d bytes", st.Unread)
	}
	w.s.Close(id, w.now) // its other side takes nothing: it stays for a while
}

// TestPlacesAreShared: attackers fill the table with connections in use. A client
// with fewer gets one at once, and evicts none of a client that has no more than
// itself.
func TestPlacesAreShared(t *testing.T) {
	w := newCrowd(t, 3000)
	var busy []*far
	for i := range maxPassive {
		f := w.connect(attacker+packet.Addr(i/maxPerClient), uint16(1000+i), 0)
		w.ask(f)
	}
	if w.s.used[kindPassive] != maxPassive {
		t.Fatalf("%d connections", w.s.used[kindPassive])
	}
	for i := range uint16(5) {
		f := w.connect(clientAddr, 100+i, 60000)
		if w.ask(f); len(f.data) != 3002 {
			t.Fatalf("connection %d of another client: open %v, %d bytes; %+v", i, f.open, len(f.data), w.s.c)
		}
	}
	if w.s.c.Evicted != 5 || w.s.c.Refused != 0 {
		t.Fatalf("%+v", w.s.c)
	}
	if f := w.connect(attacker, 9999, 0); f.open {
		t.Fatal("an attacker beyond its share has another connection")
	}
	// One connection of each client, all in use: none may be evicted.
	w = newCrowd(t, 3000)
	busy = nil
	for i := range maxPassive {
		f := w.connect(attacker+packet.Addr(i), 1000, 1000)
		w.ask(f)
		busy = append(busy, f)
	}
	if f := w.connect(clientAddr, 100, 60000); f.open || w.s.c.Refused != 1 {
		t.Fatalf("a 97th client; %+v", w.s.c)
	}
	for i, f := range busy {
		if w.ackAll(f); len(f.data) != 3002 {
			t.Fatalf("connection %d: %d bytes", i, len(f.data))
		}
	}
	// They are idle now: the one that is idle for the longest time is evicted.
	w.now += second
	if f := w.connect(clientAddr, 100, 60000); !f.open || !busy[0].ended {
		t.Fatalf("a 97th client; %+v", w.s.c)
	}
	// In a client's name SYNs of others do not take its share, and what is at
	// work stays.
	w = newCrowd(t, 3000)
	working := w.connect(clientAddr, 100, 1000)
	w.ask(working)
	for i := range uint16(3 * maxPerClient) {
		f := &far{Tuple: Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: 53, RemotePort: 2000 + i}, seq: 7}
		w.send(f, packet.SYN, nil, 0)
	}
	f := w.connect(clientAddr, 101, 60000)
	if w.ask(f); len(f.data) != 3002 {
		t.Fatalf("kept out by SYNs in its own name: open %v; %+v", f.open, w.s.c)
	}
	if w.ackAll(working); len(working.data) != 3002 {
		t.Fatalf("%d bytes over the connection at work", len(working.data))
	}
	for i := range uint16(maxPerClient) {
		w.ask(w.connect(clientAddr, 5000+i, 1000))
	}
	if f := w.connect(clientAddr, 6000, 60000); f.open {
		t.Fatal("a client with its share at work has one more")
	}
}

// TestNoProgressEnds: a connection without progress ends, however it is kept alive;
// a slow one does not.
func TestNoProgressEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		win    uint16
		asks   int
		do     func(w *crowd, f *far)
		within int64
	}{
		{"nothing is sent", 60000, 0, func(w *crowd, f *far) {}, idleTimeout + lingerTimeout + second},
		{"a byte at a time is sent", 60000, 0, func(w *crowd, f *far) {
			w.send(f, packet.ACK, []byte{1}, f.last)
		}, idleTimeout + second},
		{"keep-alives of an idle connection", 60000, 1, func(w *crowd, f *far) {
			w.ackAll(f)
			f.seq--
			w.send(f, packet.ACK, nil, f.ack)
			f.seq++
		}, idleTimeout + lingerTimeout + second},
		{"nothing is read, and keep-alives", 0, 1, func(w *crowd, f *far) {
			f.seq--
			w.send(f, packet.ACK, nil, f.last)
			f.seq++
		}, idleTimeout + second},
		{"nothing is read, and the window is said to be open", 60000, 1, func(w *crowd, f *far) {
			w.send(f, packet.ACK, nil, f.last)
		}, 12 * second},
		{"a byte at a time is read", 60000, 1, func(w *crowd, f *far) {
			if f.last != f.ack {
				w.send(f, packet.ACK, nil, f.last+1)
			}
		}, idleTimeout + second},
		{"a byte at a time is let through", 1, 1, func(w *crowd, f *far) {
			w.send(f, packet.ACK, nil, f.ack)
		}, idleTimeout + second},
		{"nothing is read, and more is asked", 0, 1, func(w *crowd, f *far) {
			w.ask(f)
		}, idleTimeout + second},
		{"all is said, and nothing is read", 0, 1, func(w *crowd, f *far) {
			w.send(f, packet.ACK|packet.FIN, nil, f.last)
		}, idleTimeout + second},
	} {
		w := newCrowd(t, 30000)
		f := w.connect(clientAddr, 100, c.win)
		for range c.asks {
			w.ask(f)
		}
		step := 0
		if w.pass(c.within, func() {
			if step++; step%5 == 0 {
				c.do(w, f)
			}
		}); w.s.Len() != 0 {
			t.Errorf("%s: the connection is there after %d s; %+v", c.name, c.within/second, w.s.c)
		}
	}
	// A slow client: a kilobyte a second, over a window of one.
	w := newCrowd(t, 30000)
	f := w.connect(clientAddr, 100, 1000)
	w.ask(f)
	step := 0
	if w.pass(40*second, func() {
		if step++; step%10 == 0 {
			w.send(f, packet.ACK, nil, f.ack)
		}
	}); len(f.data) != 30002 || w.s.c.Stalled != 0 {
		t.Errorf("a slow client has %d bytes; %+v", len(f.data), w.s.c)
	}
}

// TestQuestionsEnd: a query ends at its timeout, even if the upstream acknowledges
// it or responds byte by byte.
func TestQuestionsEnd(t *testing.T) {
	for _, answers := range []bool{false, true} {
		w := newCrowd(t, 0)
		f := &far{Tuple: Tuple{Local: serverAddr, Remote: 0xc6336435, LocalPort: 30000, RemotePort: 53}, seq: 7, win: 60000}
		w.conns[f.Tuple] = f
		if !w.s.Connect(&f.Tuple, 4, make([]byte, 2000), w.now) {
			t.Fatal("no connection")
		}
		w.send(f, packet.SYN|packet.ACK, nil, f.ack)
		w.pass(queryTimeout+second, func() {
			if answers {
				w.send(f, packet.ACK, []byte{1}, f.ack)
			} else {
				w.send(f, packet.ACK, nil, f.last+1)
			}
		})
		if w.s.Len() != 0 {
			t.Errorf("after %d s it is still there", queryTimeout/second)
		}
	}
	// The response is not needed any more.
	w := newCrowd(t, 0)
	tu := Tuple{Local: serverAddr, Remote: 0xc6336435, LocalPort: 30000, RemotePort: 53}
	w.s.Connect(&tu, 4, []byte("q"), w.now)
	w.s.Cancel(5, w.now)
	if w.s.Len() != 1 {
		t.Fatal("another question was dropped")
	}
	if w.s.Cancel(4, w.now); w.s.Len() != 0 {
		t.Fatal("it is still there")
	}
}

package tcp

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"testing"
)

// The tests of this file run our TCP against gVisor's over a wire that loses,
// duplicates and reorders packets, with random seeds. Whatever happens, each
// message arrives whole, or its connection ends with an error within a bounded
// time; at the end no connection and no memory is left.

// interopWires are the wires of these tests; atLeast is how many connections of a
// hundred must do all that they had to.
var interopWires = []struct {
	name    string
	fault   wireFaults
	mtu     int // of gVisor's host
	buffer  int // of its receivers: a small one has a small window
	atLeast int
}{
	{"perfect", wireFaults{delay: second / 500}, 1500, 1 << 20, 100},
	{"slow", wireFaults{delay: second / 5}, 1500, 1 << 20, 100},
	{"small MTU", wireFaults{delay: second / 200}, 576, 1 << 20, 100},
	{"small windows", wireFaults{delay: second / 200}, 1500, 4096, 100},
	{"tiny windows", wireFaults{delay: second / 200}, 576, 1200, 90}, // gVisor drops some of what its window has room for
	{"reordering", wireFaults{delay: second / 200, jitter: second / 20}, 1500, 1 << 20, 100},
	{"duplicates", wireFaults{dup: 30, delay: second / 200, jitter: second / 100}, 1500, 1 << 20, 100},
	{"3% loss", wireFaults{lose: 3, dup: 3, delay: second / 200, jitter: second / 100}, 1500, 1 << 20, 90},
	{"3% loss, small windows", wireFaults{lose: 3, dup: 3, delay: second / 200, jitter: second / 100}, 1500, 4096, 90},
	{"15% loss", wireFaults{lose: 15, dup: 10, delay: second / 200, jitter: second / 50}, 1500, 1 << 20, 0},
	{"40% loss", wireFaults{lose: 40, dup: 10, delay: second / 200, jitter: second / 50}, 1500, 1 << 20, 0},
}

var interopSeeds = flag.Uint64("interop", 4, "seeds of each test against gVisor's TCP")

// interop runs f on each wire with some seeds, and counts its connections that did
// all that they had to. leastBuffer bounds the wires' buffers from below: a server of
// gVisor's with less than 8 KB keeps its window shut once it was.
func interop(t *testing.T, leastBuffer int, f func(l *lab) (whole, of int)) {
	for _, w := range interopWires {
		t.Run(w.name, func(t *testing.T) {
			whole, of := 0, 0
			for seed := range *interopSeeds {
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					l := newLab(t, seed, w.fault, w.mtu, max(w.buffer, leastBuffer))
					n, k := f(l)
					whole, of = whole+n, of+k
					l.empty()
				})
			}
			t.Logf("%d of %d", whole, of)
			if whole*100 < of*w.atLeast {
				t.Errorf("%d of %d connections did what they had to, want %d in a hundred", whole, of, w.atLeast)
			}
		})
	}
}

// until runs the lab until done, at most so many seconds.
func (l *lab) until(seconds int64, what string, done func() bool) {
	l.t.Helper()
	for end := l.now + seconds*second; !done(); l.step() {
		if l.now > end {
			l.t.Fatalf("%s: not within %d s; %d connections, %+v", what, seconds, l.ours.Len(), l.ours.c)
		}
	}
}

// empty checks that our stack has given all up within the time that a connection
// has when nothing is heard of its other end, and given back all memory.
func (l *lab) empty() {
	l.t.Helper()
	l.until(45, "the end of all connections", func() bool { return l.ours.Len() == 0 })
	for k := range l.ours.pools {
		if p := &l.ours.pools[k]; p.nFree != len(p.mem) {
			l.t.Fatalf("kind %d: %d of %d chunks are free", k, p.nFree, len(p.mem))
		}
	}
	if _, any := l.ours.Due(); any {
		l.t.Fatal("due with no connection")
	}
}

// A resolver is a client of gVisor's: it asks, and takes the answers as fast as it
// does.
type resolver struct {
	*socket
	queries [][]byte
	out     []byte         // that is to be written
	waits   map[uint16]int // length of the answer, by the query's number
	asked   int
	window  int // bytes of answers that it waits for at a time
	pace    int // bytes that it takes in a step
	early   bool
	idle    bool // it leaves the end to the server
	ended   bool
	begin   int64
	silent  int64 // since when nothing has come
}

// query makes a query whose answer has the length n: number and length, and behind
// them anything.
func query(number uint16, n, size int) []byte {
	q := make([]byte, max(size, 4))
	binary.BigEndian.PutUint16(q, number)
	binary.BigEndian.PutUint16(q[2:], uint16(n))
	return q
}

// reply is the answer to a query: its number, and bytes that follow from it.
func reply(q []byte) []byte {
	m := message(int(binary.BigEndian.Uint16(q[2:])), q[1])
	copy(m, q[:2])
	return m
}

// step lets the client do what it does now. It reports whether it has ended.
func (r *resolver) step() bool {
	if r.over() {
		r.ep.Close()
		return true
	}
	under := 0
	for _, n := range r.waits {
		under += n
	}
	for r.asked < len(r.queries) && len(r.out) < 8<<10 {
		q := r.queries[r.asked]
		n := int(binary.BigEndian.Uint16(q[2:]))
		if under > 0 && under+n > r.window {
			break
		}
		under += n
		r.waits[binary.BigEndian.Uint16(q)] = n
		r.out = append(binary.BigEndian.AppendUint16(r.out, uint16(len(q))), q...)
		r.asked++
	}
	if len(r.out) > 0 {
		n := min(len(r.out), 1+r.l.rnd.IntN(3000))
		rest := r.write(r.out[:n])
		r.out = r.out[n-len(rest):]
	}
	all := r.asked == len(r.queries) && len(r.out) == 0
	if all && !r.ended && !r.idle && (r.early || len(r.waits) == 0) {
		r.finish()
		r.ended = true
	}
	before := len(r.got)
	r.read(r.pace)
	if len(r.got) > before {
		r.silent = r.l.now
	}
	r.take()
	if r.l.now-r.silent > 40*second { // as programs do
		r.ep.Abort()
	}
	return false
}

// take checks the answers that have come.
func (r *resolver) take() {
	for len(r.got) >= 2 {
		n := int(binary.BigEndian.Uint16(r.got))
		if len(r.got) < 2+n {
			return
		}
		m := r.got[2 : 2+n]
		r.got = r.got[2+n:]
		number := binary.BigEndian.Uint16(m)
		want, ok := r.waits[number]
		if !ok || !bytes.Equal(m, reply(query(number, want, 0))) {
			r.l.t.Fatalf("an answer of %d bytes to query %d, which waits: %v, %d", n, number, ok, want)
		}
		delete(r.waits, number)
	}
}

// whole reports whether it got all its answers and the end behind them.
func (r *resolver) whole() bool {
	return r.eof && r.asked == len(r.queries) && len(r.waits) == 0 && len(r.got) == 0
}

// server answers queries after a while, in any order.
type server struct {
	l     *lab
	queue []waiting
}

type waiting struct {
	at  int64
	id  uint32
	msg []byte
}

func (s *server) message(id uint32, msg []byte) {
	s.queue = append(s.queue, waiting{s.l.now + s.l.rnd.Int64N(second/5), id, reply(msg)})
}

func (s *server) step() {
	rest := s.queue[:0]
	for _, w := range s.queue {
		if w.at <= s.l.now {
			s.l.ours.Send(w.id, w.msg, s.l.now)
		} else {
			rest = append(rest, w)
		}
	}
	s.queue = rest
}

// TestInteropServer: clients with gVisor's TCP ask the firewall over TCP. They ask
// one by one and many at once, for short and for the longest answers, take them
// slowly, end first or leave that to the server.
func TestInteropServer(t *testing.T) {
	interop(t, 0, func(l *lab) (whole, of int) {
		s := &server{l: l}
		l.message, l.rst = s.message, true
		closed := 0
		l.closed = func(uint32, uint32, *Tuple, bool) { closed++ }
		var clients []*resolver
		number := uint16(0)
		for i := range 10 {
			r := &resolver{socket: l.dial(hostAddrs[i%len(hostAddrs)], serverAddr, 53), waits: map[uint16]int{}, begin: l.now, silent: l.now}
			r.window = []int{1, 20000, 66000}[l.rnd.IntN(3)]
			r.pace = []int{100, 1000, 1 << 20}[l.rnd.IntN(3)]
			r.early, r.idle = l.rnd.IntN(2) == 0, l.rnd.IntN(3) == 0
			for range 1 + l.rnd.IntN(6) {
				n := []int{2, 100 + l.rnd.IntN(400), 2046, 20000, 65535}[l.rnd.IntN(5)]
				r.queries = append(r.queries, query(number, n, []int{4, 40, 1458, 4096}[l.rnd.IntN(4)]))
				number++
			}
			clients = append(clients, r)
		}
		l.until(300, "clients", func() bool {
			s.step()
			left := 0
			for _, r := range clients {
				if !r.step() {
					left++
				}
			}
			return left == 0
		})
		for _, r := range clients {
			if r.whole() {
				whole++
			}
		}
		l.empty()
		if closed != int(l.ours.c.Accepted) || l.ours.c.Accepted < uint64(whole) {
			l.t.Errorf("told of %d ends, %+v", closed, l.ours.c)
		}
		return whole, len(clients)
	})
}

package tcp

import "github.com/thurward/thurward/internal/shared/packet"

// Connections are of three kinds, each with places and memory of its own: what
// clients do never takes what the firewall needs for its upstreams. A stream has
// all that it may use set aside. The others share, and when nothing is left
// somebody gives way: first who takes nothing of what waits for it, then who has
// the most.
type kind uint8

const (
	aServed kind = iota // a client's
	anAsked             // our own, for one question
	aStream             // our own, a stream
	numKinds
)

const (
	maxServed    = 96
	maxPerClient = 16
	maxAsked     = 32

	servedChunks = 448 // 0.9 MB
	askedChunks  = 320 // 0.6 MB
	// A stream has at most streamIn and streamOut bytes, each of which may
	// begin and end within a chunk; one that is being closed only the latter.
	streamChunks = (streamIn+2*streamOut)/chunkSize + 3

	// StreamBytes is the memory that is set aside for each stream.
	StreamBytes = streamChunks * chunkSize

	// stalledFor is how long a client may take nothing of its answers until
	// its memory and its place are for others who need them.
	stalledFor = 2 * second
	// leastTaken is what a client must take of its answers within idleFor, in
	// bytes, or all of them.
	leastTaken = 8 << 10
)

func (c *conn) kind() kind {
	switch {
	case c.served:
		return aServed
	case c.stream:
		return aStream
	}
	return anAsked
}

// stalled reports whether a client has taken nothing of its answers for a while.
func (c *conn) stalled(now int64) bool { return c.tx.n > 0 && now-c.moved >= stalledFor }

// held returns how many chunks a connection has.
func (c *conn) held() int { return c.tx.held() + c.rx.held() }

// A tally counts by client.
type tally struct {
	addr [256]packet.Addr
	n    [256]int // zero: a free place; there are fewer clients than places
}

// of returns the count of a client.
func (t *tally) of(a packet.Addr) *int {
	i := uint8(uint32(a) * 0x9e3779b1 >> 24)
	for t.n[i] != 0 && t.addr[i] != a {
		i++
	}
	t.addr[i] = a
	return &t.n[i]
}

// makePlace makes a place for a connection of a kind, for a client where it is
// one's. It returns false when all are taken by others who have a better right.
func (s *Stack) makePlace(k kind, client packet.Addr) bool {
	if k != aServed {
		if s.has[k] < s.most[k] {
			return true
		}
		// One that is being closed has had its answer, or is a stream that
		// nobody has any more.
		var out *conn
		for i := range s.conn {
			if c := &s.conn[i]; c.state == closing && c.kind() == k && (out == nil || c.ends < out.ends) {
				out = c
			}
		}
		return s.evict(out)
	}
	t := &s.tally
	clear(t.n[:])
	for i := range s.conn {
		if c := &s.conn[i]; c.state != free && c.served {
			*t.of(c.Remote)++
		}
	}
	mine := *t.of(client)
	switch {
	case mine >= maxPerClient:
	case s.has[k] < s.most[k]:
		return true
	}
	var out *conn
	var least rank
	for i := range s.conn {
		c := &s.conn[i]
		if c.state == free || !c.served {
			continue
		}
		if r, ok := s.place(c, client, mine, *t.of(c.Remote)); ok && (out == nil || r.before(&least)) {
			out, least = c, r
		}
	}
	return s.evict(out)
}

// A rank orders connections that may give way.
type rank struct {
	class uint8
	n     int // connections of the client: the most first
	since int64
}

func (r *rank) before(o *rank) bool {
	if r.class != o.class {
		return r.class < o.class
	}
	if r.n != o.n {
		return r.n > o.n
	}
	return r.since < o.since
}

// place returns the rank of connection c, of a client that has n, if it may give
// its place to another client that has mine: half-open ones first, then stalled
// ones, then idle ones, then, where the new client would still have fewer, those
// at work. Nobody takes a place from who has no more than itself. A client that
// has its share replaces what it does not use.
func (s *Stack) place(c *conn, client packet.Addr, mine, n int) (r rank, ok bool) {
	switch {
	case c.state == synReceived:
		r.class, r.since = 0, c.active
	case c.stalled(s.now):
		r.class, r.since = 1, c.moved
	case c.state == closing:
		r.class, r.since = 2, c.ends
	case c.pending == 0 && c.tx.n == 0:
		r.class, r.since = 3, c.active
	default:
		r.class, r.since = 4, c.moved
	}
	r.n = n
	switch {
	case mine >= maxPerClient:
		return r, c.Remote == client && r.class < 4
	case c.Remote == client:
		return r, r.class < 4
	case r.class == 1:
		return r, true
	}
	return r, n > mine && r.class < 4 || n > mine+1
}

// evict resets a connection to make room. nil: there is none.
func (s *Stack) evict(c *conn) bool {
	if c == nil {
		return false
	}
	s.c.Evicted++
	s.abort(c)
	return true
}

// makeRoom makes room for n more bytes in a queue of connection c. It returns
// false when others have a better right to the memory, or when there never is so
// much; then c is still there.
func (s *Stack) makeRoom(c *conn, q *queue, n int) bool {
	p := &s.chunks[c.kind()]
	need := q.more(n)
	if need > len(p.mem) {
		return false
	}
	for p.left < need {
		out := s.holder(c, need)
		if out == nil || out == c {
			return false
		}
		s.evict(out)
	}
	return true
}

// holder returns the connection that gives up its memory for connection c, which
// needs so many chunks more: one that is stalled, the longest of them first; then
// of the client that would have the most the one that has taken nothing for the
// longest. Connections of our own are each by themselves. It may be c.
func (s *Stack) holder(c *conn, need int) *conn {
	k := c.kind()
	var out *conn
	for i := range s.conn {
		o := &s.conn[i]
		if k == aServed && o.served && o.stalled(s.now) && (out == nil || o.moved < out.moved) {
			out = o
		}
	}
	if out != nil {
		return out
	}
	t := &s.tally
	clear(t.n[:])
	owner := func(o *conn) packet.Addr {
		if k == aServed {
			return o.Remote
		}
		return packet.Addr(s.id(o))
	}
	for i := range s.conn {
		if o := &s.conn[i]; o.kind() == k && o.held() > 0 {
			*t.of(owner(o)) += o.held()
		}
	}
	who := owner(c)
	mine := t.of(who)
	*mine += need
	most := 0
	for _, n := range t.n {
		most = max(most, n)
	}
	if out = c; *mine < most {
		out = nil
	}
	for i := range s.conn {
		o := &s.conn[i]
		if o.kind() != k || o.held() == 0 || *t.of(owner(o)) != most {
			continue
		}
		if out == nil {
			out, who = o, owner(o)
		} else if owner(o) == who && o.moved < out.moved {
			out = o
		}
	}
	return out
}

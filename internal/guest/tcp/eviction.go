package tcp

import "github.com/thurward/thurward/internal/shared/packet"

// A kind of connections has table entries and buffer memory of its own, so that
// clients cannot exhaust what the firewall needs for its upstreams. The memory of a
// stream is reserved for it. Connections of the other kinds share theirs; when it
// is exhausted, one is evicted: a stalled one first, then one of the client that
// has the most.
type kind uint8

const (
	kindPassive kind = iota // opened by a client
	kindQuery               // opened by the firewall, for one query
	kindStream              // opened by the firewall, a stream
	numKinds
)

const (
	maxPassive   = 96
	maxPerClient = 16
	maxQueries   = 32

	passiveChunks = 448 // 0.9 MB
	queryChunks   = 320 // 0.6 MB
	// A stream buffers up to streamIn and streamOut bytes, each beginning and
	// ending anywhere in a chunk; a closing one only the latter.
	streamChunks = (streamIn+2*streamOut)/chunkSize + 3

	// StreamBytes is the buffer memory reserved for each stream, in bytes.
	StreamBytes = streamChunks * chunkSize

	// stallTimeout is how long a client with unacknowledged responses may
	// acknowledge nothing before its connection is the first to be evicted.
	stallTimeout = 2 * second
	// minProgress is how many bytes of its responses a client must acknowledge
	// within idleTimeout, unless it acknowledges all.
	minProgress = 8 << 10
)

func (c *conn) kind() kind {
	switch {
	case c.passive:
		return kindPassive
	case c.stream:
		return kindStream
	}
	return kindQuery
}

// stalled reports whether a client has acknowledged nothing for stallTimeout.
func (c *conn) stalled(now int64) bool { return c.tx.n > 0 && now-c.lastProgress >= stallTimeout }

// chunks returns the number of the connection's chunks.
func (c *conn) chunks() int { return c.tx.chunks() + c.rx.chunks() }

// A clientCounts is a hash table of counts by client address.
type clientCounts struct {
	addr [256]packet.Addr
	n    [256]int // 0: a free slot; there are fewer clients than slots
}

// of returns the count of a client, for reading and changing.
func (t *clientCounts) of(a packet.Addr) *int {
	i := uint8(uint32(a) * 0x9e3779b1 >> 24)
	for t.n[i] != 0 && t.addr[i] != a {
		i++
	}
	t.addr[i] = a
	return &t.n[i]
}

// reserveConn makes sure that a table entry is free for a connection of a kind; for
// passive ones client is the peer's address. It evicts another connection if it
// must and may, and returns false otherwise.
func (s *Stack) reserveConn(k kind, client packet.Addr) bool {
	if k != kindPassive {
		if s.used[k] < s.limit[k] {
			return true
		}
		// A closing connection has its response, or is a stream that its user
		// has closed.
		var victim *conn
		for i := range s.conn {
			if c := &s.conn[i]; c.state == closing && c.kind() == k && (victim == nil || c.deadline < victim.deadline) {
				victim = c
			}
		}
		return s.evict(victim)
	}
	counts := &s.perClient
	clear(counts.n[:])
	for i := range s.conn {
		if c := &s.conn[i]; c.passive {
			*counts.of(c.Remote)++
		}
	}
	mine := *counts.of(client)
	switch {
	case mine >= maxPerClient:
	case s.used[k] < s.limit[k]:
		return true
	}
	var victim *conn
	var best rank
	for i := range s.conn {
		c := &s.conn[i]
		if !c.passive {
			continue
		}
		if r, ok := s.evictionRank(c, client, mine, *counts.of(c.Remote)); ok && (victim == nil || r.before(&best)) {
			victim, best = c, r
		}
	}
	return s.evict(victim)
}

// A rank orders the connections that may be evicted.
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

// evictionRank returns the rank of connection c, of a client with n connections, and
// whether it may be evicted for a client with mine. Half-open connections come
// first, then stalled, closing and idle ones. Connections in use come last, and are
// evicted only if the new client has fewer connections even afterwards. A client
// does not evict connections of clients that have no more than itself, unless they
// are stalled. At its limit it evicts only unused connections of its own.
func (s *Stack) evictionRank(c *conn, client packet.Addr, mine, n int) (r rank, ok bool) {
	switch {
	case c.state == synReceived:
		r.class, r.since = 0, c.lastActive
	case c.stalled(s.now):
		r.class, r.since = 1, c.lastProgress
	case c.state == closing:
		r.class, r.since = 2, c.deadline
	case c.unanswered == 0 && c.tx.n == 0:
		r.class, r.since = 3, c.lastActive
	default:
		r.class, r.since = 4, c.lastProgress
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

// evict resets connection c for another. It returns false if c is nil.
func (s *Stack) evict(c *conn) bool {
	if c == nil {
		return false
	}
	s.c.Evicted++
	s.abort(c)
	return true
}

// reserveChunks makes sure that there is memory for n more bytes in queue q of
// connection c, and evicts others if it must. It returns false if c itself would
// have to be evicted, or n exceeds all memory; then c is unchanged.
func (s *Stack) reserveChunks(c *conn, q *queue, n int) bool {
	p := &s.pools[c.kind()]
	need := q.moreChunks(n)
	if need > len(p.mem) {
		return false
	}
	for p.nFree < need {
		out := s.memoryVictim(c, need)
		if out == nil || out == c {
			return false
		}
		s.evict(out)
	}
	return true
}

// memoryVictim returns the connection to evict for connection c, which needs that
// many more chunks: the one that has been stalled longest; else, of the client that
// would have the most chunks, the one without progress for the longest time.
// Each connection to an upstream counts as a client of its own. It may be c.
func (s *Stack) memoryVictim(c *conn, need int) *conn {
	k := c.kind()
	var victim *conn
	for i := range s.conn {
		o := &s.conn[i]
		if k == kindPassive && o.passive && o.stalled(s.now) && (victim == nil || o.lastProgress < victim.lastProgress) {
			victim = o
		}
	}
	if victim != nil {
		return victim
	}
	counts := &s.perClient
	clear(counts.n[:])
	owner := func(o *conn) packet.Addr {
		if k == kindPassive {
			return o.Remote
		}
		return packet.Addr(s.id(o))
	}
	for i := range s.conn {
		if o := &s.conn[i]; o.kind() == k && o.chunks() > 0 {
			*counts.of(owner(o)) += o.chunks()
		}
	}
	client := owner(c)
	mine := counts.of(client)
	*mine += need
	most := 0
	for _, n := range counts.n {
		most = max(most, n)
	}
	if victim = c; *mine < most {
		victim = nil
	}
	for i := range s.conn {
		o := &s.conn[i]
		if o.kind() != k || o.chunks() == 0 || *counts.of(owner(o)) != most {
			continue
		}
		if victim == nil {
			victim, client = o, owner(o)
		} else if owner(o) == client && o.lastProgress < victim.lastProgress {
			victim = o
		}
	}
	return victim
}

// Package neigh is the neighbour cache of one link: the link-layer addresses of
// next hops (RFC 826, RFC 1122 section 2.3.2), and the frames that wait for
// them.
//
// A Cache takes what is to be sent, what was heard and the time, and returns
// what is to be done: which address to ask for, which frames to send or to
// drop. It sends and reads nothing itself and knows no interface. Its size is
// fixed, nothing allocates after New, and one goroutine uses it. Times are
// monotonic nanoseconds.
package neigh

import (
	"math"
	"math/bits"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Bounds of a cache.
const (
	MaxEntries = 2048 // neighbours, a power of two
	MaxWaiting = 512  // frames that wait, if there are four times as many buffers
	MaxPerHop  = 64   // of these for one hop that is not the gateway
)

const (
	window   = 8    // slots that an address may be in
	holders  = 1024 // holders are counted by groups, of a keyed hash
	fewAsked = 8    // unresolved addresses of a holder that may displace others
)

const second = int64(1e9)

// Times and numbers of requests.
const (
	Lifetime     = 60 * second // for which an address is known (RFC 1122 section 2.3.2.1)
	RequestEvery = second      // RetransTimer of RFC 4861
	MaxRequests  = 3           // MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT of RFC 4861
)

// A State is that of a neighbour, in the words of RFC 4861 section 7.3.2. Zero
// is a free slot.
type State uint8

// The states.
const (
	free       State = iota
	Incomplete       // asked for; frames wait
	Reachable        // known; when its time is over it is stale, and asked again when it is used
	Probe            // its time is over and it is asked whether it is still there; used meanwhile
)

// A Neighbour is an entry of a cache: 48 bytes. Callers read it and do not keep
// it: the next call may make it another's.
type Neighbour struct {
	Addr    packet.Addr
	MAC     [6]byte // not while it is Incomplete
	State   State
	tries   uint8  // requests that have been sent
	Learned bool   // from a request, not from an answer to ours
	owed    uint8  // workers to which a word about it is due, as a set of bits
	holder  uint16 // Incomplete: for whom it was asked
	Expires int64  // of the address; Incomplete, Probe: when to ask again
	queue   framebuf.Queue
}

// Stale reports whether a neighbour has outlived its time without being asked
// again: nobody has used it since.
func (n *Neighbour) Stale(now int64) bool { return n.State == Reachable && now >= n.Expires }

// Waiting returns how many frames wait for the address of n.
func (n *Neighbour) Waiting() int { return n.queue.Len() }

// A Cache is the neighbours of one link. Addresses hash to a short run of slots.
type Cache struct {
	slot    [MaxEntries]Neighbour
	key     uint64 // secret: who fills the cache cannot choose a run
	gateway packet.Addr
	expects int64      // until when an answer of the gateway is believed although no frame waits
	last    *Neighbour // that was found last
	entries int        // slots that are not free

	// Those whose answer is due, Incomplete and Probe.
	pending int
	next    int64           // when the first of these is due
	hand    int             // where Timeout goes on; 0: it begins
	asked   [holders]uint16 // Incomplete ones, by holder

	// Words that are due to other workers.
	owing  int // neighbours about which some are
	teller int // where Owed goes on

	// Frames that wait.
	links   framebuf.Links
	room    int // how many may
	waiting int // how many do
	by      [holders]uint16
}

// New makes a cache for a link with a gateway, or 0. The secret key is that of
// its hashes, and links those of the frames that will wait: so many as a quarter of
// all buffers may at a time.
func New(key uint64, gateway packet.Addr, links framebuf.Links, buffers int) *Cache {
	c := &Cache{key: key, gateway: gateway, links: links, room: min(MaxWaiting, buffers/4)}
	c.last = &c.slot[0]
	return c
}

// Len returns the number of neighbours.
func (c *Cache) Len() int { return c.entries }

// Pending returns how many of them are asked for.
func (c *Cache) Pending() int { return c.pending }

// Waiting returns how many frames wait.
func (c *Cache) Waiting() int { return c.waiting }

// Due returns when Timeout has something to do, or math.MaxInt64.
func (c *Cache) Due() int64 {
	if c.pending == 0 {
		return math.MaxInt64
	}
	return c.next
}

func (c *Cache) base(a packet.Addr) uint32 {
	hi, lo := bits.Mul64((uint64(a)+1)*0x9e3779b97f4a7c15^c.key, c.key|1)
	return uint32(hi ^ lo)
}

// group returns the group of a holder.
func (c *Cache) group(holder uint64) uint16 {
	hi, lo := bits.Mul64(holder^c.key, c.key|1)
	return uint16((hi ^ lo) % holders)
}

// Find returns the entry for an address, or nil. It is inlined for the address
// that was found last, which mostly is the next packet's, too.
func (c *Cache) Find(a packet.Addr) *Neighbour {
	if n := c.last; n.Addr == a && n.State != free {
		return n
	}
	return c.search(a)
}

//go:noinline
func (c *Cache) search(a packet.Addr) *Neighbour {
	b := c.base(a)
	for i := range uint32(window) {
		n := &c.slot[(b+i)%MaxEntries]
		if n.State != free && n.Addr == a {
			c.last = n
			return n
		}
	}
	return nil
}

// Use returns the entry of the next hop of a frame, or nil: then the frame must
// wait for it (Resolve). When the entry is stale the neighbour is to be asked,
// itself, whether it is still there: probe. The frame may be sent all the same.
func (c *Cache) Use(hop packet.Addr, now int64) (n *Neighbour, probe bool) {
	n = c.Find(hop)
	if n == nil || n.State == Incomplete {
		return nil, false
	}
	if n.Stale(now) {
		c.probe(n, now)
		return n, true
	}
	return n, false
}

// probe notes that a known neighbour is asked whether it is still there.
func (c *Cache) probe(n *Neighbour, now int64) {
	n.State, n.tries = Probe, 1
	c.await(n, now)
}

// await notes that an answer is due for n.
func (c *Cache) await(n *Neighbour, now int64) {
	n.Expires = now + RequestEvery
	if c.pending == 0 {
		c.next = n.Expires
	}
	c.pending++
}

// settle notes that no answer is due for n any more.
func (c *Cache) settle(n *Neighbour) {
	if n.State == Incomplete {
		c.asked[n.holder]--
	}
	if n.State == Incomplete || n.State == Probe {
		c.pending--
	}
}

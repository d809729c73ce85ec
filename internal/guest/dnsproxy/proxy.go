// Package dnsproxy is a DNS forwarder (RFC 5625) that learns from the answers
// which it relays. It knows messages and time, and nothing of frames: a
// Transport carries messages for it.
//
//	message.go   reading messages, EDNS
//	answer.go    what an upstream's response says of addresses
//	wellformed.go  whether all names in it are names
//	proxy.go     what it consists of
//	query.go     a client asks
//	relay.go     an upstream answers
//	upstream.go  which upstream is asked, and when the next
//	tls.go       upstreams that are asked over TLS
//	unreachable.go  the network says that an upstream is not there
//	private.go   addresses that names of others must not lead to
//	ech.go       names that must be seen
//	client.go    how much a client may ask
//	holders.go   who has how many queries under way
//
// It caches nothing. It answers by itself only what the policy forbids
// (REFUSED), what cannot be read (FORMERR, NOTIMP, BADVERS), and what nobody
// answers in time or a client asks too often (SERVFAIL).
//
// After New nothing allocates. One goroutine uses a Proxy.
package dnsproxy

import (
	"errors"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const second = int64(1e9)

const (
	maxPending   = 1024
	maxPerClient = 128 // of those
	maxProbes    = 2   // of those, for each upstream
	maxTCP       = 24  // of those, over TCP to upstreams: fewer than there are connections
	tryFor       = second * 5 / 4
	totalTime    = 5 * second
	maxTries     = 8
)

// A Client is who asked.
type Client struct {
	Addr   packet.Addr
	Port   uint16
	Server packet.Addr // that it asked: the firewall's LAN address, or another where queries are intercepted
	Conn   uint32      // its TCP connection, 0: UDP
}

// A Transport carries messages. It may not keep them.
type Transport interface {
	// SendUDP sends a query from a port of the firewall's WAN address.
	SendUDP(to packet.Addr, toPort, fromPort uint16, msg []byte)
	// SendTCP sends a query over TCP to upstream number up. It gives the
	// response to TCPResponse with the same tag, or calls TCPFailed. It returns
	// false when that is not possible. CancelTCP says that nobody wants the
	// response any more.
	SendTCP(up int, to packet.Addr, toPort uint16, tag uint32, msg []byte) bool
	CancelTCP(tag uint32)
	// SendTLS sends a query over TLS to upstream number up. It returns false
	// when that is not possible now. Responses go to TLSResponse; TLSLost says
	// that the connection is gone.
	SendTLS(up int, msg []byte) bool
	// Reply sends a response to a client.
	Reply(c *Client, msg []byte)
	// AllocPort reserves an unpredictable UDP port, FreePort ends that.
	AllocPort() (port uint16, ok bool)
	FreePort(port uint16)
	// Random returns an unpredictable number.
	Random() uint64
	// Done tells what became of a query, for events.
	QueryDone(d *Result)
}

// Done is the end of a query.
type Result struct {
	Client   Client
	Name     []byte // asked, in wire form and lower case
	Type     uint16
	Outcome  verdict.DNSOutcome
	Lookup   uint64 // its number
	Duration int64
	Upstream packet.Addr // that answered; 0: none did
	Bound    int         // addresses that were bound
	First    packet.Addr // of them
	Private  [16]byte    // DNSBlockedPrivate: the address, IPv4 as ::ffff:a.b.c.d
}

// Buckets are the upper bounds of the latency histogram in nanoseconds.
var Buckets = [...]int64{5e5, 1e6, 25e5, 5e6, 1e7, 25e6, 5e7, 1e8, 25e7, 5e8, 1e9, 25e8, 5e9}

// Counters of a Proxy.
type Counters struct {
	Queries           uint64                         // of clients
	Outcomes          [verdict.NumDNSOutcomes]uint64 // by outcome
	Latency           [len(Buckets) + 1]uint64       // of queries that an upstream was asked, not cumulative; the last: longer
	LatencySum        int64
	Asked             uint64 // queries to upstreams
	Retries           uint64 // of them, further ones for the same client's query
	OverTCP           uint64 // of them, over TCP
	OverTLS           uint64 // of them, over TLS
	Unreachable       uint64 // of them, refused by the network or the upstream's host
	Truncated         uint64 // responses to clients that did not fit
	Mismatched        uint64 // responses that match no question, by whoever sent them
	WrongCase         uint64 // responses whose question has another case: asked again over TCP
	Malformed         uint64 // responses that match and are malformed
	Bound             uint64 // addresses bound
	Unbound           uint64 // addresses of answers beyond the limits
	ECHRemoved        uint64 // answers from which ech was removed
	AdditionalRemoved uint64 // answers whose additional section was left out
	NotQueries        uint64 // what is no query at all: no response
}

// Config says how a Proxy is to be.
type Config struct {
	Policy    *ruleset.Policy
	Names     *fqdn.Set
	Patterns  *fqdn.Patterns // of Policy.Names
	Transport Transport
	MaxUDP    int // longest message that fits a packet to a client
}

// A pending query waits for an upstream.
type pending struct {
	client     Client
	lookup     uint64
	start      int64
	due        int64 // when the current try is over
	id         uint16
	flags      uint16
	typ, class uint16
	size       uint16
	ourID      uint16
	port       uint16 // 0: none, it is asked over TCP or TLS
	up         uint8
	tries      uint8
	wrong      uint8
	edns, do   bool
	plain      bool // asked without EDNS: the upstream does not know it
	probe      bool // nobody waits for the answer
	used       bool
	tcp        bool // it is under way over TCP
	tls        bool // it is under way over TLS
	gen        uint16
	nameLen    uint8
	nOpts      uint8
	older      uint16 // its client's query before it, 1 + index
	newer      uint16 // the one after it
	refused    uint64 // upstreams that cannot be reached, since the last time-out
	prev, next uint16 // in the list of those under way, 1 + index
	flip       [32]byte
	name       [maxName]byte
	opts       [48]byte
}

// A Proxy is the forwarder.
type Proxy struct {
	cfg       Config
	c         Counters
	q         []pending
	byPort    []uint16 // 1 + index of the query that has this port
	free      uint16
	under     struct{ first, last uint16 }
	n         int
	probes    int // of them, nobody waits for
	tcp       int // of them, are under way over TCP
	room      int // for the others
	holders   holders
	up        []upstream
	clients   []client
	rate      uint32
	resolvers []packet.Addr
	blocked   *fqdn.Patterns
	private   *fqdn.Patterns // names that may have addresses that are inside
	seen      *fqdn.Patterns // names of rules with sni: require
	lead      [16]byte       // such an address, of the answer in hand
	uses      *uses          // nil: clients may ask for all names
	lookup    uint64
	a         answer
	buf       []byte
	lower     [maxName]byte
	optBuf    [48]byte
	pad       [48 + 4 + padTo]byte
	told      Result
}

// New makes a proxy. The policy must have upstreams.
func New(c Config) (*Proxy, error) {
	pol := c.Policy
	if len(pol.Upstreams) == 0 {
		return nil, errors.New("dnsproxy: the policy names no upstream")
	}
	p := &Proxy{cfg: c, q: make([]pending, maxPending), byPort: make([]uint16, 1<<16), clients: make([]client, clientSlots),
		rate: pol.Settings.DNSRate, buf: make([]byte, 0, maxMsg+1024)}
	if p.rate == 0 {
		p.rate = ruleset.DefaultDNSRate
	}
	p.cfg.MaxUDP = max(c.MaxUDP, minUDP)
	for i := len(p.q); i > 0; i-- {
		p.q[i-1].next = p.free
		p.free = uint16(i)
	}
	for i := range pol.Upstreams {
		u := &pol.Upstreams[i]
		a, ok := packet.AddrFrom16(u.Address)
		if !ok {
			return nil, errors.New("dnsproxy: the address of an upstream is not IPv4")
		}
		p.up = append(p.up, upstream{addr: a, port: u.Port, tls: u.TLS != 0})
	}
	for i := range pol.Resolvers {
		a, ok := packet.AddrFrom16(pol.Resolvers[i].Address)
		if !ok {
			return nil, errors.New("dnsproxy: the address of a resolver is not IPv4")
		}
		p.resolvers = append(p.resolvers, a)
	}
	p.room = maxPending - maxProbes*len(p.up)
	p.holders.init(c.Transport.Random())
	var err error
	if p.blocked, err = fqdn.NewPatterns(pol, pol.Blocked); err != nil {
		return nil, err
	}
	if p.private, err = fqdn.NewPatterns(pol, pol.Private); err != nil {
		return nil, err
	}
	if p.seen, err = newSeen(pol); err != nil {
		return nil, err
	}
	p.a.in = newInside(pol)
	if pol.Settings.Flags&ruleset.FlagDNSFollow != 0 {
		p.uses = newUses(pol)
	}
	return p, nil
}

// Counters returns the counters, which the proxy goes on changing.
func (p *Proxy) Counters() *Counters { return &p.c }

// Outstanding returns how many queries wait for an upstream.
func (p *Proxy) Outstanding() int { return p.n }

// take returns a free place for a query, or nil.
func (p *Proxy) take() *pending {
	i := p.free
	if i == 0 {
		return nil
	}
	q := &p.q[i-1]
	p.free = q.next
	*q = pending{used: true, gen: q.gen + 1, prev: p.under.last}
	if p.under.last != 0 {
		p.q[p.under.last-1].next = i
	} else {
		p.under.first = i
	}
	p.under.last = i
	p.n++
	return q
}

// drop ends a query and frees its place.
func (p *Proxy) drop(i uint16) {
	q := &p.q[i-1]
	p.closePort(q)
	p.leftTCP(q)
	if q.probe {
		p.probes--
	} else {
		p.letGo(i)
	}
	if q.prev != 0 {
		p.q[q.prev-1].next = q.next
	} else {
		p.under.first = q.next
	}
	if q.next != 0 {
		p.q[q.next-1].prev = q.prev
	} else {
		p.under.last = q.prev
	}
	q.used = false
	q.next = p.free
	p.free = i
	p.n--
}

func (p *Proxy) closePort(q *pending) {
	if q.port != 0 {
		p.byPort[q.port] = 0
		p.cfg.Transport.FreePort(q.port)
		q.port = 0
	}
}

// leftTCP notes that a query is not under way over TCP any more.
func (p *Proxy) leftTCP(q *pending) {
	if q.tcp {
		q.tcp = false
		p.tcp--
	}
}

// tag names a query to the transport.
func (p *Proxy) tag(i uint16) uint32 { return uint32(p.q[i-1].gen)<<16 | uint32(i) }

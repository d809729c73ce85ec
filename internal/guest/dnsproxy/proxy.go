// Package dnsproxy implements a DNS forwarder (RFC 5625) that binds the addresses in
// the responses it relays to the client that asked (package fqdn). It handles
// messages and time; a Transport carries the messages.
//
//	proxy.go        configuration and state
//	message.go      parsing of messages and queries, EDNS
//	query.go        queries from clients
//	upstream.go     selection of upstreams, retries
//	tls.go          upstreams over TLS
//	unreachable.go  upstreams that ICMP errors report as unreachable
//	relay.go        responses from upstreams
//	response.go     parsing of responses
//	wellformed.go   validation of all names in a response
//	private.go      protection against DNS rebinding
//	ech.go          removal of Encrypted Client Hello keys
//	limits.go       limits of clients
//	owners.go       pending queries by client
//
// There is no cache. The proxy itself responds with REFUSED to queries that the
// policy forbids, with FORMERR, NOTIMP or BADVERS to queries that it cannot handle,
// and with SERVFAIL if no upstream responds in time or a client exceeds its limits.
//
// Nothing allocates after New. A Proxy is not safe for concurrent use.
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
	maxPerClient = 128 // of maxPending
	maxProbes    = 2   // of maxPending, for each upstream
	maxTCP       = 24  // of maxPending, over TCP: fewer than tcp.Stack has connections
	tryTimeout   = second * 5 / 4
	queryTimeout = 5 * second
	maxTries     = 8
)

// A Client identifies the sender of a query.
type Client struct {
	Addr   packet.Addr
	Port   uint16
	Server packet.Addr // destination of the query: the firewall's LAN address, or another if intercepted
	Conn   uint32      // id of the TCP connection; 0: UDP
}

// A Transport carries messages. Its methods must not retain their arguments.
type Transport interface {
	// SendUDP sends a query from a port of the firewall's WAN address.
	SendUDP(to packet.Addr, toPort, fromPort uint16, msg []byte)
	// SendTCP sends a query over TCP to upstream number up, and then calls
	// TCPResponse or TCPFailed with the same tag. It returns false if it cannot.
	// CancelTCP cancels it: the response is not needed any more.
	SendTCP(up int, to packet.Addr, toPort uint16, tag uint32, msg []byte) bool
	CancelTCP(tag uint32)
	// SendTLS sends a query over TLS to upstream number up. It returns false if
	// it cannot now. It calls TLSResponse for each message received, and TLSLost
	// when the connection is closed.
	SendTLS(up int, msg []byte) bool
	// Reply sends a response to a client.
	Reply(c *Client, msg []byte)
	// AllocPort reserves an unpredictable UDP port of the WAN address; FreePort
	// releases it.
	AllocPort() (port uint16, ok bool)
	FreePort(port uint16)
	// Random returns an unpredictable number.
	Random() uint64
	// QueryDone reports the outcome of a query, for events.
	QueryDone(d *Result)
}

// A Result is the outcome of a query.
type Result struct {
	Client   Client
	Name     []byte // queried, in wire form and lower case
	Type     uint16
	Outcome  verdict.DNSOutcome
	Lookup   uint64      // number of the query
	Duration int64       // nanoseconds
	Upstream packet.Addr // whose response was relayed; 0: none
	Bound    int         // number of addresses bound
	First    packet.Addr // the first address bound
	Private  [16]byte    // DNSBlockedPrivate: the private address, IPv4 as ::ffff:a.b.c.d
}

// Buckets are the upper bounds of the latency histogram in nanoseconds.
var Buckets = [...]int64{5e5, 1e6, 25e5, 5e6, 1e7, 25e6, 5e7, 1e8, 25e7, 5e8, 1e9, 25e8, 5e9}

// Counters of a Proxy.
type Counters struct {
	Queries           uint64                         // from clients
	Outcomes          [verdict.NumDNSOutcomes]uint64 // by outcome
	Latency           [len(Buckets) + 1]uint64       // by bucket, of queries sent to an upstream; the last: longer
	LatencySum        int64
	Asked             uint64 // queries to upstreams
	Retries           uint64 // of Asked, all but the first for a client's query
	OverTCP           uint64 // of Asked, over TCP
	OverTLS           uint64 // of Asked, over TLS
	Unreachable       uint64 // of Asked, answered by an ICMP error
	Truncated         uint64 // responses to clients that were truncated
	Mismatched        uint64 // messages that match no pending query
	WrongCase         uint64 // responses with the name in another case: retried over TCP
	Malformed         uint64 // responses that match a query and are malformed
	Bound             uint64 // addresses bound
	Unbound           uint64 // addresses that were not bound: beyond maxAddresses
	ECHRemoved        uint64 // responses from which ech was removed
	AdditionalRemoved uint64 // responses without their additional section
	NotQueries        uint64 // messages from clients that are no queries, and get no response
}

// A Config configures a Proxy.
type Config struct {
	Policy    *ruleset.Policy
	Names     *fqdn.Set
	Patterns  *fqdn.Patterns // of Policy.Names
	Transport Transport
	MaxUDP    int // maximum length of a UDP response, in bytes
}

// A pending is a query that waits for an upstream's response.
type pending struct {
	client        Client
	lookup        uint64
	start         int64
	due           int64 // when the current try times out
	id            uint16
	flags         uint16
	qtype, qclass uint16
	size          uint16
	ourID         uint16
	port          uint16 // source port; 0: none, over TCP or TLS
	up            uint8
	tries         uint8
	mismatches    uint8
	edns, do      bool
	noEDNS        bool // the upstream does not support EDNS
	probe         bool // no client waits for the response
	active        bool
	tcp           bool // sent over TCP
	tls           bool // sent over TLS
	gen           uint16
	nameLen       uint8
	nOpts         uint8
	older         uint16 // the owner's previous query, 1 + index
	newer         uint16 // the owner's next query, 1 + index
	refused       uint64 // upstreams that are unreachable, as bits, since the last timeout
	overTLS       uint64 // upstreams whose connections over TLS have it, as bits
	prev, next    uint16 // in the list of active queries, 1 + index
	caseBits      [32]byte
	name          [maxName]byte
	opts          [48]byte
}

// A Proxy is a forwarder.
type Proxy struct {
	cfg          Config
	c            Counters
	queries      []pending
	byPort       []uint16 // by source port: 1 + index of the query
	free         uint16
	active       struct{ first, last uint16 }
	n            int // pending queries
	probes       int // of n, probes
	tcp          int // of n, over TCP
	clientRoom   int // maximum of n without probes
	owners       owners
	up           []upstream
	rates        []rateEntry
	rate         uint32
	resolvers    []packet.Addr
	blocked      *fqdn.Patterns
	privateNames *fqdn.Patterns // names that may resolve to private addresses
	sniNames     *fqdn.Patterns // names of rules with sni: require
	privateAddr  [16]byte       // private address in the current response
	sources      *sourceSets    // nil: clients may resolve all names
	lookup       uint64
	resp         response
	buf          []byte
	lower        [maxName]byte
	optBuf       [48]byte
	pad          [48 + 4 + padTo]byte
	result       Result
}

// New returns a proxy. It returns an error if the policy has no upstream, or an
// address or a name that is not valid.
func New(c Config) (*Proxy, error) {
	pol := c.Policy
	if len(pol.Upstreams) == 0 {
		return nil, errors.New("dnsproxy: the policy has no upstream")
	}
	p := &Proxy{cfg: c, queries: make([]pending, maxPending), byPort: make([]uint16, 1<<16),
		rates: make([]rateEntry, clientSlots), rate: pol.Settings.DNSRate, buf: make([]byte, 0, maxMsg+1024)}
	if p.rate == 0 {
		p.rate = ruleset.DefaultDNSRate
	}
	p.cfg.MaxUDP = max(c.MaxUDP, minUDP)
	for i := len(p.queries); i > 0; i-- {
		p.queries[i-1].next = p.free
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
	p.clientRoom = maxPending - maxProbes*len(p.up)
	p.owners.init(c.Transport.Random())
	var err error
	if p.blocked, err = fqdn.NewPatterns(pol, pol.Blocked); err != nil {
		return nil, err
	}
	if p.privateNames, err = fqdn.NewPatterns(pol, pol.Private); err != nil {
		return nil, err
	}
	if p.sniNames, err = newSNINames(pol); err != nil {
		return nil, err
	}
	p.resp.private = newPrivateNets(pol)
	if pol.Settings.Flags&ruleset.FlagDNSFollow != 0 {
		p.sources = newSourceSets(pol)
	}
	return p, nil
}

// Counters returns the proxy's counters. They keep changing.
func (p *Proxy) Counters() *Counters { return &p.c }

// Outstanding returns the number of pending queries, probes included.
func (p *Proxy) Outstanding() int { return p.n }

// alloc returns a new pending query, or nil if there is no room.
func (p *Proxy) alloc() *pending {
	i := p.free
	if i == 0 {
		return nil
	}
	q := &p.queries[i-1]
	p.free = q.next
	*q = pending{active: true, gen: q.gen + 1, prev: p.active.last}
	if p.active.last != 0 {
		p.queries[p.active.last-1].next = i
	} else {
		p.active.first = i
	}
	p.active.last = i
	p.n++
	return q
}

// release frees a query.
func (p *Proxy) release(i uint16) {
	q := &p.queries[i-1]
	p.closePort(q)
	p.endTCP(q)
	if q.probe {
		p.probes--
	} else {
		p.removeOwned(i)
	}
	if q.prev != 0 {
		p.queries[q.prev-1].next = q.next
	} else {
		p.active.first = q.next
	}
	if q.next != 0 {
		p.queries[q.next-1].prev = q.prev
	} else {
		p.active.last = q.prev
	}
	q.active = false
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

// endTCP notes that a query is not over TCP any more.
func (p *Proxy) endTCP(q *pending) {
	if q.tcp {
		q.tcp = false
		p.tcp--
	}
}

// tag identifies a query to the transport.
func (p *Proxy) tag(i uint16) uint32 { return uint32(p.queries[i-1].gen)<<16 | uint32(i) }

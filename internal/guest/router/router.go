// Package router forwards packets between two ports. It receives batches of frames and runs
// each to completion:
//
//	pipeline.go   receive a batch, parse it, find its flows, and handle each packet
//	parse.go      Ethernet, ARP, IPv4; what is malformed ends here
//	fastpath.go   most packets: of known flows, when nothing about them is new
//	forward.go    other packets of known flows
//	admit.go      first packets: martians, filter, NAT, a new flow
//	decision.go   what is decided about a packet, and why
//	drop.go       the decision to drop it, carried out
//	translate.go  a new flow's addresses and ports
//	sni.go        connections whose server must be named (package sni)
//	icmperror.go  ICMP errors about known flows
//	answer.go     ICMP errors of the firewall's own (package icmperr says how many)
//	reject.go     answers to what the policy rejects
//	local.go      what is addressed to the firewall, and what it sends itself (endpoint)
//	own.go        which addresses are the firewall's
//	names.go      names of destinations
//	gateway.go    the gateway is asked for before there is traffic
//	neighbour.go  ARP: link-layer addresses of next hops, and what waits for these
//	reassemble.go fragments, where they are reassembled
//	transmit.go   leave
//	fragment.go   what is longer than the way out carries
//	large.go      TCP segments that somebody else cuts
//	worker.go     several workers
//
// Nothing here allocates, locks or blocks per packet. Time is an argument, in monotonic
// nanoseconds.
package router

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"math/rand/v2"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/guest/reassembly"
	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/sha256"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Batch is the largest number of frames handled together.
const Batch = conntrack.BatchSize

// Config is the configuration of an Engine.
type Config struct {
	Policy   *ruleset.Policy
	Pool     *framebuf.Pool
	Ports    []PortConfig    // one on the LAN, one on the WAN
	Events   *event.Ring     // nil: no events
	Secret   [32]byte        // random at each boot; keys hashes and port choice
	Alloc    conntrack.Alloc // memory for the flow table; nil: the Go heap
	ClockSet bool            // the time of day is known: certificates can be verified
}

// Counters of the data plane. In those by rule the last entry is the default action's.
type Counters struct {
	Accepts, Drops       []uint64 // packets by rule
	Shadows              []uint64 // decisions that a shadow rule would have taken, by rule
	Decisions            uint64   // by enforced rules or the default action
	DropReasons          [verdict.NumReasons]uint64
	RxPackets, RxBytes   [2]uint64 // by port: 0 LAN, 1 WAN
	TxPackets, TxBytes   [2]uint64
	Holds                [2]uint64 // times that frames began to wait for room at a port
	OtherHost            [2]uint64 // frames for another link-layer address, ignored
	ARPReceived          [2]uint64 // valid ARP messages, without conflicts
	ARPConflicts         [2]uint64 // claims of an own address, or of one known under another link-layer address: martian
	ARPSent              [2]uint64
	NeighbourEvictions   [2]uint64
	Local                uint64 // frames to the firewall itself that were accepted
	Own                  uint64 // packets of the firewall's own, without ARP
	LocalReplies         uint64 // echo replies sent
	ICMPErrorsSent       uint64
	ResetsSent           uint64
	AnswersSuppressed    uint64 // ICMP errors and resets not sent: above their rate, or too many delayed
	ICMPErrorsTranslated uint64
	Translations         [nat.NumKinds]uint64 // flows that were translated when they began
	PortsReclaimed       uint64               // flows evicted for their external port
	ServerNamesAccepted  uint64               // TLS connections whose server name was accepted
	ServerNameRepeats    uint64               // segments dropped before the name was settled: repeated, or out of order
	NoBuffer             uint64               // own messages and fragments not sent: no buffer
	Fragmented           uint64               // packets fragmented to the MTU of their egress port
	FragmentsSent        uint64               // fragments of these
	Reassembled          uint64               // datagrams whose fragments have all arrived
	Joined               uint64               // fragments copied to another's frame
	MSSClamped           uint64               // SYNs and SYN-ACKs whose MSS was lowered
	LargeForwarded       uint64               // large frames that passed whole
	LargeCut             uint64               // large frames that the firewall cut into segments itself
	HandedOver           uint64               // frames that came to another worker than their own
	PortsLent            uint64               // external ports lent to other workers
}

// maxPorts is the number of ports, and of entries in counters by port.
const maxPorts = 2

// Engine is a router. Only one goroutine may use it.
type Engine struct {
	policy *ruleset.Policy
	pool   *framebuf.Pool
	filter *filter.Classifier
	events *event.Ring    // nil: no events
	host   *endpoint.Host // the firewall as a host
	links  framebuf.Links // of frames that wait for a neighbour, or for the other fragments
	b      batch
	c      Counters
	plain  bool    // for tests: no packet takes the fast path
	w      *worker // nil: the only one

	segment received // of the large frame that is being cut
	ports
	tables
	entropy
	timing
	answering
	bogons
	leaving
}

// ports are the interfaces, by number. inside and outside are two of them.
type ports struct {
	port            []port
	inside, outside *port
	special         addrSet // own addresses, and those of the links' networks and broadcasts
}

// tables are the state about flows, names and fragments. Each is bounded. flowRemoved
// releases what other tables have of a flow.
type tables struct {
	flows   *conntrack.Table
	sources *conntrack.Sources // nil: no limits
	nat     *nat.NAT
	names   names
	sni     sni.Table
	frags   *reassembly.Table
	defrag  bool // fragments are reassembled, not dropped
}

// entropy is a source of unpredictable numbers, and the key of hashes.
type entropy struct {
	rng    *rand.ChaCha8
	dnsRng *rand.ChaCha8 // the endpoint's; nil without upstreams
	rndKey uint64
}

// timing is the time of the current poll, and that of the next timers, announcement and
// request for the gateway.
type timing struct {
	now, tick int64
	again     announceAgain
	gate      gatewayAsk
}

// answering is whether the policy rejects anything, whether segments of no connection are
// answered, and the SYNs whose answers are delayed.
type answering struct {
	rejects       bool
	resetsUnknown bool
	anyName       []uint32 // patterns of names that a segment of no connection may be for
	delayed       icmperr.Delayed
}

// bogons are the networks from and to which nothing is forwarded, and first octets: see
// oddOctets.
type bogons struct {
	martians []packet.Net
	octets   [256]uint8
}

// leaving is the state of output.
type leaving struct {
	ids    idents
	mss    uint16      // largest that fits all ports; 0: not clamped
	source packet.Addr // of the packet being sent, before translation; 0: the firewall's own
	unsent fragmentOf  // the datagram of the last event about a first fragment
}

// batch is the batch in hand.
type batch struct {
	frame [Batch]framebuf.Frame
	pk    [Batch]received
	keys  conntrack.Batch    // of the frames to be looked up
	idx   [Batch]uint8       // their numbers
	fast  [Batch]bool        // by number of the key: pk is not filled in yet
	guess [guesses]nat.Guess // see guessFor
	hand  int                // number of the key of the packet that may begin a flow
}

const second = int64(1e9)

// tickEvery is the interval of timers in nanoseconds.
const tickEvery = second / 1000

// New makes an engine that has the firewall for itself: see NewWorkers.
func New(c Config) (*Engine, error) { return newEngine(c, nil, nil) }

// newEngine makes the engine of worker w, or with nil the only one.
func newEngine(c Config, w *worker, sh *shared) (*Engine, error) {
	if c.Policy == nil || c.Pool == nil {
		return nil, errors.New("router: a policy and a pool are needed")
	}
	e := &Engine{policy: c.Policy, pool: c.Pool, events: c.Events, w: w}
	e.rng, e.rndKey = rand.NewChaCha8(sha256.Sum256(c.Secret[:])), binary.LittleEndian.Uint64(c.Secret[24:])|1
	var err error
	if e.filter, err = filter.New(c.Policy); err != nil {
		return nil, err
	}
	if e.nat, err = nat.NewPart(c.Policy, e.random(), e.part(), nat.Alloc(c.Alloc)); err != nil {
		return nil, err
	}
	if err := e.newPorts(&c); err != nil {
		return nil, err
	}
	e.ownAddresses(c.Policy)
	s := &c.Policy.Settings
	secret := [2]uint64{binary.LittleEndian.Uint64(c.Secret[0:]), binary.LittleEndian.Uint64(c.Secret[8:])}
	flows, all := int(s.MaxFlows), int(s.MaxFlows)
	if w != nil {
		flows = flowsOf(flows, w.n)
		all = flows * w.n
	}
	e.flows = conntrack.New(flows, secret, timeouts(s), c.Alloc)
	e.flows.Removed, e.flows.Removing = e.flowRemoved, e.expectEnd
	if key := e.random(); w == nil || w.k == 0 {
		e.sources = conntrack.NewSources(all, s.SourceFlows, s.SourceRate, key, c.Alloc)
	}
	e.c.Accepts = counters(len(c.Policy.Rules) + 1)
	e.c.Drops = counters(len(c.Policy.Rules) + 1)
	e.c.Shadows = counters(len(c.Policy.Rules) + 1)
	e.martians = martians(e.port)
	e.octets = oddOctets(e.martians)
	e.rejects = rejects(c.Policy)
	e.newUnknown(c.Policy)
	if err := e.newHost(&c, sh); err != nil {
		return nil, err
	}
	e.links = framebuf.NewLinks(c.Pool)
	for i := range e.port {
		p := &e.port[i]
		p.neigh = neigh.New(bits.RotateLeft64(e.rndKey, 17+i), p.gateway, e.links, c.Pool.Cap())
	}
	e.frags = reassembly.New(e.rndKey, e.links)
	e.defrag = s.Fragments == ruleset.FragmentsReassemble
	e.newIDs()
	if s.Flags&ruleset.FlagNoMSSClamp == 0 {
		mtu := e.inside.mtu
		for i := range e.port {
			mtu = min(mtu, e.port[i].mtu)
		}
		e.mss = uint16(mtu - packet.MinIPv4 - packet.TCPLen)
	}
	if w != nil {
		e.join(&c, sh)
	}
	return e, nil
}

// counters returns n counters that have their cache lines for themselves: the heap puts objects of
// one size side by side, and those of another worker would be in the same line.
func counters(n int) []uint64 { return make([]uint64, n, (n+7)&^7) }

// timeouts converts a policy's seconds. A value of 0 takes the default.
func timeouts(s *ruleset.Settings) (t conntrack.Timeouts) {
	of := func(v, or uint32) int64 {
		if v == 0 {
			v = or
		}
		return int64(v) * second
	}
	t[conntrack.SynSent] = of(s.TCPSynSent, ruleset.DefaultTCPTransitory)
	t[conntrack.SynRecv] = of(s.TCPSynRecv, ruleset.DefaultTCPTransitory)
	t[conntrack.Established] = of(s.TCPEstablished, ruleset.DefaultTCPEstablished)
	t[conntrack.FinWait] = of(s.TCPFinWait, ruleset.DefaultTCPTransitory)
	t[conntrack.CloseWait] = of(s.TCPCloseWait, ruleset.DefaultTCPTransitory)
	t[conntrack.LastAck] = of(s.TCPLastAck, ruleset.DefaultTCPTransitory)
	t[conntrack.TimeWait] = of(s.TCPTimeWait, ruleset.DefaultTCPTransitory)
	t[conntrack.Close] = of(s.TCPClose, ruleset.DefaultTCPTransitory)
	t[conntrack.UDPReplied] = of(s.UDPIdle, ruleset.DefaultUDPIdle)
	t[conntrack.Echo] = of(s.ICMPEcho, ruleset.DefaultICMPEcho)
	// RFC 4787 REQ-5: two minutes, except for well-known ports (REQ-5a), unless the timeout
	// of answered flows is shorter.
	brief := of(s.UDPUnreplied, ruleset.DefaultUDPUnreplied)
	t[conntrack.UDPBrief] = brief
	t[conntrack.UDPQuery] = min(brief, t[conntrack.UDPReplied])
	t[conntrack.UDPUnreplied] = min(max(brief, 120*second), max(brief, t[conntrack.UDPReplied]))
	t[conntrack.UDPAnswered] = t[conntrack.UDPUnreplied]
	return t
}

// Counters returns the counters, which Poll updates.
func (e *Engine) Counters() *Counters { return &e.c }

// Flows returns the flow table, which may be read between calls of Poll.
func (e *Engine) Flows() *conntrack.Table { return e.flows }

// Pools returns the NAT port pools.
func (e *Engine) Pools() []*nat.Pool { return e.nat.Pools() }

// random returns the next number of a cryptographic generator keyed by the boot's secret:
// an observer of many numbers, such as a name server that clients query, cannot predict the
// next.
func (e *Engine) random() uint64 { return e.rng.Uint64() }

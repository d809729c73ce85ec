// Package endpoint is the firewall as a host: it answers echo requests and, as a proxy, DNS
// over UDP and TCP, and queries upstreams over UDP, TCP and TLS. The router passes it the
// packets of its flows, and sends its packets (Wire).
//
// Only the router's goroutine may use a Host. Time is an argument, in monotonic
// nanoseconds.
package endpoint

import (
	"errors"
	"math"
	"math/rand/v2"

	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Side is one side of the firewall.
type Side uint8

// The sides.
const (
	LAN Side = iota
	WAN
)

// A Wire sends the host's packets. The router implements it.
type Wire interface {
	// Buffer returns a free buffer for a packet, or false when there is none, which the
	// router counts.
	Buffer() (buf uint32, ok bool)
	// Send sends the IPv4 packet in buffer buf to dst through the port of a side. The frame
	// has n bytes; the router fills in its Ethernet header. Send takes ownership of the
	// buffer.
	Send(to Side, buf uint32, n int, dst packet.Addr)
	// NextID returns the identification of a new packet (RFC 6864).
	NextID(src, dst packet.Addr, proto uint8) uint16
}

// Config is what a Host works with.
type Config struct {
	Policy   *ruleset.Policy
	Pool     *framebuf.Pool
	Wire     Wire
	Ports    *nat.Own       // address and ports of the firewall's own queries
	Names    *fqdn.Set      // is filled from upstreams' answers; nil without upstreams
	Patterns *fqdn.Patterns // the names in rules
	Events   *event.Ring    // nil: no events
	Random   *rand.ChaCha8  // unpredictable numbers; nil without upstreams
	MTU      [2]int         // by Side
	ClockSet bool           // the time of day is known: certificates can be verified
}

// A Host is the firewall as a host. Without upstreams in the policy it only answers echo
// requests.
type Host struct {
	c      Config
	proxy  *dnsproxy.Proxy // nil without upstreams
	tcp    *tcp.Stack
	links  []*dot.Link // to upstreams with TLS
	byUp   []*dot.Link // by number of the upstream; nil: without
	errors errorRate
	now    int64           // of the call under way
	client dnsproxy.Client // the client of the query in hand; here so that it does not escape to the heap
	text   [4 * fqdn.MaxName]byte
}

// NoRule is the rule of a flow that the firewall has begun itself.
const NoRule = math.MaxUint32

const (
	second   = int64(1e9)
	dnsPort  = 53
	headroom = framebuf.Headroom
)

// New makes a host.
func New(c Config) (*Host, error) {
	h := &Host{c: c}
	if len(c.Policy.Upstreams) == 0 {
		return h, nil
	}
	var err error
	h.proxy, err = dnsproxy.New(dnsproxy.Config{Policy: c.Policy, Names: c.Names, Patterns: c.Patterns, Transport: carrier{h},
		MaxUDP: min(c.MTU[LAN], 1500) - packet.MinIPv4 - packet.UDPLen})
	if err != nil {
		return nil, errors.New("endpoint: " + err.Error())
	}
	h.tcp = tcp.New(ends{h}, c.MTU[WAN], c.MTU[LAN], withTLS(c.Policy))
	h.newLinks()
	return h, nil
}

// DNS returns the DNS proxy, nil without upstreams.
func (h *Host) DNS() *dnsproxy.Proxy { return h.proxy }

// Conns returns the TCP stack, nil without upstreams.
func (h *Host) Conns() *tcp.Stack { return h.tcp }

// A Service is a service of the firewall to hosts.
type Service uint8

// The services.
const (
	NoService Service = iota
	Echo
	DNSOverUDP
	DNSOverTCP
)

// ServiceOf returns the service that a packet from a side requests, if the policy enables
// it.
func (h *Host) ServiceOf(p *packet.Packet, from Side) Service {
	switch {
	case p.Class == packet.ClassICMPQuery && p.ICMPType == packet.EchoRequest && p.ICMPCode == 0:
		return Echo
	case h.proxy == nil || from != LAN || p.DstPort != dnsPort:
	case p.Class == packet.ClassUDP:
		return DNSOverUDP
	case p.Class == packet.ClassTCP:
		return DNSOverTCP
	}
	return NoService
}

// Intercepts reports whether a packet is a query to another DNS server, which the proxy
// answers in its place.
func (h *Host) Intercepts(p *packet.Packet, from Side) bool {
	return h.proxy != nil && h.c.Policy.Settings.Flags&ruleset.FlagDNSIntercept != 0 && from == LAN && p.DstPort == dnsPort &&
		(p.Class == packet.ClassUDP || p.Class == packet.ClassTCP)
}

// Owns reports whether a packet belongs to a flow of the firewall's own: an answer to its
// queries, or a segment of a TCP connection that ends here. rule is the one that has
// accepted the flow, or NoRule.
func (h *Host) Owns(p *packet.Packet, from Side) (rule uint32, ok bool) {
	if h.proxy == nil {
		return NoRule, false
	}
	switch p.Class {
	case packet.ClassUDP:
		return NoRule, from == WAN && p.Dst == h.c.Ports.Addr() && h.proxy.OwnsPort(p.DstPort)
	case packet.ClassTCP:
		if from == LAN && p.DstPort != dnsPort || from == WAN && p.Dst != h.c.Ports.Addr() {
			return NoRule, false
		}
		t := tuple(p)
		if rule, ok = h.tcp.Owns(&t); from == WAN {
			rule = NoRule
		}
		return rule, ok
	}
	return NoRule, false
}

// Input handles a packet, in frame f, for which Owns has reported true.
func (h *Host) Input(p *packet.Packet, f []byte, now int64) {
	h.now = now
	if p.Class == packet.ClassUDP {
		h.proxy.UDPResponse(p.Src, p.SrcPort, p.DstPort, f[p.L4+packet.UDPLen:], now)
		return
	}
	t := tuple(p)
	h.tcp.Input(&t, p, options(p, f), f[len(f)-int(p.Payload):], now)
}

// Query passes a DNS message over UDP, in frame f, to the proxy. It returns the outcome if
// the query has ended, else 0.
func (h *Host) Query(p *packet.Packet, f []byte, now int64) verdict.DNSOutcome {
	h.now = now
	h.client = dnsproxy.Client{Addr: p.Src, Port: p.SrcPort, Server: p.Dst}
	return h.proxy.Query(&h.client, f[p.L4+packet.UDPLen:], now)
}

// Accept begins the TCP connection that the SYN in frame f requests. rule has accepted it.
func (h *Host) Accept(p *packet.Packet, f []byte, rule uint32, now int64) {
	h.now = now
	t := tuple(p)
	h.tcp.Accept(&t, p, options(p, f), rule, now)
}

// options returns the options of a TCP segment whose header has been validated.
func options(p *packet.Packet, f []byte) []byte {
	l4 := f[p.L4:]
	return l4[packet.TCPLen : int(l4[12]>>4)*4]
}

// Poll exchanges data with the goroutines of TLS connections (Links). The router calls it
// in each poll.
func (h *Host) Poll(now int64) {
	h.now = now
	for _, l := range h.links {
		l.Poll(now)
	}
}

// Tick runs timers. The router calls it in each of its ticks.
func (h *Host) Tick(now int64) {
	h.now = now
	if h.proxy == nil {
		return
	}
	h.proxy.Tick(now)
	h.tcp.Tick(now)
	for _, l := range h.links {
		l.Tick(now)
	}
}

// NextDeadline returns when Tick must run next, in monotonic nanoseconds, or math.MaxInt64.
func (h *Host) NextDeadline() int64 {
	d := int64(math.MaxInt64)
	if h.proxy == nil {
		return d
	}
	if at, ok := h.proxy.Due(); ok {
		d = at
	}
	if at, ok := h.tcp.Due(); ok {
		d = min(d, at)
	}
	for _, l := range h.links {
		if at, ok := l.Due(); ok {
			d = min(d, at)
		}
	}
	return d
}

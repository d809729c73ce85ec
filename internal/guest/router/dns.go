package router

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// DNS on the path: queries of LAN hosts to the firewall, and the answers of its
// upstreams. The messages are internal/guest/dnsproxy's; here they get their frames.

const (
	dnsPort = 53
	// sweepNames is how many of them a tick looks at.
	sweepNames = 64
)

// names is what the engine knows of names. The proxy is nil when the policy has
// no upstream.
type names struct {
	proxy     *dnsproxy.Proxy
	tcp       *tcp.Stack
	set       *fqdn.Set
	rng       *rand.ChaCha8
	intercept bool
	hellos    hellos
	errors    unreachables
	links     []*dot.Link     // to upstreams with TLS
	byUp      []*dot.Link     // by number of the upstream; nil: without
	client    dnsproxy.Client // who asks; here so that it is not on the heap
	found     fqdn.Found
	again     fqdn.Found
	text      [4 * fqdn.MaxName]byte
}

// NameBytes returns the memory that a policy's name set takes, and what else
// names need.
func NameBytes(p *ruleset.Policy) int {
	if len(p.Upstreams) == 0 {
		return 0
	}
	return fqdn.Bytes(nameCapacity(p)) + HelloBytes(p)
}

func nameCapacity(p *ruleset.Policy) int {
	if n := int(p.Settings.DNSNames); n > 0 {
		return n
	}
	return ruleset.DefaultDNSNames
}

// newNames makes the name set and the proxy.
func (e *Engine) newNames(c *Config) error {
	p := c.Policy
	if len(p.Upstreams) == 0 {
		return nil
	}
	seed := sha256.Sum256(append([]byte("dns"), c.Secret[:]...))
	e.names.rng = rand.NewChaCha8(seed)
	pat, err := fqdn.NewPatterns(p, p.Names)
	if err != nil {
		return err
	}
	e.names.set = fqdn.New(fqdn.Config{Capacity: nameCapacity(p), Floor: int64(p.Settings.DNSFloor) * second, Grace: int64(p.Settings.DNSGrace) * second,
		Patterns: pat, Secret: [2]uint64{e.names.rng.Uint64(), e.names.rng.Uint64()}, Alloc: c.Alloc})
	e.names.proxy, err = dnsproxy.New(dnsproxy.Config{Policy: p, Names: e.names.set, Patterns: pat, Transport: carrier{e},
		MaxUDP: min(e.port[lan].mtu, 1500) - packet.MinIPv4 - packet.UDPLen})
	if err != nil {
		return errors.New("dataplane: " + err.Error())
	}
	e.names.tcp = tcp.New(ends{e}, e.port[wan].mtu, e.port[lan].mtu, withTLS(p))
	e.newLinks(p, c.ClockSet)
	e.names.hellos = newHellos(p)
	e.names.intercept = p.Settings.Flags&ruleset.FlagDNSIntercept != 0
	return nil
}

// DNS returns the DNS proxy, DNSConns its TCP connections and Names the set of
// names; all are nil without an upstream.
func (e *Engine) DNS() *dnsproxy.Proxy { return e.names.proxy }

// DNSConns: see DNS.
func (e *Engine) DNSConns() *tcp.Stack { return e.names.tcp }

// Names: see DNS.
func (e *Engine) Names() *fqdn.Set { return e.names.set }

// ownConversation takes a packet that belongs to a conversation of the firewall's own:
// an answer to its questions, or a segment of a connection that ends here.
func (e *Engine) ownConversation(p *received, now int64) bool {
	return e.names.proxy != nil && (e.dnsAnswer(p, now) || e.dnsSegment(p, now))
}

// dnsQuery gives a UDP packet, which the policy has accepted, to the proxy.
func (e *Engine) dnsQuery(p *received, now int64) {
	if !e.linear(p) {
		e.dropPacket(p, verdict.FragmentedIPv4, now)
		return
	}
	c := &e.names.client
	*c = dnsproxy.Client{Addr: p.Src, Port: p.SrcPort, Server: p.Dst}
	if e.names.proxy.Query(c, e.bytes(p)[p.L4+packet.UDPLen:], now) == verdict.DNSRateLimited {
		e.c.DropReasons[verdict.RateLimitDNS]++
	} else {
		e.c.Local++
	}
	e.pool.Put(p.frame.Buf)
}

// dnsAnswer takes a packet from the WAN when it is addressed to a port from
// which the proxy has asked.
func (e *Engine) dnsAnswer(p *received, now int64) bool {
	if p.in.n != wan || p.Class != packet.Gram || p.Dst != e.nat.Own().Addr() || !e.names.proxy.OwnsPort(p.DstPort) {
		return false
	}
	if !e.linear(p) {
		e.dropPacket(p, verdict.FragmentedIPv4, now)
		return true
	}
	e.names.proxy.UDPResponse(p.Src, p.SrcPort, p.DstPort, e.bytes(p)[p.L4+packet.UDPLen:], now)
	e.c.Local++
	e.pool.Put(p.frame.Buf)
	return true
}

// intercepts reports whether p is a question of a LAN host to another server
// that the proxy answers in its place.
func (e *Engine) intercepts(p *received) bool {
	return e.names.intercept && p.in.n == lan && p.DstPort == dnsPort && (p.Class == packet.Gram || p.Class == packet.Stream) && e.route(p.Dst) != p.in
}

// namesTick looks after what time changes.
func (e *Engine) namesTick(now int64) {
	if e.names.proxy != nil {
		e.names.proxy.Tick(now)
		e.names.tcp.Tick(now)
		e.linksTick(now)
		e.hellosTick(now)
		e.names.set.Sweep(sweepNames, now)
	}
}

// carrier carries the proxy's messages.
type carrier struct{ e *Engine }

// SendUDP implements dnsproxy.Transport.
func (c carrier) SendUDP(to packet.Addr, toPort, fromPort uint16, msg []byte) {
	c.e.sendUDP(&c.e.port[wan], c.e.nat.Own().Addr(), fromPort, to, toPort, msg)
}

// SendTCP implements dnsproxy.Transport.
func (c carrier) SendTCP(_ int, to packet.Addr, toPort uint16, tag uint32, msg []byte) bool {
	return c.e.askTCP(to, toPort, tag, msg)
}

// CancelTCP implements dnsproxy.Transport.
func (c carrier) CancelTCP(tag uint32) { c.e.names.tcp.Cancel(tag, c.e.now) }

// Reply implements dnsproxy.Transport.
func (c carrier) Reply(to *dnsproxy.Client, msg []byte) {
	if to.Conn != 0 {
		c.e.names.tcp.Send(to.Conn, msg, c.e.now)
		return
	}
	c.e.sendUDP(&c.e.port[lan], to.Server, dnsPort, to.Addr, to.Port, msg)
}

// AllocPort implements dnsproxy.Transport.
func (c carrier) AllocPort() (uint16, bool) { return c.e.nat.Own().Take(packet.UDP, c.Random()) }

// FreePort implements dnsproxy.Transport.
func (c carrier) FreePort(p uint16) { c.e.GivePort(packet.UDP, p) }

// Random implements dnsproxy.Transport.
func (c carrier) Random() uint64 { return c.e.names.rng.Uint64() }

// QueryDone implements dnsproxy.Transport.
func (c carrier) QueryDone(d *dnsproxy.Result) {
	e := c.e
	if e.events == nil {
		return
	}
	r := event.Record{Time: e.now, Kind: event.DNSQuery, Direction: verdict.Egress, EtherType: packet.TypeIPv4, Proto: packet.UDP,
		Src: d.Client.Addr.To16(), Dst: d.Client.Server.To16(), SrcPort: d.Client.Port, DstPort: dnsPort,
		QType: d.Type, DNS: d.Outcome, Lookup: d.Lookup, Duration: d.Duration}
	if d.Client.Conn != 0 {
		r.Proto = packet.TCP
	}
	if r.XlatAddr = d.Private; d.Bound > 0 {
		r.XlatAddr = d.First.To16()
	}
	e.emitDomain(&r, d.Name)
}

// sendUDP sends a message of the firewall's own.
func (e *Engine) sendUDP(out *port, src packet.Addr, sport uint16, dst packet.Addr, dport uint16, msg []byte) {
	const head = packet.EthLen + packet.MinIPv4 + packet.UDPLen
	if head+len(msg) > len(e.pool.Buffer(0))-headroom {
		return // cannot be: see MaxUDP
	}
	buf, ok := e.pool.Get()
	if !ok {
		e.c.NoBuffer++
		return
	}
	f := e.pool.Buffer(buf)[headroom:]
	n := packet.UDPLen + copy(f[head:], msg)
	u := f[head-packet.UDPLen : head-packet.UDPLen+n]
	binary.BigEndian.PutUint16(u, sport)
	binary.BigEndian.PutUint16(u[2:], dport)
	binary.BigEndian.PutUint16(u[4:], uint16(n))
	binary.BigEndian.PutUint16(u[6:], udpSum(src, sport, dst, dport, msg))
	packet.PutIPv4(f[packet.EthLen:], src, dst, packet.UDP, 64, n)
	packet.SetID(f[packet.EthLen:], e.nextID(src, dst, packet.UDP))
	packet.SetDF(f[packet.EthLen:])
	e.emitOwn(out, buf, packet.EthLen+packet.MinIPv4+n, dst, e.now)
}

package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/guest/reassembly"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// ARP (RFC 826): requests for the neighbour cache of a port, and what is received for it.

const (
	defendEvery   = 10 * second // DEFEND_INTERVAL of RFC 5227
	announceEvery = 2 * second  // ANNOUNCE_INTERVAL
)

// A datagram can wait for its next hop with all its fragments.
const _ = uint(neigh.MaxPerHop - reassembly.MaxPerDatagram)

// resolve queues a frame until the link-layer address of its next hop is known, and sends a
// request.
func (e *Engine) resolve(p *port, hop packet.Addr, fr framebuf.Frame, now int64) {
	r := p.neigh.Resolve(hop, fr, e.holder(e.pool.Bytes(fr)), now)
	if r.Evicted {
		e.c.NeighbourEvictions[p.n]++
	}
	for r.Drop.Len() > 0 {
		e.dropOut(p, e.links.Pop(&r.Drop), verdict.NeighbourUnresolved)
	}
	if r.Request {
		e.ask(p, hop, &broadcastMAC)
	}
}

// holder returns the owner of a frame that waits, whose share of the queue it counts
// against: the host that sent it; for messages of the firewall's own their destination and
// UDP source port, since each query to an upstream has another port.
func (e *Engine) holder(f []byte) uint64 {
	if e.source != 0 {
		return uint64(e.source)
	}
	ip := f[packet.EthLen:]
	a := uint64(binary.BigEndian.Uint32(ip[16:]))
	if l4 := int(ip[0]&15) * 4; ip[9] == packet.UDP && len(ip) >= l4+2 {
		a |= uint64(binary.BigEndian.Uint16(ip[l4:])) << 32
	}
	return a
}

// neighbourTick repeats requests for neighbours that have not answered, and drops the
// frames that wait for unreachable ones.
func (e *Engine) neighbourTick(p *port, now int64) {
	for t, ok := p.neigh.Timeout(now); ok; t, ok = p.neigh.Timeout(now) {
		if t.Request {
			e.ask(p, t.Addr, &broadcastMAC)
		} else if e.w != nil && e.w.k == 0 {
			e.tellLost(p, t.Addr)
		}
		for t.Drop.Len() > 0 {
			fr := e.links.Pop(&t.Drop)
			e.unreachable(e.pool.Bytes(fr), now)
			e.dropOut(p, fr, verdict.NeighbourUnresolved)
		}
	}
}

// ask sends an ARP request.
func (e *Engine) ask(p *port, a packet.Addr, to *[6]byte) {
	if e.w != nil && e.w.k != 0 {
		e.askFor(p, a)
		return
	}
	m := packet.ARPMessage{Op: packet.ARPRequest, SenderMAC: p.mac, SenderAddr: p.addr, TargetAddr: a}
	if p.own(a) {
		m.SenderAddr = a // an announcement
	}
	e.sendARP(p, to, &m)
}

func (e *Engine) sendARP(p *port, to *[6]byte, m *packet.ARPMessage) {
	buf, ok := e.pool.Get()
	if !ok {
		e.c.NoBuffer++
		return
	}
	e.c.ARPSent[p.n]++
	n := packet.PutARP(e.pool.Buffer(buf)[headroom:], to, m)
	e.enqueue(p, framebuf.Frame{Buf: buf, Len: uint32(n)})
}

// Announce announces the firewall's addresses on both links (gratuitous ARP, RFC 5227
// section 3), so that hosts replace the link-layer addresses of a predecessor. The
// announcement is repeated 2 seconds after the next Poll. From then on the gateway is asked
// for every second, until it has answered once.
func (e *Engine) Announce() {
	e.again = announceAgain{due: true}
	e.gate = gatewayAsk{due: e.outside.gateway != 0}
	e.announce()
}

// announceAgain is the pending repetition of the announcement.
type announceAgain struct {
	due bool
	at  int64 // 0: not set yet
}

func (e *Engine) announceTick(now int64) {
	switch a := &e.again; {
	case !a.due:
	case a.at == 0:
		a.at = now + announceEvery
	case now >= a.at:
		a.due = false
		e.announce()
	}
}

func (e *Engine) announce() {
	for i := range e.port {
		p := &e.port[i]
		e.ask(p, p.addr, &broadcastMAC)
		for _, a := range p.further {
			e.ask(p, a, &broadcastMAC)
		}
		e.flush(p)
	}
}

// arpFrame handles a received ARP message, or returns why it is dropped. Requests for the
// firewall's own addresses are answered. A claim of an address that is known under another
// link-layer address is ignored and reported.
func (e *Engine) arpFrame(p *port, f []byte, now int64) verdict.Reason {
	var m packet.ARPMessage
	if !packet.ParseARP(f, &m) {
		return verdict.MalformedPacket
	}
	if m.SenderMAC == p.mac || m.SenderMAC[0]&1 != 0 || m.SenderMAC == ([6]byte{}) {
		e.c.ARPReceived[p.n]++ // sent by the firewall itself, or from an address that is not a host's
		return 0
	}
	if p.own(m.SenderAddr) {
		e.c.ARPConflicts[p.n]++
		// RFC 5227 section 2.4(b). Each address has its own interval: claims of one must
		// not prevent the defence of another.
		if at := &p.defend[p.index(m.SenderAddr)]; now >= *at {
			*at = now + defendEvery
			e.ask(p, m.SenderAddr, &broadcastMAC)
		}
		return verdict.Martian
	}
	if n, probe := p.neigh.Conflict(m.SenderAddr, m.SenderMAC, now); n != nil {
		e.c.ARPConflicts[p.n]++
		if probe {
			e.ask(p, n.Addr, &n.MAC)
		}
		return verdict.Martian
	}
	e.c.ARPReceived[p.n]++
	if !p.own(m.TargetAddr) {
		return 0
	}
	if p.hosts(m.SenderAddr) {
		e.learn(p, &m, now)
	}
	if m.Op == packet.ARPRequest {
		e.sendARP(p, &m.SenderMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: p.mac, SenderAddr: m.TargetAddr,
			TargetMAC: m.SenderMAC, TargetAddr: m.SenderAddr})
	}
	return 0
}

// hosts reports whether an address can be a host's on port p's link.
func (p *port) hosts(a packet.Addr) bool {
	return a&p.mask == p.net && (p.mask >= 0xfffffffe || a != p.net && a != p.net|^p.mask)
}

// learn updates the neighbour that sent an ARP message to the firewall, and sends the
// frames that wait for it.
func (e *Engine) learn(p *port, m *packet.ARPMessage, now int64) {
	fresh := e.w != nil && p.neigh.Fresh(m.SenderAddr, m.SenderMAC, now)
	l := p.neigh.Learn(m.SenderAddr, m.SenderMAC, m.Op == packet.ARPReply, now)
	if l.Evicted {
		e.c.NeighbourEvictions[p.n]++
	}
	for l.Send.Len() > 0 {
		fr := e.links.Pop(&l.Send)
		packet.PutEth(e.pool.Bytes(fr), &m.SenderMAC, &p.mac, packet.TypeIPv4)
		e.enqueue(p, fr)
	}
	if e.w != nil && !fresh { // a host that asks all the time does not fill the rings
		e.tellLearned(p, m.SenderAddr)
	}
}

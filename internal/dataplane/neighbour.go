package dataplane

import (
	"github.com/thurward/thurward/internal/frame"
	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/telemetry"
)

// Neighbours: the link-layer addresses of next hops, by ARP (RFC 826, RFC 1122
// section 2.3.2).

const (
	neighbourSlots  = 1024        // power of two
	neighbourWindow = 8           // slots that an address may be in
	queued          = perDatagram // frames kept while an address is unresolved: a datagram waits with all its fragments
	queuedInAll     = 256         // frames kept on one side
	arpTries        = 3
	arpEvery        = second
	arpLifetime     = 60 * second
	defendEvery     = 10 * second // DEFEND_INTERVAL of RFC 5227
	announceEvery   = 2 * second  // ANNOUNCE_INTERVAL
)

// States of a neighbour. Zero is a free slot.
const (
	unused     = iota
	unresolved // asked for; frames wait
	reachable
	probing // lifetime over, asked again, used meanwhile
)

type neighbour struct {
	addr    packet.Addr
	mac     [6]byte
	state   uint8
	tries   uint8
	expires int64 // of the address, or when to ask again
	queue         // frames waiting
}

// neighbours is one port's table. Addresses hash to a short run of slots; in a
// full run the one that expires first gives way.
type neighbours struct {
	slot    [neighbourSlots]neighbour
	waiting int   // unresolved and probing ones
	queued  int   // frames waiting
	next    int64 // when the first of these is due
	last    *neighbour
}

func (t *neighbours) base(a packet.Addr) uint32 {
	return uint32(a) * 0x9e3779b1 >> 16
}

// find returns the entry for an address, or nil.
func (t *neighbours) find(a packet.Addr) *neighbour {
	if n := t.last; n != nil && n.addr == a && n.state != unused {
		return n
	}
	b := t.base(a)
	for i := range uint32(neighbourWindow) {
		n := &t.slot[(b+i)%neighbourSlots]
		if n.state != unused && n.addr == a {
			t.last = n
			return n
		}
	}
	return nil
}

// claim returns a slot for an address that has none. The gateway's is not
// given away.
func (e *Engine) claim(p *port, a packet.Addr) *neighbour {
	t := &p.arp
	b := t.base(a)
	var oldest *neighbour
	for i := range uint32(neighbourWindow) {
		n := &t.slot[(b+i)%neighbourSlots]
		if n.state == unused {
			oldest = n
			break
		}
		if n.addr != p.gateway && (oldest == nil || n.expires < oldest.expires) {
			oldest = n
		}
	}
	if oldest.state != unused {
		e.c.NeighbourEvictions[p.n]++
		e.forget(p, oldest)
	}
	*oldest = neighbour{addr: a}
	return oldest
}

// forget frees a slot and drops the frames that wait there.
func (e *Engine) forget(p *port, n *neighbour) {
	for n.n > 0 {
		e.dropOut(p, e.takeWaiting(p, n), telemetry.NeighbourUnresolved)
	}
	if n.state == unresolved || n.state == probing {
		p.arp.waiting--
	}
	*n = neighbour{}
}

// resolve keeps a frame until the address of its next hop is known, and asks
// for it. n is the hop's entry, or nil.
func (e *Engine) resolve(p *port, n *neighbour, hop packet.Addr, fr frame.Frame, now int64) {
	if n == nil {
		n = e.claim(p, hop)
		n.state, n.tries = unresolved, 1
		p.arp.await(n, now)
		e.ask(p, hop, &broadcastMAC)
	}
	if n.n > 0 && (n.n == queued || p.arp.queued == queuedInAll) {
		e.dropOut(p, e.takeWaiting(p, n), telemetry.NeighbourUnresolved) // the oldest: its sender will repeat it first
	}
	if p.arp.queued == queuedInAll {
		e.dropOut(p, fr, telemetry.NeighbourUnresolved)
		return
	}
	e.push(&n.queue, fr)
	p.arp.queued++
}

// takeWaiting takes the first frame that waits for n, which has one.
func (e *Engine) takeWaiting(p *port, n *neighbour) frame.Frame {
	p.arp.queued--
	return e.pop(&n.queue)
}

// probe asks a known neighbour whether it is still there.
func (e *Engine) probe(p *port, n *neighbour, now int64) {
	n.state, n.tries = probing, 1
	p.arp.await(n, now)
	e.ask(p, n.addr, &n.mac)
}

// await notes that an answer is due for n.
func (t *neighbours) await(n *neighbour, now int64) {
	n.expires = now + arpEvery
	if t.waiting == 0 {
		t.next = n.expires
	}
	t.waiting++
}

// resolveTick asks again, or gives up.
func (e *Engine) resolveTick(p *port, now int64) {
	if p.arp.waiting == 0 || now < p.arp.next {
		return
	}
	p.arp.next = now + arpEvery
	for i := range p.arp.slot {
		n := &p.arp.slot[i]
		if n.state != unresolved && n.state != probing {
			continue
		}
		if now < n.expires {
			p.arp.next = min(p.arp.next, n.expires)
			continue
		}
		if n.tries >= arpTries {
			for n.n > 0 {
				fr := e.takeWaiting(p, n)
				e.unreachable(e.pool.Bytes(fr), now)
				e.dropOut(p, fr, telemetry.NeighbourUnresolved)
			}
			e.forget(p, n)
			continue
		}
		n.tries++
		n.expires = now + arpEvery
		e.ask(p, n.addr, &broadcastMAC)
	}
}

// ask sends an ARP request.
func (e *Engine) ask(p *port, a packet.Addr, to *[6]byte) {
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
	e.enqueue(p, frame.Frame{Buf: buf, Len: uint32(n)})
}

// Announce tells both links which link-layer addresses the firewall has
// (gratuitous ARP, RFC 5227 section 3), so that hosts forget those of a
// predecessor; and again 2 seconds after the next Poll.
func (e *Engine) Announce() {
	e.again = announceAgain{due: true}
	e.announce()
}

// announceAgain is when the announcement is to be repeated.
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

// arpFrame handles a received ARP message, or returns why it is dropped. It is
// answered when it asks for an address of the firewall's own. Addresses are
// learned only from answers to our own questions and from whoever asks us, and
// nobody can move a known address to another link-layer address: who claims one
// is reported, and the known neighbour is asked whether it is still there.
func (e *Engine) arpFrame(p *port, f []byte, now int64) telemetry.Reason {
	var m packet.ARPMessage
	if !packet.ParseARP(f, &m) {
		return telemetry.MalformedPacket
	}
	if m.SenderMAC == p.mac || m.SenderMAC[0]&1 != 0 || m.SenderMAC == ([6]byte{}) {
		e.c.ARPReceived[p.n]++ // our own come back, or no host's
		return 0
	}
	if p.own(m.SenderAddr) {
		e.c.ARPConflicts[p.n]++
		// RFC 5227 section 2.4(b). Each address by itself: claims of one must not
		// leave another to whoever claims it.
		if at := &p.defend[p.index(m.SenderAddr)]; now >= *at {
			*at = now + defendEvery
			e.ask(p, m.SenderAddr, &broadcastMAC)
		}
		return telemetry.Martian
	}
	n := p.arp.find(m.SenderAddr)
	if n != nil && n.disputes(&m, p.gateway, now) {
		e.c.ARPConflicts[p.n]++
		if n.state == reachable {
			e.probe(p, n, now)
		}
		return telemetry.Martian
	}
	e.c.ARPReceived[p.n]++
	if !p.own(m.TargetAddr) {
		return 0
	}
	if p.hosts(m.SenderAddr) {
		e.learn(p, n, &m, now)
	}
	if m.Op == packet.ARPRequest {
		e.sendARP(p, &m.SenderMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: p.mac, SenderAddr: m.TargetAddr,
			TargetMAC: m.SenderMAC, TargetAddr: m.SenderAddr})
	}
	return 0
}

// hosts reports whether an address can be that of a host on port p's link.
func (p *port) hosts(a packet.Addr) bool {
	return a&p.mask == p.net && (p.mask >= 0xfffffffe || a != p.net && a != p.net|^p.mask)
}

// disputes reports whether a message contradicts what is known of its sender.
// What has outlived its time may change, but for the gateway.
func (n *neighbour) disputes(m *packet.ARPMessage, gateway packet.Addr, now int64) bool {
	if n.state == unresolved || n.mac == m.SenderMAC {
		return false
	}
	return n.state == probing || now < n.expires || n.addr == gateway
}

// learn notes what an ARP message addressed to us says of its sender, whose
// entry is n, or nil.
func (e *Engine) learn(p *port, n *neighbour, m *packet.ARPMessage, now int64) {
	asked := n != nil && n.state != reachable
	if m.Op == packet.ARPReply && !asked {
		return // an answer that nobody asked for
	}
	if m.Op == packet.ARPRequest && m.SenderAddr == p.gateway && (n == nil || n.state == unresolved) {
		// Whoever asks first in the gateway's name would be the gateway from
		// then on. Its address is only learned from answers to our questions.
		return
	}
	if n == nil {
		n = e.claim(p, m.SenderAddr)
	}
	if asked {
		p.arp.waiting--
	}
	n.mac, n.state, n.tries, n.expires = m.SenderMAC, reachable, 0, now+arpLifetime
	for n.n > 0 {
		fr := e.takeWaiting(p, n)
		packet.PutEth(e.pool.Bytes(fr), &n.mac, &p.mac, packet.TypeIPv4)
		e.enqueue(p, fr)
	}
}

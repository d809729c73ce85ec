package router

import (
	"math/bits"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Neighbours: the link-layer addresses of next hops, by ARP (RFC 826, RFC 1122
// section 2.3.2).

const (
	neighbourSlots  = 2048 // power of two
	neighbourWindow = 8    // slots that an address may be in
	fewAsked        = 8    // unresolved addresses of a holder that may displace others
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
	learned bool   // from a request, not from an answer to ours
	holder  uint16 // unresolved: for whom it was asked
	expires int64  // of the address, or when to ask again
	queue          // frames waiting
}

// neighbours is one port's table. Addresses hash to a short run of slots.
type neighbours struct {
	slot    [neighbourSlots]neighbour
	key     uint64          // secret: who fills the table cannot choose a run
	used    int             // slots
	asked   [holders]uint16 // unresolved ones, by holder
	waiting int             // unresolved and probing ones
	next    int64           // when the first of these is due
	last    *neighbour
	held    waiting
}

func (t *neighbours) base(a packet.Addr) uint32 {
	hi, lo := bits.Mul64((uint64(a)+1)*0x9e3779b97f4a7c15^t.key, t.key|1)
	return uint32(hi ^ lo)
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

// claim returns a slot for an address that has none and is to be asked for, for
// a holder; or nil if who is there has more right to each. In a full run gives
// way, in this order: what has outlived its time; of unresolved addresses one of
// the holder that has most, and no less than this one; what was only learned
// from a request; what expires first. The gateway never does.
func (e *Engine) claim(p *port, a packet.Addr, holder uint16, now int64) *neighbour {
	t := &p.arp
	mine := int(t.asked[holder])
	if mine > 0 && mine >= neighbourSlots-t.used {
		return nil // it takes no more than it leaves
	}
	best, rank := (*neighbour)(nil), 0
	b := t.base(a)
	for i := range uint32(neighbourWindow) {
		n := &t.slot[(b+i)%neighbourSlots]
		r := 0
		switch {
		case n.state == unused:
			return t.place(n, a)
		case n.addr == p.gateway:
			continue
		case n.over(now):
			r = 3 + neighbourSlots
		case n.state == unresolved:
			if asked := int(t.asked[n.holder]); asked >= mine {
				r = 2 + asked
			}
		case mine > fewAsked:
		case n.learned:
			r = 2
		default:
			r = 1
		}
		if r > rank || r == rank && r > 0 && n.expires < best.expires {
			best, rank = n, r
		}
	}
	if best == nil {
		return nil
	}
	e.c.NeighbourEvictions[p.n]++
	e.forget(p, best)
	return t.place(best, a)
}

// claimLearned returns a slot for an address that nobody has asked for, or nil.
// It displaces nothing that is alive: who could do that with requests would have
// the firewall forget a neighbour, and be asked for it next.
func (e *Engine) claimLearned(p *port, a packet.Addr, now int64) *neighbour {
	t := &p.arp
	b := t.base(a)
	for i := range uint32(neighbourWindow) {
		n := &t.slot[(b+i)%neighbourSlots]
		if n.state == unused {
			return t.place(n, a)
		}
		if n.addr != p.gateway && n.over(now) {
			e.c.NeighbourEvictions[p.n]++
			e.forget(p, n)
			return t.place(n, a)
		}
	}
	return nil
}

// over reports whether a neighbour has outlived its time without being asked
// again: nobody has used it since.
func (n *neighbour) over(now int64) bool { return n.state == reachable && now >= n.expires }

// place takes a free slot for an address.
func (t *neighbours) place(n *neighbour, a packet.Addr) *neighbour {
	t.used++
	*n = neighbour{addr: a}
	return n
}

// forget frees a slot and drops the frames that wait there.
func (e *Engine) forget(p *port, n *neighbour) {
	for n.n > 0 {
		e.dropOut(p, e.takeWaiting(p, n), verdict.NeighbourUnresolved)
	}
	p.arp.settle(n)
	p.arp.used--
	*n = neighbour{}
}

// settle notes that no answer is due for n any more.
func (t *neighbours) settle(n *neighbour) {
	if n.state == unresolved {
		t.asked[n.holder]--
	}
	if n.state == unresolved || n.state == probing {
		t.waiting--
	}
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
				e.dropOut(p, fr, verdict.NeighbourUnresolved)
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
	e.enqueue(p, framebuf.Frame{Buf: buf, Len: uint32(n)})
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
func (e *Engine) arpFrame(p *port, f []byte, now int64) verdict.Reason {
	var m packet.ARPMessage
	if !packet.ParseARP(f, &m) {
		return verdict.MalformedPacket
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
		return verdict.Martian
	}
	n := p.arp.find(m.SenderAddr)
	if n != nil && n.disputes(&m, p.gateway, now) {
		e.c.ARPConflicts[p.n]++
		if n.state == reachable {
			e.probe(p, n, now)
		}
		return verdict.Martian
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
		if n = e.claimLearned(p, m.SenderAddr, now); n == nil {
			return
		}
		n.learned = true
	}
	if asked {
		n.learned = m.Op == packet.ARPRequest
	}
	p.arp.settle(n)
	n.mac, n.state, n.tries, n.expires = m.SenderMAC, reachable, 0, now+arpLifetime
	for n.n > 0 {
		fr := e.takeWaiting(p, n)
		packet.PutEth(e.pool.Bytes(fr), &n.mac, &p.mac, packet.TypeIPv4)
		e.enqueue(p, fr)
	}
}

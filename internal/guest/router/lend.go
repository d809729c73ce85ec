package router

import (
	"math/bits"

	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
)

// External ports of several workers. A first packet for which its worker has no port goes to
// the other workers, one after the other: each that has more free ports lends some, and sends
// the packet back after them. When all have been asked in vain there is none for it, as with
// one worker, and no other packet goes that way for a while.

const (
	// lendWords is how many words of a pool's bitmap are lent at once: 64 ports of each.
	lendWords = 16
	// askAgain is how long a worker that has asked all others in vain does not ask again.
	askAgain = 10 * tickEvery
	// homeEvery is how often a worker looks for ports to give back, homeLooks how many words
	// of the bitmap it looks at.
	homeEvery = 16 * tickEvery
	homeLooks = 64
)

// borrowing is what a worker knows about ports of others.
type borrowing struct {
	dry  []int64 // by pool, protocol, and whether any is free here: until when no other lends
	home int64   // when ports are given back next
}

// borrows has the packet in hand, for which there is no port, go to another worker that may
// have some, and reports whether it does.
func (e *Engine) borrows(p *received, now int64) bool {
	w := e.w
	if p.Parts > 0 {
		return false
	}
	wish, ok := e.nat.Wish(p.Proto, p.Src)
	if !ok {
		return false
	}
	dry := w.dryness(&wish)
	if now < *dry {
		return false
	}
	if int(w.asked) >= w.n-1 {
		*dry = now + askAgain
		return false
	}
	w.travel = travel{to: (w.k + 1 + int(w.asked)) % w.n, wish: wish, borrow: true}
	return true
}

// dryness returns until when no other worker lends what is wished for. A host that has its share
// does not keep others from asking when no port is left for them.
func (w *worker) dryness(wish *nat.Wish) *int64 {
	i := int(wish.Pool) * len(nat.Protocols)
	for j, proto := range nat.Protocols {
		if proto == wish.Proto {
			i += j
		}
	}
	i *= 2
	if wish.Free == 0 {
		i++
	}
	return &w.dry[i]
}

// borrow sends a packet on its way for ports.
func (e *Engine) borrow(p *received, t *travel) bool {
	w, wish := e.w, &t.wish
	return e.handOver(t.to, &handover.Item{Kind: handover.Borrow, Port: uint8(p.in.n), Frame: p.frame,
		Addr: packet.Addr(wish.Lo)<<16 | packet.Addr(wish.Hi), Flow: uint32(wish.Pool)<<8 | uint32(wish.Proto), At: int64(wish.Free),
		MAC: [6]byte{w.tries, w.asked + 1}})
}

// lend lends ports to a worker whose packet has come for them, and sends the packet back.
func (e *Engine) lend(from int, x *handover.Item, now int64) {
	wish := nat.Wish{Pool: int16(x.Flow >> 8), Proto: uint8(x.Flow), Lo: uint16(x.Addr >> 16), Hi: uint16(x.Addr), Free: uint32(x.At)}
	for range lendWords {
		if !e.w.out[from].Room(2 + ringWords) {
			break
		}
		l, ok := e.nat.Lend(&wish)
		if !ok {
			break
		}
		e.c.PortsLent += uint64(bits.OnesCount64(l.Set))
		e.handPorts(from, &l)
	}
	e.sendBack(from, x, &handover.Item{Kind: handover.Relieved, Port: x.Port, Frame: x.Frame, MAC: x.MAC}, now)
}

// handPorts gives ports to another worker, for which there is room.
func (e *Engine) handPorts(to int, l *nat.Loan) {
	e.handOver(to, &handover.Item{Kind: handover.Ports, Addr: packet.Addr(l.Word), Flow: uint32(l.Pool)<<8 | uint32(l.Proto), At: int64(l.Set)})
}

// takePorts puts ports into the pool that another worker has given.
func (e *Engine) takePorts(x *handover.Item) {
	e.nat.Receive(&nat.Loan{Pool: int16(x.Flow >> 8), Proto: uint8(x.Flow), Word: uint16(x.Addr), Set: uint64(x.At)})
}

// portsTick gives ports back that are not needed any more, so that they are preserved for the
// endpoints whose own they are.
func (e *Engine) portsTick(now int64) {
	w := e.w
	if w == nil || now < w.home {
		return
	}
	w.home = now + homeEvery
	for pool := range e.nat.Pools() {
		for _, proto := range nat.Protocols {
			l, home, ok := e.nat.GoHome(pool, proto, homeLooks)
			if !ok {
				continue
			}
			if !w.out[home].Room(1) { // it stays
				e.nat.Receive(&l)
				continue
			}
			e.handPorts(home, &l)
		}
	}
}

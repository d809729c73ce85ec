package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Packets that have arrived at the wrong worker. They are handed over before anything is
// counted: whoever handles a packet counts it.

// parseSteered is parse for one of several workers: it leaves in the batch what is its own,
// and hands over the rest.
func (e *Engine) parseSteered(in *port, n int, now int64) {
	b, w := &e.b, e.w
	b.keys.Reset()
	fromWAN := in.role == ruleset.WAN
	bytes := uint64(0)
	for i := range b.frame[:n] {
		f := e.pool.Bytes(b.frame[i])
		t := b.keys.Next()
		ln, to := packet.FastKey(f, in.self, t), 0
		switch {
		case ln == 0:
			to = e.whose(in, b.frame[i])
		case fromWAN:
			to = w.steer.FromWAN(t)
		default:
			to = w.steer.FromLAN(t)
		}
		if to != w.k {
			if e.handOver(to, &handover.Item{Kind: handover.Frame, Port: uint8(in.n), Frame: b.frame[i]}) {
				continue
			}
			e.c.RxPackets[in.n]++
			e.c.RxBytes[in.n] += uint64(len(f))
			e.dropUnhanded(in, i, now)
			continue
		}
		e.c.RxPackets[in.n]++
		bytes += uint64(len(f))
		if ln == 0 {
			e.parseOther(in, i, now)
			continue
		}
		b.frame[i].Len = uint32(ln)
		j := b.keys.Len() & (Batch - 1)
		b.idx[j], b.fast[j] = uint8(i), true
		b.keys.Add()
	}
	e.c.RxBytes[in.n] += bytes
}

// whose returns the worker of a frame that FastKey does not read. What will be dropped for
// what it is, is for who has it.
func (e *Engine) whose(in *port, fr framebuf.Frame) int {
	f, k := e.head(fr), e.w.k
	if len(f) < packet.EthLen || [6]byte(f) != in.mac && f[0]&1 == 0 {
		return k
	}
	var p packet.Packet
	switch packet.Type(f) {
	case packet.TypeARP:
		return 0
	case packet.TypeIPv4:
	default:
		return k
	}
	if [6]byte(f) != in.mac {
		return k
	}
	if fr.IsLarge() {
		l := e.pool.Large(fr)
		if l.Parts == 0 {
			return k
		}
		if _, why := packet.ParseLarge(f, int(l.Total), int(l.Transport), &p); why != 0 {
			return k
		}
		return e.steer(in, &p, nil)
	}
	switch _, why := packet.ParseIPv4(f, &p); {
	case why == verdict.FragmentedIPv4 && e.defrag:
		return 0 // only the first has ports
	case why != 0:
		return k
	}
	return e.steer(in, &p, f)
}

// steer returns the worker of a packet, in frame f, that arrived at a port.
func (e *Engine) steer(in *port, p *packet.Packet, f []byte) int {
	t := keyOf(p)
	switch p.Class {
	case packet.ClassICMPError:
		var q packet.Packet
		if !packet.ParseEmbedded(f[int(p.L4)+packet.ICMPLen:], &q) {
			return e.w.k
		}
		quoted := keyOf(&q)
		t = nat.Quoting(&quoted)
	case packet.ClassTCP, packet.ClassUDP, packet.ClassICMPQuery:
	default:
		return e.w.k
	}
	if in.role == ruleset.WAN {
		return e.w.steer.FromWAN(&t)
	}
	return e.w.steer.FromLAN(&t)
}

// handOver gives an item to another worker, with the buffers of its frame. It reports false
// when the way there is full.
func (e *Engine) handOver(to int, i *handover.Item) bool {
	r := e.w.out[to]
	if i.Kind.Carries() && !r.Room(1+ringWords) || !r.Put(i) {
		return false
	}
	if i.Kind == handover.Frame {
		e.c.HandedOver++
	}
	return true
}

// dropUnhanded drops frame i of the batch, for which the way to its worker was full.
func (e *Engine) dropUnhanded(in *port, i int, now int64) {
	p := &e.b.pk[i]
	p.in, p.frame = in, e.b.frame[i]
	if p.frame.IsLarge() {
		// It counts as its segments, as everywhere; whose has found it to be right.
		l := e.pool.Large(p.frame)
		n, why := packet.ParseLarge(e.pool.First(p.frame), int(l.Total), int(l.Transport), &p.Packet)
		more := uint64(0)
		if why == 0 {
			more = uint64((int(p.Payload)+int(l.Size)-1)/int(l.Size)) - 1
		}
		e.c.RxPackets[in.n] += more
		e.c.RxBytes[in.n] += uint64(l.Total) + more*uint64(n)
		e.c.DropReasons[verdict.HandoverFull] += more
		e.dropFrame(in, p.frame, verdict.HandoverFull, now)
		return
	}
	if kind, _ := e.read(p); kind == kindIPv4 || kind == kindFragment {
		e.dropPacket(p, verdict.HandoverFull, now)
		return
	}
	e.dropFrame(in, p.frame, verdict.HandoverFull, now)
}

// redirect hands over a datagram whose fragments have all come here, fragment by fragment,
// if it is another worker's, and reports whether it was.
func (e *Engine) redirect(p *received, now int64) bool {
	w := e.w
	to := e.steer(p.in, &p.Packet, e.bytes(p))
	if to == w.k {
		return false
	}
	e.c.Reassembled-- // it will be
	if !w.out[to].Room(int(p.frames()) + ringWords) {
		e.dropPacket(p, verdict.HandoverFull, now)
		return true
	}
	fr := p.frame
	for range p.frames() {
		next := e.links.Next(fr)
		w.out[to].Put(&handover.Item{Kind: handover.Piece, Port: uint8(p.in.n), Frame: fr})
		fr = next
	}
	return true
}

// takeOver handles what other workers have handed over, and returns the number of frames.
func (e *Engine) takeOver(now int64) int {
	w := e.w
	for i := range e.port {
		if e.backedUp(&e.port[i], now) {
			return 0
		}
	}
	frames := 0
	for from, r := range w.in {
		if r == nil {
			continue
		}
		items := w.item[:r.Take(w.item[:])]
		for i := 0; i < len(items); {
			n := 1
			switch x := &items[i]; x.Kind {
			case handover.Frame, handover.Piece:
				for i+n < len(items) && items[i+n].Kind == x.Kind && items[i+n].Port == x.Port {
					n++
				}
				e.takeFrames(from, items[i:i+n], now)
				frames += n
			case handover.Relieve:
				e.owe(from, x.Frame)
				e.relieveFor(from, x, now)
				frames++
			case handover.Borrow:
				e.owe(from, x.Frame)
				e.lend(from, x, now)
				frames++
			case handover.Relieved:
				w.again, w.settle, w.tries, w.asked = true, x.Flow != 0, x.MAC[0], x.MAC[1]
				e.takeFrames(from, items[i:i+1], now)
				w.again, w.settle, w.tries, w.asked = false, false, 0, 0
				frames++
			case handover.Ports:
				e.takePorts(x)
			case handover.Buffer:
				e.pool.Put(x.Frame.Buf)
			default:
				e.takeWord(from, x, now)
			}
			i += n
		}
	}
	e.leave()
	return frames
}

// owe takes note of the buffers that have come with a frame.
func (e *Engine) owe(to int, fr framebuf.Frame) {
	w := e.w
	if !fr.IsLarge() {
		w.owes[to]++
		return
	}
	buf := fr.Buf
	for i := uint16(0); ; i++ {
		if e.pool.IsLong(buf) {
			w.long[to]++
		} else {
			w.owes[to]++
		}
		if i+1 >= e.pool.Large(fr).Parts {
			return
		}
		buf, _ = e.pool.Next(buf)
	}
}

// takeFrames handles frames of one kind that have arrived at one port, of another worker's
// queue.
func (e *Engine) takeFrames(from int, items []handover.Item, now int64) {
	b := &e.b
	in := &e.port[items[0].Port]
	for i := range items {
		b.frame[i] = items[i].Frame
		if items[i].Kind != handover.Relieved { // which has come back
			e.owe(from, items[i].Frame)
		}
	}
	packets, bytes := e.c.RxPackets[in.n], e.c.RxBytes[in.n]
	e.parse(in, len(items), now)
	if items[0].Kind == handover.Frame {
		e.c.RxPackets[in.n] += uint64(len(items))
	} else { // counted before it came here
		e.c.RxPackets[in.n], e.c.RxBytes[in.n] = packets, bytes
	}
	e.run(in, now)
}

// handBack returns free buffers for those that came with frames, and shows the others what
// there is for them.
func (e *Engine) handBack() {
	w := e.w
	for to, r := range w.out {
		if r == nil {
			continue
		}
		for w.owes[to] > 0 && e.pool.Free() > Batch && r.Room(1+ringWords) {
			buf, _ := e.pool.Get()
			r.Put(&handover.Item{Kind: handover.Buffer, Frame: framebuf.Frame{Buf: buf}})
			w.owes[to]--
		}
		for w.long[to] > 0 && e.pool.FreeLong() > 0 && r.Room(1+ringWords) {
			buf, _ := e.pool.GetLong()
			r.Put(&handover.Item{Kind: handover.Buffer, Frame: framebuf.Frame{Buf: buf}})
			w.long[to]--
		}
		if r.Publish() {
			w.told |= 1 << to
		}
	}
}

// A travel is the way of a packet to another worker and back: to the one that has the oldest
// flow of its source, at whose limit it is, which may give way to the packet's; or to one that
// may have external ports, of which there are none here.
type travel struct {
	to     int // 0 is worker 0 where source is not 0, or with borrow
	flow   uint32
	source packet.Addr
	borrow bool
	wish   nat.Wish
}

// goes sends a packet on its travel, if it has one, and reports whether it did.
func (e *Engine) goes(p *received, now int64) bool {
	w := e.w
	t := w.travel
	if w.travel = (travel{}); t.borrow {
		return e.borrow(p, &t)
	}
	if t.source == 0 || w.settle || w.tries >= relieveLooks || p.Parts > 0 {
		return false
	}
	return e.handOver(t.to, &handover.Item{Kind: handover.Relieve, Port: uint8(p.in.n), Frame: p.frame, Flow: t.flow, Addr: t.source,
		MAC: [6]byte{w.tries + 1, w.asked}})
}

// relieveFor makes room among the flows of a source of another worker's packet, as
// relieveSource does, and sends the packet back.
func (e *Engine) relieveFor(from int, x *handover.Item, now int64) {
	w := e.w
	back := handover.Item{Kind: handover.Relieved, Port: x.Port, Frame: x.Frame, MAC: x.MAC}
	flow := x.Flow / uint32(w.n)
	r := conntrack.Ref(flow << 1)
	oldest, ok := e.sources.Oldest(x.Addr)
	switch {
	case !ok || oldest != x.Flow: // it has ended meanwhile
	case e.flows.Spare(flow, now) == conntrack.Keep:
		e.sources.Settled(x.Addr, x.Flow)
	case now-e.flows.Shared(r).Created >= young:
		e.flows.Remove(r, conntrack.Reclaimed)
	default:
		back.Flow = 1
	}
	e.leave()
	e.sendBack(from, x, &back, now)
}

// sendBack sends a packet back that has travelled here.
func (e *Engine) sendBack(from int, x, back *handover.Item, now int64) {
	w := e.w
	w.owes[from]-- // it goes back
	if !e.handOver(from, back) {
		w.owes[from]++
		in := &e.port[x.Port]
		e.b.frame[0] = x.Frame
		e.dropUnhanded(in, 0, now)
	}
}

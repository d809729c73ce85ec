package dataplane

import (
	"github.com/thurward/thurward/internal/clienthello"
	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/filter"
	"github.com/thurward/thurward/internal/fqdn"
	"github.com/thurward/thurward/internal/frame"
	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
	"github.com/thurward/thurward/internal/tcpend"
	"github.com/thurward/thurward/internal/telemetry"
)

// Rules with "sni: require". Several names may lie at one address; which of
// them a TLS connection is for, its client says in its first message. Until
// that is there no byte of the client's passes: what it sends is held, and goes
// on when the name is one that the client has resolved to this address, and the
// policy accepts that name alone. Otherwise both ends get a RST.

const (
	maxHellos   = 64          // connections whose first message is not whole
	heldHello   = 6           // segments of one
	helloWithin = 10 * second // from the first byte to the last
)

// A hello is a first message on its way.
type hello struct {
	flow  conntrack.Ref // None: free
	due   int64
	next  uint32 // sequence number that is expected
	first uint32 // of the message's first byte
	n     int    // segments
	frame [heldHello]frame.Frame
	pk    [heldHello]packet.Packet
	len   int
	data  [clienthello.MaxLen]byte
}

// hellos is nil when the policy has no such rule.
type hellos struct {
	at []hello
	n  int
}

func newHellos(p *segment.Policy) hellos {
	for i := range p.Rules {
		if p.Rules[i].SNI != 0 {
			h := hellos{at: make([]hello, maxHellos)}
			for i := range h.at {
				h.at[i].flow = conntrack.None
			}
			return h
		}
	}
	return hellos{}
}

// wantsName reports whether a rule asks for the server's name.
func (e *Engine) wantsName(rule uint32) bool {
	return e.names.hellos.at != nil && rule < e.policy.DefaultRule() && e.policy.Rules[rule].SNI != 0
}

// hold takes segment i with data of a connection whose server's name is not
// known. TCP has checked it.
func (e *Engine) holdHello(in *port, i int, r conntrack.Ref, now int64) {
	p := &e.b.pk[i]
	if !e.linear(i) {
		e.dropPacket(in, i, telemetry.FragmentedIPv4, now) // longer than any first message needs to be
		return
	}
	h := e.helloOf(r)
	if h == nil {
		h = e.openHello(now)
		h.flow, h.due = r, now+helloWithin
		// Nothing of the client's has passed, so that this is where the server
		// is.
		h.first = e.flows.Acknowledged(r)
		h.next = h.first
		e.names.hellos.n++
	}
	f := e.pool.Bytes(e.b.frame[i])
	data := f[len(f)-int(p.Payload):]
	switch {
	case p.Seq != h.next:
		// Out of order, or a repetition of what is held: the client will send
		// again what is missing.
		e.c.HellosRepeated++
		e.pool.Put(e.b.frame[i].Buf)
		return
	case h.n == heldHello || h.len+len(data) > len(h.data):
		e.refuseHello(h, p, nil, now)
		e.pool.Put(e.b.frame[i].Buf)
		return
	}
	h.frame[h.n], h.pk[h.n] = e.b.frame[i], *p
	h.n++
	h.len += copy(h.data[h.len:], data)
	h.next += uint32(len(data))
	var buf [fqdn.MaxName]byte
	name, state := clienthello.ServerName(h.data[:h.len], &buf)
	switch {
	case state == clienthello.More && p.Flags&packet.FIN == 0:
	case state == clienthello.Found && e.nameFits(h, name, now):
		e.passHello(in, h, now)
	default:
		e.refuseHello(h, p, name, now)
	}
}

// nameFits reports whether the client of a connection has resolved this name to
// the server's address, when it began, and whether the policy accepts it by
// this name. The rule that does becomes the connection's.
func (e *Engine) nameFits(h *hello, name []byte, now int64) bool {
	d, s := e.flows.Dir(h.flow), e.flows.Shared(h.flow)
	var wire [fqdn.MaxName]byte
	n := fqdn.PutWire(&wire, name)
	if n == 0 || !e.names.set.FindName(d.Key.Src, d.Key.Dst, wire[:n], s.Created, &e.names.again) {
		return false
	}
	fp := filter.Packet{Src: d.Key.Src, Dst: d.Out.Dst, DstPort: d.Out.DstPort, Proto: packet.TCP, Direction: segment.Egress, State: segment.StateNew,
		Names: e.names.again.IDs}
	e.c.Decisions++
	v := e.filter.Decide(&fp)
	if v.Action != segment.Accept {
		return false
	}
	d.Rule, d.Name = v.Rule, uint32(e.names.again.Names[0].Name)
	return true
}

// passHello lets what was held go on.
func (e *Engine) passHello(in *port, h *hello, now int64) {
	d := e.flows.Dir(h.flow)
	d.Verdict = conntrack.Accepted
	e.c.HellosAccepted++
	fr, p := e.b.frame[0], e.b.pk[0]
	for k := range h.n {
		// send looks at a packet of the batch.
		e.b.frame[0], e.b.pk[0] = h.frame[k], h.pk[k]
		d.LastSeen = now
		d.Packets++
		d.Bytes += uint64(h.pk[k].Total)
		e.c.Accepts[d.Rule]++
		e.send(e.out(in, d), 0, &d.Out, now)
	}
	e.b.frame[0], e.b.pk[0] = fr, p
	h.n = 0
	e.closeHello(h)
}

// refuseHello ends a connection whose server's name is none, or not the right
// one; p is its last segment.
func (e *Engine) refuseHello(h *hello, p *packet.Packet, name []byte, now int64) {
	r := h.flow
	d := e.flows.Dir(r)
	e.c.Drops[d.Rule] += uint64(max(h.n, 1))
	e.c.DropReasons[telemetry.SNIRefused] += uint64(max(h.n, 1))
	if e.events != nil {
		e.rec = telemetry.Record{Time: now, Kind: telemetry.Verdict, Action: telemetry.Drop, Reason: telemetry.SNIRefused, Rule: d.Rule, Direction: telemetry.Egress,
			FlowID: e.flows.Shared(r).ID, EtherType: packet.TypeIPv4}
		e.addresses(d, false)
		var wire [fqdn.MaxName]byte
		if n := fqdn.PutWire(&wire, name); n > 0 {
			e.putNamed(fqdn.AppendText(e.names.text[:0], wire[:n]))
		} else {
			e.events.Put(&e.rec)
		}
	}
	k, o, seq, ack := d.Key, d.Out, h.first, uint32(0)
	if p != nil {
		ack = p.Ack
	} else if h.n > 0 {
		ack = h.pk[0].Ack
	}
	e.putSegment(&e.port[wan], &tcpend.Segment{Tuple: tcpend.Tuple{Local: o.Src, Remote: o.Dst, LocalPort: o.SrcPort, RemotePort: o.DstPort}, Seq: seq, Flags: packet.RST})
	e.putSegment(&e.port[lan], &tcpend.Segment{Tuple: tcpend.Tuple{Local: k.Dst, Remote: k.Src, LocalPort: k.DstPort, RemotePort: k.SrcPort}, Seq: ack, Ack: h.next, Flags: packet.RST | packet.ACK})
	e.c.ResetsSent += 2
	e.flows.Remove(r, conntrack.Closed) // closes h, too
}

// helloOf returns the held message of a flow, or nil.
func (e *Engine) helloOf(r conntrack.Ref) *hello {
	for i := range e.names.hellos.at {
		if h := &e.names.hellos.at[i]; h.flow == r {
			return h
		}
	}
	return nil
}

// openHello returns a free place. Where there is none the connection that has
// waited for the longest is refused.
func (e *Engine) openHello(now int64) *hello {
	oldest := &e.names.hellos.at[0]
	for i := range e.names.hellos.at {
		h := &e.names.hellos.at[i]
		if h.flow == conntrack.None {
			return h
		}
		if h.due < oldest.due {
			oldest = h
		}
	}
	e.refuseHello(oldest, nil, nil, now)
	return oldest
}

// closeHello forgets a held message and what was held of it.
func (e *Engine) closeHello(h *hello) {
	for k := range h.n {
		e.pool.Put(h.frame[k].Buf)
	}
	h.flow, h.n, h.len = conntrack.None, 0, 0
	e.names.hellos.n--
}

// helloRemoved forgets what is held of a flow that is removed.
func (e *Engine) helloRemoved(r conntrack.Ref) {
	if e.names.hellos.n > 0 {
		if h := e.helloOf(r &^ 1); h != nil {
			e.closeHello(h)
		}
	}
}

// hellosTick refuses connections whose first message does not come whole.
func (e *Engine) hellosTick(now int64) {
	if e.names.hellos.n == 0 {
		return
	}
	for i := range e.names.hellos.at {
		if h := &e.names.hellos.at[i]; h.flow != conntrack.None && now >= h.due {
			e.refuseHello(h, nil, nil, now)
		}
	}
}

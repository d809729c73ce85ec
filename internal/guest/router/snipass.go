package router

import (
	"bytes"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// From the moment that a first message goes on to the server's answer.

// passHello lets what was held go on. What lies behind a gap does not: nobody
// knows what will stand before it.
func (e *Engine) passHello(h *hello, now int64) {
	if !h.again {
		e.c.HellosAccepted++
	}
	d := e.flows.Dir(h.flow)
	n := h.n
	h.n = 0
	for k := range n {
		p := &h.held[k]
		if h.end(k) > uint32(h.len) {
			e.repeated(p, now)
			continue
		}
		packet.ScrubTCP(e.bytes(p)[p.L4:], &h.clock) // others of the client's have overtaken it
		d.LastSeen = now
		d.Packets++
		d.Bytes += uint64(p.Total)
		e.c.Accepts[d.Rule]++
		e.send(e.egress(p.in, d), p, &d.Out, now)
	}
	e.names.hellos.held -= n
	e.turnHello(h, unsettled, now+answerWithin, now)
	h.answer, h.said, h.server = clienthello.Undecided, 0, e.flows.Sent(h.flow^1)
}

// guard looks at a segment, with data, of a client whose message has gone on, but
// is not known to have arrived. It reports false when the segment may pass: it has
// the same data where the message lies.
func (e *Engine) guard(p *received, h *hello, now int64) bool {
	at, data := p.Seq-h.first, e.payload(p)
	if int32(at) < 0 || at > uint32(h.len) && !h.early {
		e.repeated(p, now) // a probe of an idle connection, or too early
		return true
	}
	if n := h.len - min(int(at), h.len); !bytes.Equal(data[:min(n, len(data))], h.data[h.len-n:][:min(n, len(data))]) {
		e.refuseHello(p, h, nil, now)
		return true
	} else if len(data) > n && !h.early {
		// A client says no more before it has an answer. What is no handshake
		// does not matter once the message has arrived: who is asked for
		// another after that is refused.
		h.early = e.arrived(h) && !clienthello.MayBeginSecond(data[n])
		if !h.early {
			e.repeated(p, now)
			return true
		}
	}
	return false
}

// arrived reports whether the server has acknowledged all that has gone on of a
// message.
func (e *Engine) arrived(h *hello) bool {
	return int32(e.flows.Acknowledged(h.flow)-h.first-uint32(h.len)) >= 0
}

// settle makes a connection one like any other.
func (e *Engine) settle(h *hello) {
	e.flows.Dir(h.flow).Verdict = conntrack.Accepted
	e.closeHello(h)
}

// pendingAnswer looks at a segment of a server to whose client's direction, r, its
// name is not settled. It reports true when it has ended the connection.
func (e *Engine) pendingAnswer(p *received, r conntrack.Ref, now int64) bool {
	h := e.helloOf(r)
	if h == nil || !h.passed {
		return false
	}
	if h.answer == clienthello.Undecided && p.Seq == h.server {
		f := e.bytes(p)
		data := f[int(p.L4)+int(f[p.L4+12]>>4)*4:] // of fragments that of the first; nobody cuts an answer so short
		h.said += copy(h.says[h.said:], data)
		h.server += uint32(p.Payload)
		h.answer = clienthello.ReadResponse(h.says[:h.said])
		if p.Flags&packet.FIN != 0 && h.answer == clienthello.Undecided {
			h.answer = clienthello.NoRetry
		}
	}
	switch {
	case h.answer == clienthello.Undecided || !e.arrived(h):
	case h.answer == clienthello.NoRetry:
		e.settle(h)
	case h.early || h.again:
		// What followed the message has passed unseen, and a server asks once.
		e.refuseHello(p, h, nil, now)
		return true
	default:
		e.turnHello(h, incomplete, now+helloWithin, now)
		h.again, h.first, h.len = true, h.first+uint32(h.len), 0
	}
	return false
}

// refuseHello ends a connection whose server's name is none, or not the right
// one. A packet of it, p, goes with what is held, where p is not nil.
func (e *Engine) refuseHello(p *received, h *hello, name []byte, now int64) {
	r := h.flow
	d := e.flows.Dir(r)
	if p != nil {
		n := e.release(p)
		e.c.Drops[d.Rule] += n
		e.c.DropReasons[verdict.SNIRefused] += n
	}
	if e.events != nil {
		rec := event.Record{Time: now, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.SNIRefused, Rule: d.Rule, Direction: verdict.Egress,
			FlowID: e.flows.Shared(r).ID, EtherType: packet.TypeIPv4}
		addFlow(&rec, d, false)
		var wire [fqdn.MaxName]byte
		if n := fqdn.EncodeTo(&wire, name); n > 0 {
			e.emitDomain(&rec, wire[:n])
		} else {
			e.events.Put(&rec)
		}
	}
	k, o := d.Key, d.Out
	toServer := tcp.Segment{Tuple: tcp.Tuple{Local: o.Src, Remote: o.Dst, LocalPort: o.SrcPort, RemotePort: o.DstPort}, Seq: e.flows.Acknowledged(r), Flags: packet.RST}
	e.resetHello(endpoint.WAN, &toServer)
	if last := h.first + uint32(h.len); h.passed && last != toServer.Seq {
		toServer.Seq = last // for what has gone on may have arrived
		e.resetHello(endpoint.WAN, &toServer)
	}
	e.resetHello(endpoint.LAN, &tcp.Segment{Tuple: tcp.Tuple{Local: k.Dst, Remote: k.Src, LocalPort: k.DstPort, RemotePort: k.SrcPort},
		Seq: e.flows.Acknowledged(r ^ 1), Ack: e.flows.Sent(r), Flags: packet.RST | packet.ACK})
	e.flows.Remove(r, conntrack.Closed) // closes h, too
}

func (e *Engine) resetHello(to endpoint.Side, s *tcp.Segment) {
	if e.host.SendSegment(to, s) {
		e.c.ResetsSent++
	}
}

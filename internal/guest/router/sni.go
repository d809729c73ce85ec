package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Rules with "sni: require". Several names may have the same address; the client of a TLS
// connection states the name in its ClientHello. Until that is complete no data of the
// client pass: its segments are held. They are forwarded if the client has resolved the
// name to this address, and the policy accepts the connection with that name alone.
// Otherwise both ends get a RST.
//
// The server must read the same bytes as the firewall: it could lose a forwarded segment
// and accept another in its place. So until the server has acknowledged that part of the
// stream and answered, only segments with the same bytes pass there. The answer may be a
// HelloRetryRequest: the second ClientHello is handled like the first, and must have the
// same name. After that the connection is handled like any other. Until then segments that
// the server might interpret differently are dropped (sniFits).

// wantsServerName reports whether a rule requires the server name.
func (e *Engine) wantsServerName(rule uint32) bool {
	return e.sni.On() && rule < e.policy.DefaultRule() && e.policy.Rules[rule].SNI != 0
}

// unsettled reports whether direction r belongs to a connection whose server name is not
// settled.
func (e *Engine) unsettled(r conntrack.Ref, d *conntrack.Dir) bool {
	return e.sni.On() && (d.Verdict == conntrack.Pending || r.Reply() && e.flows.Dir(r^1).Verdict == conntrack.Pending)
}

// guardTTL is the least TTL of a client's segments while the server name is not settled, so
// that they do not expire between the firewall and the server. It exceeds the default of
// senders (RFC 1700: 64). Routing loops cannot arise: what returns is dropped as martian.
const guardTTL = 65

// sniFits is the first decision about a packet of a client whose server name is not
// settled. It also rewrites the packet so that the server interprets it as the firewall
// does. For the SYN that begins the connection r is None.
//
// Urgent data and data in a SYN may be outside of the stream that a server reads; whether a
// server reads data of a RST, or receives a packet with IP options, is unknown. All of
// these are dropped. Of a server's packets only a SYN with data is dropped.
func (e *Engine) sniFits(p *received, r conntrack.Ref) decision {
	if r != conntrack.None && r.Reply() {
		if p.Flags&packet.SYN != 0 && p.Payload > 0 {
			return e.dropped(verdict.SNIRefused)
		}
		return decision{}
	}
	if p.Class != packet.ClassTCP || int(p.L4) != packet.EthLen+packet.MinIPv4 ||
		p.Payload > 0 && p.Flags&(packet.SYN|packet.RST) != 0 || p.Flags&packet.URG != 0 {
		return e.dropped(verdict.SNIRefused)
	}
	if !e.linear(p) {
		return e.dropped(verdict.FragmentedIPv4) // a ClientHello needs no fragmentation
	}
	f := e.bytes(p)
	var c packet.Clock
	if r == conntrack.None {
		packet.ScrubTCP(f[p.L4:], &c)
		return decision{}
	}
	packet.RaiseTTL(f, &p.Packet, guardTTL)
	clock := &c
	if m := e.sni.Find(r); m != nil {
		clock = &m.Clock
	}
	packet.ScrubTCP(f[p.L4:], clock)
	return decision{}
}

// sniSegment inspects a segment of direction r of a connection whose server name is not
// settled, after the TCP checks. It reports false if the segment may pass; otherwise it has
// held or dropped it.
func (e *Engine) sniSegment(p *received, r conntrack.Ref, now int64) bool {
	if r.Reply() {
		return e.sniResponse(p, r^1, now)
	}
	if p.Payload == 0 {
		return false
	}
	m := e.sni.Find(r)
	if m == nil {
		// No data of the client have passed, so its stream begins at the server's
		// acknowledgement.
		source := e.flows.Dir(r).Key.Src
		e.sniRefuse(nil, e.sni.ToOpen(source), nil, now)
		m = e.sni.Open(r, source, e.flows.Acknowledged(r), now)
	}
	if !m.Passed {
		e.sniAdd(p, m, now)
		return true
	}
	switch m.Follows(p.Seq, e.payload(p), e.arrived(m)) {
	case sni.Repeat:
		e.sniRepeat(p, now)
		return true
	case sni.Refuse:
		e.sniRefuse(p, m, nil, now)
		return true
	}
	return false
}

// sniAdd handles a segment of a message that has not been forwarded.
func (e *Engine) sniAdd(p *received, m *sni.Message, now int64) {
	switch m.Add(&sni.Segment{Packet: p.Packet, Frame: p.frame}, e.payload(p)) {
	case sni.Repeat:
		e.sniRepeat(p, now)
		return
	case sni.Refuse:
		e.sniRefuse(p, m, nil, now)
		return
	}
	var buf [fqdn.MaxName]byte
	name, state := m.Read(p.Flags&packet.FIN != 0, &buf)
	switch {
	case state == sni.Hold:
	case state == sni.Pass && e.serverNameFits(m, name):
		e.sniPass(m, p.in, now)
	default:
		e.sniRefuse(nil, m, name, now)
	}
}

// sniPass forwards the held segments, except those after a gap: the data before them are
// not known.
func (e *Engine) sniPass(m *sni.Message, in *port, now int64) {
	if !m.IsSecond() {
		e.c.ServerNamesAccepted++
	}
	d := e.flows.Dir(m.Flow)
	held := m.Held()
	for k := range held {
		p := received{Packet: held[k].Packet, frame: held[k].Frame, in: in}
		if !m.Whole(&held[k]) {
			e.sniRepeat(&p, now)
			continue
		}
		packet.ScrubTCP(e.bytes(&p)[p.L4:], &m.Clock) // later segments of the client have overtaken it
		d.LastSeen = now
		d.Packets++
		d.Bytes += uint64(p.Total)
		e.c.Accepts[d.Rule]++
		e.send(&e.port[d.Path.Egress()], &p, &d.Out, now)
	}
	e.sniRefuse(nil, e.sni.ToPass(m), nil, now)
	e.sni.Pass(m, e.flows.Sent(m.Flow^1), now)
}

// arrived reports whether the server has acknowledged the whole message.
func (e *Engine) arrived(m *sni.Message) bool {
	return int32(e.flows.Acknowledged(m.Flow)-m.End()) >= 0
}

// sniResponse inspects a server's segment; r is the client's direction. It reports true
// when it has reset the connection.
func (e *Engine) sniResponse(p *received, r conntrack.Ref, now int64) bool {
	m := e.sni.Find(r)
	if m == nil || !m.Passed {
		return false
	}
	f := e.bytes(p)
	// Of a reassembled segment only the first fragment's data, which suffice for an answer.
	data := f[int(p.L4)+int(f[p.L4+12]>>4)*4:]
	switch m.Respond(p.Seq, data, int(p.Payload), p.Flags&packet.FIN != 0, e.arrived(m)) {
	case sni.Settle:
		e.flows.Dir(r).Verdict = conntrack.Accepted // no further inspection
		e.sniClose(m)
	case sni.Second:
		e.sniRefuse(nil, e.sni.ToSecond(m), nil, now)
		e.sni.Second(m, now)
	case sni.Refuse:
		e.sniRefuse(p, m, nil, now)
		return true
	}
	return false
}

// sniRepeat drops a segment, which its sender will retransmit if it is needed.
func (e *Engine) sniRepeat(p *received, now int64) {
	e.c.ServerNameRepeats++
	e.dropPacket(p, verdict.SNIRepeated, now)
}

// serverNameFits reports whether the client of a connection had resolved name, as text, to
// the server's address when the connection began, and the policy accepts the connection
// with this name. The rule that accepts it becomes the connection's. A second ClientHello
// must have the name of the first.
func (e *Engine) serverNameFits(m *sni.Message, name []byte) bool {
	var wire [fqdn.MaxName]byte
	n := fqdn.EncodeTo(&wire, name)
	if m.IsSecond() {
		return n > 0 && m.HasName(wire[:n])
	}
	d, s := e.flows.Dir(m.Flow), e.flows.Shared(m.Flow)
	e.enter()
	if n == 0 || !e.names.set.FindName(d.Key.Src, d.Key.Dst, wire[:n], s.Created, &e.names.again) {
		return false
	}
	fp := filter.Packet{Src: d.Key.Src, Dst: d.Out.Dst, DstPort: d.Out.DstPort,
		Proto: packet.TCP, Direction: verdict.Egress, State: ruleset.StateNew,
		Names: e.names.again.IDs}
	e.c.Decisions++
	v := e.filter.Decide(&fp)
	if v.Action != ruleset.Accept {
		return false
	}
	d.Rule, d.Name = v.Rule, uint32(e.names.again.Names[0].Name)
	m.SetName(wire[:n])
	return true
}

// sniRefuse resets the connection of m because its server name is missing or not accepted,
// or to make room for another. It drops the held segments and p, which may be nil. If m is
// nil it does nothing.
func (e *Engine) sniRefuse(p *received, m *sni.Message, name []byte, now int64) {
	if m == nil {
		return
	}
	r := m.Flow
	d := e.flows.Dir(r)
	if p != nil {
		n := e.release(p)
		e.c.Drops[d.Rule] += n
		e.c.DropReasons[verdict.SNIRefused] += n
	}
	if e.events != nil {
		rec := event.Record{
			Time: now, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.SNIRefused, Rule: d.Rule,
			Direction: verdict.Egress,
			FlowID:    e.flows.Shared(r).ID, EtherType: packet.TypeIPv4}
		addFlow(&rec, d, false)
		var wire [fqdn.MaxName]byte
		if n := fqdn.EncodeTo(&wire, name); n > 0 {
			e.emitDomain(&rec, wire[:n])
		} else {
			e.events.Put(&rec)
		}
	}
	k, o := d.Key, d.Out
	toServer := tcp.Segment{
		Tuple: tcp.Tuple{Local: o.Src, Remote: o.Dst, LocalPort: o.SrcPort, RemotePort: o.DstPort},
		Seq:   e.flows.Acknowledged(r), Flags: packet.RST,
	}
	e.sniReset(endpoint.WAN, &toServer)
	if last := m.End(); m.Passed && last != toServer.Seq {
		toServer.Seq = last // the forwarded message may have arrived
		e.sniReset(endpoint.WAN, &toServer)
	}
	e.sniReset(endpoint.LAN, &tcp.Segment{Tuple: tcp.Tuple{Local: k.Dst, Remote: k.Src, LocalPort: k.DstPort, RemotePort: k.SrcPort},
		Seq: e.flows.Acknowledged(r ^ 1), Ack: e.flows.Sent(r), Flags: packet.RST | packet.ACK})
	e.flows.Remove(r, conntrack.Closed) // closes m as well
}

func (e *Engine) sniReset(to endpoint.Side, s *tcp.Segment) {
	if e.host.SendSegment(to, s) {
		e.c.ResetsSent++
	}
}

// sniRemoved drops the held segments of a flow that is removed.
func (e *Engine) sniRemoved(r conntrack.Ref) {
	r &^= 1
	if m := e.sni.Find(r); m != nil {
		n := uint64(len(m.Held()))
		e.c.Drops[e.flows.Dir(r).Rule] += n
		e.c.DropReasons[verdict.SNIRefused] += n
		e.sniClose(m)
	}
}

// sniClose removes a message, and returns the buffers of its held segments.
func (e *Engine) sniClose(m *sni.Message) {
	for _, s := range m.Held() {
		e.pool.Put(s.Frame.Buf)
	}
	e.sni.Close(m)
}

// sniTick resets connections whose ClientHello, or the server's answer, has not arrived in
// time.
func (e *Engine) sniTick(now int64) {
	for m := e.sni.Due(nil, now); m != nil; m = e.sni.Due(m, now) {
		if s := e.flows.Dir(m.Flow).State; s == conntrack.Close || s == conntrack.TimeWait {
			e.flows.Remove(m.Flow, conntrack.Closed) // over already: nothing to reset
		} else {
			e.sniRefuse(nil, m, nil, now)
		}
	}
}

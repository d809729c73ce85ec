package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/prefetch"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// direction returns the direction of packets that arrive at a port.
func (p *port) direction() verdict.Direction { return directionOf(p.role == ruleset.WAN) }

func directionOf(fromWAN bool) verdict.Direction {
	if fromWAN {
		return verdict.Ingress
	}
	return verdict.Egress
}

// emitPacket writes an event about a packet outside of any flow.
func (e *Engine) emitPacket(p *received, a verdict.Action, why verdict.Reason, rule uint32, name naming, now int64) {
	if e.events == nil {
		return
	}
	r := event.Record{Time: now, Kind: event.Verdict, Action: a, Reason: why, Direction: p.in.direction(), Rule: rule,
		EtherType: p.EtherType, Proto: p.Proto}
	addPacket(&r, &p.Packet)
	e.emit(&r, name)
}

// emitFlow writes an event about the first packet of direction r. Its addresses are
// internal ones, as the filter sees them.
func (e *Engine) emitFlow(r conntrack.Ref, a verdict.Action, why verdict.Reason, name *naming, now int64) {
	if e.events == nil {
		return
	}
	rec := e.record(name.name)
	if rec == nil {
		return
	}
	d := e.flows.Dir(r)
	rec.Time, rec.Kind, rec.Action, rec.Reason = now, event.Verdict, a, why
	rec.Rule, rec.Direction = d.Rule, directionOf(d.Path.FromWAN())
	rec.FlowID, rec.EtherType, rec.Answer = e.flows.Shared(r).ID, packet.TypeIPv4, r.Reply()
	addFlow(rec, d, r.Reply())
	rec.Hint, rec.Lookup, rec.Ago = name.hint, name.lookup, name.ago
	e.store(rec, name.name, e.now)
}

// record returns a cleared record, that of the ring where the event has no name, or nil when
// there is no room for it. See store.
func (e *Engine) record(name fqdn.Name) *event.Record {
	if name != 0 {
		e.names.record = event.Record{}
		return &e.names.record
	}
	return e.events.Slot()
}

// store writes the event that record has made room for.
func (e *Engine) store(r *event.Record, name fqdn.Name, at int64) {
	if name != 0 {
		e.emitNamed(r, name, at)
		return
	}
	r.Lookup = 0
	e.events.Commit()
}

// emit writes an event with the destination's name and hint.
func (e *Engine) emit(r *event.Record, n naming) {
	r.Hint, r.Lookup, r.Ago = n.hint, n.lookup, n.ago
	e.emitNamed(r, n.name, e.now)
}

// emitNamed writes an event with a name of the name set that was valid at time at.
func (e *Engine) emitNamed(r *event.Record, name fqdn.Name, at int64) {
	if name != 0 {
		e.enter()
		var buf [fqdn.MaxName]byte
		if w := e.names.set.Text(name, at, &buf); w != nil {
			e.emitDomain(r, w)
			return
		}
	}
	r.Lookup = 0
	e.events.Put(r)
	e.fetchRecord()
}

// fetchRecord prefetches the place of a record that is stored soon: the exporter has read it,
// perhaps on another processor.
func (e *Engine) fetchRecord() {
	prefetch.Write3(e.recordLines(recordsAhead))
}

// recordsAhead is how many records ahead their places are prefetched, where it is not known how
// many packets ahead.
const recordsAhead = 2

// recordLines returns the cache lines of the record that is stored after n more, as addresses
// for prefetch.Write.
func (e *Engine) recordLines(n int) (a, b, c uintptr) {
	const line, last = 64, uintptr(event.RecordSize - 1)
	const _ = uint(5*line/2 - event.RecordSize) // multiples of it lie in three lines
	at := e.events.Next(n)
	return at, at + line, at + last
}

// emitDomain writes an event with a name in wire form.
func (e *Engine) emitDomain(r *event.Record, name []byte) {
	e.events.PutText(r, fqdn.AppendShort(e.names.text[:0], name, event.MaxName))
}

// addPacket fills in a packet's addresses, ports and protocol.
func addPacket(r *event.Record, p *packet.Packet) {
	if p.Src|p.Dst == 0 {
		r.Truncated = true // the IP header could not be parsed
		return
	}
	p.Src.Put16(&r.Src)
	p.Dst.Put16(&r.Dst)
	r.SrcPort, r.DstPort = p.SrcPort, p.DstPort
	if p.Proto == packet.ICMP {
		r.DstPort = uint16(p.ICMPType)<<8 | uint16(p.ICMPCode)
	}
}

// addARP fills in sender and target addresses if frame f is an ARP message.
func addARP(r *event.Record, f []byte) {
	var m packet.ARPMessage
	if r.EtherType == packet.TypeARP && packet.ParseARP(f, &m) {
		r.Src, r.Dst, r.Truncated = m.SenderAddr.To16(), m.TargetAddr.To16(), false
	}
}

// addFlow fills in a direction's tuple and its translation.
func addFlow(r *event.Record, d *conntrack.Dir, reply bool) {
	src, dst, srcPort, dstPort := d.Key.Src, d.Key.Dst, d.Key.SrcPort, d.Key.DstPort
	toSrc, toDst, toSrcPort, toDstPort := d.Out.Src, d.Out.Dst, d.Out.SrcPort, d.Out.DstPort
	// Both ports of an ICMP query are the identifier, which source translation changes.
	source := src != toSrc || srcPort != toSrcPort && d.Key.Proto != packet.ICMP
	switch {
	case !reply:
	case source:
		// A server's answer: from its internal address to the client's.
		dst, dstPort = toDst, toDstPort
	default:
		src, dst, srcPort, dstPort, toSrc, toDst, toSrcPort, toDstPort = toSrc, toDst, toSrcPort, toDstPort, src, dst, srcPort, dstPort
	}
	r.Proto = uint8(d.Key.Proto)
	src.Put16(&r.Src)
	dst.Put16(&r.Dst)
	r.SrcPort, r.DstPort = srcPort, dstPort
	switch {
	case !reply && dst != toDst: // of a hairpin, whose source is translated as well, the destination is reported
		r.XlatPort, r.XlatDst = toDstPort, true
		toDst.Put16(&r.XlatAddr)
	case source:
		r.XlatPort = toSrcPort
		toSrc.Put16(&r.XlatAddr)
	case dst != toDst || dstPort != toDstPort:
		r.XlatPort, r.XlatDst = toDstPort, true
		toDst.Put16(&r.XlatAddr)
	}
	if d.Key.Proto == packet.ICMP {
		r.DstPort = packet.EchoRequest << 8
		if reply {
			r.DstPort = packet.EchoReply << 8
		}
	}
}

// emitUnsent writes an event about frame f, which could not leave through port out, with
// the addresses that rules see. Where there is no flow (the firewall's own messages;
// fragments after a first one that has been sent) they are those in the frame.
func (e *Engine) emitUnsent(out *port, f []byte, why verdict.Reason) {
	p := packet.Packet{EtherType: packet.Type(f)}
	r := conntrack.None // the direction of f
	if p.EtherType == packet.TypeIPv4 {
		packet.ParseIPv4(f, &p) // written by the router: valid, or a fragment
		r = e.flowOfUnsent(f, &p)
	}
	rec := event.Record{
		Time: e.now, Kind: event.Verdict, Action: verdict.Drop, Reason: why,
		Direction: directionOf(out.role != ruleset.WAN),
		Rule:      e.policy.DefaultRule(), EtherType: p.EtherType, Proto: p.Proto,
	}
	if r == conntrack.None {
		addPacket(&rec, &p)
		addARP(&rec, f)
		e.events.Put(&rec)
		return
	}
	a, d := e.flows.Dir(r&^1), e.flows.Dir(r)
	if p.Class == packet.ClassICMPError {
		addPacket(&rec, &p)
		if out.role == ruleset.WAN {
			rec.Src = d.Key.Src.To16() // an ICMP error is reported as from the flow's host, whichever host on the LAN sent it
		}
	} else {
		addFlow(&rec, d, r.Reply())
		rec.Direction = directionOf(d.Path.FromWAN())
	}
	rec.Lookup = uint64(e.flows.Dir(r | 1).Name)
	e.emitNamed(&rec, fqdn.Name(a.Name), e.flows.Shared(r).Created)
}

// flowOfUnsent returns the direction of the translated packet in frame f, or of the packet
// that an ICMP error in it quotes, or None.
func (e *Engine) flowOfUnsent(f []byte, p *packet.Packet) conntrack.Ref {
	ip := f[packet.EthLen:]
	var q packet.Packet
	k := conntrack.Key{}
	switch {
	case p.Class == packet.ClassICMPError:
		// An ICMP error quotes a packet that its sender received.
		if !packet.ParseEmbedded(f[int(p.L4)+packet.ICMPLen:], &q) {
			return conntrack.None
		}
		k = keyOf(&q)
		if r := e.flows.Lookup(&k, e.now); r != conntrack.None {
			return r ^ 1
		}
		return conntrack.None
	case packet.ParseEmbedded(ip, &q):
		k = replyKeyOf(&q)
		if p.Fragment {
			e.unsent = fragmentOf{p.Src, p.Dst, p.Proto, packet.FragmentID(f), k}
		}
		p.SrcPort, p.DstPort = q.SrcPort, q.DstPort
	case p.Fragment && e.unsent.is(p, packet.FragmentID(f)):
		k = e.unsent.key
	default:
		return conntrack.None
	}
	r := e.flows.Lookup(&k, e.now)
	if r != conntrack.None {
		r ^= 1
	}
	return r
}

// A fragmentOf identifies a datagram whose first fragment could not be sent.
type fragmentOf struct {
	src, dst packet.Addr
	proto    uint8
	id       uint16
	key      conntrack.Key // of its reply direction
}

func (u *fragmentOf) is(p *packet.Packet, id uint16) bool {
	return u.src == p.Src && u.dst == p.Dst && u.proto == p.Proto && u.id == id
}

// emitEnd writes a flow's last event, with its totals. Spans need it even where the policy
// disables such events.
func (e *Engine) emitEnd(r conntrack.Ref) {
	if s := &e.policy.Settings; e.events == nil || s.Flags&ruleset.FlagNoFlowEnd != 0 && s.SampleAccept == 0 {
		return
	}
	r &^= 1
	a, b, f := e.flows.Dir(r), e.flows.Dir(r^1), e.flows.Shared(r)
	last := max(a.LastSeen, b.LastSeen)
	rec := e.record(fqdn.Name(a.Name))
	if rec == nil {
		return
	}
	rec.Time, rec.Kind, rec.Action, rec.Reason, rec.Rule = last, event.FlowEnd, verdict.Accept, e.acceptReason(a.Rule), a.Rule
	rec.Direction, rec.FlowID, rec.EtherType = directionOf(a.Path.FromWAN()), f.ID, packet.TypeIPv4
	rec.Packets, rec.Bytes, rec.ReplyPackets, rec.ReplyBytes = a.Packets+b.Packets, a.Bytes+b.Bytes, b.Packets, b.Bytes
	rec.Duration = last - f.Created
	addFlow(rec, a, false)
	rec.Lookup = uint64(b.Name)
	e.store(rec, fqdn.Name(a.Name), f.Created)
	e.fetchRecord()
}

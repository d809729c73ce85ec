package dataplane

import (
	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/fqdn"
	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
	"github.com/thurward/thurward/internal/telemetry"
)

const noFlow = conntrack.None

func telDirection(in *port) telemetry.Direction {
	if in.n == wan {
		return telemetry.Ingress
	}
	return telemetry.Egress
}

// emitPacket writes an event about a packet outside of any flow.
func (e *Engine) emitPacket(in *port, p *packet.Packet, a telemetry.Action, why telemetry.Reason, rule uint32, now int64) {
	if e.events == nil {
		return
	}
	e.rec = telemetry.Record{Time: now, Kind: telemetry.Verdict, Action: a, Reason: why, Direction: telDirection(in), Rule: rule,
		EtherType: p.EtherType, Proto: p.Proto}
	if p.Src|p.Dst == 0 {
		e.rec.Truncated = true // the IP header itself was not readable
	} else {
		e.rec.Src, e.rec.Dst = p.Src.To16(), p.Dst.To16()
		e.rec.SrcPort, e.rec.DstPort = p.SrcPort, p.DstPort
		if p.Proto == packet.ICMP {
			e.rec.DstPort = uint16(p.ICMPType)<<8 | uint16(p.ICMPCode)
		}
	}
	e.put()
}

// emitFlow writes an event about the first packet of direction r. Addresses
// are internal ones, as the filter sees them.
func (e *Engine) emitFlow(r conntrack.Ref, a telemetry.Action, why telemetry.Reason, now int64) {
	if e.events == nil {
		return
	}
	d := e.flows.Dir(r)
	e.rec = telemetry.Record{Time: now, Kind: telemetry.Verdict, Action: a, Reason: why, Rule: d.Rule, Direction: telemetry.Egress,
		FlowID: e.flows.Shared(r).ID, EtherType: packet.TypeIPv4}
	if d.FromWAN {
		e.rec.Direction = telemetry.Ingress
	}
	e.addresses(d, r.Reply())
	e.put()
}

// addresses fills in a direction's tuple and its translation.
func (e *Engine) addresses(d *conntrack.Dir, reply bool) {
	in, out := packet.Rewrite{Src: d.Key.Src, Dst: d.Key.Dst, SrcPort: d.Key.SrcPort, DstPort: d.Key.DstPort}, d.Out
	switch {
	case !reply:
	case in.Src != out.Src || in.SrcPort != out.SrcPort:
		// A server answers: its own address, and the client's.
		in.Dst, in.DstPort = out.Dst, out.DstPort
	default:
		in, out = out, in
	}
	e.rec.Proto = uint8(d.Key.Proto)
	e.rec.Src, e.rec.Dst, e.rec.SrcPort, e.rec.DstPort = in.Src.To16(), in.Dst.To16(), in.SrcPort, in.DstPort
	switch {
	case !reply && in.Dst != out.Dst: // a hairpin's source is translated, too
		e.rec.XlatAddr, e.rec.XlatPort, e.rec.XlatDst = out.Dst.To16(), out.DstPort, true
	case in.Src != out.Src || in.SrcPort != out.SrcPort:
		e.rec.XlatAddr, e.rec.XlatPort = out.Src.To16(), out.SrcPort
	case in.Dst != out.Dst || in.DstPort != out.DstPort:
		e.rec.XlatAddr, e.rec.XlatPort, e.rec.XlatDst = out.Dst.To16(), out.DstPort, true
	}
	if d.Key.Proto == packet.ICMP {
		e.rec.DstPort = packet.EchoRequest << 8
		if reply {
			e.rec.DstPort = packet.EchoReply << 8
		}
	}
}

// emitEnd writes a flow's last event, with its totals. A span needs it even
// where the policy wants no such events.
func (e *Engine) emitEnd(r conntrack.Ref) {
	if s := &e.policy.Settings; e.events == nil || s.Flags&segment.FlagNoFlowEnd != 0 && s.SampleAccept == 0 {
		return
	}
	r &^= 1
	a, b, f := e.flows.Dir(r), e.flows.Dir(r^1), e.flows.Shared(r)
	last := max(a.LastSeen, b.LastSeen)
	e.rec = telemetry.Record{Time: last, Kind: telemetry.FlowEnd, Action: telemetry.Accept, Reason: e.acceptReason(a.Rule), Rule: a.Rule,
		Direction: telemetry.Egress, FlowID: f.ID, EtherType: packet.TypeIPv4,
		Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes, ReplyPackets: b.Packets, ReplyBytes: b.Bytes, Duration: last - f.Created}
	if a.FromWAN {
		e.rec.Direction = telemetry.Ingress
	}
	e.addresses(a, false)
	e.rec.Lookup = uint64(b.Name)
	e.putName(fqdn.Name(a.Name), f.Created)
}

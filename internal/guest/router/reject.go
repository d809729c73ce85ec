package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// rejects reports whether a policy rejects anything.
func rejects(p *ruleset.Policy) bool {
	if p.Settings.DefaultAction == ruleset.Reject {
		return true
	}
	for i := range p.Rules {
		if p.Rules[i].Action == ruleset.Reject {
			return true
		}
	}
	return false
}

// rejecting reports whether the rule with this index, or the default action,
// is to reject.
func (e *Engine) rejecting(rule uint32) bool {
	if rule < e.policy.DefaultRule() {
		return e.policy.Rules[rule].Action == ruleset.Reject
	}
	return e.policy.Settings.DefaultAction == ruleset.Reject
}

// reject tells the sender of packet i that the policy forbids it: TCP with a
// RST, everything else with ICMP 3/13 (RFC 5508 REQ-8). What the sender of a
// SYN to a translated address may learn has to wait: see heldSYNs. The packet
// stays the caller's.
func (e *Engine) reject(in *port, i int, now int64) {
	p := &e.b.pk[i]
	switch {
	case p.Class != packet.Stream:
		e.sendError(in, i, aboutRule, packet.Unreachable, packet.Prohibited, 0, now)
	case in.n == wan && opening(p) && in.own(p.Dst):
		e.hold(in, i, now)
	default:
		e.sendReset(in, i, now)
	}
}

// opening reports whether p is a SYN that asks for a connection.
func opening(p *packet.Packet) bool {
	return p.Flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN
}

// sendReset answers the TCP segment of packet i with a RST that seems to come
// from where the segment was sent, unless it is a RST itself. The packet stays
// the caller's.
func (e *Engine) sendReset(in *port, i int, now int64) {
	p := &e.b.pk[i]
	if p.Flags&packet.RST != 0 || !e.mayAnswer(in, p, aboutRule, now) {
		return
	}
	buf, ok := e.pool.Get()
	if !ok {
		e.c.NoBuffer++
		return
	}
	f := e.pool.Buffer(buf)[headroom:]
	packet.PutReset(f[packet.EthLen+packet.MinIPv4:], e.pool.Bytes(e.b.frame[i])[p.L4:], int(p.Payload), p.Dst, p.Src)
	packet.PutIPv4(f[packet.EthLen:], p.Dst, p.Src, packet.TCP, 64, packet.TCPLen)
	packet.SetDF(f[packet.EthLen:])
	e.c.ResetsSent++
	e.emitOwn(in, buf, packet.EthLen+packet.MinIPv4+packet.TCPLen, p.Src, now)
}

// stray drops packet i, which belongs to no flow and cannot begin one. What the
// policy would reject is rejected, but for ICMP: so the ends of a connection from
// before the firewall started learn that it is over, and who uses another
// protocol that it does not pass.
func (e *Engine) stray(in *port, i int, fp *filter.Packet, why verdict.Reason, now int64) {
	p := &e.b.pk[i]
	if e.rejects && (p.Class == packet.Stream && p.Flags&packet.RST == 0 || p.Class == packet.Unknown && p.Proto != packet.ICMP) {
		if v := e.filter.Decide(fp); v.Action == ruleset.Reject {
			e.c.Decisions++
			e.denied(in, i, v.Rule, true, conntrack.None, now)
			return
		}
	}
	e.dropPacket(in, i, why, now)
}

// noRoom drops packet i, which the policy accepts but for which there is no
// port, no room, or nothing that would take it. Where the policy's default is to
// reject, its sender is told (RFC 5508 REQ-8), but for that of a reset.
func (e *Engine) noRoom(in *port, i int, why verdict.Reason, now int64) {
	p := &e.b.pk[i]
	switch {
	case e.policy.Settings.DefaultAction != ruleset.Reject, why == verdict.ConntrackInvalid:
	case p.Class == packet.Stream && p.Flags&packet.RST != 0:
	case p.Class == packet.Stream && in.n == wan && opening(p) && in.own(p.Dst):
		e.hold(in, i, now)
	default:
		e.sendError(in, i, aboutRule, packet.Unreachable, packet.Prohibited, 0, now)
	}
	e.dropPacket(in, i, why, now)
}

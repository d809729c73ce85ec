package router

import (
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// rejects reports whether a rule or the default action of a policy is reject.
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

// rejecting reports whether the action of the rule with this index, or the default action,
// is reject.
func (e *Engine) rejecting(rule uint32) bool {
	if rule < e.policy.DefaultRule() {
		return e.policy.Rules[rule].Action == ruleset.Reject
	}
	return e.policy.Settings.DefaultAction == ruleset.Reject
}

// reject answers a packet that the policy rejects: TCP with a RST, everything else with
// ICMP 3/13 (RFC 5508 REQ-8).
func (e *Engine) reject(p *received, now int64) {
	switch {
	case p.Class != packet.ClassTCP:
		e.sendError(p, icmperr.Rule, packet.Unreachable, packet.Prohibited, 0, now)
	case mayBeSimultaneous(p):
		e.delay(p, now)
	default:
		e.sendReset(p, now)
	}
}

// mayBeSimultaneous reports whether a SYN may be one half of a simultaneous open: it
// arrives from the WAN for an address of translation. The answer has to wait: see
// icmperr.Delayed.
func mayBeSimultaneous(p *received) bool {
	return p.Class == packet.ClassTCP && p.in.role == ruleset.WAN && opening(p) && p.in.own(p.Dst)
}

// opening reports whether p is a SYN that opens a connection.
func opening(p *received) bool {
	return p.Flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN
}

// sendReset answers a TCP segment with a RST from the segment's destination, unless it is a
// RST itself.
func (e *Engine) sendReset(p *received, now int64) {
	if p.Flags&packet.RST == 0 && e.mayAnswer(p, icmperr.Rule, now) {
		e.putReset(p, now)
	}
}

// putReset sends it, whatever was sent before.
func (e *Engine) putReset(p *received, now int64) {
	buf, ok := e.pool.Get()
	if !ok {
		e.c.NoBuffer++
		return
	}
	f := e.pool.Buffer(buf)[headroom:]
	packet.PutReset(f[packet.EthLen+packet.MinIPv4:], e.bytes(p)[p.L4:], int(p.Payload), p.Dst, p.Src)
	packet.PutIPv4(f[packet.EthLen:], p.Dst, p.Src, packet.TCP, 64, packet.TCPLen)
	packet.SetDF(f[packet.EthLen:])
	e.c.ResetsSent++
	e.emitOwn(p.in, buf, packet.EthLen+packet.MinIPv4+packet.TCPLen, p.Src, now)
}

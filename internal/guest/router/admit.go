package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// admit handles a packet that belongs to no flow, or that opens a connection in place of
// old. If the packet is dropped, old stays.
func (e *Engine) admit(p *received, k *conntrack.Key, old conntrack.Ref, now int64) {
	if e.martian(p) {
		e.dropPacket(p, verdict.Martian, now)
		return
	}
	if e.ownConversation(p, now) {
		return
	}
	// A decision is passed along by its address: see words.go of package packet.
	var to destination
	var dec decision
	e.destination(p, &to, &dec)
	if dec.outcome == pass && to.firewall {
		e.deliver(p, to.Addr, now)
		return
	}
	if dec.outcome == pass {
		e.mayBegin(p, &to, &dec, now)
	}
	r := conntrack.None
	if dec.outcome == pass {
		var why verdict.Reason
		if r, why = e.newFlow(p, k, &to, old, now); why != 0 {
			dec = e.refused(p, why, dec.name)
		}
	}
	if dec.outcome != pass {
		if e.w != nil && e.goes(p, now) {
			return
		}
		e.drop(p, &dec, now)
		return
	}
	if p.Class == packet.ClassTCP {
		e.flows.StartTCP(r, &p.Packet, e.tcpOptions(p))
	}
	d := e.flows.Dir(r)
	d.Rule, d.Verdict = dec.rule, conntrack.Accepted
	if e.wantsServerName(dec.rule) && p.in.role == ruleset.LAN {
		d.Verdict = conntrack.Pending
	}
	d.Name, e.flows.Dir(r^1).Name = uint32(dec.name.name), uint32(dec.name.lookup) // for the flow's last event
	d.Packets, d.Bytes = p.frames(), uint64(p.Total)
	e.c.Accepts[dec.rule] += d.Packets
	e.emitFlow(r, verdict.Accept, e.acceptReason(dec.rule), &dec.name, now)
	e.flows.MarkFast(r)
	e.send(to.out, p, &d.Out, now)
}

// A destination is where a packet that belongs to no flow goes: to a host, through a port,
// or to the firewall itself.
type destination struct {
	nat.Target
	out      *port
	firewall bool // to the firewall, which the filter sees as Addr
}

// destination sets where a packet goes: to the target of a DNAT entry, to the firewall, or
// along the route to its destination. Where it goes nowhere, dec says why.
func (e *Engine) destination(p *received, to *destination, dec *decision) {
	to.Addr, to.Port = p.Dst, p.DstPort
	switch {
	case e.intercepts(p):
		to.Addr, to.firewall = p.in.addr, true
	case e.ownAddr(p.Dst):
		t, ok := e.nat.Forward(p.Proto, p.Src, p.Dst, p.DstPort)
		if !ok {
			to.firewall = true
			*dec = e.addressesFirewall(p)
			return
		}
		if why := e.usable(p, &t); why != 0 {
			*dec = e.refused(p, why, naming{})
			return
		}
		to.Target, to.out = t, e.route(t.Addr)
	default:
		to.out = e.route(p.Dst)
		if to.out == p.in {
			*dec = e.dropped(verdict.Martian) // hosts on one link reach each other directly
		}
	}
}

// addressesFirewall decides whether a packet to the firewall's own address may arrive at
// its port.
func (e *Engine) addressesFirewall(p *received) decision {
	switch {
	case p.in.role == ruleset.LAN && p.Dst != p.in.addr:
		// A LAN host that uses the WAN address would need hairpinning.
		return e.refused(p, verdict.HairpinUnsupported, naming{})
	case p.in.role == ruleset.WAN && p.Dst == e.inside.addr:
		return e.dropped(verdict.Martian)
	}
	return decision{}
}

// mayBegin decides whether a packet may begin a flow to a destination. The decision, which
// was empty, contains the rule that accepts it, and the destination's name.
func (e *Engine) mayBegin(p *received, to *destination, dec *decision, now int64) {
	var fp filter.Packet
	fp.Src, fp.Dst, fp.Proto, fp.Direction, fp.State = p.Src, to.Addr, p.Proto, p.in.direction(), ruleset.StateNew
	if p.Class != packet.ClassICMPQuery {
		fp.DstPort = to.Port
	}
	if why := startable(p); why != 0 {
		*dec = e.stray(p, to, &fp, why, now)
		return
	}
	var name naming
	if p.in.role == ruleset.LAN {
		name.hint = bypassOf(p)
	}
	named := e.names.set != nil && p.in.role == ruleset.LAN
	if named {
		e.findNames(p.Dst, &fp, now)
	}
	action, rule := e.judge(p, &fp, name, now)
	if named && e.events != nil {
		name = e.nameDecided(p.Dst, &fp, name, action, rule, now)
	}
	if action != ruleset.Accept {
		*dec = e.denied(rule, conntrack.None, true, name)
		return
	}
	if p.in.role == ruleset.WAN && to.Addr == p.Dst && e.nat.Translates(p.Dst) {
		// From the WAN such hosts are reachable only at the addresses of DNAT entries:
		// their internal address would bypass the sources of the entries.
		*dec = e.dropped(verdict.UntranslatedDestination)
	}
	if dec.outcome == pass && !e.fits(p, to.out) {
		*dec = e.leaves(p, to.out)
	}
	if dec.outcome == pass && e.wantsServerName(rule) {
		*dec = e.sniFits(p, conntrack.None) // TLS over TCP only, and no data in the SYN
	}
	dec.name = name
	if dec.outcome == pass {
		dec.rule = rule
	}
}

// judge has the filter decide about a packet; fp is the packet as rules see it. It counts
// and reports what a shadow rule would have decided.
func (e *Engine) judge(p *received, fp *filter.Packet, name naming, now int64) (ruleset.Action, uint32) {
	v := e.filter.Decide(fp)
	if e.w != nil && e.w.again {
		return v.Action, v.Rule
	}
	e.c.Decisions++
	if v.Shadow != filter.NoRule {
		e.c.Shadows[v.Shadow]++
		would, why := verdict.WouldAccept, verdict.RuleAccept
		if e.policy.Rules[v.Shadow].Action != ruleset.Accept {
			would, why = verdict.WouldDrop, verdict.ExplicitDeny
		}
		seen := *p
		seen.Src, seen.Dst, seen.DstPort = fp.Src, fp.Dst, fp.DstPort
		e.emitPacket(&seen, would, why, v.Shadow, name, now)
	}
	return v.Action, v.Rule
}

// startable returns why a packet cannot begin a flow, or 0.
func startable(p *received) verdict.Reason {
	switch p.Class {
	case packet.ClassTCP:
		// Only a SYN: connections are not picked up midway, since their sequence numbers
		// would be unknown.
		if opening(p) {
			return 0
		}
	case packet.ClassUDP:
		return 0
	case packet.ClassICMPQuery:
		if p.ICMPType == packet.EchoRequest && p.ICMPCode == 0 {
			return 0
		}
	}
	return verdict.ConntrackInvalid
}

// stray decides about a packet that belongs to no flow and cannot begin one. Except for
// ICMP it is rejected if the policy would reject it: the ends of a connection from before
// the firewall's start learn that it is over, and senders of other protocols that these are
// not forwarded.
func (e *Engine) stray(p *received, to *destination, fp *filter.Packet, why verdict.Reason, now int64) decision {
	if e.rejects && (p.Class == packet.ClassTCP && p.Flags&packet.RST == 0 ||
		p.Class == packet.ClassOther && p.Proto != packet.ICMP) {
		if v := e.filter.Decide(fp); v.Action == ruleset.Reject {
			e.c.Decisions++
			return e.denied(v.Rule, conntrack.None, true, naming{})
		}
	}
	d := e.dropped(why)
	if e.resetsUnknown && e.couldBegin(p, to, fp, now) {
		d.notice = noticeUnknown
	}
	return d
}

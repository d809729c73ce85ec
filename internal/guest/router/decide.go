package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// decide handles packet i of the batch, which belongs to no flow, or begins a new
// one in place of old, which stays if the packet does not pass.
func (e *Engine) decide(in *port, i int, k *conntrack.Key, old conntrack.Ref, now int64) {
	e.first(in, i, k, old, now)
	e.names.about = about{} // events about other packets must not have it
}

func (e *Engine) first(in *port, i int, k *conntrack.Key, old conntrack.Ref, now int64) {
	p := &e.b.pk[i]
	if e.martian(in, p) {
		e.dropPacket(in, i, verdict.Martian, now)
		return
	}
	if e.names.proxy != nil {
		if in.n == wan && e.dnsAnswer(i, now) || e.dnsSegment(in, i, now) {
			return
		}
		if e.intercepts(in, p) {
			e.local(in, i, in.addr, now)
			return
		}
	}
	out := &e.port[1-in.n]
	to := nat.Target{Addr: p.Dst, Port: p.DstPort}
	if e.ownAddr(p.Dst) {
		t, ok := e.nat.Forward(p.Proto, p.Src, p.Dst, p.DstPort)
		if !ok {
			e.toFirewall(in, i, now)
			return
		}
		if why := e.usable(in, p, &t); why != 0 {
			e.noRoom(in, i, why, now)
			return
		}
		to, out = t, &e.port[lan]
	} else if e.route(p.Dst) == in {
		e.dropPacket(in, i, verdict.Martian, now) // hosts on one link reach each other without us
		return
	}
	fp := filter.Packet{Src: p.Src, Dst: to.Addr, Proto: p.Proto, Direction: direction(in.n == wan), State: ruleset.StateNew}
	if p.Class != packet.Query {
		fp.DstPort = to.Port
	}
	if why := startable(p); why != 0 {
		e.stray(in, i, &fp, why, now)
		return
	}
	named := e.names.set != nil && in.n == lan
	if named {
		e.lookUpNames(p.Dst, &fp, now)
	}
	e.bypass(in, p)
	action, rule := e.judge(in, p, &fp, now)
	if named {
		e.nameDecided(p.Dst, &fp, action, rule, now)
	}
	if action != ruleset.Accept {
		e.denied(in, i, rule, true, conntrack.None, now)
		return
	}
	if in.n == wan && to.Addr == p.Dst && e.nat.Translates(p.Dst) {
		// From outside such hosts have no addresses but those that DNAT gives
		// them: who could use their own would pass by the entry's sources.
		e.dropPacket(in, i, verdict.UntranslatedDestination, now)
		return
	}
	if e.cannotLeave(in, out, i, now) {
		return
	}
	if e.wantsName(rule) && !e.pendingFits(in, i, conntrack.None, now) {
		return // only TLS over TCP tells the name, and not in a SYN
	}
	r, why := e.newFlow(in, p, k, &to, old, now)
	if why != 0 {
		e.noRoom(in, i, why, now)
		return
	}
	if p.Class == packet.Stream {
		e.flows.StartTCP(r, p, e.tcpOptions(i))
	}
	e.flowName(r)
	d := e.flows.Dir(r)
	d.Rule, d.Verdict = rule, conntrack.Accepted
	if e.wantsName(rule) && named {
		d.Verdict = conntrack.Pending
	}
	d.Packets, d.Bytes = 1+uint64(p.Parts), uint64(p.Total)
	e.c.Accepts[rule] += d.Packets
	e.emitFlow(r, verdict.Accept, e.acceptReason(rule), now)
	e.flows.Steady(r, steadyWay(in))
	e.send(out, i, &d.Out, now)
}

// judge has the filter decide about packet p, whose addresses as rules see them
// are in fp. What a shadow rule would have decided is counted and reported.
func (e *Engine) judge(in *port, p *packet.Packet, fp *filter.Packet, now int64) (ruleset.Action, uint32) {
	v := e.filter.Decide(fp)
	e.c.Decisions++
	if v.Shadow != filter.NoRule {
		e.c.Shadows[v.Shadow]++
		would, why := verdict.WouldAccept, verdict.RuleAccept
		if e.policy.Rules[v.Shadow].Action != ruleset.Accept {
			would, why = verdict.WouldDrop, verdict.ExplicitDeny
		}
		seen := *p
		seen.Src, seen.Dst = fp.Src, fp.Dst
		if p.Class != packet.Query {
			seen.DstPort = fp.DstPort
		}
		e.emitPacket(in, &seen, would, why, v.Shadow, now)
	}
	return v.Action, v.Rule
}

// startable returns why a packet cannot begin a flow, or 0.
func startable(p *packet.Packet) verdict.Reason {
	switch p.Class {
	case packet.Stream:
		// Only a SYN: flows are not picked up in the middle, since nothing
		// would be known of their sequence numbers.
		if p.Flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN {
			return 0
		}
	case packet.Gram:
		return 0
	case packet.Query:
		if p.ICMPType == packet.EchoRequest && p.ICMPCode == 0 {
			return 0
		}
	}
	return verdict.ConntrackInvalid
}

// denied drops packet i for the rule that denies or rejects it. Each packet is
// counted; the first of a direction makes an event.
func (e *Engine) denied(in *port, i int, rule uint32, tell bool, r conntrack.Ref, now int64) {
	why := e.denyReason(rule)
	n := 1 + uint64(e.b.pk[i].Parts)
	e.c.Drops[rule] += n
	e.c.DropReasons[why] += n
	if tell {
		if r != conntrack.None {
			e.emitFlow(r, verdict.Drop, why, now)
		} else {
			e.emitPacket(in, &e.b.pk[i], verdict.Drop, why, rule, now)
		}
	}
	if e.rejects && e.rejecting(rule) {
		e.reject(in, i, now)
	}
	e.release(i)
}

// route returns the port through which an address is reached.
func (e *Engine) route(a packet.Addr) *port {
	if l := &e.port[lan]; a&l.mask == l.net {
		return l
	}
	return &e.port[wan]
}

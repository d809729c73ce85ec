package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// usable returns why a packet that a DNAT entry sends to t cannot go there, or
// 0.
func (e *Engine) usable(p *received, t *nat.Target) verdict.Reason {
	if p.in.role == ruleset.LAN && (!t.Hairpin || !e.nat.Translates(p.Src)) {
		// Without an external source the server would answer its client
		// directly, from an address that the client did not ask.
		return verdict.HairpinUnsupported
	}
	if e.route(t.Addr) == e.outside || e.ownAddr(t.Addr) {
		return verdict.DNATNoBackend
	}
	return 0
}

// newFlow makes a flow for its first packet, which goes to the address and port
// to, translated where the policy says so. It takes the place of old, which is
// over, or of none, and has the same external port (RFC 5382 REQ-1). When it is
// refused, nothing has changed.
func (e *Engine) newFlow(p *received, k *conntrack.Key, to *destination, old conntrack.Ref, now int64) (conntrack.Ref, verdict.Reason) {
	if again := old != conntrack.None && e.flows.Dir(old&^1).Key.Src == p.Src; !again && !e.flows.Admits(p.Src, p.in.role == ruleset.WAN) {
		return conntrack.None, verdict.ConntrackFull
	}
	if !e.admitSource(p.Src, old, now) {
		return conntrack.None, verdict.RateLimitFlows
	}
	out := packet.Rewrite{Src: p.Src, Dst: to.Addr, SrcPort: p.SrcPort, DstPort: to.Port}
	kind := nat.NumKinds
	if to.Addr != p.Dst {
		kind = nat.DNAT
	}
	m := nat.Mapping{Pool: nat.NoPool}
	if p.in.role == ruleset.LAN {
		var o nat.Outcome
		if m, o = e.mapSource(p, now); o == nat.Exhausted {
			e.sources.Release(p.Src)
			return conntrack.None, verdict.NATPortPoolExhausted
		} else if o == nat.Mapped {
			out.Src, out.SrcPort = m.Addr, m.Port
			if p.Class == packet.ClassICMPQuery {
				out.DstPort = m.Port
			}
			if kind == nat.DNAT {
				kind = nat.Hairpin
			} else {
				kind = nat.SNAT
			}
		}
	}
	state := conntrack.Echo
	switch p.Class {
	case packet.ClassTCP:
		state = conntrack.SynSent
	case packet.ClassUDP:
		state = conntrack.UDPState(to.Port)
	}
	// What comes back must lead to this flow and no other.
	reply := conntrack.Key{Src: out.Dst, Dst: out.Src, SrcPort: out.DstPort, DstPort: out.SrcPort, Proto: k.Proto}
	why := verdict.ConntrackFull
	r := conntrack.None
	if other, ok := e.vacant(&reply, old, now); reply == *k || !ok {
		why = verdict.ConntrackInvalid
	} else {
		// The record of a flow that makes way is enough for the new one.
		if old != conntrack.None {
			e.flows.Remove(old, conntrack.Closed)
		}
		if other != conntrack.None {
			e.flows.RemoveOver(uint32(other>>1), now)
		}
		r = e.flows.Insert(k, &out, state, conntrack.NewPath(p.in.n, to.out.n, p.in.role == ruleset.WAN, to.out.role == ruleset.WAN), now)
	}
	if r == conntrack.None {
		e.nat.Give(m.Pool, p.Proto, m.Port)
		e.sources.Release(p.Src)
		return conntrack.None, why
	}
	if kind < nat.NumKinds {
		e.c.Translations[kind]++
	}
	s := e.flows.Shared(r)
	s.Pool, s.Port = m.Pool, m.Port
	e.nat.Bind(m, p.Proto, uint32(r>>1))
	e.sources.Begin(p.Src, uint32(r>>1))
	return r, 0
}

// admitSource reports whether a source may begin a flow, in place of old if that is one:
// which does not count then.
func (e *Engine) admitSource(a packet.Addr, old conntrack.Ref, now int64) bool {
	if old == conntrack.None {
		if e.sources.AtLimit(a) {
			e.relieveSource(a, now)
		}
		return e.sources.Admit(a, now)
	}
	src := e.flows.Dir(old &^ 1).Key.Src
	e.sources.Release(src)
	ok := e.sources.Admit(a, now)
	e.sources.Keep(src, now)
	return ok
}

// A source that has as many flows as it may loses its oldest one that is
// half-open or over, if that is older than young: others may have begun it in the
// source's name. Of those that are neither, relieveLooks are looked at in vain.
const (
	relieveLooks = 16
	young        = second / 100
)

// relieveSource makes room among the flows of a source.
func (e *Engine) relieveSource(a packet.Addr, now int64) {
	for range relieveLooks {
		flow, ok := e.sources.Oldest(a)
		if !ok {
			return
		}
		r := conntrack.Ref(flow << 1)
		if e.flows.Spare(flow, now) == conntrack.Keep {
			e.sources.Settled(a, flow)
			continue
		}
		if now-e.flows.Shared(r).Created >= young {
			e.flows.Remove(r, conntrack.Reclaimed)
		}
		return
	}
}

// vacant reports whether no flow but old has direction k. One that is over makes
// way, and is returned: it is of a client that has come to the same server by
// another external port.
func (e *Engine) vacant(k *conntrack.Key, old conntrack.Ref, now int64) (other conntrack.Ref, ok bool) {
	r := e.flows.Lookup(k, now)
	if r == conntrack.None || r>>1 == old>>1 {
		return conntrack.None, true
	}
	return r, e.flows.Dir(r).State.Over()
}

// reclaimPorts bounds how many mappings are looked at for one that can go, and
// reclaimPortsGood how many once one has been found.
const (
	reclaimPorts     = 64
	reclaimPortsGood = 8
)

// mapSource gives the source of a new flow its external endpoint. When there is
// no free port for it, a flow that is over but still keeps one gives it back; or
// else one that nobody has answered, or that is idle, of the source that has
// most.
func (e *Engine) mapSource(p *received, now int64) (nat.Mapping, nat.Outcome) {
	m, o := e.nat.Map(p.Proto, p.Src, p.SrcPort, e.random())
	if o != nat.Exhausted {
		return m, o
	}
	mine := e.nat.Share(m.Pool, p.Proto, p.Src)
	victim, rank, most, found := uint32(0), 0, 0, 0
	for i := 0; i < reclaimPorts && (rank == 0 || i < found+reclaimPortsGood); i++ {
		n, share, ok := e.nat.Lone(m.Pool, p.Proto)
		if !ok {
			continue
		}
		if e.flows.RemoveOver(n, now) {
			e.c.PortsReclaimed++
			if m, o = e.nat.Map(p.Proto, p.Src, p.SrcPort, e.random()); o != nat.Exhausted {
				return m, o
			}
			continue
		}
		r := e.flows.Spare(n, now)
		if r == conntrack.Keep || share < mine || r == conntrack.Unsure && share <= mine+1 {
			continue // nobody loses what he may need to who has as much
		}
		if rank == 0 {
			found = i
		}
		if share > most || share == most && r > rank {
			victim, rank, most = n, r, share
		}
	}
	if rank == 0 {
		return m, o
	}
	e.flows.Remove(conntrack.Ref(victim<<1), conntrack.Reclaimed)
	e.c.PortsReclaimed++
	return e.nat.Map(p.Proto, p.Src, p.SrcPort, e.random())
}

// flowRemoved gives back what a flow held, and tells of its end.
func (e *Engine) flowRemoved(r conntrack.Ref, _ conntrack.Removal) {
	s, k := e.flows.Shared(r), &e.flows.Dir(r&^1).Key
	e.nat.Give(s.Pool, uint8(k.Proto), s.Port)
	e.sources.End(k.Src, uint32(r>>1))
	e.sniRemoved(r)
	e.emitEnd(r)
}

package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// usable returns why a packet cannot be sent to the target t of a DNAT entry, or 0.
func (e *Engine) usable(p *received, t *nat.Target) verdict.Reason {
	if p.in.role == ruleset.LAN && (!t.Hairpin || !e.nat.Translates(p.Src)) {
		// Without source translation the server would answer its client directly, from an
		// address that the client did not use.
		return verdict.HairpinUnsupported
	}
	if e.route(t.Addr) == e.outside || e.ownAddr(t.Addr) {
		return verdict.DNATNoBackend
	}
	return 0
}

// newFlow makes a flow for its first packet, which is sent to the destination to, and
// translated as the policy says. It replaces old, which is over, or None; the source keeps
// its external port (RFC 5382 REQ-1). If it is refused, the reason is not 0 and nothing has
// changed.
func (e *Engine) newFlow(
	p *received, k *conntrack.Key, to *destination, old conntrack.Ref, now int64,
) (conntrack.Ref, verdict.Reason) {
	again := old != conntrack.None && e.flows.Dir(old&^1).Key.Src == p.Src
	if !again && !e.flows.Admits(p.Src, p.in.role == ruleset.WAN) {
		return conntrack.None, verdict.ConntrackFull
	}
	if e.sources != nil && !e.admitSource(p.Src, old, now) {
		return conntrack.None, verdict.RateLimitFlows
	}
	var t translation
	if !e.translation(p, to, &t, now) {
		e.sources.Release(p.Src)
		return conntrack.None, verdict.NATPortPoolExhausted
	}
	r, why := e.insert(p, k, &t, to, old, now)
	if r == conntrack.None {
		e.nat.Give(t.Pool, p.Proto, t.Port)
		e.sources.Release(p.Src)
		return conntrack.None, why
	}
	if t.kind < nat.NumKinds {
		e.c.Translations[t.kind]++
	}
	s := e.flows.Shared(r)
	s.Pool, s.Port = t.Pool, t.Port
	e.nat.Bind(t.Mapping, p.Proto, uint32(r>>1))
	if e.sources != nil {
		e.sources.Begin(p.Src, e.number(uint32(r>>1)))
	}
	return r, 0
}

// A translation is what a new flow's packets are translated to.
type translation struct {
	nat.Mapping // of the source
	kind        nat.Kind
	fresh       bool // the external port is one that no flow has had
	out         packet.Rewrite
}

// translation sets t to the translation of a new flow, the kind to nat.NumKinds if there is
// none. It reports false when no external port is free; then t has the pool.
func (e *Engine) translation(p *received, to *destination, t *translation, now int64) bool {
	t.Pool, t.kind = nat.NoPool, nat.NumKinds
	o := nat.Untranslated
	if to.Addr != p.Dst {
		t.kind = nat.DNAT
	}
	if p.in.role == ruleset.LAN {
		o = e.mapSource(p, t, now)
	}
	if o != nat.Mapped {
		t.out.Set(p.Src, to.Addr, p.SrcPort, to.Port)
		return o != nat.Exhausted
	}
	port := to.Port
	if p.Class == packet.ClassICMPQuery {
		port = t.Port
	}
	t.out.Set(t.Addr, to.Addr, t.Port, port)
	if t.kind == nat.DNAT {
		t.kind = nat.Hairpin
	} else {
		t.kind = nat.SNAT
	}
	return true
}

// insert puts a new flow into the table, in place of old. If it returns None, the reason
// says why, and nothing has changed.
func (e *Engine) insert(
	p *received, k *conntrack.Key, t *translation, to *destination, old conntrack.Ref, now int64,
) (conntrack.Ref, verdict.Reason) {
	// Replies must belong to this flow and no other.
	var reply conntrack.Key
	reply.Set(t.out.Dst, t.out.Src, t.out.DstPort, t.out.SrcPort, k.Proto)
	if t.out.Dst == k.Src && reply == *k {
		return conntrack.None, verdict.ConntrackInvalid
	}
	hash, other := e.flows.Hash(&reply), conntrack.None
	if !t.fresh { // otherwise no flow has that port, and none its answers
		var ok bool
		if other, ok = e.vacant(&reply, hash, old, now); !ok {
			return conntrack.None, verdict.ConntrackInvalid
		}
	}
	// The new flow can use the record of a replaced one.
	if old != conntrack.None {
		e.flows.Remove(old, conntrack.Closed)
	}
	if other != conntrack.None {
		e.flows.RemoveOver(uint32(other>>1), now)
	}
	state := conntrack.Echo
	switch p.Class {
	case packet.ClassTCP:
		state = conntrack.SynSent
	case packet.ClassUDP:
		state = conntrack.UDPState(to.Port)
	}
	path := conntrack.NewPath(p.in.n, to.out.n, p.in.role == ruleset.WAN, to.out.role == ruleset.WAN)
	return e.flows.InsertHash(k, &t.out, hash, state, path, now), verdict.ConntrackFull
}

// admitSource reports whether a source may begin a flow. A flow old that it replaces does
// not count.
func (e *Engine) admitSource(a packet.Addr, old conntrack.Ref, now int64) bool {
	if old == conntrack.None {
		if e.sources.AtLimit(a) {
			e.relieveSource(a, now)
		}
		ok := e.sources.Admit(a, now)
		if ok && e.w != nil { // a flow of another worker has ended just now
			e.w.travel = travel{}
		}
		return ok
	}
	src := e.flows.Dir(old &^ 1).Key.Src
	e.sources.Release(src)
	ok := e.sources.Admit(a, now)
	e.sources.Keep(src, now)
	return ok
}

// A source at its limit of flows loses its oldest half-open or finished flow if that is
// older than young: it may have been begun by packets with a forged source. At most
// relieveLooks flows are examined.
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
		if e.w != nil {
			if int(flow)%e.w.n != e.w.k {
				e.w.travel = travel{to: int(flow) % e.w.n, flow: flow, source: a}
				return
			}
			flow /= uint32(e.w.n)
		}
		r := conntrack.Ref(flow << 1)
		if e.flows.Spare(flow, now) == conntrack.Keep {
			e.sources.Settled(a, e.number(flow))
			continue
		}
		if now-e.flows.Shared(r).Created >= young {
			e.flows.Remove(r, conntrack.Reclaimed)
		}
		return
	}
}

// vacant reports whether no flow except old has direction k with this hash, or only one that is over,
// which is then returned: it is of a client that reached the same server through another
// external port.
func (e *Engine) vacant(k *conntrack.Key, hash uint64, old conntrack.Ref, now int64) (other conntrack.Ref, ok bool) {
	r := e.flows.LookupHash(k, hash, now)
	if r == conntrack.None || r>>1 == old>>1 {
		return conntrack.None, true
	}
	return r, e.flows.Dir(r).State.Over()
}

// reclaimPorts bounds how many mappings are examined for one to evict, and reclaimPortsGood
// how many once there is a candidate.
const (
	reclaimPorts     = 64
	reclaimPortsGood = 8
)

// mapSource sets the external endpoint of a new flow's source: the one that was foretold, if
// it still can be had.
func (e *Engine) mapSource(p *received, t *translation, now int64) nat.Outcome {
	if g := e.b.guessFor(e.b.hand); e.nat.Take(g, p.Proto, p.Src, p.SrcPort) {
		t.Mapping, t.fresh = g.Mapping, g.Fresh
		return nat.Mapped
	}
	m, o := e.nat.Map(p.Proto, p.Src, p.SrcPort, e.random())
	if o == nat.Exhausted && (e.w == nil || !e.borrows(p, now)) {
		m, o = e.reclaim(p, m, now)
	}
	t.Mapping = m
	return o
}

// reclaim returns the external endpoint of a source when no port of the pool of m is free. A
// flow is evicted: one that is over, or else one that is unanswered or idle, of the source with
// the most mappings.
func (e *Engine) reclaim(p *received, m nat.Mapping, now int64) (nat.Mapping, nat.Outcome) {
	o := nat.Exhausted
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
			continue // a source does not lose a port to one with as many
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

// flowRemoved releases the resources of a flow, and reports its end.
func (e *Engine) flowRemoved(r conntrack.Ref, _ conntrack.Removal) {
	s, k := e.flows.Shared(r), &e.flows.Dir(r&^1).Key
	e.nat.Give(s.Pool, uint8(k.Proto), s.Port)
	if e.sources != nil {
		e.sources.End(k.Src, e.number(uint32(r>>1)))
	}
	e.sniRemoved(r)
	e.emitEnd(r)
}

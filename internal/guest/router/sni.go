package router

import (
	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Rules with "sni: require". Several names may lie at one address; which of
// them a TLS connection is for, its client says in its first message. Until
// that is there no byte of the client's passes: what it sends is held, and goes
// on when the name is one that the client has resolved to this address, and the
// policy accepts that name alone. Otherwise both ends get a RST.
//
// The server must then read what was read here. It may not get a segment that
// went on, and take another in its place. So nothing but the same bytes passes in
// that part of the stream (snipass.go) until the server has acknowledged it, and
// has answered: it may ask for a second message (HelloRetryRequest), which is
// treated like the first and must have the same name. Only then is the connection
// like any other. Of segments that the server might read in another way than they
// are read here none passes before (pendingFits).

// wantsServerName reports whether a rule asks for the server's name.
func (e *Engine) wantsServerName(rule uint32) bool {
	return e.names.hellos.at != nil && rule < e.policy.DefaultRule() && e.policy.Rules[rule].SNI != 0
}

// unsettled reports whether direction r is one of a connection whose server's name is
// not settled.
func (e *Engine) unsettled(r conntrack.Ref, d *conntrack.Dir) bool {
	return e.names.hellos.at != nil && (d.Verdict == conntrack.Pending || r.Reply() && e.flows.Dir(r^1).Verdict == conntrack.Pending)
}

// guardTTL is what the TTL of a client's segments is at least when they arrive, as
// long as the server's name is not settled: so that they do not end between here
// and the server. It is more than any sender begins with that means them to
// arrive (RFC 1700: 64), and they cannot go in circles: what comes back is dropped
// as martian.
const guardTTL = 65

// sniFits decides about a packet of a client whose server's name is not settled,
// before anything else does, and makes of it what the server will take as it is
// taken here. The SYN that begins the connection is looked at, too; r is then None.
//
// Urgent data are not part of the stream that a server reads, and data in a SYN lie
// beside it; whether a server reads those of a RST, or IP options let a packet
// through, is not known. Of a server's packets none but a SYN with data is dropped.
func (e *Engine) sniFits(p *received, r conntrack.Ref) decision {
	if r != conntrack.None && r.Reply() {
		if p.Flags&packet.SYN != 0 && p.Payload > 0 {
			return e.dropped(verdict.SNIRefused)
		}
		return decision{}
	}
	if p.Class != packet.Stream || int(p.L4) != packet.EthLen+packet.MinIPv4 || p.Payload > 0 && p.Flags&(packet.SYN|packet.RST) != 0 || p.Flags&packet.URG != 0 {
		return e.dropped(verdict.SNIRefused)
	}
	if !e.linear(p) {
		return e.dropped(verdict.FragmentedIPv4) // longer than any first message needs to be
	}
	f := e.bytes(p)
	var c packet.Clock
	if r == conntrack.None {
		packet.ScrubTCP(f[p.L4:], &c)
		return decision{}
	}
	packet.RaiseTTL(f, &p.Packet, guardTTL)
	clock := &c
	if h := e.helloOf(r); h != nil {
		clock = &h.clock
	}
	packet.ScrubTCP(f[p.L4:], clock)
	return decision{}
}

// sniSegment looks at a segment of direction r of a connection whose server's name is
// not settled, when TCP has checked it. It reports false when the segment may pass;
// otherwise it is held or dropped.
func (e *Engine) sniSegment(p *received, r conntrack.Ref, now int64) bool {
	if r.Reply() {
		return e.pendingAnswer(p, r^1, now)
	}
	return p.Payload > 0 && e.pendingData(p, r, now)
}

// pendingData takes a segment, with data, of a client whose server's name is not
// settled. TCP has checked it. It reports false when it may pass.
func (e *Engine) pendingData(p *received, r conntrack.Ref, now int64) bool {
	h := e.helloOf(r)
	switch {
	case h == nil:
		h = e.openHello(r, now)
	case h.passed:
		return e.guard(p, h, now)
	}
	e.gatherHello(p, h, now)
	return true
}

// gatherHello takes a segment of a message that is not whole.
func (e *Engine) gatherHello(p *received, h *hello, now int64) {
	at, end := p.Seq-h.first, p.Seq-h.first+uint32(p.Payload)
	switch h.covers(at, e.payload(p)) {
	case alien:
		e.refuseHello(p, h, nil, now)
		return
	case known:
		e.repeated(p, now)
		return
	}
	if h.n == heldHello || end > uint32(len(h.data)) {
		if at > uint32(h.len) {
			e.repeated(p, now) // there is no room for it yet
		} else {
			e.refuseHello(p, h, nil, now)
		}
		return
	}
	h.insert(p)
	e.names.hellos.held++
	copy(h.data[at:], e.payload(p))
	h.grow()
	var buf [fqdn.MaxName]byte
	read := clienthello.Read
	if h.again {
		read = clienthello.ReadSecond
	}
	m, state := read(h.data[:h.len], &buf)
	switch {
	case state == clienthello.Incomplete && p.Flags&packet.FIN == 0:
	case state == clienthello.Found && m.AllowsTrailing(h.data[m.Len:h.len]) && e.nameFits(h, m.Name, now):
		h.early = m.Early
		e.passHello(h, now)
	default:
		e.refuseHello(nil, h, m.Name, now)
	}
}

// repeated drops a segment that its sender will repeat when it is needed.
func (e *Engine) repeated(p *received, now int64) {
	e.c.HellosRepeated++
	e.dropPacket(p, verdict.SNIRepeated, now)
}

// nameFits reports whether the client of a connection has resolved this name to
// the server's address, when it began, and whether the policy accepts it by
// this name. The rule that does becomes the connection's. A second message must
// have the name of the first.
func (e *Engine) nameFits(h *hello, name []byte, now int64) bool {
	var wire [fqdn.MaxName]byte
	n := fqdn.EncodeTo(&wire, name)
	if h.again {
		return n > 0 && string(h.name[:h.nameLen]) == string(wire[:n])
	}
	d, s := e.flows.Dir(h.flow), e.flows.Shared(h.flow)
	if n == 0 || !e.names.set.FindName(d.Key.Src, d.Key.Dst, wire[:n], s.Created, &e.names.again) {
		return false
	}
	fp := filter.Packet{Src: d.Key.Src, Dst: d.Out.Dst, DstPort: d.Out.DstPort, Proto: packet.TCP, Direction: verdict.Egress, State: ruleset.StateNew,
		Names: e.names.again.IDs}
	e.c.Decisions++
	v := e.filter.Decide(&fp)
	if v.Action != ruleset.Accept {
		return false
	}
	d.Rule, d.Name = v.Rule, uint32(e.names.again.Names[0].Name)
	h.nameLen = uint8(copy(h.name[:], wire[:n]))
	return true
}

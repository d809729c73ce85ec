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

// wantsName reports whether a rule asks for the server's name.
func (e *Engine) wantsName(rule uint32) bool {
	return e.names.hellos.at != nil && rule < e.policy.DefaultRule() && e.policy.Rules[rule].SNI != 0
}

// isPending reports whether r is a direction whose server's name is not settled.
func (e *Engine) isPending(r conntrack.Ref) bool { return e.flows.Dir(r).Verdict == conntrack.Pending }

// guardTTL is what the TTL of a client's segments is at least when they arrive, as
// long as the server's name is not settled: so that they do not end between here
// and the server. It is more than any sender begins with that means them to
// arrive (RFC 1700: 64), and they cannot go in circles: what comes back is dropped
// as martian.
const guardTTL = 65

// pendingFits looks at packet i of a client whose server's name is not settled,
// before anything else does, and makes of it what the server will take as it is
// taken here. It reports false when it has dropped it. The SYN that begins the
// connection is looked at, too; r is then None.
//
// Urgent data are not part of the stream that a server reads, and data in a SYN lie
// beside it; whether a server reads those of a RST, or IP options let a packet
// through, nobody knows. Of a server's packets none but a SYN with data is dropped.
func (e *Engine) pendingFits(in *port, i int, r conntrack.Ref, now int64) bool {
	p := &e.b.pk[i]
	if r != conntrack.None && r.Reply() {
		if p.Flags&packet.SYN != 0 && p.Payload > 0 {
			e.dropPacket(in, i, verdict.SNIRefused, now)
			return false
		}
		return true
	}
	if p.Class != packet.Stream || int(p.L4) != packet.EthLen+packet.MinIPv4 || p.Payload > 0 && p.Flags&(packet.SYN|packet.RST) != 0 || p.Flags&packet.URG != 0 {
		e.dropPacket(in, i, verdict.SNIRefused, now)
		return false
	}
	if !e.linear(i) {
		e.dropPacket(in, i, verdict.FragmentedIPv4, now) // longer than any first message needs to be
		return false
	}
	f := e.pool.Bytes(e.b.frame[i])
	var c packet.Clock
	if r == conntrack.None {
		packet.ScrubTCP(f[p.L4:], &c)
		return true
	}
	packet.RaiseTTL(f, p, guardTTL)
	clock := &c
	if h := e.helloOf(r); h != nil {
		clock = &h.clock
	}
	packet.ScrubTCP(f[p.L4:], clock)
	return true
}

// pending looks at packet i of direction r of a connection whose server's name is
// not settled, when TCP has checked it. It reports false when the packet may pass.
func (e *Engine) pending(in *port, i int, r conntrack.Ref, now int64) bool {
	if r.Reply() {
		return e.pendingAnswer(i, r^1, now)
	}
	return e.b.pk[i].Payload > 0 && e.pendingData(in, i, r, now)
}

// pendingData takes segment i, with data, of a client whose server's name is not
// settled. TCP has checked it. It reports false when it may pass.
func (e *Engine) pendingData(in *port, i int, r conntrack.Ref, now int64) bool {
	h := e.helloOf(r)
	switch {
	case h == nil:
		h = e.openHello(r, now)
	case h.passed:
		return e.guard(in, i, h, now)
	}
	e.gatherHello(in, i, h, now)
	return true
}

// gatherHello takes segment i of a message that is not whole.
func (e *Engine) gatherHello(in *port, i int, h *hello, now int64) {
	p := &e.b.pk[i]
	at, end := p.Seq-h.first, p.Seq-h.first+uint32(p.Payload)
	switch h.covers(at, e.payload(i)) {
	case alien:
		e.refuseHello(i, h, nil, now)
		return
	case known:
		e.repeated(in, i, now)
		return
	}
	if h.n == heldHello || end > uint32(len(h.data)) {
		if at > uint32(h.len) {
			e.repeated(in, i, now) // there is no room for it yet
		} else {
			e.refuseHello(i, h, nil, now)
		}
		return
	}
	h.insert(e.b.frame[i], p)
	e.names.hellos.held++
	copy(h.data[at:], e.payload(i))
	h.grow()
	var buf [fqdn.MaxName]byte
	read := clienthello.Read
	if h.again {
		read = clienthello.ReadAgain
	}
	m, state := read(h.data[:h.len], &buf)
	switch {
	case state == clienthello.More && p.Flags&packet.FIN == 0:
	case state == clienthello.Found && m.MayFollow(h.data[m.Len:h.len]) && e.nameFits(h, m.Name, now):
		h.early = m.Early
		e.passHello(in, h, now)
	default:
		e.refuseHello(-1, h, m.Name, now)
	}
}

// repeated drops segment i, which its sender will repeat when it is needed.
func (e *Engine) repeated(in *port, i int, now int64) {
	e.c.HellosRepeated++
	e.dropPacket(in, i, verdict.SNIRepeated, now)
}

// payload returns the data of segment i, which is in one piece.
func (e *Engine) payload(i int) []byte {
	f := e.pool.Bytes(e.b.frame[i])
	return f[len(f)-int(e.b.pk[i].Payload):]
}

// nameFits reports whether the client of a connection has resolved this name to
// the server's address, when it began, and whether the policy accepts it by
// this name. The rule that does becomes the connection's. A second message must
// have the name of the first.
func (e *Engine) nameFits(h *hello, name []byte, now int64) bool {
	var wire [fqdn.MaxName]byte
	n := fqdn.PutWire(&wire, name)
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

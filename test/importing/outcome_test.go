package importing

import (
	"bytes"
	"fmt"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A fate is what became of a packet.
type fate uint8

const (
	dropped   fate = iota
	refused        // dropped, and the sender was told
	arrived        // at the firewall itself, which its rules allow
	forwarded      // perhaps translated
)

func (f fate) String() string { return [...]string{"dropped", "refused", "arrived", "forwarded"}[f] }

// An outcome is what one of the firewalls did with a packet.
type outcome struct {
	fate   fate
	out    int      // interface that it left by
	d      datagram // as it left
	port   uint16   // it arrived at, of the firewall
	reason verdict.Reason
	none   bool // the firewall has no such interface
	met    meeting
}

func (o *outcome) describe(a *about) string {
	switch {
	case o.fate == forwarded:
		return fmt.Sprintf("forwarded to %s as %v", a.Interfaces[o.out].Name, &o.d)
	case o.fate == arrived:
		return fmt.Sprintf("arrived at the firewall's port %d", o.port)
	case o.none:
		return "dropped: no such interface"
	case o.reason != 0:
		return fmt.Sprintf("%v: %v", o.fate, o.reason)
	}
	return o.fate.String()
}

// settle finds out which of the frames that left is the packet, forwarded, and which tells its
// sender that it was not.
func (o *outcome) settle(in int, d *datagram, out [][][]byte) {
	for i, fs := range out {
		for _, f := range fs {
			b, ok := parse(f)
			if !ok {
				continue
			}
			// The sender is told where the routes say that it is, as behind a third interface.
			told := b.dst == d.src && (b.proto == packet.TCP && b.flags&rst != 0 && d.flags&rst == 0 ||
				b.proto == packet.ICMP && b.quoted != nil)
			switch {
			case told && o.fate == dropped:
				o.fate = refused
			case !told && o.fate != arrived && (b.proto == d.proto):
				o.fate, o.out, o.d = forwarded, i, b
			}
		}
	}
}

// kernel's outcome of one packet, which may be in fragments.
func (k *kernel) judge(in int, ds []datagram) (o outcome) {
	out := make([][][]byte, len(k.sock))
	for i := range ds {
		fs, met := k.exchange(in, ds[i].frame(macOfInterface(in)))
		for j := range fs {
			out[j] = append(out[j], fs[j]...)
		}
		o.met.rules, o.met.as = append(o.met.rules, met.rules...), append(o.met.as, met.as...)
		if met.arrived {
			o.met.arrived, o.met.port, o.met.proto = true, met.port, met.proto
		}
	}
	if o.met.arrived {
		o.fate, o.port = arrived, o.met.port
		return o
	}
	o.settle(in, &ds[0], out)
	return o
}

// A guard is thurward with the imported policy.
type guard struct {
	a      *about
	policy *ruleset.Policy
	snat   []policy.SNAT
	fw     *replay.Firewall
	out    [2][][]byte
	lan    int
	wan    int
}

// newGuard prepares a policy for many short lives.
func newGuard(a *about, p *ruleset.Policy, of *policy.Policy) *guard {
	p.Settings.MaxFlows = 1024
	g := &guard{a: a, policy: p, lan: a.index(a.LAN), wan: a.index(a.WAN)}
	for _, s := range of.SNAT {
		if !s.Source.IsValid() {
			s.Source = of.LAN().Prefix.Masked()
		}
		g.snat = append(g.snat, s)
	}
	return g
}

// reset begins a life.
func (g *guard) reset() error {
	var err error
	g.fw, err = replay.NewFirewall(replay.Config{Policy: g.policy, Seed: 1, Buffers: 512,
		Neighbour: func(replay.Side, packet.Addr) ([6]byte, bool) { return [6]byte{2, 9, 0, 0, 0, 1}, true },
		Sent: func(s replay.Side, _ int64, f []byte) {
			if packet.Type(f) == packet.TypeIPv4 {
				g.out[s] = append(g.out[s], bytes.Clone(f))
			}
		}})
	return err
}

// judge returns thurward's outcome of one packet.
func (g *guard) judge(in int, ds []datagram) (o outcome) {
	side := replay.LAN
	switch in {
	case g.lan:
	case g.wan:
		side = replay.WAN
	default:
		o.none = true
		return o
	}
	g.out = [2][][]byte{}
	before := g.fw.Engine().Counters().DropReasons
	for i := range ds {
		g.fw.Receive(side, g.fw.Now()+1e6, ds[i].frame(replay.DefaultMAC[side]))
	}
	for r, n := range g.fw.Engine().Counters().DropReasons {
		if n > before[r] {
			o.reason = verdict.Reason(r)
		}
	}
	out := make([][][]byte, len(g.a.Interfaces))
	for s, i := range [2]int{g.lan, g.wan} {
		for _, f := range g.out[s] {
			if b, ok := parse(f); ok && g.answers(in, &ds[0], i, &b, f) {
				o.fate, o.port = arrived, ds[0].dport
				continue
			}
			out[i] = append(out[i], f)
		}
	}
	if o.fate != arrived {
		o.settle(in, &ds[0], out)
	}
	return o
}

// answers reports whether a frame that left shows that the firewall has taken a packet for
// itself: it asks its own name server for a client, or answers from its own address.
func (g *guard) answers(in int, d *datagram, out int, b *datagram, f []byte) bool {
	switch {
	case d.proto == packet.UDP && d.dport == 53 && in == g.lan:
		return out == g.wan && b.proto == packet.UDP && b.dport == 53 && g.a.own(b.src) && len(f) >= 44 &&
			!bytes.Equal(f[42:44], d.data[:2])
	case d.proto == packet.TCP && d.flags == syn:
		return out == in && b.dst == d.src && b.src == d.dst && b.flags == syn|ack
	case d.proto == packet.ICMP && d.typ == packet.EchoRequest:
		return out == in && b.dst == d.src && b.src == d.dst && b.typ == packet.EchoReply
	}
	return false
}

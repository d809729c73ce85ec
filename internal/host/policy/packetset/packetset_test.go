package packetset

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestKinds: the sets of kinds have the bits of ruleset.KindField.
func TestKinds(t *testing.T) {
	for _, proto := range []uint8{packet.TCP, packet.UDP, packet.ICMP, 47} {
		for _, d := range []verdict.Direction{verdict.Egress, verdict.Ingress} {
			for _, st := range []uint8{ruleset.StateNew, ruleset.StateEstablished} {
				k := Kinds(1) << ruleset.KindField(proto, d, st)
				other, answer := proto == 47, st == ruleset.StateEstablished
				for _, c := range []struct {
					name string
					set  Kinds
					want bool
				}{
					{"AllKinds", AllKinds, true}, {"OtherKinds", OtherKinds, other && !answer}, {"Reaching", Reaching, !other || !answer},
					{"Portless", Portless, other || proto == packet.ICMP}, {"Named", Named, !other && !answer && d == verdict.Egress},
				} {
					if (c.set&k != 0) != c.want {
						t.Errorf("%s has protocol %d, %v, state %d: %v", c.name, proto, d, st, !c.want)
					}
				}
			}
		}
	}
}

// TestFromMatch: a match that leaves everything open has all packets; one that is
// narrow has its own; what can match nothing is none.
func TestFromMatch(t *testing.T) {
	b, exact, ok := FromMatch(&ruleset.Match{PortHi: 65535})
	if b != All() || exact != AllKinds || !ok {
		t.Errorf("%+v, %016b, %v", b, exact, ok)
	}
	net := func(v, mask packet.Addr) (a, m ruleset.Addr) {
		a, m = v.To16(), mask.To16()
		for i := range m[:10] {
			m[i] = 0xff
		}
		return a, m
	}
	m := ruleset.Match{PortLo: 53, PortHi: 54, Proto: packet.UDP, Direction: verdict.Ingress, State: ruleset.StateNew}
	m.Src, m.SrcMask = net(0x0a000000, 0xff000000)
	m.Dst, m.DstMask = net(0xc0000201, 0xffffffff)
	want := Box{Lo: [...]uint32{0x0a000000, 0xc0000201, 53}, Hi: [...]uint32{0x0affffff, 0xc0000201, 54}, Kinds: 1 << (UDP + 4)}
	if b, exact, ok = FromMatch(&m); b != want || exact != want.Kinds || !ok {
		t.Errorf("%+v, %016b, %v", b, exact, ok)
	}
	m.Direction, m.State = verdict.Egress, ruleset.StateEstablished
	if b, exact, ok = FromMatch(&m); b.Kinds != 1<<(UDP+8) || exact != b.Kinds || !ok {
		t.Errorf("%+v, %016b, %v", b, exact, ok)
	}
	m.Direction, m.State = verdict.Ingress, ruleset.StateNew
	m.Proto = 47
	if b, exact, ok = FromMatch(&m); b.Kinds != 1<<(Other+4) || exact != 0 || !ok {
		t.Errorf("%+v, %016b, %v", b, exact, ok)
	}
	m.Proto, m.DstMask[14] = packet.TCP, 0
	m.Dst[14] = 0
	if b, exact, ok = FromMatch(&m); b.Kinds != 1<<(TCP+4) || exact != 0 || !ok || b.Hi[Dst] != 0xc000ff01 {
		t.Errorf("%+v, %016b, %v", b, exact, ok)
	}
	m.Dst[14] = 2
	if _, _, ok = FromMatch(&m); ok {
		t.Error("a bit outside of the mask matches")
	}
	m.Dst[14], m.Src[0] = 0, 0x20
	if _, _, ok = FromMatch(&m); ok {
		t.Error("an address of another family matches")
	}
}

// TestFromMatchOddSource: a source mask that is no prefix makes the Box too large,
// whatever the destination's mask is.
func TestFromMatchOddSource(t *testing.T) {
	m := ruleset.Match{PortHi: 65535, Src: packet.Addr(0x0a000001).To16(), SrcMask: packet.Addr(0xff0000ff).To16()}
	b, exact, ok := FromMatch(&m)
	if b.Lo[Src] != 0x0a000001 || b.Hi[Src] != 0x0affff01 || b.Kinds != AllKinds || exact != 0 || !ok {
		t.Errorf("%+v, %016b, %v", b, exact, ok)
	}
}

// TestWords: Regions in words.
func TestWords(t *testing.T) {
	s := newTestSpace()
	whole := Whole()
	region := func(kinds Kinds, f func(r *Region)) *Region {
		r := whole[0]
		if kinds&Portless != 0 {
			r.Box = All()
		}
		r.Kinds = kinds
		if f != nil {
			f(&r)
		}
		return &r
	}
	for _, c := range []struct {
		r    *Region
		want string
	}{
		{&whole[0], "tcp,udp any -> any"},
		{&whole[1], "icmp,other any -> any"},
		{region(Reaching, nil), "all protocols any -> any"},
		{region(Reaching&^OtherKinds, nil), "any -> any"},
		{region(tcps&0x0f, func(r *Region) { r.Lo[Port], r.Hi[Port] = 443, 443; r.Lo[Src], r.Hi[Src] = 0x0a000000, 0x0a0000ff }), "egress new tcp 10.0.0.0/24 -> any :443"},
		{region(tcps, func(r *Region) { r.Lo[Port], r.Hi[Port] = 80, 81; r.Lo[Dst], r.Hi[Dst] = 0x0a000001, 0x0a000001 }), "tcp any -> 10.0.0.1 :80-81"},
		{region(tcps, func(r *Region) { r.Hi[Port] = 1023 }), "tcp any -> any :0-1023"},
		{region(tcps, func(r *Region) { r.Lo[Port] = 1024 }), "tcp any -> any :1024-65535"},
		{region(udps&0xf0f0, func(r *Region) { r.Lo[Src], r.Hi[Src] = 0x0a000001, 0x0a000004 }), "ingress udp 10.0.0.1-10.0.0.4 -> any"},
		{region(tcps, func(r *Region) { r.Lo[Src], r.Hi[Src] = 0x0a000000, 0x0a000004 }), "tcp 10.0.0.0-10.0.0.4 -> any"},
		{region(Reaching&^icmps, nil), "tcp,udp,other any -> any"},
		{region(tcps&0x0f|udps&0xf0, nil), "egress new tcp any -> any; ingress new udp any -> any"},
		{region(tcps&0xff|udps&0xff00, nil), "new tcp any -> any; established udp any -> any"},
		{region(tcps&0x0f, func(r *Region) { r.Names = s.Pattern("a.x.org") }), "egress new tcp any -> any named *.x.org and a.x.org"},
		{region(tcps&0x0f, func(r *Region) { r.Names = s.without(s.Pattern("c.y.org"), 0) }), "egress new tcp any -> any named c.y.org not named *.x.org"},
		{region(tcps&0x0f, func(r *Region) { r.Names = s.without(s.without(0, 1), 2) }), "egress new tcp any -> any not named a.x.org or b.x.org"},
	} {
		var words []string
		for _, d := range s.Describe(c.r) {
			words = append(words, d.String())
		}
		if got := strings.Join(words, "; "); got != c.want {
			t.Errorf("%+v: %q, want %q", *c.r, got, c.want)
		}
	}
	yes, no := s.NamesOf(region(tcps, func(r *Region) { r.Names = s.without(0, 0) }), false)
	if strings.Join(yes, " ") != "" || strings.Join(no, " ") != "*.x.org a.x.org b.x.org" {
		t.Errorf("%v, %v", yes, no)
	}
}

// TestWeight: more kinds and wider ranges weigh more, conditions on names less.
func TestWeight(t *testing.T) {
	s := newTestSpace()
	a := Region{Box: Box{Lo: [...]uint32{1, 5, 80}, Hi: [...]uint32{2, 8, 89}, Kinds: 7}}
	b := a
	b.Names = s.Pattern("c.y.org")
	c := a
	c.Names = s.without(s.Pattern("c.y.org"), 1)
	if s.Weight(&c) != 60 {
		t.Errorf("%v", s.Weight(&c))
	}
	all := Region{Box: All()}
	if s.Weight(&a) != 2*4*10*3 || s.Weight(&b) != 120 || s.Weight(&all) != 16*65536*65536*65536*65536*65536 {
		t.Errorf("%v, %v, %v", s.Weight(&a), s.Weight(&b), s.Weight(&all))
	}
}

// TestUnknownPattern: a pattern that the Space has not is a mistake of the caller.
func TestUnknownPattern(t *testing.T) {
	defer func() {
		if got := recover(); got != "packetset: no pattern d.z.org" {
			t.Errorf("%v", got)
		}
	}()
	newTestSpace().Pattern("d.z.org")
}

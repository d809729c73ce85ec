package differential

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A class is a kind of intended difference. Its name and reason are in
// docs/differences-from-linux.md too.
type class struct {
	name string
	is   func(d *difference) bool
}

// onlyLinux reports that Linux let the last step through and thurward dropped
// it for a reason.
func (d *difference) onlyLinux(why ...verdict.Reason) bool {
	if d.linux.count() == 0 || d.ours.count() != 0 {
		return false
	}
	for _, w := range why {
		if d.ours.reason == w {
			return true
		}
	}
	return false
}

// onlyOurs reports that thurward let the last step through and Linux did not.
func (d *difference) onlyOurs() bool { return d.linux.count() == 0 && d.ours.count() != 0 }

// equalBut reports whether two frames are equal except for the given ranges.
func equalBut(a, b []byte, ranges ...int) bool {
	if a == nil || len(a) != len(b) {
		return false
	}
	a, b = bytes.Clone(a), bytes.Clone(b)
	for i := 0; i < len(ranges); i += 2 {
		clear(a[ranges[i]:ranges[i+1]])
		clear(b[ranges[i]:ranges[i+1]])
	}
	return bytes.Equal(a, b)
}

// one returns the only frame that a firewall sent, or nil.
func (r *result) one(s replay.Side) []byte {
	if r.count() != 1 || len(r.out[s]) != 1 {
		return nil
	}
	return r.out[s][0]
}

// lastTCP returns the last step's segment, or nil when it is not TCP.
func (d *difference) lastTCP() *spec {
	s := d.last()
	if s.embed != nil || s.spec.proto != packet.TCP {
		return nil
	}
	return &s.spec
}

// had reports whether an earlier packet of the same flow, which both forwarded, has a
// property. Strays have flows of their own, so flows are compared by their packets on the
// LAN.
func (d *difference) had(is func(s *step) bool) bool {
	for i := range d.steps[:len(d.steps)-1] {
		if s := &d.steps[i]; d.passed[i] && s.embed == nil && s.spec.ttl > 1 && d.same(s) && is(s) {
			return true
		}
	}
	return false
}

// same reports whether a step belongs to the last one's flow: by its addresses and ports
// where it arrived, since flows of different hosts may be translated to the same ones.
func (d *difference) same(st *step) bool {
	w, n := d.world, d.last().flow
	if st.flow == n {
		return true
	}
	return d.flows[st.flow].proto == d.flows[n].proto &&
		(w.at(st.flow, st.side, true) == w.at(n, st.side, true) || w.at(st.flow, st.side, false) == w.at(n, st.side, false))
}

// answered reports whether the last step's flow has had a SYN of its other end.
func (d *difference) answered() bool {
	return d.had(func(b *step) bool { return b.reply && b.spec.flags&syn != 0 })
}

// wrong reports that Linux forwarded a segment that its receiver could not accept, and
// right that thurward did with one that it could, or would challenge. A difference about
// TCP is neither if thurward has broken a connection, or opened one.
func (d *difference) wrong() bool {
	t, s := d.talk(false)
	return s != nil && d.onlyLinux(invalid) && !t.takes(s, d.last().reply)
}

func (d *difference) right() bool {
	t, s := d.talk(false)
	return s != nil && d.onlyOurs() && t.takes(s, d.last().reply)
}

// meant is wrong or right.
func (d *difference) meant() bool { return d.wrong() || d.right() }

const invalid = verdict.ConntrackInvalid

// classes are the differences that docs/differences-from-linux.md lists.
var classes = []class{
	{"reset", func(d *difference) bool {
		s := d.lastTCP()
		return s != nil && s.flags&rst != 0 && d.meant()
	}},
	{"inner-header-checksum", func(d *difference) bool {
		return d.onlyLinux(verdict.MalformedPacket) && d.last().embed != nil && d.last().embed.embedBad
	}},
	{"source-quench", func(d *difference) bool {
		s := d.last()
		return d.linux.count() == 1 && d.ours.count() == 0 && s.embed != nil && s.spec.typ == 4
	}},
	{"error-about-nothing-sent", func(d *difference) bool {
		s := d.last()
		return d.onlyLinux(invalid) && s.embed != nil && !d.had(func(b *step) bool { return b.reply == s.reply })
	}},
	{"quoted-sequence-number", func(d *difference) bool {
		s := d.last()
		t, _ := d.talk(false)
		return d.onlyLinux(invalid) && s.embed != nil && s.embed.proto == packet.TCP && !t.underWay(s.embed.seq, s.reply)
	}},
	{"udp-surplus", func(d *difference) bool {
		s := d.last()
		return d.onlyLinux(verdict.MalformedPacket) && s.embed == nil && s.spec.proto == packet.UDP && s.spec.udpLen < 0
	}},
	{"icmp-queries", func(d *difference) bool {
		s := d.last()
		return s.embed == nil && s.spec.proto == packet.ICMP && s.spec.typ >= 13 && s.spec.typ <= 18 && d.linux.count() == 1 && d.ours.count() == 0
	}},
	{"other-protocols", func(d *difference) bool {
		s := d.last()
		return s.embed == nil && s.spec.proto != packet.ICMP && s.spec.proto != packet.TCP && s.spec.proto != packet.UDP && d.onlyLinux(invalid)
	}},
	{"urgent-with-syn-ack-or-reset", func(d *difference) bool {
		s := d.lastTCP()
		return s != nil && d.right() && s.flags&0x20 != 0 && (s.flags&(syn|ack) == syn|ack || s.flags&rst != 0)
	}},
	{"syn-ack-out-of-place", func(d *difference) bool {
		s := d.lastTCP()
		if s == nil {
			return false
		}
		for i := range d.steps[:len(d.steps)-1] { // a wrong one that neither let through
			if b := &d.steps[i]; !d.passed[i] && b.embed == nil && b.reply && b.spec.flags&(syn|ack) == syn|ack && d.same(b) && d.right() && d.flows[b.flow].b.port != 55 {
				return true
			}
		}
		return (d.wrong() || d.right() && d.answered()) && s.flags&(syn|ack|rst|fin) == syn|ack
	}},
	{"syn-ack-again", func(d *difference) bool {
		if !d.right() {
			return false
		}
		numbers := map[uint32]bool{}
		d.had(func(b *step) bool {
			if b.reply && b.spec.flags&(syn|ack) == syn|ack {
				numbers[b.spec.seq] = true
			}
			return false
		})
		return len(numbers) > 1
	}},
	{"syn-in-connection", func(d *difference) bool {
		if !d.right() || !d.answered() {
			return false
		}
		t, s := d.talk(false)
		return s.kind() == syn && d.last().reply || len(t.half[0].noted)+len(t.half[1].noted) > 0
	}},
	{"ttl-order", func(d *difference) bool {
		s := d.last()
		l, o := d.linux.one(s.side), d.ours.one(s.side)
		exceeded := func(f []byte) bool { return f != nil && f[23] == packet.ICMP && f[34] == packet.TimeExceeded }
		return s.spec.ttl == 1 && (exceeded(l) && !exceeded(o) && (d.ours.reason == verdict.ExplicitDeny || d.ours.reason == verdict.Martian) ||
			exceeded(o) && d.linux.count() == 0 && d.lastTCP() != nil)
	}},
	{"simultaneous-open", func(d *difference) bool {
		s := d.lastTCP()
		only := func(b *step) bool { return b.spec.flags&(syn|ack) == syn }
		return s != nil && d.meant() && d.had(func(b *step) bool { return !b.reply && only(b) }) && d.had(func(b *step) bool { return b.reply && only(b) })
	}},
	{"beyond-window", func(d *difference) bool {
		t, s := d.talk(false)
		if s == nil || !d.wrong() || s.kind()&(syn|rst) != 0 {
			return false
		}
		to := &t.half[side(!d.last().reply)]
		return before(to.edge, s.last()) && !before(to.edge+to.win, s.last())
	}},
	{"old-or-early-segment", func(d *difference) bool {
		t, s := d.talk(false)
		if !d.wrong() || s.Flags&(syn|ack|rst) != ack {
			return false
		}
		i := side(d.last().reply)
		me, to := &t.half[i], &t.half[1-i]
		return !me.acked || !to.acked || before(s.last(), me.end-max(to.win, slack)) || before(s.Ack, me.ack-max(me.win, slack)-1)
	}},
	{"handshake-needs-its-ack", func(d *difference) bool {
		t, s := d.talk(false)
		i := side(d.last().reply)
		me, to := &t.half[i], &t.half[1-i]
		return d.wrong() && s.Flags&(syn|ack|rst) == ack && to.sent && !me.acked && !slices.Contains(to.other, s.Ack) && !between(s.Ack, to.own, to.end)
	}},
	{"ack-before-syn-ack", func(d *difference) bool {
		s := d.lastTCP()
		return s != nil && d.wrong() && d.last().reply && s.flags&(syn|ack|rst) == ack && !d.answered() && (len(s.data) > 0 || s.flags&fin != 0)
	}},
	{"dropped-after-tracking", func(d *difference) bool {
		for i := range d.steps[:len(d.steps)-1] {
			if s := &d.steps[i]; (!d.passed[i] && len(s.spec.ipopts) > 0 || s.spec.ttl == 1) && s.flow == d.last().flow {
				return d.meant()
			}
		}
		return false
	}},
	{"after-reset", func(d *difference) bool {
		return d.meant() && d.had(func(b *step) bool { return b.spec.flags&rst != 0 })
	}},
	{"denied-syn", func(d *difference) bool {
		if !d.right() {
			return false
		}
		t, _ := d.talk(false)
		for i := range d.steps[:len(d.steps)-1] {
			b := &d.steps[i]
			if s := newWorld(d.flows).segmentOf(b); t.over && !d.passed[i] && b.reply && s != nil && s.kind() == syn && d.same(b) {
				return true
			}
		}
		return false
	}},
	{"echo-code", func(d *difference) bool {
		s := d.last()
		return d.onlyLinux(invalid, verdict.NoLocalService) && s.embed == nil && s.spec.proto == packet.ICMP && s.spec.typ == packet.EchoRequest && s.spec.code != 0
	}},
	{"ip-options", func(d *difference) bool {
		rejected := d.onlyOurs() && d.ours.reason == verdict.ExplicitDeny
		s := replay.Side(0)
		if len(d.linux.out[s]) == 0 {
			s = 1
		}
		l, o := d.linux.one(s), d.ours.one(s)
		return len(d.last().spec.ipopts) > 0 && (equalBut(l, o, 24, 26, 34, 34+len(d.last().spec.ipopts)) || rejected)
	}},
	{"parameter-problem", func(d *difference) bool {
		s := d.last()
		l := d.linux.one(s.side)
		return l != nil && d.onlyLinux(verdict.MalformedPacket) && l[23] == packet.ICMP && l[34] == packet.ParamProblem && len(s.spec.ipopts) > 0
	}},
	{"quoted-ttl", func(d *difference) bool {
		s := d.last()
		l, o := d.linux.one(s.side), d.ours.one(s.side)
		if l == nil || o == nil || len(l) != len(o) || l[34] != packet.Unreachable || l[35] != packet.Prohibited || l[42+8] != s.spec.ttl-1 || o[42+8] != s.spec.ttl {
			return false
		}
		l = bytes.Clone(l)
		l[42+8]++ // and so the sums differ
		copy(l[36:], o[36:38])
		copy(l[42+10:], o[42+10:42+12])
		return bytes.Equal(l, o)
	}},
	{"quoted-fragment", func(d *difference) bool {
		s := d.last()
		l, o := d.linux.one(s.side), d.ours.one(s.side)
		return s.spec.part != nil && l != nil && o != nil && len(l) >= len(o) && bytes.Equal(l[34:36], []byte{packet.Unreachable, packet.Prohibited}) && bytes.Equal(l[34:36], o[34:36]) &&
			len(l) >= 62 && len(o) >= 62 && bytes.Equal(l[42+12:42+20], o[42+12:42+20])
	}},
	{"reject-in-mid-stream", func(d *difference) bool {
		s := d.lastTCP()
		o := d.ours.one(d.last().side)
		return s != nil && s.flags&(syn|ack|rst) != syn && d.linux.count() == 0 && o != nil && o[23] == packet.TCP && o[47]&rst != 0 && d.flows[d.last().flow].b.port == 55
	}},
	{"hairpin-error-source", func(d *difference) bool {
		s := d.last()
		l, o := d.linux.one(s.side), d.ours.one(s.side)
		return d.flows[s.flow].kind == hairpin && equalBut(l, o, 15, 16, 18, 23, 24, 30) && l[23] == packet.ICMP && l[34] == packet.TimeExceeded &&
			binary.BigEndian.Uint32(l[26:]) != uint32(ip(lanAddr)) && binary.BigEndian.Uint32(o[26:]) == uint32(ip(lanAddr))
	}},
	{"published-port", func(d *difference) bool {
		s := d.last()
		l, o := d.linux.one(replay.WAN), d.ours.one(replay.WAN)
		if l == nil || o == nil || s.embed != nil || len(l) != len(o) {
			return false
		}
		h := packet.EthLen + int(l[14]&15)*4 // behind options
		if len(l) < h+8 || l[14] != o[14] || bytes.Equal(l[h:], o[h:]) || !bytes.Equal(l[h+2:h+4], o[h+2:h+4]) {
			return false
		}
		e := newWorld(d.flows).at(s.flow, replay.LAN, !s.reply)
		if s.reply {
			e = e.swap()
		}
		published := map[endpoint][]uint16{{ip(server), 443}: {443, 8443}, {ip(server), 53}: {5353, 5354}}[endpoint{e.src, e.sport}]
		return slices.Contains(published, binary.BigEndian.Uint16(o[h:])) && !bytes.Equal(l[h:h+2], o[h:h+2])
	}},
}

// classOf returns the class of a difference, or nil.
func classOf(d *difference) *class {
	for i := range classes {
		if classes[i].is(d) {
			return &classes[i]
		}
	}
	return nil
}

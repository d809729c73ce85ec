package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// endless is the beginning of a first message that is as long as it may be, and is
// not whole before the records around it have taken 30 bytes more.
func endless(n int) []byte {
	var b []byte
	for len(b) < n {
		b = append(b, 22, 3, 1, 4, 0)
		r := make([]byte, 1024)
		if len(b) == 5 {
			copy(r, []byte{1, 0, 0x17, 0xfc, 3, 3})
		}
		b = append(b, r...)
	}
	return b[:n]
}

// TestRoomOfAFirstMessage: so many segments and bytes are held of one. What is
// beyond is repeated later where there is a gap before it, and refused where there
// is none: it will never be read.
func TestRoomOfAFirstMessage(t *testing.T) {
	held := func(k *talk, want int) {
		t.Helper()
		if k.e.sni.Segments() != want {
			t.Fatalf("%d segments are held, want %d; drops %s", k.e.sni.Segments(), want, k.drops())
		}
	}
	// Segments, without a gap.
	k := newTalk(t)
	for i := range sni.MaxSegments {
		k.nothing(k.first(10*i, k.good[10*i:10*i+10]))
		held(k, i+1)
	}
	k.nothing(k.first(0, k.good[:10])) // again: known
	k.nothing(k.first(5, k.good[5:25]))
	held(k, sni.MaxSegments)
	if k.e.c.ServerNameRepeats != 2 {
		t.Errorf("%d repeated", k.e.c.ServerNameRepeats)
	}
	k.nothing(k.first(200, k.good[200:300])) // there is a gap before it
	held(k, sni.MaxSegments)
	if k.e.c.ServerNameRepeats != 3 {
		t.Errorf("%d repeated", k.e.c.ServerNameRepeats)
	}
	k.nothing(k.first(10*sni.MaxSegments, k.good[10*sni.MaxSegments:][:10]))
	k.ended("one segment too many")
	// And with the last of them complete: it is forwarded.
	k = newTalk(t)
	for i := range sni.MaxSegments - 1 {
		k.nothing(k.first(10*i, k.good[10*i:10*i+10]))
	}
	if across, _ := k.put(lan, k.first(10*(sni.MaxSegments-1), k.good[10*(sni.MaxSegments-1):])); len(across) != sni.MaxSegments {
		t.Errorf("%d crossed; drops %s", len(across), k.drops())
	}
	held(k, 0)

	// Bytes.
	for _, x := range []struct {
		at, n int
		want  string
	}{
		{5400, clienthello.MaxLen - 5400, "held"}, {5400, clienthello.MaxLen - 5400 + 1, "refused"}, {5401, clienthello.MaxLen - 5401 + 1, "repeated"}, {5401, clienthello.MaxLen - 5401, "held"},
	} {
		k := newTalk(t)
		m := endless(6174)
		for i := range 4 {
			k.nothing(k.first(1350*i, m[1350*i:1350*(i+1)]))
		}
		held(k, 4)
		rep := k.e.c.ServerNameRepeats
		k.nothing(k.first(x.at, m[x.at:x.at+x.n]))
		got := "held"
		if k.e.flows.Len() == 0 {
			got = "refused"
		} else if k.e.c.ServerNameRepeats != rep {
			got = "repeated"
		}
		if got != x.want {
			t.Errorf("%d bytes at %d: %s, want %s", x.n, x.at, got, x.want)
		}
		k.buffers()
	}
}

// TestRefusalSaysAll: the event about a first message that is refused, in each
// field, with the name that stands in it.
func TestRefusalSaysAll(t *testing.T) {
	k := newTalk(t)
	id := k.e.flows.Shared(0).ID
	k.seen, k.names = nil, nil
	rule := k.e.flows.Dir(0).Rule
	drops := k.e.c.Drops[rule]
	k.nothing(k.first(0, k.evil))
	var r *event.Record
	name := ""
	for i := range k.seen {
		if k.seen[i].Kind == event.Verdict {
			r, name = &k.seen[i], k.names[i]
		}
	}
	if r == nil {
		t.Fatal("no event")
	}
	r.Seq = 0
	want := xlat(tuple4(event.Record{Time: k.lab.now, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.SNIRefused, Rule: rule, Direction: verdict.Egress, FlowID: id,
		EtherType: packet.TypeIPv4, Proto: packet.TCP, NameLen: uint8(len("evil.example"))}, host, 5000, cdn, 443), ours, k.ext, false)
	if *r != want || name != "evil.example" {
		t.Errorf("%q\n%+v, want\n%+v", name, *r, want)
	}
	if k.e.c.Drops[rule] != drops+1 {
		t.Errorf("%d drops of the rule", k.e.c.Drops[rule]-drops)
	}
	if e := k.e.flows.C.Evictions; e[conntrack.Closed] != 1 || e[conntrack.Expired]+e[conntrack.Reclaimed] != 0 {
		t.Errorf("%v flows left the table, by cause", e)
	}
	k.ended("refused")
	// Without a name, and without a listening server.
	for _, ring := range []bool{true, false} {
		k = newTalk(t)
		if !ring {
			k.e.events = nil
		}
		k.seen, k.names = nil, nil
		k.nothing(k.first(0, []byte("GET / HTTP/1.1\r\n\r\n")))
		n := 0
		for i, r := range k.seen {
			if r.Kind == event.Verdict && r.NameLen == 0 && k.names[i] == "" && r.Reason == verdict.SNIRefused {
				n++
			}
		}
		if ring && n != 1 || !ring && len(k.seen) != 0 {
			t.Errorf("ring %v: events %+v", ring, k.seen)
		}
		k.ended("no TLS")
	}
}

// TestWantsName: the rules that ask for a name are those with it, and never the
// default action.
func TestWantsName(t *testing.T) {
	l := sniLab(t)
	for rule := range l.e.policy.DefaultRule() + 2 {
		if got := l.e.wantsServerName(rule); got != (rule == 2) {
			t.Errorf("rule %d: %v", rule, got)
		}
	}
	l = githubLab(t, nil)
	for rule := range l.e.policy.DefaultRule() + 1 {
		if l.e.wantsServerName(rule) {
			t.Errorf("rule %d asks for a name, and none does", rule)
		}
	}
}

// TestPassedMessageCounts: held segments are counted when they are forwarded, for the rule
// that the name is one of, and is the flow's.
func TestPassedMessageCounts(t *testing.T) {
	k := newTalk(t)
	d := k.e.flows.Dir(0)
	packets, bytes, accepts := d.Packets, d.Bytes, k.e.c.Accepts[2]
	k.nothing(k.first(0, k.good[:700]))
	if d.Packets != packets || k.e.c.Accepts[2] != accepts || k.e.c.ServerNamesAccepted != 0 {
		t.Error("what is held is counted as passed")
	}
	k.lab.now += second
	across, _ := k.put(lan, k.first(700, k.good[700:]))
	if len(across) != 2 || d.Packets != packets+2 || d.Bytes != bytes+80+uint64(len(k.good)) || k.e.c.Accepts[2] != accepts+2 || k.e.c.ServerNamesAccepted != 1 || d.LastSeen != k.lab.now {
		t.Errorf("%d crossed, %+v, %d accepted", len(across), d, k.e.c.ServerNamesAccepted)
	}
	if d.Verdict != conntrack.Pending {
		t.Error("the server has not answered yet")
	}
	k.answers(len(k.good), serverHello)
	if d.Verdict != conntrack.Accepted || k.e.sni.Any() {
		t.Error("it has")
	}
	// From here on the packets take the fast path.
	k.one(lan, k.first(len(k.good), []byte("x")))
	if n := k.quick(lan, k.first(len(k.good)+1, []byte("y")).frame(lanMAC)); n != 1 {
		t.Error("it is not like any other connection")
	}
}

// TestUnsentSaysAll: each field of events about what could not be sent, which
// nothing but its frame tells of.
func TestUnsentSaysAll(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{dnat(packet.TCP, ours, 8443, 8443, server, 443)}
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 7000, 7999
	}, "accept", established)
	none := uint32(len(l.policy.Rules))
	v := l.one(lan, udp(host, 4000, web, 5000))
	in := l.one(wan, udp(web, 5000, ours, v.SrcPort))
	l.one(lan, udp(host, 4000, web, 5000))
	l.one(wan, syn(web, 4000, ours, 8443))
	l.pass(1.5)
	l.seen = nil
	r := event.Record{Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.TxFull, Rule: none, Direction: verdict.Egress, Proto: packet.UDP}
	full := func(from int, p pkt) {
		l.port[1-from].full = true
		l.dropped(from, p, verdict.TxFull)
		l.port[1-from].full = false
	}
	full(lan, udp(host, 4000, web, 5000))
	l.reported("out", xlat(tuple4(r, host, 4000, web, 5000), ours, v.SrcPort, false))
	full(wan, udp(web, 5000, ours, v.SrcPort))
	back := r
	back.Direction = verdict.Ingress
	l.reported("in", xlat(tuple4(back, web, 5000, host, 4000), ours, v.SrcPort, true))
	back.Proto = packet.TCP
	full(wan, syn(web, 4000, ours, 8443))
	l.reported("in, from outside", xlat(tuple4(back, web, 4000, ours, 8443), server, 443, true))
	// Errors: from inside the host's own address stands in it, from outside the router's.
	r.Proto, back.Proto = packet.ICMP, packet.ICMP
	full(lan, embed(host, web, packet.Unreachable, 3, in))
	l.reported("an error out", tuple4(r, host, 0, web, packet.Unreachable<<8|3))
	full(wan, embed("192.0.2.1", ours, packet.TimeExceeded, 0, v))
	l.reported("an error in", tuple4(back, "192.0.2.1", 0, host, packet.TimeExceeded<<8))
	l.invariants()
}

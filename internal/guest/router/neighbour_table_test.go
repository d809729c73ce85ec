package router

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// window returns the slots that an address may be in.
func (t *neighbours) window(a packet.Addr) (s []*neighbour) {
	for i := range uint32(neighbourWindow) {
		s = append(s, &t.slot[(t.base(a)+i)%neighbourSlots])
	}
	return s
}

// TestARP_WhoGivesWay compares claim and claimLearned with what is said of them, for
// full runs of every mixture of neighbours.
func TestARP_WhoGivesWay(t *testing.T) {
	l := newLab(t)
	p := &l.e.port[wan]
	r := rand.New(rand.NewPCG(5, 1))
	const now, me = 1000 * second, 7
	for round := range 4000 {
		a := packet.Addr(r.Uint32() | 1)
		p.arp = neighbours{key: uint64(round), used: 100}
		w := p.arp.window(a)
		switch r.IntN(4) { // the run begins near the end of the table, too
		case 0:
			for p.arp.base(a)%neighbourSlots < neighbourSlots-neighbourWindow {
				p.arp.key += 2
			}
			w = p.arp.window(a)
		}
		var mine uint16
		switch r.IntN(3) {
		case 0:
			mine = uint16(r.IntN(4))
		case 1:
			mine = fewAsked - 1 + uint16(r.IntN(3))
		}
		p.arp.asked = [holders]uint16{0: 2, 1: uint16(8 + r.IntN(3)), 2: 40, me: mine}
		for i, n := range w {
			*n = neighbour{addr: a + 1 + packet.Addr(i), state: uint8(1 + r.IntN(3)), holder: uint16(r.IntN(3)), learned: r.IntN(3) == 0, expires: now + int64(r.IntN(7)) - 3}
			if n.state == unresolved && mine > 0 && r.IntN(6) == 0 {
				n.holder = me
			}
			if n.state != reachable {
				n.learned = false
				p.arp.waiting++
			}
		}
		if r.IntN(3) == 0 {
			w[r.IntN(8)].addr = p.gateway
		}
		if r.IntN(5) == 0 {
			*w[r.IntN(8)] = neighbour{}
			p.arp.waiting = 0
			for _, n := range w {
				if n.state == unresolved || n.state == probing {
					p.arp.waiting++
				}
			}
		}
		if r.IntN(8) == 0 {
			p.arp.used = neighbourSlots - int(mine) - 1 + r.IntN(3)
		}
		before := slices.Clone(p.arp.slot[:])
		used, asked, waiting := p.arp.used, p.arp.asked, p.arp.waiting
		evicted := l.e.c.NeighbourEvictions

		// What is said of claim: those that may give way, the first of them first.
		learned := r.IntN(3) == 0
		want := slices.IndexFunc(w, func(n *neighbour) bool { return n.state == unused })
		free := want >= 0
		over := func(n *neighbour) bool { return n.state == reachable && n.expires <= now && n.addr != p.gateway }
		var can []*neighbour
		switch {
		case learned: // the first that is free or over
			want = slices.IndexFunc(w, func(n *neighbour) bool { return n.state == unused || over(n) })
			free = want >= 0 && w[want].state == unused
		case mine > 0 && int(mine)+used >= neighbourSlots:
			want, free = -1, false
		case !free:
			rank := func(n *neighbour) (class, most int) {
				switch {
				case over(n):
					return 0, 0
				case n.state == unresolved:
					return 1, -int(asked[n.holder])
				case n.learned:
					return 2, 0
				}
				return 3, 0
			}
			for _, n := range w {
				class, _ := rank(n)
				if n.addr == p.gateway || class == 1 && asked[n.holder] < mine || class > 1 && mine > fewAsked {
					continue
				}
				can = append(can, n)
			}
			slices.SortStableFunc(can, func(x, y *neighbour) int {
				cx, mx := rank(x)
				cy, my := rank(y)
				return cmp.Or(cmp.Compare(cx, cy), cmp.Compare(mx, my), cmp.Compare(x.expires, y.expires))
			})
			if len(can) > 0 {
				want = slices.Index(w, can[0])
			}
		}
		var victim neighbour
		if want >= 0 {
			victim = *w[want]
		}
		var got *neighbour
		if learned {
			got = l.e.claimLearned(p, a, now)
		} else {
			got = l.e.claim(p, a, me, now)
		}
		if want < 0 {
			if got != nil || !slices.Equal(before, p.arp.slot[:]) || l.e.c.NeighbourEvictions != evicted || p.arp.used != used {
				t.Fatalf("round %d: a place where there is none: %+v", round, got)
			}
			continue
		}
		if got != w[want] || *got != (neighbour{addr: a}) {
			t.Fatalf("round %d, learned %v: %+v gave way, want %d of %+v", round, learned, got, want, before)
		}
		if free {
			used++
		} else {
			evicted[wan]++
		}
		if victim.state == unresolved {
			asked[victim.holder]--
		}
		if victim.state == unresolved || victim.state == probing {
			waiting--
		}
		if p.arp.used != used || p.arp.asked != asked || p.arp.waiting != waiting || l.e.c.NeighbourEvictions != evicted {
			t.Fatalf("round %d: %d used, %d asked for, evictions %v; want %d, %d, %v", round, p.arp.used, p.arp.waiting, l.e.c.NeighbourEvictions, used, waiting, evicted)
		}
	}
}

// TestARP_FindIsExact: an address is found in each of its slots, and only itself;
// what has been found last is not found when it has been forgotten.
func TestARP_FindIsExact(t *testing.T) {
	l := newLab(t)
	p := &l.e.port[wan]
	for key := range uint64(300) {
		p.arp = neighbours{key: key*0x9e3779b97f4a7c15 + 1}
		a := packet.Addr(0xcb007100 + key)
		for i, n := range p.arp.window(a) {
			p.arp.used = 1
			*n = neighbour{addr: a, state: uint8(1 + i%3)}
			if p.arp.waiting = 1; n.state == reachable {
				p.arp.waiting = 0
			}
			p.arp.asked[0] = 1
			first, again, other, last := p.arp.find(a), p.arp.find(a), p.arp.find(a^1), p.arp.find(a)
			if first != n || again != n || other != nil || last != n {
				t.Fatalf("slot %d: found %+v", i, last)
			}
			l.e.forget(p, n)
			if got := p.arp.find(a); got != nil || p.arp.used != 0 || p.arp.waiting != 0 || *n != (neighbour{}) {
				t.Fatalf("forgotten, and found: %+v; %d used, %d asked for", got, p.arp.used, p.arp.waiting)
			}
			if p.arp.find(0) != nil {
				t.Fatal("a free slot is found")
			}
		}
		*p.arp.window(a)[0] = neighbour{addr: a} // free, whatever it says
		if p.arp.find(a) != nil {
			t.Fatal("a free slot is found")
		}
		// Behind its run it is not looked for.
		n := &p.arp.slot[(p.arp.base(a)+neighbourWindow)%neighbourSlots]
		if *n = (neighbour{addr: a, state: reachable}); p.arp.find(a) != nil {
			t.Fatal("found behind its run")
		}
	}
}

// TestARP_RunsAreSpread: the addresses of a network have runs all over the table,
// and others with another key.
func TestARP_RunsAreSpread(t *testing.T) {
	last := map[packet.Addr]uint32{}
	for _, key := range []uint64{0, 1, 2, 1 << 50, 0x123456789abcdef1} {
		n := neighbours{key: key}
		seen, same := map[uint32]bool{}, 0
		for i := range packet.Addr(2048) {
			a := ip("10.0.0.0") + i
			b := n.base(a) % neighbourSlots
			if v, ok := last[a]; ok && v == b {
				same++
			}
			seen[b], last[a] = true, b
		}
		if len(seen) < 1200 || same > 20 { // at random 2048 * (1 - 1/e), or 1295
			t.Errorf("key %#x: %d runs, %d as before", key, len(seen), same)
		}
	}
}

// TestARP_Hosts: which addresses of a network can be a host's.
func TestARP_Hosts(t *testing.T) {
	for _, c := range []struct {
		net  string
		bits int
		yes  []string
		no   []string
	}{
		{"10.0.0.0", 24, []string{"10.0.0.1", "10.0.0.254"}, []string{"10.0.0.0", "10.0.0.255", "10.0.1.1", "9.255.255.255", "0.0.0.0"}},
		{"10.0.0.4", 30, []string{"10.0.0.5", "10.0.0.6"}, []string{"10.0.0.4", "10.0.0.7", "10.0.0.3", "10.0.0.8"}},
		{"10.0.0.4", 31, []string{"10.0.0.4", "10.0.0.5"}, []string{"10.0.0.3", "10.0.0.6"}},
		{"10.0.0.4", 32, []string{"10.0.0.4"}, []string{"10.0.0.3", "10.0.0.5"}},
		{"10.0.0.0", 8, []string{"10.0.0.1", "10.255.255.254", "10.0.0.255"}, []string{"10.0.0.0", "10.255.255.255", "11.0.0.1"}},
	} {
		p := port{net: ip(c.net), mask: ^packet.Addr(0) << (32 - c.bits)}
		for _, a := range c.yes {
			if !p.hosts(ip(a)) {
				t.Errorf("%s/%d: %s is no host's", c.net, c.bits, a)
			}
		}
		for _, a := range c.no {
			if p.hosts(ip(a)) {
				t.Errorf("%s/%d: %s is a host's", c.net, c.bits, a)
			}
		}
	}
}

// TestARP_Disputes: what contradicts what is known.
func TestARP_Disputes(t *testing.T) {
	const gw = packet.Addr(9)
	known, other := [6]byte{2, 1}, [6]byte{2, 2}
	for _, c := range []struct {
		addr  packet.Addr
		state uint8
		left  int64 // until it expires
		mac   [6]byte
		want  bool
	}{
		{5, unresolved, 100, other, false}, {5, unresolved, 0, known, false}, {gw, unresolved, 100, other, false},
		{5, reachable, 1, known, false}, {5, reachable, 1, other, true}, {5, reachable, 0, other, false}, {5, reachable, -1, other, false},
		{gw, reachable, 1, known, false}, {gw, reachable, 1, other, true}, {gw, reachable, 0, other, true}, {gw, reachable, -1, other, true}, {gw, reachable, -1, known, false},
		{5, probing, 1, known, false}, {5, probing, 1, other, true}, {5, probing, 0, other, true}, {5, probing, -1, other, true},
	} {
		n := neighbour{addr: c.addr, state: c.state, mac: known, expires: 1000 + c.left}
		if got := n.disputes(&packet.ARPMessage{SenderMAC: c.mac, SenderAddr: c.addr}, gw, 1000); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		if got, want := n.over(1000), c.state == reachable && c.left <= 0; got != want {
			t.Errorf("%+v is over: %v", c, got)
		}
	}
}

// TestARP_Messages: what becomes of each kind of message from and for whomever: it
// is counted as received or as a conflict, answered or not, and learned from or not.
func TestARP_Messages(t *testing.T) {
	const gw, other, far = "203.0.113.1", "203.0.113.40", "198.51.100.1"
	evil := [6]byte{2, 6, 6, 6, 6, 6}
	req, rep := uint16(packet.ARPRequest), uint16(packet.ARPReply)
	for _, c := range []struct {
		name     string
		op       uint16
		from     string
		mac      [6]byte
		to       string
		known    uint8 // state of the sender's entry, with macOf
		reason   verdict.Reason
		conflict bool
		answer   bool
		state    uint8 // afterwards
		learned  bool
		as       [6]byte
	}{
		{"a host asks", req, other, evil, ours, unused, 0, false, true, reachable, true, evil},
		{"a host asks for another", req, other, evil, gw, unused, 0, false, false, unused, false, evil},
		{"a host answers unasked", rep, other, evil, ours, unused, 0, false, false, unused, false, evil},
		{"a host answers", rep, other, evil, ours, unresolved, 0, false, false, reachable, false, evil},
		{"a host asks while it is asked for", req, other, evil, ours, unresolved, 0, false, true, reachable, true, evil},
		{"a host answers to all while it is asked for", rep, other, evil, other, unresolved, 0, false, false, unresolved, false, evil},
		{"a known host asks", req, other, macOf(ip(other)), ours, reachable, 0, false, true, reachable, false, macOf(ip(other))},
		{"a known host answers unasked", rep, other, macOf(ip(other)), ours, reachable, 0, false, false, reachable, false, macOf(ip(other))},
		{"a known host answers its probe", rep, other, macOf(ip(other)), ours, probing, 0, false, false, reachable, false, macOf(ip(other))},
		{"a known host asks meanwhile", req, other, macOf(ip(other)), ours, probing, 0, false, true, reachable, true, macOf(ip(other))},
		{"another in its name", req, other, evil, ours, reachable, verdict.Martian, true, false, probing, false, macOf(ip(other))},
		{"another in its name, about a third", rep, other, evil, gw, reachable, verdict.Martian, true, false, probing, false, macOf(ip(other))},
		{"another while it is probed", rep, other, evil, ours, probing, verdict.Martian, true, false, probing, false, macOf(ip(other))},
		{"the gateway asks", req, gw, evil, ours, unused, 0, false, true, unused, false, evil},
		{"the gateway asks while it is asked for", req, gw, evil, ours, unresolved, 0, false, true, unresolved, false, evil},
		{"the gateway answers", rep, gw, evil, ours, unresolved, 0, false, false, reachable, false, evil},
		{"the known gateway asks", req, gw, macOf(ip(gw)), ours, reachable, 0, false, true, reachable, false, macOf(ip(gw))},
		{"somebody is us", req, ours, evil, gw, unused, verdict.Martian, true, true, unused, false, evil},
		{"somebody is us, and asks us", rep, ours, evil, ours, unused, verdict.Martian, true, true, unused, false, evil},
		{"we ourselves", req, ours, wanMAC, gw, unused, 0, false, false, unused, false, evil},
		{"of another network", req, far, evil, ours, unused, 0, false, true, unused, false, evil},
		{"of all", req, "203.0.113.255", evil, ours, unused, 0, false, true, unused, false, evil},
		{"from a group", req, other, [6]byte{3, 6, 6, 6, 6, 6}, ours, unused, 0, false, false, unused, false, evil},
		{"from nobody", req, other, [6]byte{}, ours, unused, 0, false, false, unused, false, evil},
	} {
		l := newLab(t)
		p := &l.e.port[wan]
		if c.known != unused {
			n := p.arp.place(p.arp.window(ip(c.from))[3], ip(c.from))
			n.state = c.known
			if n.mac, n.expires = macOf(ip(c.from)), l.now+30*second; c.known == unresolved {
				n.mac = [6]byte{}
				p.arp.asked[0]++
			}
			if c.known != reachable {
				n.tries = 2
				p.arp.waiting++
			}
		}
		before, now := l.e.c, l.now
		if got := l.e.arpFrame(p, arp(c.op, c.from, c.mac, c.to), now); got != c.reason {
			t.Errorf("%s: %v", c.name, got)
		}
		received, conflicts := l.e.c.ARPReceived[wan]-before.ARPReceived[wan], l.e.c.ARPConflicts[wan]-before.ARPConflicts[wan]
		if c.conflict && (conflicts != 1 || received != 0) || !c.conflict && (conflicts != 0 || received != 1) || l.e.c.ARPReceived[lan]+l.e.c.ARPConflicts[lan] != 0 {
			t.Errorf("%s: counted %d times as received, %d times as a conflict", c.name, received, conflicts)
		}
		l.e.flush(p)
		n := p.arp.find(ip(c.from))
		switch {
		case c.state == unused && n != nil, c.state != unused && n == nil:
			t.Errorf("%s: %+v", c.name, n)
		case n == nil:
		case n.state != c.state || n.learned != c.learned || n.state != unresolved && n.mac != c.as:
			t.Errorf("%s: %+v", c.name, n)
		case n.state == reachable && c.reason == 0 && (c.op == req || c.known != reachable) && (n.expires != now+arpLifetime || n.tries != 0):
			t.Errorf("%s: %+v", c.name, n)
		case n.state == reachable && c.op == rep && c.known == reachable && n.expires != now+30*second:
			t.Errorf("%s, which nobody asked for: %+v", c.name, n)
		case n.state == probing && c.known == reachable && (n.tries != 1 || n.expires != now+arpEvery):
			t.Errorf("%s: %+v", c.name, n)
		}
		l.waits()
		var m packet.ARPMessage
		out := l.port[wan].out
		switch asked := c.conflict && c.known == reachable; { // whether it is still there
		case len(out) != 0 != (c.answer || asked) || len(out) > 1:
			t.Errorf("%s: %d answers", c.name, len(out))
		case len(out) == 0:
		case !packet.ParseARP(out[0], &m) || m.SenderMAC != wanMAC:
			t.Errorf("%s: sent %x", c.name, out[0])
		case c.conflict && !asked: // it is defended
			if m.Op != req || m.SenderAddr != ip(ours) || m.TargetAddr != ip(ours) || [6]byte(out[0]) != broadcastMAC {
				t.Errorf("%s: defended by %+v", c.name, m)
			}
		case asked:
			if m.Op != req || m.SenderAddr != ip(ours) || m.TargetAddr != ip(c.from) || [6]byte(out[0]) != macOf(ip(c.from)) {
				t.Errorf("%s: asked by %+v", c.name, m)
			}
		case m.Op != rep || m.SenderAddr != ip(c.to) || m.TargetAddr != ip(c.from) || m.TargetMAC != c.mac || [6]byte(out[0]) != c.mac:
			t.Errorf("%s: answered by %+v", c.name, m)
		}
	}
}

// TestARP_AskedAgain: each unresolved or probed neighbour is asked for when its own
// second is over, three times, whatever the others do, and the deadline is that of
// the first.
func TestARP_AskedAgain(t *testing.T) {
	l := newLab(t)
	p := &l.e.port[wan]
	start := l.now
	put := func(a packet.Addr, state uint8, at int64) *neighbour {
		n := p.arp.place(p.arp.window(a)[0], a)
		n.state, n.tries = state, 1
		if state == unresolved {
			p.arp.asked[0]++
		}
		p.arp.await(n, at)
		return n
	}
	l.e.resolveTick(p, start)
	if p.arp.next != 0 {
		t.Fatal("there is nothing to ask for")
	}
	first := ip("203.0.113.50")
	put(first, unresolved, start)
	put(first+1, probing, start+3*second/10)
	put(first+2, unresolved, start+6*second/10)
	known := p.arp.place(p.arp.window(first + 3)[0], first+3)
	known.state, known.expires = reachable, start
	if p.arp.next != start+arpEvery || p.arp.waiting != 3 || l.e.NextDeadline() != start+arpEvery {
		t.Fatalf("next in %d, %d asked for", p.arp.next-start, p.arp.waiting)
	}
	asked := map[packet.Addr][]int64{}
	for tenth := range int64(45) {
		at := start + tenth*second/10
		for _, x := range []int64{at - 1, at} {
			l.e.resolveTick(p, x)
			l.e.flush(p)
			for _, f := range l.port[wan].out {
				var m packet.ARPMessage
				if !packet.ParseARP(f, &m) || [6]byte(f) != broadcastMAC || m.SenderAddr != ip(ours) {
					t.Fatalf("sent %x", f)
				}
				asked[m.TargetAddr] = append(asked[m.TargetAddr], x-start)
			}
			l.port[wan].out = nil
			// The deadline is that of the first, and never past.
			due := int64(1) << 62
			for i := range p.arp.slot {
				if n := &p.arp.slot[i]; n.state == unresolved || n.state == probing {
					due = min(due, n.expires)
				}
			}
			if p.arp.waiting > 0 && (p.arp.next > due || p.arp.next <= x && due > x) {
				t.Fatalf("at %d: next %d, due %d", x-start, p.arp.next-start, due-start)
			}
		}
	}
	for i, at := range []int64{10, 13, 16} {
		want := []int64{at * second / 10, (at + 10) * second / 10}
		if got := asked[first+packet.Addr(i)]; !slices.Equal(got, want) {
			t.Errorf("asked for %d at %v, want %v", i, got, want)
		}
		if n := p.arp.find(first + packet.Addr(i)); n != nil {
			t.Errorf("%+v has not been given up", n)
		}
	}
	if p.arp.waiting != 0 || p.arp.used != 1 || p.arp.asked[0] != 0 {
		t.Errorf("%d asked for, %d used", p.arp.waiting, p.arp.used)
	}
}

// TestARP_AnnouncedAgain: two seconds after the first poll, once, and not before.
func TestARP_AnnouncedAgain(t *testing.T) {
	l := newLab(t)
	l.e.Announce()
	l.port[lan].out, l.port[wan].out = nil, nil
	start := l.now
	sent := 0
	for _, c := range []struct {
		at   int64
		sent int
	}{{0, 0}, {1, 0}, {announceEvery - 1, 0}, {announceEvery, 1}, {announceEvery + 1, 1}, {3 * announceEvery, 1}} {
		l.e.announceTick(start + c.at)
		sent += len(l.port[wan].out)
		if len(l.port[lan].out) != len(l.port[wan].out) {
			t.Errorf("%d on the LAN", len(l.port[lan].out))
		}
		l.port[lan].out, l.port[wan].out = nil, nil
		if sent != c.sent || l.e.again.due != (c.sent == 0) {
			t.Errorf("after %d: %d announcements", c.at, sent)
		}
	}
}

// TestARP_WithoutBuffers: what cannot be asked is counted, and asked later.
func TestARP_WithoutBuffers(t *testing.T) {
	l := newLab(t, "accept egress", established)
	var taken []uint32
	for l.pool.Free() > 1 {
		b, _ := l.pool.Get()
		taken = append(taken, b)
	}
	l.port[lan].in = append(l.port[lan].in, udp(host, 4000, web, 53).frame(lanMAC))
	l.e.Poll(l.now)
	if l.e.c.NoBuffer != 1 || l.e.c.ARPSent[wan] != 0 || l.e.port[wan].arp.held.n != 1 {
		t.Fatalf("%d times no buffer, %d sent, %d wait", l.e.c.NoBuffer, l.e.c.ARPSent[wan], l.e.port[wan].arp.held.n)
	}
	for _, b := range taken {
		l.pool.Put(b)
	}
	l.pass(1)
	if got := l.taken(wan); len(got) != 1 || l.e.c.ARPSent[wan] != 1 {
		t.Fatalf("%v; %d asked", got, l.e.c.ARPSent[wan])
	}
	l.buffers()
}

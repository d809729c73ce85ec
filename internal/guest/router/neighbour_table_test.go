package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

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

const unused = neigh.State(0) // no neighbour

// TestARP_Messages: the result of each kind of message, by sender and target: it is counted
// as received or as a conflict, answered or not, and learned from or not.
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
		known    neigh.State // state of the sender's entry, with macOf
		reason   verdict.Reason
		conflict bool
		answer   bool
		state    neigh.State // afterwards
		learned  bool
		as       [6]byte
	}{
		{"a host asks", req, other, evil, ours, unused, 0, false, true, neigh.Reachable, true, evil},
		{"a host asks for another", req, other, evil, gw, unused, 0, false, false, unused, false, evil},
		{"a host answers unasked", rep, other, evil, ours, unused, 0, false, false, unused, false, evil},
		{"a host answers", rep, other, evil, ours, neigh.Incomplete, 0, false, false, neigh.Reachable, false, evil},
		{"a host asks while it is asked for", req, other, evil, ours, neigh.Incomplete, 0, false, true, neigh.Reachable, true, evil},
		{"a host answers to all while it is asked for", rep, other, evil, other, neigh.Incomplete, 0, false, false, neigh.Incomplete, false, evil},
		{"a known host asks", req, other, macOf(ip(other)), ours, neigh.Reachable, 0, false, true, neigh.Reachable, false, macOf(ip(other))},
		{"a known host answers unasked", rep, other, macOf(ip(other)), ours, neigh.Reachable, 0, false, false, neigh.Reachable, false, macOf(ip(other))},
		{"a known host answers its probe", rep, other, macOf(ip(other)), ours, neigh.Probe, 0, false, false, neigh.Reachable, false, macOf(ip(other))},
		{"a known host asks meanwhile", req, other, macOf(ip(other)), ours, neigh.Probe, 0, false, true, neigh.Reachable, true, macOf(ip(other))},
		{"another in its name", req, other, evil, ours, neigh.Reachable, verdict.Martian, true, false, neigh.Probe, false, macOf(ip(other))},
		{"another in its name, about a third", rep, other, evil, gw, neigh.Reachable, verdict.Martian, true, false, neigh.Probe, false, macOf(ip(other))},
		{"another while it is probed", rep, other, evil, ours, neigh.Probe, verdict.Martian, true, false, neigh.Probe, false, macOf(ip(other))},
		{"the gateway asks", req, gw, evil, ours, unused, 0, false, true, unused, false, evil},
		{"the gateway asks while it is asked for", req, gw, evil, ours, neigh.Incomplete, 0, false, true, neigh.Incomplete, false, evil},
		{"the gateway answers", rep, gw, evil, ours, neigh.Incomplete, 0, false, false, neigh.Reachable, false, evil},
		{"the known gateway asks", req, gw, macOf(ip(gw)), ours, neigh.Reachable, 0, false, true, neigh.Reachable, false, macOf(ip(gw))},
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
		switch c.known {
		case neigh.Incomplete:
			l.asked(wan, c.from)
		case neigh.Reachable:
			l.meet(wan, c.from).Expires = l.now + 30*second
		case neigh.Probe:
			l.meet(wan, c.from).Expires = l.now
			p.neigh.Use(ip(c.from), l.now)
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
		n := p.neigh.Find(ip(c.from))
		switch {
		case c.state == unused && n != nil, c.state != unused && n == nil:
			t.Errorf("%s: %+v", c.name, n)
		case n == nil:
		case n.State != c.state || n.Learned != c.learned || n.State != neigh.Incomplete && n.MAC != c.as:
			t.Errorf("%s: %+v", c.name, n)
		}
		var m packet.ARPMessage
		var out, sent [][]byte // ARP, and the frame that has waited
		for _, f := range l.port[wan].out {
			if packet.Type(f) == packet.TypeARP {
				out = append(out, f)
			} else {
				sent = append(sent, f)
			}
		}
		switch waited := c.known == neigh.Incomplete && c.state == neigh.Reachable; {
		case len(sent) != 0 != waited || len(sent) > 1:
			t.Errorf("%s: %d frames left", c.name, len(sent))
		case waited && ([6]byte(sent[0]) != c.as || [6]byte(sent[0][6:]) != wanMAC || packet.Type(sent[0]) != packet.TypeIPv4):
			t.Errorf("%s: %x left", c.name, sent[0][:14])
		}
		switch asked := c.conflict && c.known == neigh.Reachable; { // whether it is still there
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
	l.poll()
	if l.e.c.NoBuffer != 1 || l.e.c.ARPSent[wan] != 0 || l.e.port[wan].neigh.Waiting() != 1 {
		t.Fatalf("%d times no buffer, %d sent, %d wait", l.e.c.NoBuffer, l.e.c.ARPSent[wan], l.e.port[wan].neigh.Waiting())
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

// TestNeighbourEvictionsAreCounted: each neighbour that makes room for another, whether
// that is asked for or has asked.
func TestNeighbourEvictionsAreCounted(t *testing.T) {
	l := newLabWith(t, wide(16), "accept")
	heard := func(i int) {
		a := ip("10.0.0.2") + packet.Addr(i)
		l.raw(lan, arp(packet.ARPRequest, addr(a).String(), macOf(a), "10.0.0.1"))
	}
	i := 0
	for ; l.e.port[lan].neigh.Len() < neigh.MaxEntries; i++ {
		heard(i)
	}
	if got := l.e.c.NeighbourEvictions; got != [2]uint64{} {
		t.Fatalf("%v, and there was room", got)
	}
	l.one(wan, udp(web, 4000, addr(ip("10.0.0.2")+packet.Addr(i)).String(), 53))
	if got := l.e.c.NeighbourEvictions; got != [2]uint64{lan: 1} {
		t.Errorf("one that is asked for: %v", got)
	}
	l.pass(61) // nobody asks for those whose time is over
	heard(i + 1)
	if got := l.e.c.NeighbourEvictions; got != [2]uint64{lan: 2} {
		t.Errorf("one that asks: %v", got)
	}
}

// TestDefendedInTime: claims of an own address are answered every ten seconds, to the
// nanosecond.
func TestDefendedInTime(t *testing.T) {
	l := newLab(t)
	claim := func(after int64, want uint64) {
		t.Helper()
		l.now += after
		before := l.e.c.ARPSent[lan]
		l.raw(lan, arp(packet.ARPRequest, lanAddr, macOf(ip(host)), lanAddr))
		if got := l.e.c.ARPSent[lan] - before; got != want {
			t.Errorf("%d ns later: defended %d times, want %d", after, got, want)
		}
	}
	claim(0, 1)
	claim(defendEvery-1, 0)
	claim(1, 1)
	claim(defendEvery-1, 0)
	claim(2, 1)
}

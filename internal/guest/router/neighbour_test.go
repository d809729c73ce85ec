package router

import (
	"maps"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func arp(op uint16, from string, mac [6]byte, to string) []byte {
	f := make([]byte, 60)
	packet.PutARP(f, &broadcastMAC, &packet.ARPMessage{Op: op, SenderMAC: mac, SenderAddr: ip(from), TargetAddr: ip(to)})
	return f
}

// asked has the firewall ask for a host on one side, for which a frame waits.
func (l *lab) asked(side int, a string) {
	buf, ok := l.pool.Get()
	if !ok {
		l.t.Fatal("no buffer")
	}
	l.e.port[side].neigh.Resolve(ip(a), framebuf.Frame{Buf: buf, Len: 60}, 1, l.now)
}

// meet makes a host known on one side, by its answer.
func (l *lab) meet(side int, a string) *neigh.Neighbour {
	l.asked(side, a)
	c := l.e.port[side].neigh
	waited := c.Learn(ip(a), macOf(ip(a)), true, l.now)
	l.pool.Put(l.e.links.Pop(&waited.Send).Buf)
	return c.Find(ip(a))
}

func TestS38_ARPAnsweredForOwnAddressOnly(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		from   int
		to     string
		answer bool
	}{{lan, "10.0.0.1", true}, {lan, "203.0.113.10", false}, {lan, "10.0.0.3", false}, {wan, "203.0.113.10", true}, {wan, "10.0.0.1", false}} {
		src := [...]string{"10.0.0.2", "203.0.113.77"}[c.from]
		w := l.port[c.from]
		w.in = append(w.in, arp(packet.ARPRequest, src, macOf(ip(src)), c.to))
		l.poll()
		if (len(w.out) == 1) != c.answer {
			t.Errorf("request for %s on port %d: %d answers", c.to, c.from, len(w.out))
		}
		if c.answer {
			var m packet.ARPMessage
			if !packet.ParseARP(w.out[0], &m) || m.Op != packet.ARPReply || m.SenderAddr != ip(c.to) || m.SenderMAC != l.e.port[c.from].mac || m.TargetAddr != ip(src) {
				t.Errorf("answer %+v", m)
			}
		}
		w.out = nil
	}
}

func TestS38_GatewayIsNotTakenOver(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, syn(host, 4000, web, 80)) // resolves the gateway
	evil := [6]byte{2, 6, 6, 6, 6, 6}
	for _, op := range []uint16{packet.ARPRequest, packet.ARPReply} {
		l.raw(wan, arp(op, "203.0.113.1", evil, ours))
		l.raw(wan, arp(op, "203.0.113.1", evil, "203.0.113.1"))
	}
	l.one(lan, syn(host, 4001, web, 80)) // taken checks the link-layer address
	if n := l.e.c.ARPConflicts[wan]; n != 4 {
		t.Fatalf("%d conflicts counted, want 4", n)
	}
	if r := conflict(l); r.Src != ip("203.0.113.1").To16() {
		t.Fatalf("event %+v", r)
	}
	l.pass(3600) // also when it has not been used for long
	l.raw(wan, arp(packet.ARPRequest, "203.0.113.1", evil, ours))
	l.one(lan, syn(host, 4002, web, 80))
	l.buffers()
}

// conflict returns the last event about an ARP message.
func conflict(l *lab) (last event.Record) {
	l.t.Helper()
	for _, r := range l.seen {
		if r.EtherType == packet.TypeARP && r.Action == verdict.Drop && r.Reason == verdict.Martian {
			last = r
		}
	}
	if last.Kind == 0 {
		l.t.Fatal("no event about an ARP message")
	}
	return last
}

func TestS38_OwnAddressIsDefended(t *testing.T) {
	l := newLab(t)
	evil := [6]byte{2, 6, 6, 6, 6, 6}
	answers := 0
	for range 100 { // a hundred claims within a second
		l.port[wan].in = append(l.port[wan].in, arp(packet.ARPReply, ours, evil, "203.0.113.1"))
		l.poll()
		l.now += 1e7
		answers += len(l.port[wan].out)
		l.port[wan].out = nil
	}
	if answers != 1 || l.e.c.ARPConflicts[wan] != 100 {
		t.Fatalf("%d answers, %d conflicts", answers, l.e.c.ARPConflicts[wan])
	}
}

// TestS38_HostMoves: a LAN host that has another link-layer address, after the
// old one has been silent, and while it is being used.
func TestS38_HostMoves(t *testing.T) {
	moved := [6]byte{2, 7, 7, 7, 7, 7}
	for _, idle := range []float64{1, 120} {
		l := newLab(t, "accept egress", established)
		l.raw(lan, arp(packet.ARPRequest, host, [6]byte{2, 5, 5, 5, 5, 5}, "10.0.0.1"))
		l.pass(idle)
		l.port[lan].in = append(l.port[lan].in, arp(packet.ARPRequest, host, moved, "10.0.0.1"))
		l.poll()
		for range 5 { // no answer from the old one
			l.now += 1e9
			l.poll()
		}
		l.port[lan].out = nil
		l.port[lan].in = append(l.port[lan].in, arp(packet.ARPRequest, host, moved, "10.0.0.1"))
		l.poll()
		if n := l.e.port[lan].neigh.Find(ip(host)); n == nil || n.MAC != moved {
			t.Fatalf("after %v s of silence the host is not found where it is: %+v", idle, n)
		}
	}
}

func TestS38_UnaskedAnswerIsNotLearned(t *testing.T) {
	l := newLab(t)
	for _, a := range []string{"10.0.0.255", "10.0.0.0", "0.0.0.0"} { // no host's
		l.raw(lan, arp(packet.ARPRequest, a, macOf(ip(host)), "10.0.0.1"))
		if n := l.e.port[lan].neigh.Find(ip(a)); n != nil {
			t.Fatalf("learned %+v", n)
		}
	}
	l.raw(lan, arp(packet.ARPReply, host, macOf(ip(host)), "10.0.0.1"))
	l.raw(lan, arp(packet.ARPRequest, "192.0.2.77", macOf(ip(host)), "10.0.0.1")) // not of this link
	for _, a := range []string{host, "192.0.2.77"} {
		if n := l.e.port[lan].neigh.Find(ip(a)); n != nil {
			t.Fatalf("learned %+v", n)
		}
	}
}

func TestS38_TranslationAddressIsAnsweredFor(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].External = ip("203.0.113.20").To16() }, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	if addr(v.Src).String() != "203.0.113.20" {
		t.Fatalf("left as %v", v)
	}
	l.one(wan, udp(web, 53, "203.0.113.20", v.SrcPort))
	w := l.port[wan]
	w.in = append(w.in, arp(packet.ARPRequest, "203.0.113.1", macOf(ip("203.0.113.1")), "203.0.113.20"))
	l.poll()
	var m packet.ARPMessage
	if len(w.out) != 1 || !packet.ParseARP(w.out[0], &m) || m.SenderAddr != ip("203.0.113.20") || m.SenderMAC != wanMAC {
		t.Fatalf("%d answers, %+v", len(w.out), m)
	}
	w.out = nil
	l.e.Announce()
	if len(w.out) != 2 {
		t.Fatalf("%d announcements on the WAN, want 2", len(w.out))
	}
	// And once more after 2 seconds. The gateway, which is asked for beside that, is known.
	w.out = nil
	l.meet(wan, "203.0.113.1")
	l.poll()
	sent := 0
	for range 50 {
		l.now += 1e8
		l.poll()
		sent += len(w.out)
		w.out = nil
	}
	if sent != 2 {
		t.Fatalf("%d repetitions on the WAN, want 2", sent)
	}
}

// TestS38_ServerAddressIsAnsweredFor: an address of a destination translation
// is the firewall's own like those of the interfaces.
func TestS38_ServerAddressIsAnsweredFor(t *testing.T) {
	const addr = "203.0.113.30"
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{{External: ip(addr).To16(), To: ip(host).To16(), PortLo: 443, PortHi: 443, ToPort: 443, Proto: packet.TCP}}
	}, "accept")
	w := l.port[wan]
	w.in = append(w.in, arp(packet.ARPRequest, "203.0.113.1", macOf(ip("203.0.113.1")), addr))
	l.poll()
	var m packet.ARPMessage
	if len(w.out) != 1 || !packet.ParseARP(w.out[0], &m) || m.SenderAddr != ip(addr) || m.SenderMAC != wanMAC {
		t.Fatalf("%d answers, %+v", len(w.out), m)
	}
	w.out = nil
	conflicts := l.e.c.ARPConflicts[wan]
	l.raw(wan, arp(packet.ARPReply, addr, [6]byte{2, 6, 6, 6, 6, 6}, ours))
	if l.e.c.ARPConflicts[wan] != conflicts+1 {
		t.Fatal("its takeover was not counted")
	}
	l.dropped(lan, udp(addr, 4000, web, 53), verdict.Martian) // spoofed
	l.e.Announce()
	if len(w.out) != 2 {
		t.Fatalf("%d announcements on the WAN, want 2", len(w.out))
	}
}

func TestARP_UnresolvedGivesUp(t *testing.T) {
	l := newLabWith(t, routed, "accept")
	for i := range neigh.MaxPerHop + 2 {
		l.put(wan, udp(web, uint16(1000+i), "10.0.0.99", 53))
	}
	if n := l.e.c.DropReasons[verdict.NeighbourUnresolved]; n != 2 {
		t.Fatalf("%d dropped while %d may wait", n, neigh.MaxPerHop)
	}
	for range 40 {
		l.pass(0.1)
	}
	if n := l.e.c.DropReasons[verdict.NeighbourUnresolved]; n != neigh.MaxPerHop+2 {
		t.Fatalf("%d dropped in the end", n)
	}
	if n := l.e.c.ARPSent[lan]; n != neigh.MaxRequests {
		t.Errorf("asked for %d times", n)
	}
	told := 0
	for _, r := range l.seen {
		if r.Reason == verdict.NeighbourUnresolved {
			told++
		}
	}
	if told != neigh.MaxPerHop+2 {
		t.Fatalf("%d events", told)
	}
	l.buffers()
}

func TestARP_Expires(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.pass(61)
	l.one(lan, udp(host, 4000, web, 53)) // used while it is asked again
	if n := l.e.port[wan].neigh.Pending(); n != 0 {
		t.Fatalf("%d questions open", n)
	}
}

// TestRFC5227_S2_4_EveryAddressIsDefended: claims of one own address leave no
// other undefended.
func TestRFC5227_S2_4_EveryAddressIsDefended(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].External = ip("203.0.113.20").To16() })
	w, defended := l.port[wan], map[packet.Addr]int{}
	for range 25 { // for 25 seconds
		for _, a := range []string{"203.0.113.20", ours} {
			w.in = append(w.in, arp(packet.ARPReply, a, [6]byte{2, 6, 6, 6, 6, 6}, "203.0.113.1"))
			l.poll()
			for _, f := range w.out {
				var m packet.ARPMessage
				if packet.ParseARP(f, &m) && m.SenderMAC == wanMAC && m.SenderAddr == m.TargetAddr {
					defended[m.SenderAddr]++
				}
			}
			w.out = nil
		}
		l.now += 1e9
	}
	if defended[ip(ours)] != 3 || defended[ip("203.0.113.20")] != 3 || l.e.c.ARPConflicts[wan] != 50 {
		t.Fatalf("defended %v times, want 3 each; %d conflicts", defended, l.e.c.ARPConflicts[wan])
	}
}

// TestRFC5227_S2_1_ProbesAreAnswered: who wants to know whether an address is
// free hears that it is not, and is not learned from.
func TestRFC5227_S2_1_ProbesAreAnswered(t *testing.T) {
	l := newLab(t)
	for _, to := range []string{"10.0.0.1", "10.0.0.3"} {
		l.port[lan].in = append(l.port[lan].in, arp(packet.ARPRequest, "0.0.0.0", macOf(ip(host)), to))
	}
	l.poll()
	var m packet.ARPMessage
	if out := l.port[lan].out; len(out) != 1 || !packet.ParseARP(out[0], &m) || m.Op != packet.ARPReply || m.SenderAddr != ip("10.0.0.1") || [6]byte(out[0]) != macOf(ip(host)) {
		t.Fatalf("%d answers, %+v", len(out), m)
	}
	if n := l.e.port[lan].neigh.Find(0); n != nil || l.e.c.ARPConflicts[lan] != 0 {
		t.Fatalf("learned %+v, %d conflicts", n, l.e.c.ARPConflicts[lan])
	}
}

// TestS38_GatewayIsLearnedFromAnswersOnly: a host that sends requests in its name before it
// is known, at boot or while it is away, does not become the gateway.
func TestS38_GatewayIsLearnedFromAnswersOnly(t *testing.T) {
	evil := [6]byte{2, 6, 6, 6, 6, 6}
	l := newLab(t, "accept egress", established)
	l.raw(wan, arp(packet.ARPRequest, "203.0.113.1", evil, ours))
	l.port[lan].in = append(l.port[lan].in, udp(host, 4000, web, 53).frame(lanMAC))
	l.poll() // asks
	l.port[wan].in = append(l.port[wan].in, arp(packet.ARPRequest, "203.0.113.1", evil, ours))
	l.poll()
	l.run()
	if got := l.taken(wan); len(got) != 1 { // looks at the link-layer address
		t.Fatalf("%d left", len(got))
	}
	// Its own requests keep it alive, as those of other hosts do.
	l.pass(50)
	l.raw(wan, arp(packet.ARPRequest, "203.0.113.1", macOf(ip("203.0.113.1")), ours))
	if n := l.e.port[wan].neigh.Find(ip("203.0.113.1")); n == nil || n.Expires != l.now+neigh.Lifetime {
		t.Fatalf("%+v", n)
	}
	l.buffers()
}

// TestRFC1812_S3_3_2_LinkAddresses: a broadcast or multicast link-layer address,
// or none, is no neighbour's: packets to that would reach everybody.
func TestRFC1812_S3_3_2_LinkAddresses(t *testing.T) {
	for _, mac := range [][6]byte{broadcastMAC, {1, 0, 0x5e, 0, 0, 7}, {}} {
		l := newLabWith(t, routed, "accept", established)
		l.raw(lan, arp(packet.ARPRequest, host, mac, "10.0.0.1"))
		l.port[wan].in = append(l.port[wan].in, udp(web, 53, host, 4000).frame(wanMAC))
		l.poll() // asks
		l.port[lan].out = nil
		l.raw(lan, arp(packet.ARPReply, host, mac, "10.0.0.1"))
		if n := l.e.port[lan].neigh.Find(ip(host)); n == nil || n.State != neigh.Incomplete || len(l.port[lan].out) != 0 {
			t.Fatalf("%x: %+v, %d left", mac, n, len(l.port[lan].out))
		}
	}
}

// TestARP_ScanIsBounded: a host that sends to thousands of unused addresses, on a large
// network, takes a bounded share of buffers, and neither the gateway nor a host that is in
// use loses its place.
func TestARP_ScanIsBounded(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].PrefixLen = 8 }, "accept", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.one(lan, udp(host, 4000, "203.7.7.7", 53))
	old := dead
	dead = maps.Clone(dead)
	defer func() { dead = old }()
	scan := func() {
		for i := range packet.Addr(10000) {
			a := ip("203.128.0.0") + i
			dead[a] = true
			l.put(lan, udp(host, 4000, addr(a).String(), 53))
			if i%1000 == 999 {
				l.now += 10e6
			}
			if n := l.e.port[wan].neigh.Waiting(); n > neigh.MaxWaiting {
				t.Fatalf("%d frames wait", n)
			}
		}
	}
	scan()
	if a := l.e.port[wan].neigh; a.Len() < neigh.MaxEntries/2 || a.Len() > neigh.MaxEntries/2+4 || a.Waiting() == 0 {
		t.Fatalf("%d entries, %d frames wait: the scan takes no more than it leaves", a.Len(), a.Waiting())
	}
	for _, a := range []string{web, "203.7.7.7"} {
		l.port[lan].in = append(l.port[lan].in, udp(host, 4000, a, 53).frame(lanMAC))
		l.poll()
		if got := l.taken(wan); len(got) != 1 || got[0].Dst != ip(a) {
			t.Fatalf("to %s: %v", a, got)
		}
	}
	l.pass(100)
	scan()
	if n := l.e.port[wan].neigh.Find(ip("203.0.113.1")); n == nil || n.MAC != macOf(ip("203.0.113.1")) {
		t.Fatalf("the gateway, unused for long, is forgotten: %+v", n)
	}
	l.buffers()
}

// TestRFC1122_S2_3_2_1_NeighboursAreVerified: after a minute the address that is
// in use is asked for, itself first and then everybody, once a second and three
// times, while packets go on; a silent one is forgotten. So is one that nobody
// answers for from the beginning.
func TestRFC1122_S2_3_2_1_NeighboursAreVerified(t *testing.T) {
	l := newLab(t, "accept egress", established)
	gw := ip("203.0.113.1")
	w := l.port[wan]
	// second sends a packet, and returns to whom requests and packets went.
	second := func() (asked [][6]byte, packets int) {
		t.Helper()
		l.port[lan].in = append(l.port[lan].in, udp(host, 4000, web, 53).frame(lanMAC))
		l.poll()
		for _, f := range w.out {
			if packet.Type(f) == packet.TypeARP {
				asked = append(asked, [6]byte(f))
			} else if packets++; [6]byte(f) != macOf(gw) {
				t.Fatalf("a packet went to %x", f[:6])
			}
		}
		w.out = nil
		l.now += 1e9
		return asked, packets
	}
	l.one(lan, udp(host, 4000, web, 53))
	for range 60 {
		if asked, packets := second(); len(asked) != 0 || packets != 1 {
			t.Fatalf("asked %x, %d packets", asked, packets)
		}
	}
	for i, want := range [][6]byte{macOf(gw), broadcastMAC, broadcastMAC} {
		if asked, packets := second(); len(asked) != 1 || asked[0] != want || packets != 1 {
			t.Fatalf("after %d seconds: asked %x, %d packets", i, asked, packets)
		}
	}
	sent := 0
	for i := range 3 { // it is asked for anew, and packets wait
		asked, packets := second()
		if i == 0 && packets == 1 {
			// The packet was there before the time was over.
			asked, packets = second()
		}
		sent += len(asked)
		if packets != 0 || len(asked) > 1 || len(asked) == 1 && asked[0] != broadcastMAC {
			t.Fatalf("after the end: asked %x, %d packets", asked, packets)
		}
	}
	if sent != 3 {
		t.Fatalf("asked %d times", sent)
	}
	l.now += 1e9
	l.poll()
	if l.e.c.DropReasons[verdict.NeighbourUnresolved] == 0 {
		t.Fatalf("drops: %s", l.drops())
	}
	l.buffers()
}

// TestRFC826_OtherMessages: what is not a request or an answer about IPv4 over
// Ethernet (RARP, other hardware, other lengths) is not answered, nor learned from.
func TestRFC826_OtherMessages(t *testing.T) {
	for name, at := range map[string]struct {
		off int
		v   byte
	}{"hardware": {1, 6}, "protocol": {2, 0x86}, "hardware length": {4, 8}, "protocol length": {5, 16}, "RARP": {7, 3}, "no operation": {7, 0}, "operation 257": {6, 1}} {
		l := newLab(t)
		f := arp(packet.ARPRequest, host, macOf(ip(host)), "10.0.0.1")
		f[packet.EthLen+at.off] = at.v
		l.port[lan].in = append(l.port[lan].in, f)
		l.poll()
		if n := l.e.port[lan].neigh.Find(ip(host)); n != nil || len(l.port[lan].out) != 0 || l.e.c.DropReasons[verdict.MalformedPacket] != 1 {
			t.Errorf("%s: learned %+v, %d answers; drops: %s", name, n, len(l.port[lan].out), l.drops())
		}
	}
}

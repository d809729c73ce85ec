package router

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func TestS35_IPv6IsDropped(t *testing.T) {
	l := newLab(t, "accept")
	f := make([]byte, 60)
	packet.PutEth(f, &lanMAC, &[6]byte{2, 9, 9, 9, 9, 9}, packet.TypeIPv6)
	l.droppedRaw(lan, f, verdict.IPv6Unsupported)
}

func TestS36_FragmentsAreDropped(t *testing.T) {
	l := newLab(t, "accept")
	for _, fr := range []uint16{0x2000, 0x2001, 0x0010} {
		p := udp(host, 4000, web, 53)
		p.frag = fr
		l.dropped(lan, p, verdict.FragmentedIPv4)
	}
}

func TestS37_MalformedPackets(t *testing.T) {
	l := newLab(t, "accept")
	good := func() []byte { return syn(host, 4000, web, 80).frame(lanMAC) }
	edit := func(f func(ip []byte)) []byte {
		b := good()
		f(b[packet.EthLen:])
		binary.BigEndian.PutUint16(b[packet.EthLen+10:], 0)
		if hl := int(b[packet.EthLen]&15) * 4; hl >= 20 && hl <= len(b)-packet.EthLen {
			binary.BigEndian.PutUint16(b[packet.EthLen+10:], ^packet.Sum(b[packet.EthLen:packet.EthLen+hl], 0))
		}
		return b
	}
	opts := syn(host, 4000, web, 80)
	for name, f := range map[string][]byte{
		"runt":               good()[:13],
		"no IP header":       good()[:packet.EthLen+10],
		"truncated":          good()[:packet.EthLen+30],
		"IP checksum":        pkt{src: host, dst: web, proto: packet.TCP, sport: 1, dport: 2, flags: packet.SYN, breakIP: true}.frame(lanMAC),
		"TCP checksum":       pkt{src: host, dst: web, proto: packet.TCP, sport: 1, dport: 2, flags: packet.SYN, break4: true}.frame(lanMAC),
		"UDP checksum":       pkt{src: host, dst: web, proto: packet.UDP, sport: 1, dport: 2, break4: true}.frame(lanMAC),
		"ICMP checksum":      pkt{src: host, dst: web, proto: packet.ICMP, typ: 8, break4: true}.frame(lanMAC),
		"version":            edit(func(ip []byte) { ip[0] = 0x65 }),
		"IHL too small":      edit(func(ip []byte) { ip[0] = 0x44 }),
		"IHL beyond packet":  edit(func(ip []byte) { ip[0] = 0x4f }),
		"total below header": edit(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 10) }),
		"total beyond frame": edit(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 2000) }),
		"TCP offset":         edit(func(ip []byte) { ip[20+12] = 0x40 }),
		"option length":      edit(func(ip []byte) { ip[0] = 0x46; ip[20] = 7; ip[21] = 99 }),
		"source route":       edit(func(ip []byte) { ip[0] = 0x46; ip[20] = 131; ip[21] = 4 }),
		"UDP length":         func() []byte { b := udp(host, 1, web, 2).frame(lanMAC); b[packet.EthLen+20+5]++; return b }(),
		"TCP port zero":      func() []byte { p := opts; p.dport = 0; return p.frame(lanMAC) }(),
	} {
		t.Run(name, func(t *testing.T) {
			l.t = t
			l.droppedRaw(lan, f, verdict.MalformedPacket)
		})
	}
	if l.e.flows.Len() != 0 {
		t.Fatal("a malformed packet made a flow")
	}
	l.t = t
	l.buffers()
}

func TestS38_OtherEtherTypes(t *testing.T) {
	l := newLab(t, "accept")
	f := make([]byte, 60)
	for _, typ := range []uint16{0x8100, 0x88cc, 0x0800 - 1} {
		packet.PutEth(f, &lanMAC, &[6]byte{2, 9, 9, 9, 9, 9}, typ)
		l.droppedRaw(lan, f, verdict.EtherTypeUnsupported)
	}
}

func TestS39n_TTL(t *testing.T) {
	l := newLab(t, "accept", established)
	p := udp(host, 4000, web, 53)
	p.ttl = 1
	before := l.e.c.DropReasons[verdict.TTLExpired]
	across, back := l.put(lan, p)
	if len(across) != 0 || l.e.c.DropReasons[verdict.TTLExpired] != before+1 {
		t.Fatalf("crossed: %v", across)
	}
	if len(back) != 1 || back[0].ICMPType != packet.TimeExceeded || addr(back[0].Src).String() != "10.0.0.1" || addr(back[0].Dst).String() != host {
		t.Fatalf("answer %v", back)
	}
	p.ttl = 2
	if v := l.one(lan, p); v.TTL != 1 {
		t.Fatalf("TTL %d", v.TTL)
	}
}

func TestS39n_TimeExceededIsRateLimited(t *testing.T) {
	l := newLab(t, "accept", established)
	n := 0
	for i := range 400 {
		p := udp(host, uint16(1000+i), web, 53)
		p.ttl = 1
		_, back := l.put(lan, p)
		n += len(back)
	}
	if n == 0 || n > 110 {
		t.Fatalf("%d answers to 400 packets at one instant", n)
	}
}

func TestS39n_Martians(t *testing.T) {
	l := newLab(t, "accept")
	for _, c := range []struct {
		from     int
		src, dst string
	}{
		{lan, "127.0.0.1", web}, {lan, "0.0.0.0", web}, {lan, "224.0.0.1", web}, {lan, "255.255.255.255", web}, {lan, "240.0.0.1", web},
		{lan, "10.0.0.1", web}, {lan, ours, web}, {lan, "10.0.0.255", web}, {lan, "192.168.7.7", web},
		{lan, host, "127.0.0.1"}, {lan, host, "224.0.0.5"}, {lan, host, "255.255.255.255"}, {lan, host, "0.0.0.1"}, {lan, host, "203.0.113.255"},
		{lan, host, "10.0.0.3"},
		{wan, host, "10.0.0.3"}, {wan, "127.0.0.1", host}, {wan, ours, host}, {wan, web, "10.0.0.255"}, {wan, web, "10.0.0.0"}, {wan, web, "10.0.0.1"},
		{wan, web, "8.8.8.8"},
	} {
		t.Run(c.src+">"+c.dst, func(t *testing.T) {
			l.t = t
			l.dropped(c.from, udp(c.src, 4000, c.dst, 53), verdict.Martian)
		})
	}
}

// TestS39n_SpoofedFlow: a packet of a known flow from the wrong side.
func TestS39n_SpoofedFlow(t *testing.T) {
	l := newLab(t, "accept", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.dropped(wan, udp(host, 4000, web, 53), verdict.Martian)
}

func TestTooBig(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1280 }, "accept", established)
	p := udp(host, 4000, web, 53)
	p.data, p.df = make([]byte, 1300), true
	across, back := l.put(lan, p)
	if len(across) != 0 || len(back) != 1 || back[0].ICMPType != packet.Unreachable || back[0].ICMPCode != 4 {
		t.Fatalf("crossed %v, answered %v", across, back)
	}
	if mtu := binary.BigEndian.Uint16(back[0].frame[packet.EthLen+20+6:]); mtu != 1280 {
		t.Fatalf("MTU %d in the answer", mtu)
	}
	l.buffers()
}

func TestPingTheFirewall(t *testing.T) {
	l := newLab(t, "accept egress icmp")
	_, back := l.put(lan, echo(host, "10.0.0.1", packet.EchoRequest, 9))
	if len(back) != 1 || back[0].ICMPType != packet.EchoReply || back[0].SrcPort != 9 || addr(back[0].Src).String() != "10.0.0.1" {
		t.Fatalf("answer %v; %s", back, l.drops())
	}
	l.dropped(wan, echo(web, ours, packet.EchoRequest, 9), verdict.NoMatchingAllowRule)
	l = newLab(t, "accept")
	l.dropped(lan, syn(host, 4000, "10.0.0.1", 22), verdict.NoLocalService)
	l.dropped(wan, syn(web, 4000, ours, 22), verdict.NoLocalService)
}

func TestTransmitFull(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.port[wan].full = true
	l.dropped(lan, udp(host, 4000, web, 53), verdict.TxFull)
	if r := l.last(); r.Reason != verdict.TxFull || r.Dst != ip(web).To16() || r.DstPort != 53 || r.Direction != verdict.Egress {
		t.Fatalf("event %+v", r)
	}
	l.buffers()
}

func TestFlowEndEvent(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	l.one(wan, udp(web, 53, ours, v.SrcPort))
	l.pass(301)
	r := l.last()
	if r.Kind != event.FlowEnd || r.Packets != 2 || r.Bytes != 64 || r.FlowID == 0 {
		t.Fatalf("event %+v", r)
	}
}

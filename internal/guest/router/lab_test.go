package router

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A lab is a firewall between two wires on which tests put frames and look at
// what comes out. The hosts on both sides answer ARP; nothing else happens by
// itself. Time stands still unless a test moves it.
//
//	10.0.0.2, .3 ── 10.0.0.1 [firewall] 203.0.113.10 ── 203.0.113.1 (gateway)
type lab struct {
	t      testing.TB
	e      *Engine
	pool   *framebuf.Pool
	port   [2]*wire
	events *event.Ring
	now    int64
	policy *ruleset.Policy
	seen   []event.Record
	names  []string // of the events in seen
	// partial is how many datagrams left incomplete, when taken looked last.
	partial int
	helped  int  // see helping
	anyMAC  bool // ARP says who has which link-layer address, not macOf

	others []*Engine // workers after e
	rings  []*event.Ring
}

var (
	lanMAC = [6]byte{2, 0, 0, 0, 1, 1}
	wanMAC = [6]byte{2, 0, 0, 0, 1, 2}
)

func ip(s string) packet.Addr {
	a := netip.MustParseAddr(s).As4()
	return packet.Addr(binary.BigEndian.Uint32(a[:]))
}

// macOf is the link-layer address of a test host.
func macOf(a packet.Addr) [6]byte {
	return [6]byte{2, 9, byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}
}

// A rule is one line of a policy: "accept egress tcp 10.0.0.0/24 -> any :443
// established". Every field after the first may be left out.
type rule string

func newLab(t testing.TB, rules ...rule) *lab { return newLabWith(t, nil, rules...) }

func newLabWith(t testing.TB, edit func(p *ruleset.Policy), rules ...rule) *lab {
	var mem mappings
	l := newLabIn(t, mem.alloc, edit, rules...)
	runtime.AddCleanup(l.pool, mappings.free, mem)
	return l
}

// newLabIn takes the memory of its buffers and tables from alloc.
func newLabIn(t testing.TB, alloc conntrack.Alloc, edit func(p *ruleset.Policy), rules ...rule) *lab {
	p := &ruleset.Policy{
		Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 4096},
		Interfaces: []ruleset.Interface{
			{Role: ruleset.LAN, Address: ip("10.0.0.1").To16(), PrefixLen: 24},
			{Role: ruleset.WAN, Address: ip("203.0.113.10").To16(), PrefixLen: 24, Gateway: ip("203.0.113.1").To16()},
		},
		SNAT: []ruleset.SNAT{{Interface: 1, PortLo: 1024, PortHi: 65535, Source: ip("10.0.0.0").To16(), SourceMask: mask(24)}},
	}
	for _, r := range rules {
		addRule(t, p, r)
	}
	if edit != nil {
		edit(p)
	}
	if err := compile.Classifier(p); err != nil {
		t.Fatal(err)
	}
	if workers > 1 {
		return newWorkersLab(t, alloc, p, workers)
	}
	l := &lab{t: t, policy: p, pool: poolFor(p, alloc), events: event.NewRing(4096), now: 1e9}
	for i := range l.port {
		l.port[i] = &wire{pool: l.pool}
	}
	e, err := New(Config{ClockSet: true, Alloc: alloc, Policy: p, Pool: l.pool, Events: l.events, Secret: [32]byte{1, 2, 3, 9: 7, 17: 5, 25: 3},
		Ports: portsOf(l.port[lan], l.port[wan])})
	if err != nil {
		t.Fatal(err)
	}
	l.e = e
	return l
}

// poolFor returns buffers for the interfaces of a policy.
func poolFor(p *ruleset.Policy, alloc func(int, bool) []byte) *framebuf.Pool {
	_, span := Buffers(LargestMTU(p, 0, 0))
	return framebuf.NewPoolOf(alloc(2048*span*framebuf.Size, true), 0, span)
}

// routed makes a policy that translates no sources.
func routed(p *ruleset.Policy) { p.SNAT = nil }

func mask(n int) (m ruleset.Addr) {
	for i := range m[:12] {
		m[i] = 0xff
	}
	binary.BigEndian.PutUint32(m[12:], uint32(uint64(0xffffffff)<<(32-n)))
	return m
}

func addRule(t testing.TB, p *ruleset.Policy, r rule) {
	m := ruleset.Match{Rule: uint32(len(p.Rules)), PortHi: 65535}
	right := false
	for _, w := range strings.Fields(string(r)) {
		switch {
		case w == "accept":
			m.Action = ruleset.Accept
		case w == "deny":
			m.Action = ruleset.Deny
		case w == "reject":
			m.Action = ruleset.Reject
		case w == "egress":
			m.Direction = verdict.Egress
		case w == "ingress":
			m.Direction = verdict.Ingress
		case w == "tcp":
			m.Proto = packet.TCP
		case w == "udp":
			m.Proto = packet.UDP
		case w == "icmp":
			m.Proto = packet.ICMP
		case w == "new":
			m.State |= ruleset.StateNew
		case w == "established":
			m.State |= ruleset.StateEstablished
		case w == "->":
			right = true
		case w == "any":
		case w[0] == ':':
			lo, hi, ok := strings.Cut(w[1:], "-")
			if !ok {
				hi = lo
			}
			fmt.Sscan(lo, &m.PortLo)
			fmt.Sscan(hi, &m.PortHi)
		default:
			if !strings.Contains(w, "/") {
				w += "/32"
			}
			c := netip.MustParsePrefix(w)
			if right {
				m.Dst, m.DstMask = ip(c.Addr().String()).To16(), mask(c.Bits())
			} else {
				m.Src, m.SrcMask = ip(c.Addr().String()).To16(), mask(c.Bits())
			}
		}
	}
	if m.Action == 0 {
		t.Fatalf("rule %q has no action", r)
	}
	p.Rules = append(p.Rules, ruleset.Rule{Action: m.Action})
	p.Matches = append(p.Matches, m)
}

// A pkt describes a packet. Zero fields take defaults.
type pkt struct {
	src, dst        string
	sport, dport    uint16
	proto           uint8 // default TCP
	flags           uint8
	seq, ack        uint32
	win             uint16
	opts            []byte
	typ, code       uint8 // ICMP
	ttl             uint8
	data            []byte
	frag            uint16
	df              bool
	mac             *[6]byte // destination; default the firewall's
	breakIP, break4 bool
}

func tcpSeg(src string, sport uint16, dst string, dport uint16, flags uint8, seq, ack uint32) pkt {
	return pkt{src: src, sport: sport, dst: dst, dport: dport, proto: packet.TCP, flags: flags, seq: seq, ack: ack, win: 8192}
}

func udp(src string, sport uint16, dst string, dport uint16) pkt {
	return pkt{src: src, sport: sport, dst: dst, dport: dport, proto: packet.UDP, data: []byte("data")}
}

func echo(src, dst string, typ uint8, id uint16) pkt {
	return pkt{src: src, dst: dst, proto: packet.ICMP, typ: typ, sport: id, data: []byte("ping data")}
}

// frame builds the Ethernet frame.
func (p pkt) frame(to [6]byte) []byte {
	if p.mac != nil {
		to = *p.mac
	}
	from := macOf(ip(p.src))
	f := make([]byte, packet.EthLen+packet.MinIPv4)
	packet.PutEth(f, &to, &from, packet.TypeIPv4)
	var l4 []byte
	switch p.proto {
	case packet.TCP:
		l4 = make([]byte, 20+len(p.opts))
		binary.BigEndian.PutUint32(l4[4:], p.seq)
		binary.BigEndian.PutUint32(l4[8:], p.ack)
		l4[12] = byte(len(l4)/4) << 4
		l4[13] = p.flags
		binary.BigEndian.PutUint16(l4[14:], p.win)
		copy(l4[20:], p.opts)
	case packet.UDP:
		l4 = make([]byte, 8)
		binary.BigEndian.PutUint16(l4[4:], uint16(8+len(p.data)))
	case packet.ICMP:
		l4 = make([]byte, 8)
		l4[0], l4[1] = p.typ, p.code
		binary.BigEndian.PutUint16(l4[4:], p.sport)
	}
	if p.proto == packet.TCP || p.proto == packet.UDP {
		binary.BigEndian.PutUint16(l4, p.sport)
		binary.BigEndian.PutUint16(l4[2:], p.dport)
	}
	l4 = append(l4, p.data...)
	ttl := p.ttl
	if ttl == 0 {
		ttl = 64
	}
	h := f[packet.EthLen:]
	packet.PutIPv4(h, ip(p.src), ip(p.dst), p.proto, ttl, len(l4))
	if p.frag != 0 || p.df {
		v := p.frag
		if p.df {
			v |= 0x4000
		}
		binary.BigEndian.PutUint16(h[6:], v)
		binary.BigEndian.PutUint16(h[10:], 0)
		binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h[:20], 0))
	}
	off := map[uint8]int{packet.TCP: 16, packet.UDP: 6, packet.ICMP: 2}[p.proto]
	if len(l4) > off+1 && off != 0 {
		sum := uint64(0)
		if p.proto != packet.ICMP {
			sum = uint64(ip(p.src)) + uint64(ip(p.dst)) + uint64(p.proto) + uint64(len(l4))
		}
		binary.BigEndian.PutUint16(l4[off:], ^packet.Sum(l4, sum))
		if p.break4 {
			l4[off] ^= 0x55
		}
	}
	if p.breakIP {
		h[10] ^= 0x55
	}
	return append(f, l4...)
}

// helping reports whether t.Helper is still worth its time in what is called a
// hundred thousand times: it marks a function for the rest of the test.
func (l *lab) helping() bool {
	l.helped++
	return l.helped < 1000
}

// put sends a packet into the firewall from the LAN or the WAN and returns
// what came out on the other side and on the same side, ARP left out.
func (l *lab) put(from int, p pkt) (across, back []*view) {
	if l.helping() {
		l.t.Helper()
	}
	to := lanMAC
	if from == wan {
		to = wanMAC
	}
	return l.raw(from, p.frame(to))
}

func (l *lab) raw(from int, f []byte) (across, back []*view) {
	if l.helping() {
		l.t.Helper()
	}
	l.port[from].in = append(l.port[from].in, f)
	l.run()
	return l.taken(1 - from), l.taken(from)
}

// run polls until nothing moves, answering the firewall's ARP requests.
func (l *lab) run() {
	for range 100 {
		n := l.poll()
		for i, w := range l.port {
			for j := 0; j < len(w.out); j++ {
				var m packet.ARPMessage
				if !packet.ParseARP(w.out[j], &m) || packet.Type(w.out[j]) != packet.TypeARP {
					continue
				}
				if m.Op == packet.ARPRequest && m.TargetAddr != m.SenderAddr && !dead[m.TargetAddr] {
					r := make([]byte, 60)
					packet.PutARP(r, &m.SenderMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: macOf(m.TargetAddr), SenderAddr: m.TargetAddr,
						TargetMAC: m.SenderMAC, TargetAddr: m.SenderAddr})
					w.in = append(w.in, r)
					n++
				}
				w.out = append(w.out[:j], w.out[j+1:]...)
				j--
			}
			_ = i
		}
		if n == 0 {
			break
		}
	}
	l.hear(l.events)
	for _, q := range l.rings {
		l.hear(q)
	}
}

// dead are hosts that do not answer ARP.
var dead = map[packet.Addr]bool{ip("10.0.0.99"): true}

// A view is a packet that came out, parsed; every checksum has been verified.
type view struct {
	packet.Packet
	frame []byte
	sizes []int // of the IP packets in which it came, when it came in fragments
}

func (v *view) String() string {
	return fmt.Sprintf("%v:%d > %v:%d proto %d", addr(v.Src), v.SrcPort, addr(v.Dst), v.DstPort, v.Proto)
}

func addr(a packet.Addr) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

func (l *lab) taken(i int) []*view {
	if l.helping() {
		l.t.Helper()
	}
	var vs []*view
	var parts []*parts
	for _, f := range l.port[i].out {
		if n := len(f) - packet.EthLen; n > l.e.port[i].mtu {
			l.t.Fatalf("a packet of %d bytes left", n)
		}
		v := &view{frame: f}
		if binary.BigEndian.Uint16(f[packet.EthLen+6:])&0x3fff != 0 && packet.Type(f) == packet.TypeIPv4 {
			if v.frame, v.sizes = collect(&parts, f); v.frame == nil {
				continue
			}
			f = v.frame
		}
		if _, why := packet.ParseIPv4(f, &v.Packet); why != 0 {
			l.t.Fatalf("the firewall sent a packet that is %v: %x", why, f)
		}
		hop := v.Dst
		p := &l.e.port[i]
		if hop&p.mask != p.net {
			hop = p.gateway
		}
		if want := macOf(hop); !l.anyMAC && [6]byte(f) != want || [6]byte(f[6:]) != p.mac {
			l.t.Fatalf("link-layer addresses %x > %x, want %x > %x", f[6:12], f[:6], p.mac, want)
		}
		vs = append(vs, v)
	}
	l.port[i].out = nil
	l.partial = len(parts)
	return vs
}

// parts are the fragments of a datagram that have been seen, in order.
type parts struct {
	key   string
	frame []byte // the first with all that followed it
	sizes []int
}

// collect puts fragments together that come in order and without gaps, as the
// firewall is to send them, and returns a datagram when it is whole.
func collect(all *[]*parts, f []byte) ([]byte, []int) {
	ip := f[packet.EthLen:]
	hl, w := int(ip[0]&15)*4, binary.BigEndian.Uint16(ip[6:])
	if packet.Sum(ip[:hl], 0) != 0xffff {
		panic("the header checksum of a fragment is wrong")
	}
	key := string(ip[4:6]) + string(ip[9:10]) + string(ip[12:20])
	for i, d := range *all {
		if first := int(d.frame[packet.EthLen]&15) * 4; d.key != key || int(w&0x1fff)*8 != len(d.frame)-packet.EthLen-first {
			continue
		}
		d.frame, d.sizes = append(d.frame, ip[hl:]...), append(d.sizes, len(ip))
		if w&0x2000 != 0 {
			return nil, nil
		}
		*all = append((*all)[:i], (*all)[i+1:]...)
		packet.Unfragment(d.frame)
		return d.frame, d.sizes
	}
	*all = append(*all, &parts{key, append([]byte(nil), f...), []int{len(ip)}})
	return nil, nil
}

// one requires that exactly one packet crossed and returns it.
func (l *lab) one(from int, p pkt) *view {
	if l.helping() {
		l.t.Helper()
	}
	across, back := l.put(from, p)
	if len(across) != 1 || len(back) != 0 {
		l.t.Fatalf("%d packets crossed and %d came back, want 1 and 0; drops: %s", len(across), len(back), l.drops())
	}
	return across[0]
}

// dropped requires that a packet does not cross and is counted under why.
func (l *lab) dropped(from int, p pkt, why verdict.Reason) {
	l.t.Helper()
	to := lanMAC
	if from == wan {
		to = wanMAC
	}
	l.droppedRaw(from, p.frame(to), why)
}

func (l *lab) droppedRaw(from int, f []byte, why verdict.Reason) {
	l.t.Helper()
	before := l.e.c.DropReasons[why]
	if across, _ := l.raw(from, f); len(across) != 0 {
		l.t.Fatalf("crossed: %v; want it dropped as %v", across[0], why)
	}
	if l.e.c.DropReasons[why] != before+1 {
		l.t.Fatalf("not counted as %v; drops: %s", why, l.drops())
	}
}

func (l *lab) drops() string {
	s := ""
	for r, n := range l.e.c.DropReasons {
		if n > 0 {
			s += fmt.Sprintf("%v=%d ", verdict.Reason(r), n)
		}
	}
	return s
}

// last returns the last event.
func (l *lab) last() event.Record {
	l.t.Helper()
	if len(l.seen) == 0 {
		l.t.Fatal("no event")
	}
	return l.seen[len(l.seen)-1]
}

func (l *lab) pass(seconds float64) { l.now += int64(seconds * 1e9); l.run() }

// buffers checks that no buffer is lost.
func (l *lab) buffers() {
	l.t.Helper()
	waiting := 0
	for i := range l.e.port {
		waiting += l.e.port[i].neigh.Waiting()
	}
	waiting += l.e.frags.Held()
	waiting += l.e.sni.Segments()
	if l.others != nil {
		l.buffersOfWorkers()
		return
	}
	if l.pool.Free()+waiting != l.pool.Cap() {
		l.t.Fatalf("%d buffers free and %d waiting of %d", l.pool.Free(), waiting, l.pool.Cap())
	}
}

// handshake opens a TCP connection from the LAN and returns the external port.
func (l *lab) handshake(src string, sport uint16, dst string, dport uint16) uint16 {
	l.t.Helper()
	v := l.one(lan, tcpSeg(src, sport, dst, dport, packet.SYN, 1000, 0))
	l.one(wan, tcpSeg(dst, dport, addr(v.Src).String(), v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
	l.one(lan, tcpSeg(src, sport, dst, dport, packet.ACK, 1001, 5001))
	return v.SrcPort
}

package router

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// invariants checks what must hold between any two polls: no buffer is lost,
// every frame is accounted for once (it was sent, taken, waits, or was dropped for
// one reason), and translations are one to one.
func (l *lab) invariants() {
	l.t.Helper()
	l.buffers()
	c := l.e.Counters()
	var in, out uint64
	for i := range l.e.port {
		in += c.RxPackets[i] + c.ARPSent[i]
		out += c.TxPackets[i] + c.OtherHost[i] + c.ARPReceived[i]
		for _, e := range l.engines() {
			out += uint64(e.port[i].neigh.Waiting())
		}
	}
	in += c.Own + c.FragmentsSent - c.Fragmented
	out += c.Joined + c.Local
	for _, e := range l.engines() {
		out += uint64(e.frags.Held() + e.sni.Segments())
	}
	for _, n := range c.DropReasons {
		out += n
	}
	if in != out {
		l.t.Fatalf("%d frames received or made, %d sent, dropped, taken or waiting; drops: %s", in, out, l.drops())
	}
	arriving := map[conntrack.Key]bool{}
	owner := map[ext]inner{}
	n := 0
	for _, e := range l.engines() {
		n += l.flowsOf(e, arriving, owner)
	}
	if n != len(owner) && l.e.host.DNS() == nil { // which has ports of its own
		l.t.Fatalf("%d external ports taken, %d in use", n, len(owner))
	}
}

// An ext is an external port, an inner an internal endpoint.
type ext struct {
	proto uint32
	port  uint16
}

type inner struct {
	addr packet.Addr
	port uint16
}

// flowsOf checks the flows of a worker, none of which has what one of another worker has. It
// returns how many ports are taken.
func (l *lab) flowsOf(w *Engine, arriving map[conntrack.Key]bool, owner map[ext]inner) (n int) {
	live := 0
	for r := conntrack.Ref(0); int(r) < 2*w.flows.Cap(); r += 2 {
		d, o := w.flows.Dir(r), w.flows.Dir(r^1)
		if d.State == 0 {
			continue
		}
		live++
		for _, k := range []conntrack.Key{d.Key, o.Key} {
			if arriving[k] {
				l.t.Fatalf("two live flows share %+v", k)
			}
			arriving[k] = true
			if pool := w.nat.Pools()[0]; k.Dst == pool.Addr {
				// What nobody has may become anybody's: see translation.fresh.
				if g := (nat.Guess{}); w.nat.Foretell(&g, uint8(k.Proto), ip("10.0.0.250"), k.DstPort) && g.Port == k.DstPort {
					l.t.Fatalf("port %d is free, and %+v arrives there", k.DstPort, k)
				}
			}
		}
		if d.Out.Src != o.Key.Dst || d.Out.Dst != o.Key.Src || d.Out.SrcPort != o.Key.DstPort ||
			o.Out.Src != d.Key.Dst || o.Out.Dst != d.Key.Src || o.Out.DstPort != d.Key.SrcPort {
			l.t.Fatalf("the directions are not inverse: %+v, %+v", d, o)
		}
		if w.flows.Shared(r).Pool >= 0 {
			e := ext{d.Key.Proto, d.Out.SrcPort}
			who := inner{d.Key.Src, d.Key.SrcPort}
			if w, ok := owner[e]; ok && w != who {
				l.t.Fatalf("%v and %v share external port %d", w, who, e.port)
			}
			owner[e] = who
		}
	}
	if live != w.flows.Len() {
		l.t.Fatalf("%d live flows, %d counted", live, w.flows.Len())
	}
	for _, proto := range []uint8{packet.TCP, packet.UDP, packet.ICMP} {
		n += w.nat.Pools()[0].InUse(proto)
	}
	return n
}

// fatal lets a lab report through rapid.
type fatal struct {
	testing.TB
	r *rapid.T
}

func (f fatal) Fatalf(format string, a ...any) { f.r.Fatalf(format, a...) }
func (f fatal) Fatal(a ...any)                 { f.r.Fatal(a...) }
func (f fatal) Helper()                        {}

// TestProperties sends packets of few hosts and ports in any order, so that
// flows meet, and checks after each that the invariants hold, that what leaves
// is well formed, and that an answer finds its way back.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := newLabWith(t, func(p *ruleset.Policy) {
			p.Settings.MaxFlows = uint32(rapid.IntRange(4, 40).Draw(r, "max_flows"))
			p.SNAT[0].PortLo, p.SNAT[0].PortHi = 2000, uint16(2000+rapid.IntRange(2, 30).Draw(r, "ports"))
			p.Interfaces[1].MTU = 1000
		}, "deny egress udp :54", "accept egress", established)
		l.t = fatal{t, r}
		hosts, servers := []string{"10.0.0.2", "10.0.0.3", "10.0.0.99"}, []string{web, "192.0.2.7", "203.0.113.1"}
		ports := rapid.Uint16Range(1999, 2008)
		draw := func(r *rapid.T) pkt {
			h, s := rapid.SampledFrom(hosts).Draw(r, "host"), rapid.SampledFrom(servers).Draw(r, "server")
			p := pkt{src: h, dst: s, proto: rapid.SampledFrom([]uint8{packet.TCP, packet.UDP, packet.ICMP, 47}).Draw(r, "proto"),
				sport: ports.Draw(r, "sport"), dport: rapid.Uint16Range(53, 54).Draw(r, "dport"), typ: packet.EchoRequest,
				flags: rapid.SampledFrom([]uint8{packet.SYN, packet.ACK, packet.RST, packet.FIN | packet.ACK}).Draw(r, "flags"),
				seq:   rapid.Uint32Range(999, 1002).Draw(r, "seq"), ack: rapid.Uint32Range(4999, 5002).Draw(r, "ack"), win: 1000,
				ttl: rapid.SampledFrom([]uint8{64, 64, 64, 2, 1}).Draw(r, "ttl"), df: rapid.Bool().Draw(r, "df")}
			p.data = make([]byte, rapid.SampledFrom([]int{0, 5, 990}).Draw(r, "size"))
			return p
		}
		r.Repeat(map[string]func(*rapid.T){
			"out, many at once": func(r *rapid.T) {
				ps := make([]pkt, rapid.IntRange(2, 12).Draw(r, "packets"))
				for i := range ps {
					ps[i] = draw(r)
				}
				inLAN(l, ps...)
			},
			"out": func(r *rapid.T) {
				p := draw(r)
				across, _ := l.put(lan, p)
				if len(across) != 1 || across[0].Class == packet.ClassOther || across[0].Class == packet.ClassTCP {
					return // TCP answers are the scenarios' business
				}
				// The answer to what left arrives where that came from.
				v := across[0]
				a := pkt{src: addr(v.Dst).String(), dst: addr(v.Src).String(), sport: v.DstPort, dport: v.SrcPort, proto: v.Proto, typ: packet.EchoReply}
				if v.Proto == packet.ICMP {
					a.sport = v.SrcPort
				}
				back, _ := l.put(wan, a)
				if l.port[lan].full || p.src == "10.0.0.99" {
					return
				}
				if len(back) != 1 || back[0].Dst != ip(p.src) || back[0].DstPort != p.sport || back[0].Src != ip(p.dst) {
					r.Fatalf("%v was answered, arrived: %v; drops: %s", v, back, l.drops())
				}
			},
			"in": func(r *rapid.T) {
				p := draw(r)
				p.src, p.dst = p.dst, rapid.SampledFrom([]string{ours, host, "203.0.113.99"}).Draw(r, "to")
				p.sport, p.dport = p.dport, p.sport
				p.typ = rapid.SampledFrom([]uint8{packet.EchoReply, packet.EchoRequest, packet.Unreachable}).Draw(r, "type")
				l.put(wan, p)
			},
			"error": func(r *rapid.T) {
				across, _ := l.put(lan, draw(r))
				if len(across) == 1 {
					l.put(wan, embed("192.0.2.1", ours, packet.TimeExceeded, 0, across[0]))
				}
			},
			"junk": func(r *rapid.T) {
				f := draw(r).frame(lanMAC)
				for range rapid.IntRange(1, 4).Draw(r, "bytes") {
					f[rapid.IntRange(0, len(f)-1).Draw(r, "at")] = rapid.Byte().Draw(r, "byte")
				}
				l.port[lan].in = append(l.port[lan].in, f[:rapid.IntRange(0, len(f)).Draw(r, "length")])
				l.run()
				l.port[lan].out, l.port[wan].out = nil, nil
			},
			"arp": func(r *rapid.T) {
				a := rapid.SampledFrom([]string{host, "10.0.0.3", "10.0.0.1", "203.0.113.1"}).Draw(r, "sender")
				l.raw(rapid.IntRange(0, 1).Draw(r, "side"), arp(rapid.Uint16Range(1, 2).Draw(r, "op"), a, macOf(ip(a)), rapid.SampledFrom([]string{"10.0.0.1", ours, host}).Draw(r, "target")))
			},
			"wait": func(r *rapid.T) {
				l.pass(rapid.Float64Range(0.01, 100).Draw(r, "seconds"))
				l.taken(lan)
				l.taken(wan)
			},
			"stuck": func(r *rapid.T) {
				w := l.port[rapid.IntRange(0, 1).Draw(r, "side")]
				w.full = !w.full
				l.pass(5) // until lost ARP requests have been repeated
				l.taken(lan)
				l.taken(wan)
			},
			"": func(*rapid.T) { l.invariants() },
		})
	})
}

// TestAllocations: handling a packet allocates nothing, whatever the decision.
func TestAllocations(t *testing.T) {
	short := udp(host, 4000, web, 53)
	short.ttl = 1
	frag := udp(host, 4000, web, 53)
	frag.frag = 0x2000
	v6 := make([]byte, 60)
	packet.PutEth(v6, &lanMAC, &[6]byte{2, 9, 9, 9, 9, 9}, packet.TypeIPv6)
	for _, c := range []struct {
		name string
		from int
		f    func(i int) []byte
	}{
		{"established udp", lan, func(int) []byte { return udp(host, 4000, web, 53).frame(lanMAC) }},
		{"established tcp", lan, func(int) []byte { return tcpSeg(host, 4001, web, 80, packet.ACK, 1001, 5001).frame(lanMAC) }},
		{"established echo", lan, func(int) []byte { return echo(host, web, packet.EchoRequest, 7).frame(lanMAC) }},
		{"new flow", lan, func(i int) []byte { return syn("10.0.0.3", uint16(1024+i), web, 80).frame(lanMAC) }},
		{"denied", lan, func(int) []byte { return udp(host, 4000, web, 54).frame(lanMAC) }},
		{"ttl", lan, func(int) []byte { return short.frame(lanMAC) }},
		{"fragment", lan, func(int) []byte { return frag.frame(lanMAC) }},
		{"ipv6", lan, func(int) []byte { return v6 }},
		{"arp", lan, func(int) []byte { return arp(packet.ARPRequest, host, macOf(ip(host)), "10.0.0.1") }},
		{"arp conflict", lan, func(int) []byte { return arp(packet.ARPRequest, host, [6]byte{2, 6}, "10.0.0.1") }},
		{"unresolved", wan, func(i int) []byte { return udp(web, uint16(1024+i), "10.0.0.99", 55).frame(wanMAC) }},
		{"ping", lan, func(int) []byte { return echo(host, "10.0.0.1", packet.EchoRequest, 3).frame(lanMAC) }},
		{"unsolicited", wan, func(int) []byte { return syn(web, 9, ours, 22).frame(wanMAC) }},
		{"icmp error", wan, func(int) []byte {
			return pkt{src: web, dst: ours, proto: packet.ICMP, typ: packet.Unreachable, code: 3,
				data: udp(ours, 4000, web, 53).frame(wanMAC)[packet.EthLen:]}.frame(wanMAC)
		}},
		{"of no connection", lan, func(i int) []byte { return tcpSeg("10.0.0.3", uint16(1024+i), web, 80, packet.ACK, 1, 1).frame(lanMAC) }},
		{"full table", lan, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLabWith(t, func(p *ruleset.Policy) {
				p.Settings.Flags |= ruleset.FlagResetUnknown
				if c.f == nil {
					p.Settings.MaxFlows = 8
				}
			}, "deny udp :54", "accept egress", "accept ingress udp :55", established)
			if c.f == nil {
				c.f = func(i int) []byte { return udp("10.0.0.3", uint16(1024+i), web, 53).frame(lanMAC) }
			}
			l.one(lan, udp(host, 4000, web, 53))
			l.one(wan, udp(web, 53, ours, 4000))
			l.handshake(host, 4001, web, 80)
			l.one(lan, echo(host, web, packet.EchoRequest, 7))
			w := [2]*still{{pool: l.pool}, {pool: l.pool}}
			l.e.port[lan].Port, l.e.port[wan].Port = w[0], w[1]
			const runs = 200
			for i := range runs + 1 {
				w[c.from].frames = append(w[c.from].frames, c.f(i))
			}
			rx := l.e.c.RxPackets[c.from]
			if n := testing.AllocsPerRun(runs, func() { l.now += 1e6; l.poll() }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if l.e.c.RxPackets[c.from]-rx != runs+1 {
				t.Fatalf("%d frames were received", l.e.c.RxPackets[c.from]-rx)
			}
		})
	}
}

// still is a port that gives one of its frames at a time, and allocates
// nothing.
type still struct {
	pool   *framebuf.Pool
	frames [][]byte
}

func (s *still) Receive(dst []framebuf.Frame) int {
	if len(s.frames) == 0 {
		return 0
	}
	b, ok := s.pool.Get()
	if !ok {
		return 0
	}
	n := copy(s.pool.Buffer(b)[framebuf.Headroom:], s.frames[0])
	s.frames = s.frames[1:]
	dst[0] = framebuf.Frame{Buf: b, Len: uint32(n)}
	return 1
}

func (*still) HasRoom(int) bool { return true }

func (s *still) Transmit(src []framebuf.Frame) int {
	for _, f := range src {
		s.pool.Put(f.Buf)
	}
	return len(src)
}

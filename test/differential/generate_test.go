package differential

import (
	"math/rand/v2"
	"slices"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A generator makes random conversations. The same seed makes the same ones.
type generator struct {
	r     *rand.Rand
	flows []flow
	tcp   []tcpSim
	steps []step
	id    uint16
}

// tcpSim is what the ends of a connection would send next.
type tcpSim struct {
	seq  [2]uint32 // next of each end; 0 begins the flow
	ack  [2]uint32 // that the end has sent last
	seen [2]bool   // has sent a SYN
	fin  [2]bool
	win  uint16
}

func pick[T any](g *generator, v ...T) T { return v[g.r.IntN(len(v))] }

// chance is true in p of 100 cases.
func (g *generator) chance(p int) bool { return g.r.IntN(100) < p }

// sequence makes the flows and steps of one comparison.
func generate(seed uint64, odd int) ([]flow, []step) {
	g := &generator{r: rand.New(rand.NewPCG(seed, 0x7468757277617264))}
	for range 1 + g.r.IntN(3) {
		f := g.flow()
		if slices.Contains(g.flows, f) {
			continue
		}
		g.flows = append(g.flows, f)
		g.tcp = append(g.tcp, tcpSim{seq: [2]uint32{g.r.Uint32(), g.r.Uint32()}, win: pick(g, uint16(65535), 8192, 1000, 64240)})
	}
	for range 6 + g.r.IntN(20) {
		n := g.r.IntN(len(g.flows))
		switch {
		case g.chance(odd) && len(g.steps) > 0:
			g.oddity(n)
		case g.chance(8) && g.flows[n].proto != packet.TCP:
			g.fragments(n)
		case g.flows[n].proto == packet.TCP:
			g.progress(n)
		default:
			g.datagram(n)
		}
	}
	return g.flows, g.steps
}

// flow makes a conversation of few hosts and ports, so that they collide.
func (g *generator) flow() flow {
	port := func() uint16 { return pick(g, uint16(4000), 4000, 4001, 5000, 1023) }
	host := packet.Addr(0)
	for host == 0 || host == ip(server) {
		host = ip(pick(g, lanHosts...))
	}
	out := endpoint{ip(pick(g, wanHosts...)), pick(g, uint16(80), 53, 7777)}
	proto := pick(g, uint8(packet.TCP), packet.TCP, packet.TCP, packet.UDP, packet.UDP, packet.ICMP)
	f := flow{kind: outbound, proto: proto, a: endpoint{host, port()}, b: out}
	switch n := g.r.IntN(10); {
	case n < 2 && proto != packet.ICMP:
		f.kind = inbound
		f.a, f.b = endpoint{out.addr, port()}, endpoint{ip(wanAddr), 443}
		f.to = endpoint{ip(server), 443}
		if proto == packet.UDP {
			f.b.port, f.to.port = 5353, 53
		}
	case n < 3 && proto != packet.ICMP:
		f.kind = hairpin
		f.b, f.to = endpoint{ip(wanAddr), 8443}, endpoint{ip(server), 443}
		if proto == packet.UDP {
			f.b.port, f.to.port = 5354, 53
		}
	case n == 3:
		f.kind = local
		f.b = endpoint{ip(lanAddr), 53}
	case n == 4 && proto == packet.UDP:
		f.b.port = 54 // denied
	case n == 5 && proto != packet.ICMP && g.chance(40):
		f.b.port = 55 // rejected
	}
	return f
}

// add appends a step of flow n. Where the packet enters follows from the flow
// and the direction.
func (g *generator) add(n int, reply bool, s spec, why string) {
	g.id++
	s.id = g.id
	if s.ttl == 0 {
		s.ttl = 64
	}
	g.steps = append(g.steps, step{flow: n, side: entry(&g.flows[n], reply), reply: reply, spec: s, why: why})
}

// entry is the side at which a flow's packets of a direction arrive.
func entry(f *flow, reply bool) replay.Side {
	if f.kind == inbound != (reply && f.kind != hairpin) {
		return replay.WAN
	}
	return replay.LAN
}

const (
	fin = packet.FIN
	syn = packet.SYN
	rst = packet.RST
	psh = packet.PSH
	ack = packet.ACK
)

func (g *generator) data(max int) []byte {
	b := make([]byte, g.r.IntN(max+1))
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return b
}

func side(reply bool) int {
	if reply {
		return 1
	}
	return 0
}

// seg makes a TCP segment as end i would send it now.
func (g *generator) seg(n int, reply bool, flags uint8, data []byte) spec {
	t := &g.tcp[n]
	i := side(reply)
	s := spec{proto: packet.TCP, flags: flags, seq: t.seq[i], win: t.win, data: data}
	if flags&ack != 0 {
		s.ack = t.seq[1-i]
	}
	return s
}

// sent advances the sender's state.
func (g *generator) sent(n int, reply bool, s *spec) {
	t := &g.tcp[n]
	i := side(reply)
	t.seq[i] += uint32(len(s.data))
	if s.flags&(syn|fin) != 0 {
		t.seq[i]++
	}
	t.seen[i] = t.seen[i] || s.flags&syn != 0
	t.fin[i] = t.fin[i] || s.flags&fin != 0
	if s.flags&ack != 0 {
		t.ack[i] = s.ack
	}
}

// progress sends what a well-behaved conversation would send next.
func (g *generator) progress(n int) {
	t := &g.tcp[n]
	reply, flags, why := g.chance(50), uint8(ack), "segment"
	var data, opts []byte
	switch {
	case !t.seen[0]:
		reply, flags, why = false, syn, "open"
		opts = g.synOptions()
	case !t.seen[1]:
		reply, flags, why = true, syn|ack, "accept"
		opts = g.synOptions()
	case t.ack[0] == 0:
		reply, why = false, "complete the handshake"
	case t.fin[0] && t.fin[1]:
		why = "last ACKs"
	case g.chance(20) && !t.fin[side(reply)]:
		flags, why = fin|ack, "close"
	case !t.fin[side(reply)] && g.chance(70):
		flags, data = ack|psh, g.data(200)
	}
	s := g.seg(n, reply, flags, data)
	s.opts = opts
	g.add(n, reply, s, why)
	g.sent(n, reply, &s)
}

func (g *generator) synOptions() []byte {
	o := []byte{2, 4, 5, 0xb4} // MSS 1460: fits, so that nothing clamps it
	if g.chance(50) {
		o = append(o, 1, 3, 3, byte(g.r.IntN(8)))
	}
	if g.chance(30) {
		o = append(o, 4, 2, 1, 1)
	}
	return o
}

// datagram sends UDP or an ICMP query.
func (g *generator) datagram(n int) {
	f := &g.flows[n]
	reply := g.chance(45)
	if f.proto == packet.UDP {
		g.add(n, reply, spec{proto: packet.UDP, data: g.data(100), noL4: g.chance(10)}, "datagram")
		return
	}
	typ := uint8(packet.EchoRequest)
	if reply {
		typ = packet.EchoReply
	}
	g.add(n, reply, spec{proto: packet.ICMP, typ: typ, seq: uint32(g.r.IntN(3)), data: g.data(60)}, "echo")
}

// fragments sends a datagram in fragments, in any order, some twice, sometimes
// not all.
func (g *generator) fragments(n int) {
	first := len(g.steps)
	g.datagram(n)
	whole := g.steps[first]
	g.steps = g.steps[:first]
	whole.spec.data = make([]byte, 100+g.r.IntN(1500))
	for i := range whole.spec.data {
		whole.spec.data[i] = byte(g.r.Uint32())
	}
	whole.spec.pad, whole.spec.cut = 0, 0
	size := 8 * (4 + g.r.IntN(100))
	var parts []part
	for off := 0; off < len(whole.spec.data)+8; off += size {
		parts = append(parts, part{off, size})
	}
	switch {
	case g.chance(10):
		parts = parts[1:] // the first is lost
	case g.chance(10):
		parts = append(parts, parts[g.r.IntN(len(parts))]) // one comes twice
	}
	if g.chance(60) {
		g.r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	}
	for i := range parts {
		st := whole
		st.spec.part = &parts[i]
		st.why = "fragment of a " + whole.why
		g.steps = append(g.steps, st)
	}
}

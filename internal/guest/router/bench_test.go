package router

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A loop is a port that receives the same frames again and again, copied from
// templates as a device would write them, and whose transmission is free.
type loop struct {
	pool   *framebuf.Pool
	frames []byte // templates of size bytes each
	size   int
	lens   []uint16 // lengths of the frames, by template; nil: size
	next   int
	left   int // frames still to be received
	sent   int
}

func (p *loop) Receive(dst []framebuf.Frame) int {
	n := min(len(dst), p.left)
	for i := range dst[:n] {
		b, ok := p.pool.Get()
		if !ok {
			return i
		}
		n := p.size
		if p.lens != nil {
			n = int(p.lens[p.next/p.size])
		}
		copy(p.pool.Buffer(b)[framebuf.Headroom:], p.frames[p.next:p.next+n])
		dst[i] = framebuf.Frame{Buf: b, Len: uint32(n)}
		if p.next += p.size; p.next == len(p.frames) {
			p.next = 0
		}
		p.left--
	}
	return n
}

func (*loop) HasRoom(int) bool { return true }

func (p *loop) Transmit(src []framebuf.Frame) int {
	for _, f := range src {
		p.pool.Put(f.Buf)
	}
	p.sent += len(src)
	return len(src)
}

// template builds the frame of flow i: 60 bytes, the shortest without FCS. Up to
// 64512 flows each has an endpoint of its own; more share these, with other
// destinations.
func template(i, size int) []byte {
	e := i % endpoints
	p := udp(addr(ip("10.0.0.2")+packet.Addr(e>>14)).String(), uint16(16384+e&0x3fff), addr(ip(web)+packet.Addr(i/endpoints)).String(), 5000)
	p.df = true // as practically all hosts do
	p.data = make([]byte, size-packet.EthLen-packet.MinIPv4-packet.UDPLen)
	return p.frame(lanMAC)
}

const endpoints = 60 << 10

// cpu returns the processor time of this process: other load on the machine
// stretches the wall time of a benchmark, but not its work.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// huge returns memory in pages of 2 MB where the system has them, as in the
// image: with small pages, half of the time at 64 k flows goes to TLB misses.
func huge(n int, _ bool) []byte {
	m, err := syscall.Mmap(-1, 0, n+2<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return make([]byte, n)
	}
	const hugepage = 14 // MADV_HUGEPAGE; without it the pages are small
	_ = syscall.Madvise(m, hugepage)
	return m[:n:n]
}

// newLoop makes an engine with n established flows of UDP, and a port that
// receives one frame of each in random order.
func newLoop(b *testing.B, n, size int) (*Engine, *loop, *loop) {
	l := newLabIn(b, huge, func(p *ruleset.Policy) { p.Settings.MaxFlows = uint32(max(64<<10, n+1)) }, "accept egress", established)
	in := &loop{pool: l.pool, size: size, frames: huge(n*size, true)}
	out := &loop{pool: l.pool}
	for i := range n {
		copy(in.frames[i*size:], template(i, size))
	}
	// The gateway's address, and the flows.
	l.put(lan, syn(host, 1, web, 80))
	l.e.port[wan].neigh.Find(ip("203.0.113.1")).Expires = math.MaxInt64 // the port will not answer
	l.e.port[lan].Port, l.e.port[wan].Port = in, out
	for in.left = n; in.left > 0; {
		l.poll()
	}
	if l.e.flows.Len() != n+1 || out.sent != n {
		b.Fatalf("%d flows, %d sent; drops: %s", l.e.flows.Len(), out.sent, l.drops())
	}
	l.e.events = nil
	out.sent = 0
	// Packets arrive in another order than that in which the flows began.
	shuffled := huge(len(in.frames), true)
	for i, j := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		copy(shuffled[j*size:], in.frames[i*size:][:size])
	}
	in.frames = shuffled
	return l.e, in, out
}

// BenchmarkEstablished forwards packets of established flows, with source
// translation.
func BenchmarkEstablished(b *testing.B) {
	for _, c := range []struct{ flows, size int }{{1, 60}, {1 << 10, 60}, {60 << 10, 60}, {1 << 20, 60}, {1 << 10, 1514}} {
		b.Run(fmt.Sprintf("flows=%d/bytes=%d", c.flows, c.size), func(b *testing.B) {
			e, in, out := newLoop(b, c.flows, c.size)
			b.ReportAllocs()
			b.ResetTimer()
			start := cpu()
			in.left = b.N
			for i := 0; in.left > 0; i++ {
				e.Poll(int64(1e9) + int64(i)*1000)
			}
			b.StopTimer()
			if out.sent != b.N {
				b.Fatalf("%d of %d sent", out.sent, b.N)
			}
			b.ReportMetric(float64(b.N)/(cpu()-start).Seconds()/1e6, "Mpps/cpu")
		})
	}
}

// A ceiling is the least that any such firewall must do, with the same memory
// traffic: take the frame in, find a record by the packet's tuple, and write
// other addresses, TTL and checksums. What the engine does less is the price of
// the checks.
type ceiling struct {
	table []ceilingRecord
	fr    [Batch]framebuf.Frame
	slot  [Batch]uint32
	sink  uint64
}

type ceilingRecord struct {
	_, out  packet.Rewrite // the first stands for the key
	packets uint64
	bytes   uint64
	last    int64
	_       [16]byte
}

func newCeiling(flows int) *ceiling {
	n := 128 << 10
	for n < 2*flows {
		n <<= 1
	}
	m := huge(n*int(unsafe.Sizeof(ceilingRecord{})), true)
	return &ceiling{table: unsafe.Slice((*ceilingRecord)(unsafe.Pointer(&m[0])), n)}
}

func (c *ceiling) run(in, out *loop) {
	mask := uint32(len(c.table) - 1)
	for in.left > 0 {
		n := in.Receive(c.fr[:])
		for i := range c.fr[:n] {
			f := in.pool.Bytes(c.fr[i])
			h := binary.LittleEndian.Uint64(f[26:])*0x9e3779b97f4a7c15 ^ uint64(binary.LittleEndian.Uint32(f[34:]))*0xc2b2ae3d27d4eb4f
			c.slot[i] = uint32(h>>32) & mask
			c.sink += c.table[c.slot[i]].packets
		}
		for i := range c.fr[:n] {
			f := in.pool.Bytes(c.fr[i])
			r := &c.table[c.slot[i]]
			r.packets++
			r.bytes += uint64(len(f))
			r.last = int64(i)
			binary.LittleEndian.PutUint64(f[0:], uint64(r.out.Src))
			binary.LittleEndian.PutUint32(f[26:], uint32(r.out.Src))
			binary.LittleEndian.PutUint16(f[34:], r.out.SrcPort)
			binary.LittleEndian.PutUint16(f[24:], uint16(c.sink))
			f[22]--
		}
		out.Transmit(c.fr[:n])
	}
}

// BenchmarkRatio runs the engine, its ceiling and the device alone by turns, so that all
// meet the same load and clock. It reports what share of the ceiling the engine does, and
// the engine's rate without the device's time: what copies frames here is not the router's
// work in a machine.
func BenchmarkRatio(b *testing.B) {
	for _, c := range []struct {
		name  string
		flows int
		sizes []int // shares of frames by size
	}{
		{"flows=1", 1, nil}, {"flows=1024", 1 << 10, nil}, {"flows=61440", 60 << 10, nil}, {"flows=1048576", 1 << 20, nil},
		{"flows=1024/mixed", 1 << 10, []int{60, 60, 60, 60, 60, 60, 60, 590, 590, 590, 590, 1514}}, // the usual mix of 7:4:1
	} {
		b.Run(c.name, func(b *testing.B) {
			size := 60
			for _, s := range c.sizes {
				size = max(size, s)
			}
			e, in, out := newLoop(b, c.flows, size)
			if c.sizes != nil {
				in.mix(c.sizes)
			}
			top := newCeiling(c.flows)
			const turn = 50_000
			var own, bare, dev time.Duration
			var fr [Batch]framebuf.Frame
			n, now := 0, int64(1e9)
			b.ReportAllocs()
			b.ResetTimer()
			for ; n < b.N; n += turn {
				at := in.next
				start := cpu()
				for in.left = turn; in.left > 0; now += 1000 {
					e.Poll(now)
				}
				mid := cpu()
				in.next = at
				in.left = turn
				top.run(in, out)
				late := cpu()
				in.next = at
				for in.left = turn; in.left > 0; {
					out.Transmit(fr[:in.Receive(fr[:])])
				}
				own, bare, dev = own+mid-start, bare+late-mid, dev+cpu()-late
			}
			b.StopTimer()
			if out.sent != 3*n {
				b.Fatalf("%d of %d sent", out.sent, 2*n)
			}
			b.ReportMetric(float64(n)/own.Seconds()/1e6, "Mpps/cpu")
			b.ReportMetric(float64(n)/bare.Seconds()/1e6, "ceiling-Mpps/cpu")
			b.ReportMetric(float64(n)/(own-dev).Seconds()/1e6, "alone-Mpps/cpu")
			b.ReportMetric(bare.Seconds()/own.Seconds(), "of-ceiling")
			b.ReportMetric(0, "ns/op") // all together: says nothing
		})
	}
}

// mix cuts the templates, which have the largest of the sizes, to the sizes in
// turn.
func (p *loop) mix(sizes []int) {
	n := len(p.frames) / p.size
	p.lens = make([]uint16, n)
	for i := range n {
		s := sizes[i%len(sizes)]
		f := p.frames[i*p.size:][:s]
		ip := f[packet.EthLen:]
		binary.BigEndian.PutUint16(ip[2:], uint16(s-packet.EthLen))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^packet.Sum(ip[:packet.MinIPv4], 0))
		l4 := ip[packet.MinIPv4:]
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		binary.BigEndian.PutUint16(l4[6:], 0)
		src, dst := binary.BigEndian.Uint32(ip[12:]), binary.BigEndian.Uint32(ip[16:])
		binary.BigEndian.PutUint16(l4[6:], ^packet.Sum(l4, uint64(src)+uint64(dst)+packet.UDP+uint64(len(l4))))
		p.lens[i] = uint16(s)
	}
}

// classify gives an engine another policy's rules.
func classify(b *testing.B, e *Engine, p *ruleset.Policy) {
	if err := compile.Classifier(p); err != nil {
		b.Fatal(err)
	}
	var err error
	if e.filter, err = filter.New(p); err != nil {
		b.Fatal(err)
	}
	e.c.Drops, e.c.Accepts, e.c.Shadows = make([]uint64, len(p.Rules)+1), make([]uint64, len(p.Rules)+1), make([]uint64, len(p.Rules)+1)
}

// BenchmarkNewFlows begins and ends a flow with every packet: each finds its
// predecessor expired, which is removed, and makes a new one with a new port.
// The rule that accepts is the last of a policy of some length, whose other
// rules are about hosts of the same networks.
func BenchmarkNewFlows(b *testing.B) {
	for _, rules := range []int{10, 10000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) { newFlows(b, rules) })
	}
}

func newFlows(b *testing.B, rules int) {
	const flows = 60 << 10
	e, in, out := newLoop(b, flows, 60)
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
	for i := range rules - 1 {
		addRule(b, p, rule(fmt.Sprintf("deny egress udp 10.0.0.%d -> 198.51.100.%d :%d", i%16, i/16%250, 1024+i)))
	}
	addRule(b, p, "accept egress udp 10.0.0.0/24 -> 198.51.100.0/24 :5000")
	classify(b, e, p)
	inserts := e.flows.C.Inserts
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	now := int64(1e9)
	for done := 0; done < b.N; done += in.left {
		now += 121 * second
		e.tick = now + second // no sweep: the look-ups do its work
		in.left = min(flows, b.N-done)
		n := in.left
		for in.left > 0 {
			e.Poll(now)
		}
		in.left = n
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/(cpu()-start).Seconds()/1e6, "Mflows/cpu")
	if got := e.flows.C.Inserts - inserts; got != uint64(b.N) || out.sent != b.N {
		b.Fatalf("%d flows made and %d packets sent for %d packets", got, out.sent, b.N)
	}
}

// BenchmarkDrops drops every packet by the default action, after a policy of
// some length has been looked through, and for a wrong checksum.
func BenchmarkDrops(b *testing.B) {
	for _, c := range []struct {
		name   string
		rules  int
		broken bool
	}{{"rules=10", 10, false}, {"rules=10000", 10000, false}, {"malformed", 10, true}} {
		b.Run(c.name, func(b *testing.B) {
			e, in, _ := newLoop(b, 1<<10, 60)
			p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
			for i := range c.rules {
				addRule(b, p, rule(fmt.Sprintf("accept egress tcp 10.0.%d.0/24 -> 192.0.2.%d :443", i/250%250, i%250)))
			}
			classify(b, e, p)
			e.c.Drops, e.c.Accepts = make([]uint64, c.rules+1), make([]uint64, c.rules+1)
			for i := 0; i < len(in.frames); i += in.size {
				f := in.frames[i:][:in.size]
				copy(f, udp("10.0.0.66", uint16(1024+i/in.size), web, 53).frame(lanMAC))
				if c.broken {
					f[packet.EthLen+10] ^= 1
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			start := cpu()
			for in.left = b.N; in.left > 0; {
				e.Poll(2e9)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/(cpu()-start).Seconds()/1e6, "Mpps/cpu")
			if want := e.c.Drops[c.rules]; !c.broken && want != uint64(b.N) {
				b.Fatalf("%d dropped", want)
			}
		})
	}
}

// BenchmarkEstablishedTCP forwards segments of established connections in both
// directions, window checks included.
func BenchmarkEstablishedTCP(b *testing.B) {
	l, in := newTCPLoop(b, 30<<10)
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	in[lan].left, in[wan].left = (b.N+1)/2, b.N/2
	for in[lan].left+in[wan].left > 0 {
		l.e.Poll(2e9)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/(cpu()-start).Seconds()/1e6, "Mpps/cpu")
	if n := in[lan].sent + in[wan].sent; n != b.N {
		b.Fatalf("%d of %d sent; drops: %s", n, b.N, l.drops())
	}
}

// newTCPLoop makes an engine with established connections, and ports that
// receive segments of them in random order.
func newTCPLoop(b *testing.B, conns int) (*lab, [2]*loop) {
	l := newLabIn(b, huge, func(p *ruleset.Policy) { p.Settings.MaxFlows = 64 << 10 }, "accept egress", established)
	in := [2]*loop{{pool: l.pool, size: 60}, {pool: l.pool, size: 60}}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(conns) {
		h, p := addr(ip("10.0.0.2")+packet.Addr(i>>14)).String(), uint16(16384+i&0x3fff)
		x := l.handshake(h, p, web, 80)
		a, z := tcpSeg(h, p, web, 80, packet.ACK, 1001, 5001), tcpSeg(web, 80, ours, x, packet.ACK, 5001, 1001)
		a.df, z.df = true, true
		a.data, z.data = make([]byte, 6), make([]byte, 6)
		in[lan].frames = append(in[lan].frames, a.frame(lanMAC)...)
		in[wan].frames = append(in[wan].frames, z.frame(wanMAC)...)
	}
	l.e.events = nil
	l.e.port[lan].Port, l.e.port[wan].Port = in[lan], in[wan]
	return l, in
}

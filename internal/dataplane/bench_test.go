package dataplane

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/filter"
	"github.com/thurward/thurward/internal/frame"
	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
)

// A loop is a port that receives the same frames again and again, copied from
// templates as a device would write them, and whose transmission is free.
type loop struct {
	pool   *frame.Pool
	frames []byte // templates of size bytes each
	size   int
	next   int
	left   int // frames still to be received
	sent   int
}

func (p *loop) Receive(dst []frame.Frame) int {
	n := min(len(dst), p.left)
	for i := range dst[:n] {
		b, ok := p.pool.Get()
		if !ok {
			return i
		}
		copy(p.pool.Buffer(b)[frame.Headroom:], p.frames[p.next:p.next+p.size])
		dst[i] = frame.Frame{Buf: b, Off: frame.Headroom, Len: uint16(p.size)}
		if p.next += p.size; p.next == len(p.frames) {
			p.next = 0
		}
		p.left--
	}
	return n
}

func (p *loop) Transmit(src []frame.Frame) int {
	for _, f := range src {
		p.pool.Put(f.Buf)
	}
	p.sent += len(src)
	return len(src)
}

// template builds the frame of flow i: 60 bytes, the shortest without FCS.
func template(i, size int) []byte {
	p := udp(addr(ip("10.0.0.2")+packet.Addr(i>>14)).String(), uint16(16384+i&0x3fff), web, 53)
	p.df = true // as practically all hosts do
	p.data = make([]byte, size-packet.EthLen-packet.MinIPv4-packet.UDPLen)
	return p.frame(lanMAC)
}

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
	l := newLabIn(b, huge, func(p *segment.Policy) { p.Settings.MaxFlows = 64 << 10 }, "accept egress", established)
	in := &loop{pool: l.pool, size: size, frames: make([]byte, n*size)}
	out := &loop{pool: l.pool}
	for i := range n {
		copy(in.frames[i*size:], template(i, size))
	}
	// The gateway's address, and the flows.
	l.put(lan, syn(host, 1, web, 80))
	l.e.port[wan].arp.find(ip("203.0.113.1")).expires = math.MaxInt64 // the port will not answer
	l.e.port[lan].Port, l.e.port[wan].Port = in, out
	for in.left = n; in.left > 0; {
		l.e.Poll(l.now)
	}
	if l.e.flows.Len() != n+1 || out.sent != n {
		b.Fatalf("%d flows, %d sent; drops: %s", l.e.flows.Len(), out.sent, l.drops())
	}
	l.e.events = nil
	out.sent = 0
	// Packets arrive in another order than that in which the flows began.
	shuffled := make([]byte, len(in.frames))
	for i, j := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		copy(shuffled[j*size:], in.frames[i*size:][:size])
	}
	in.frames = shuffled
	return l.e, in, out
}

// BenchmarkEstablished forwards packets of established flows, with source
// translation.
func BenchmarkEstablished(b *testing.B) {
	for _, c := range []struct{ flows, size int }{{1, 60}, {1 << 10, 60}, {60 << 10, 60}, {1 << 10, 1514}} {
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

// BenchmarkCeiling is the least that any such firewall must do, with the same
// memory traffic: take the frame in, find a record by the packet's tuple, and
// write other addresses, TTL and checksums. What Established does less is the
// price of the checks.
func BenchmarkCeiling(b *testing.B) {
	type record struct {
		_, out  packet.Rewrite // the first stands for the key
		packets uint64
		bytes   uint64
		last    int64
		_       [16]byte
	}
	for _, flows := range []int{1, 1 << 10, 60 << 10} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			_, in, out := newLoop(b, flows, 60)
			const mask = 128<<10 - 1
			table := make([]record, mask+1)
			var fr [Batch]frame.Frame
			var slot [Batch]uint32
			hash := func(f []byte) uint32 {
				h := binary.LittleEndian.Uint64(f[26:])*0x9e3779b97f4a7c15 ^ uint64(binary.LittleEndian.Uint32(f[34:]))*0xc2b2ae3d27d4eb4f
				return uint32(h>>32) & mask
			}
			b.ReportAllocs()
			b.ResetTimer()
			start := cpu()
			in.left = b.N
			var sink uint64
			for in.left > 0 {
				n := in.Receive(fr[:])
				for i := range fr[:n] {
					slot[i] = hash(in.pool.Bytes(fr[i]))
					sink += table[slot[i]].packets
				}
				for i := range fr[:n] {
					f := in.pool.Bytes(fr[i])
					r := &table[slot[i]]
					r.packets++
					r.bytes += uint64(len(f))
					r.last = int64(i)
					binary.LittleEndian.PutUint64(f[0:], uint64(r.out.Src))
					binary.LittleEndian.PutUint32(f[26:], uint32(r.out.Src))
					binary.LittleEndian.PutUint16(f[34:], r.out.SrcPort)
					binary.LittleEndian.PutUint16(f[24:], uint16(sink))
					f[22]--
				}
				out.Transmit(fr[:n])
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/(cpu()-start).Seconds()/1e6, "Mpps/cpu")
		})
	}
}

// classify gives an engine another policy's rules.
func classify(b *testing.B, e *Engine, p *segment.Policy) {
	if err := filter.Build(p); err != nil {
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
	p := &segment.Policy{Settings: segment.Settings{DefaultAction: segment.Deny}}
	for i := range rules - 1 {
		addRule(b, p, rule(fmt.Sprintf("deny egress udp 10.0.0.%d -> 198.51.100.%d :%d", i%16, i/16%250, 1024+i)))
	}
	addRule(b, p, "accept egress udp 10.0.0.0/24 -> 198.51.100.0/24 :53")
	classify(b, e, p)
	inserts := e.flows.C.Inserts
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	now := int64(1e9)
	for done := 0; done < b.N; done += in.left {
		now += 31 * second
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
			p := &segment.Policy{Settings: segment.Settings{DefaultAction: segment.Deny}}
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
	const conns = 30 << 10
	l := newLabIn(b, huge, func(p *segment.Policy) { p.Settings.MaxFlows = 64 << 10 }, "accept egress", established)
	in := [2]*loop{{pool: l.pool, size: 60}, {pool: l.pool, size: 60}}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(conns) {
		h, p := addr(ip("10.0.0.2")+packet.Addr(i>>14)).String(), uint16(16384+i&0x3fff)
		x := l.handshake(h, p, web, 80)
		a, z := tcp(h, p, web, 80, packet.ACK, 1001, 5001), tcp(web, 80, ours, x, packet.ACK, 5001, 1001)
		a.df, z.df = true, true
		a.data, z.data = make([]byte, 6), make([]byte, 6)
		in[lan].frames = append(in[lan].frames, a.frame(lanMAC)...)
		in[wan].frames = append(in[wan].frames, z.frame(wanMAC)...)
	}
	l.e.events = nil
	l.e.port[lan].Port, l.e.port[wan].Port = in[lan], in[wan]
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

package router

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A cable is one queue of a device that a worker polls in a goroutine of its own: frames come
// by a channel, and what is sent is given to the other side.
type cable struct {
	pool *framebuf.Pool
	in   chan []byte
	sent func(f []byte)
}

func (c *cable) Receive(dst []framebuf.Frame) int {
	for n := range dst {
		select {
		case f := <-c.in:
			b, ok := c.pool.Get()
			if !ok {
				return n // the frame is lost, as on a wire
			}
			k := copy(c.pool.Buffer(b)[framebuf.Headroom:], f)
			dst[n] = framebuf.Frame{Buf: b, Len: uint32(k)}
		default:
			return n
		}
	}
	return len(dst)
}

func (*cable) HasRoom(int) bool { return true }

func (c *cable) Transmit(src []framebuf.Frame) int {
	for _, f := range src {
		c.sent(append([]byte(nil), c.pool.Bytes(f)...))
		c.pool.Put(f.Buf)
	}
	return len(src)
}

// A floor is several workers at once, each in a goroutine of its own, with a cable of its own on
// both sides. Which worker gets a frame is arbitrary.
type floor struct {
	t       *testing.T
	engines []*Engine
	queues  [2][]*cable
	begun   time.Time // the workers' clocks agree
	stop    atomic.Bool
	wg      sync.WaitGroup
}

// newFloor connects the workers of a lab; what leaves is given to reply, which may give frames.
func newFloor(t *testing.T, l *lab, reply func(w *floor, side int, f []byte)) *floor {
	w := &floor{t: t, engines: l.engines()}
	for _, e := range w.engines {
		for side := range w.queues {
			c := &cable{pool: e.pool, in: make(chan []byte, 4096), sent: func(f []byte) { w.answerARP(side, f, reply) }}
			w.queues[side] = append(w.queues[side], c)
			e.port[side].Port = c
		}
	}
	return w
}

// heap is memory that the race detector sees.
func heap(n int, _ bool) []byte { return make([]byte, n) }

// give puts a frame on a cable of a side.
func (w *floor) give(side int, f []byte) {
	h := uint32(0)
	for _, b := range f[20:min(len(f), 40)] {
		h = h*31 + uint32(b)
	}
	w.queues[side][h>>3%uint32(len(w.engines))].in <- f
}

// answerARP answers requests in the name of everybody, and leaves the rest to reply.
func (w *floor) answerARP(side int, f []byte, reply func(w *floor, side int, f []byte)) {
	if packet.Type(f) != packet.TypeARP {
		reply(w, side, f)
		return
	}
	var m packet.ARPMessage
	if packet.ParseARP(f, &m) && m.Op == packet.ARPRequest && m.TargetAddr != m.SenderAddr {
		r := make([]byte, 60)
		packet.PutARP(r, &m.SenderMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: macOf(m.TargetAddr), SenderAddr: m.TargetAddr,
			TargetMAC: m.SenderMAC, TargetAddr: m.SenderAddr})
		go w.give(side, r)
	}
}

// run lets all workers poll until end is called; before each poll of the first one also is
// called, if it is not nil.
func (w *floor) run(also func(polls int, now int64)) {
	w.begun = time.Now()
	for _, e := range w.engines {
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			for polls := 0; !w.stop.Load(); polls++ {
				now := w.now()
				if e.w.k == 0 && also != nil {
					also(polls, now)
				}
				if e.Poll(now) == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
}

func (w *floor) now() int64 { return int64(1e9) + int64(time.Since(w.begun)) }

// end stops the workers.
func (w *floor) end() {
	w.stop.Store(true)
	w.wg.Wait()
}

// wait waits until a number has grown to want.
func (w *floor) wait(v *atomic.Uint64, want uint64, what string) {
	for began := time.Now(); v.Load() < want; {
		if time.Sleep(time.Millisecond); time.Since(began) > 30*time.Second {
			w.end()
			for k, e := range w.engines {
				w.t.Logf("worker %d: %d flows, %d waiting, rx %v tx %v, drops %v", k, e.flows.Len(), e.port[lan].neigh.Waiting()+e.port[wan].neigh.Waiting(), e.c.RxPackets, e.c.TxPackets, e.c.DropReasons)
			}
			w.t.Fatalf("%s: %d of %d", what, v.Load(), want)
		}
	}
}

// sum ends the workers, and returns the sum of their counters.
func (w *floor) sum(l *lab) Counters {
	w.end()
	for _, e := range w.engines {
		e.Poll(1e9)
	}
	sum := Counters{Accepts: make([]uint64, len(l.policy.Rules)+1), Drops: make([]uint64, len(l.policy.Rules)+1), Shadows: make([]uint64, len(l.policy.Rules)+1)}
	for _, e := range w.engines {
		sum.Add(&e.c)
	}
	return sum
}

// settled checks the invariants after the workers have ended with a sum of counters.
func (l *lab) settled(sum Counters) {
	l.t.Helper()
	l.e.c = sum
	for _, e := range l.others {
		zero(&e.c)
	}
	l.invariants()
}

// TestWorkersTogether runs four workers at once, whose queues get frames at random: hosts
// send and are answered, each flow many times; ping, fragments, a limit by source, and a
// table of names that changes meanwhile. Under the race detector it fails where two workers
// use the same memory. At the end nothing is lost: every question has had its answer at the
// host that asked, sums are exact, and every buffer is somebody's.
func TestWorkersTogether(t *testing.T) {
	const n, hosts, ports, rounds = 4, 8, 16, 30
	was := workers
	workers = n
	defer func() { workers = was }()
	l := newLabIn(t, heap, func(p *ruleset.Policy) {
		p.Settings.MaxFlows = 8192
		p.Settings.SourceFlows = 4 * ports * rounds
		p.Settings.Fragments = ruleset.FragmentsReassemble
		p.Upstreams = []ruleset.Upstream{{Address: ip("9.9.9.9").To16(), Port: 53}}
	}, "accept egress", established)
	var answered atomic.Uint64
	reply := func(w *floor, side int, f []byte) { // what is on this side answers
		var p packet.Packet
		switch _, why := packet.ParseIPv4(f, &p); {
		case why == verdict.FragmentedIPv4:
			if binary.BigEndian.Uint16(f[packet.EthLen+6:])&0x1fff != 0 {
				return
			}
			p.Class, p.SrcPort, p.DstPort = packet.ClassUDP, binary.BigEndian.Uint16(f[34:]), binary.BigEndian.Uint16(f[36:])
		case why != 0:
			t.Errorf("the firewall sent a packet that is %v", why)
			return
		}
		if side == lan {
			answered.Add(1)
			return
		}
		if p.Class == packet.ClassUDP {
			go w.give(wan, udp(addr(p.Dst).String(), p.DstPort, addr(p.Src).String(), p.SrcPort).frame(wanMAC))
		} else if p.Class == packet.ClassICMPQuery {
			go w.give(wan, echo(addr(p.Dst).String(), addr(p.Src).String(), packet.EchoReply, p.SrcPort).frame(wanMAC))
		}
	}
	w := newFloor(t, l, reply)
	w.run(func(polls int, now int64) { // as answers to clients do
		for h := range packet.Addr(hosts) {
			l.e.names.set.Bind(ip(host)+h, []byte("\x04some\x04name\x00"), ip(web)+packet.Addr(polls%16), 60, now, 1)
		}
	})
	want := uint64(0)
	for round := range rounds {
		for h := range hosts {
			for i := range ports {
				src := addr(ip(host) + packet.Addr(h)).String()
				w.give(lan, udp(src, uint16(4000+round*64+i*3), addr(ip(web)+packet.Addr(i)).String(), 5000).frame(lanMAC))
				want++
				if i%4 == 0 {
					w.give(lan, echo(src, web, packet.EchoRequest, uint16(100+i)).frame(lanMAC))
					want++
				}
				if i%8 == 0 {
					p := udp(src, uint16(6000+i), web, 5001)
					p.data = make([]byte, 1000)
					for _, f := range fragments(p, lanMAC, 600, uint16(1000+round*100+h*20+i)) {
						w.give(lan, f)
					}
					want++
				}
			}
		}
		w.wait(&answered, want, "answers")
	}
	sum := w.sum(l)
	busy := 0
	for _, e := range w.engines {
		if e.flows.Len() > 0 {
			busy++
		}
	}
	if sum.HandedOver == 0 || busy != n {
		t.Errorf("%d handed over, %d workers have flows", sum.HandedOver, busy)
	}
	// Two of each datagram in fragments, in one direction.
	pieces := uint64(rounds * hosts * ports / 8)
	if sum.Accepts[0] != want+pieces || sum.Accepts[1] != want || answered.Load() != want {
		t.Errorf("accepted %v, answered %d, want %d and %d in fragments", sum.Accepts, answered.Load(), want, pieces)
	}
	for why, n := range sum.DropReasons {
		if n != 0 {
			t.Errorf("%v: %d", verdict.Reason(why), n)
		}
	}
	for h := range packet.Addr(hosts) {
		if got := l.e.sources.Flows(ip(host) + h); got != rounds*ports+ports/4+ports/8 {
			t.Errorf("host %d has %d flows", h, got)
		}
	}
	l.settled(sum)
}

// TestWorkersLendTogether: ports move while four workers run, since all clients have the ports of
// one of them; every question has its answer, at the host that asked.
func TestWorkersLendTogether(t *testing.T) {
	const n, hosts, rounds = 4, 250, 6
	was := workers
	workers = n
	defer func() { workers = was }()
	l := newLabIn(t, heap, fewPorts(n*512), "accept egress", established)
	var answered, strays atomic.Uint64
	w := newFloor(t, l, func(w *floor, side int, f []byte) {
		var p packet.Packet
		if _, why := packet.ParseIPv4(f, &p); why != 0 {
			t.Errorf("the firewall sent a packet that is %v", why)
		}
		if side == wan {
			go w.give(wan, udp(addr(p.Dst).String(), p.DstPort, addr(p.Src).String(), p.SrcPort).frame(wanMAC))
			return
		}
		if p.DstPort%8 != 4 || p.Dst&^0xff != ip("10.0.1.0") {
			strays.Add(1)
		}
		answered.Add(1)
	})
	w.run(nil)
	want := uint64(0)
	for round := range rounds {
		for h := range packet.Addr(hosts) {
			w.give(lan, udp(addr(ip("10.0.1.0")+h).String(), uint16(4500+8*round), web, 4500).frame(lanMAC))
			want++
		}
		w.wait(&answered, want, "answers")
	}
	sum := w.sum(l)
	if strays.Load() != 0 || l.guests() < hosts*rounds-512 || sum.PortsReclaimed != 0 {
		t.Errorf("%d strays, %d ports lent, %d reclaimed", strays.Load(), l.guests(), sum.PortsReclaimed)
	}
	for why, n := range sum.DropReasons {
		if n != 0 {
			t.Errorf("%v: %d", verdict.Reason(why), n)
		}
	}
	l.settled(sum)
}

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
	heap := func(n int, _ bool) []byte { return make([]byte, n) } // the race detector sees no other memory
	l := newLabIn(t, heap, func(p *ruleset.Policy) {
		p.Settings.MaxFlows = 8192
		p.Settings.SourceFlows = 4 * ports * rounds
		p.Settings.Fragments = ruleset.FragmentsReassemble
		p.Upstreams = []ruleset.Upstream{{Address: ip("9.9.9.9").To16(), Port: 53}}
	}, "accept egress", established)
	var queues [2][n]*cable
	var answered atomic.Uint64
	give := func(side int, f []byte) {
		h := uint32(0)
		for _, b := range f[20:min(len(f), 40)] {
			h = h*31 + uint32(b)
		}
		queues[side][h>>3%n].in <- f
	}
	reply := func(side int, f []byte) { // what is on this side answers
		var m packet.ARPMessage
		if packet.Type(f) == packet.TypeARP {
			if packet.ParseARP(f, &m) && m.Op == packet.ARPRequest && m.TargetAddr != m.SenderAddr {
				r := make([]byte, 60)
				packet.PutARP(r, &m.SenderMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: macOf(m.TargetAddr), SenderAddr: m.TargetAddr,
					TargetMAC: m.SenderMAC, TargetAddr: m.SenderAddr})
				go give(side, r)
			}
			return
		}
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
			go give(wan, udp(addr(p.Dst).String(), p.DstPort, addr(p.Src).String(), p.SrcPort).frame(wanMAC))
		} else if p.Class == packet.ClassICMPQuery {
			go give(wan, echo(addr(p.Dst).String(), addr(p.Src).String(), packet.EchoReply, p.SrcPort).frame(wanMAC))
		}
	}
	engines := l.engines()
	for k, e := range engines {
		for side := range queues {
			c := &cable{pool: e.pool, in: make(chan []byte, 4096), sent: func(f []byte) { reply(side, f) }}
			queues[side][k] = c
			e.port[side].Port = c
		}
	}
	start := time.Now() // the workers' clocks agree
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, e := range engines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for polls := packet.Addr(0); !stop.Load(); polls++ {
				now := int64(1e9) + int64(time.Since(start))
				if e.w.k == 0 { // as answers to clients do
					for h := range packet.Addr(hosts) {
						e.names.set.Bind(ip(host)+h, []byte("\x04some\x04name\x00"), ip(web)+polls%16, 60, now, 1)
					}
				}
				if e.Poll(now) == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
	// wait waits until a number has grown to want.
	wait := func(v *atomic.Uint64, want uint64, what string) {
		for began := time.Now(); v.Load() < want; {
			if time.Sleep(time.Millisecond); time.Since(began) > 30*time.Second {
				stop.Store(true)
				wg.Wait()
				for k, e := range engines {
					t.Logf("worker %d: %d flows, %d waiting, rx %v tx %v", k, e.flows.Len(), e.port[wan].neigh.Waiting(), e.c.RxPackets, e.c.TxPackets)
				}
				t.Fatalf("%s: %d of %d", what, v.Load(), want)
			}
		}
	}
	want := uint64(0)
	for round := range rounds {
		for h := range hosts {
			for i := range ports {
				src := addr(ip(host) + packet.Addr(h)).String()
				give(lan, udp(src, uint16(4000+round*64+i*3), addr(ip(web)+packet.Addr(i)).String(), 5000).frame(lanMAC))
				want++
				if i%4 == 0 {
					give(lan, echo(src, web, packet.EchoRequest, uint16(100+i)).frame(lanMAC))
					want++
				}
				if i%8 == 0 {
					p := udp(src, uint16(6000+i), web, 5001)
					p.data = make([]byte, 1000)
					for _, f := range fragments(p, lanMAC, 600, uint16(1000+round*100+h*20+i)) {
						give(lan, f)
					}
					want++
				}
			}
		}
		wait(&answered, want, "answers")
	}
	stop.Store(true)
	wg.Wait()
	for _, e := range engines {
		e.Poll(1e9)
	}
	sum := Counters{Accepts: make([]uint64, len(l.policy.Rules)+1), Drops: make([]uint64, len(l.policy.Rules)+1), Shadows: make([]uint64, len(l.policy.Rules)+1)}
	busy := 0
	for _, e := range engines {
		sum.Add(&e.c)
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
	l.e.c = sum
	for _, e := range l.others {
		zero(&e.c)
	}
	l.invariants()
}

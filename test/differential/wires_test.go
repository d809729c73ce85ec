package differential

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Honest ends: gVisor's TCP on both sides, that react to what is dropped, over wires that
// lose, repeat, delay and reorder. They crash at any time, restart without state, and use
// the same ports again. Their requests succeed, as on a plain wire: data arrive whole, and
// a refusal is reported.

// speed is how many seconds of the ends' and the firewall's time pass in one.
const speed = 20

// A fastClock is gVisor's clock at that speed.
type fastClock struct{ begin time.Time }

func (c fastClock) now() time.Duration { return time.Since(c.begin) * speed }
func (c fastClock) Now() time.Time     { return c.begin.Add(c.now()) }
func (c fastClock) NowMonotonic() tcpip.MonotonicTime {
	return tcpip.MonotonicTime{}.Add(c.now())
}
func (c fastClock) AfterFunc(d time.Duration, f func()) tcpip.Timer {
	return fastTimer{time.AfterFunc(d/speed, f)}
}

type fastTimer struct{ t *time.Timer }

func (t fastTimer) Stop() bool            { return t.t.Stop() }
func (t fastTimer) Reset(d time.Duration) { t.t.Reset(d / speed) }

// A crossing connects the two wires: it takes a frame from one side and returns what leaves
// both.
type crossing func(from replay.Side, now time.Duration, f []byte) [2][][]byte

// plainWire forwards everything, and changes link-layer addresses only.
func plainWire(from replay.Side, _ time.Duration, f []byte) (out [2][][]byte) {
	if packet.Type(f) == packet.TypeIPv4 {
		f = bytes.Clone(f)
		to := macOf(packet.Addr(binary.BigEndian.Uint32(f[30:])))
		packet.PutEth(f, &to, &replay.DefaultMAC[1-from], packet.TypeIPv4)
		out[1-from] = [][]byte{f}
	}
	return out
}

// through returns the data plane as a crossing.
func through(policy *ruleset.Policy, seed uint64) (crossing, error) {
	var out [2][][]byte
	fw, err := replay.NewFirewall(replay.Config{Policy: policy, Seed: seed,
		Neighbour: func(_ replay.Side, a packet.Addr) ([6]byte, bool) { return macOf(a), true },
		Sent: func(s replay.Side, _ int64, f []byte) {
			if packet.Type(f) == packet.TypeIPv4 {
				out[s] = append(out[s], bytes.Clone(f))
			}
		}})
	if err != nil {
		return nil, err
	}
	return func(from replay.Side, now time.Duration, f []byte) [2][][]byte {
		out = [2][][]byte{}
		fw.Receive(from, replay.Start+int64(now), f)
		return out
	}, nil
}

// A flight is a frame on a wire: to the crossing, or from it.
type flight struct {
	due  time.Duration
	side replay.Side
	past bool
	f    []byte
}

type flights []flight

func (q flights) Len() int           { return len(q) }
func (q flights) Less(i, j int) bool { return q[i].due < q[j].due }
func (q flights) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *flights) Push(x any)        { *q = append(*q, x.(flight)) }
func (q *flights) Pop() any {
	l := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return l
}

// A peer is a host; after a crash there is a new one in its place.
type peer struct {
	s      *stack.Stack
	ch     *channel.Endpoint
	cancel context.CancelFunc
}

// A life is two hosts, the wires between them, and what happens to them.
type life struct {
	clock   fastClock
	cross   crossing
	inbound bool        // the client is on the WAN
	ports   int         // that the client begins from
	first   int         // what happens first
	wire    *rand.Rand  // of the loop
	r       *rand.Rand  // of the driver
	sent    chan flight // by hosts
	queue   flights

	mu       sync.Mutex
	peer     [2]*peer
	listener net.Listener

	rounds, attempts, refusals int
	slowest                    time.Duration // round
	last                       []string
}

// addresses of the hosts, by side.
func (l *life) address(s replay.Side) string {
	switch {
	case s == replay.WAN:
		return wanHosts[2]
	case l.inbound:
		return server
	}
	return lanHosts[0]
}

func addressOf(a string) tcpip.Address {
	n := ip(a)
	return tcpip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// boot replaces the host on a side by a new one; the old one is silent from then on.
func (l *life) boot(side replay.Side) error {
	s := stack.New(stack.Options{Clock: l.clock, NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol}})
	wait := tcpip.TCPTimeWaitTimeoutOption(3 * time.Second)
	if e := s.SetTransportProtocolOption(tcp.ProtocolNumber, &wait); e != nil {
		return errors.New(e.String())
	}
	own := l.address(side)
	mac := macOf(ip(own))
	ch := channel.New(512, 1500+packet.EthLen, tcpip.LinkAddress(mac[:]))
	if e := s.CreateNIC(1, ethernet.New(ch)); e != nil {
		return errors.New(e.String())
	}
	pa := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: addressOf(own), PrefixLen: 24}}
	if e := s.AddProtocolAddress(1, pa, stack.AddressProperties{}); e != nil {
		return errors.New(e.String())
	}
	gw := [...]string{lanAddr, wanAddr}[side]
	to := replay.DefaultMAC[side]
	if e := s.AddStaticNeighbor(1, ipv4.ProtocolNumber, addressOf(gw), tcpip.LinkAddress(to[:])); e != nil {
		return errors.New(e.String())
	}
	s.SetRouteTable([]tcpip.Route{{Destination: pa.AddressWithPrefix.Subnet(), NIC: 1}, {Destination: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4([4]byte{})}.Subnet(), Gateway: addressOf(gw), NIC: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	p := &peer{s, ch, cancel}
	l.mu.Lock()
	old := l.peer[side]
	l.peer[side] = p
	l.mu.Unlock()
	if old != nil {
		old.cancel()
		go old.s.Close()
	}
	go func() {
		for {
			pkt := ch.ReadContext(ctx)
			if pkt == nil {
				return
			}
			v := pkt.ToView()
			f := bytes.Clone(v.AsSlice())
			v.Release()
			pkt.DecRef()
			if ctx.Err() != nil {
				return
			}
			select {
			case l.sent <- flight{side: side, f: f}:
			default: // a full queue loses
			}
		}
	}()
	return nil
}

// onWire puts a frame on a wire: mostly once.
func (l *life) onWire(f flight) {
	now, r := l.clock.now(), l.wire
	for n := r.IntN(100); ; n = r.IntN(100) {
		f.due = now + time.Duration(r.IntN(40))*time.Millisecond
		switch {
		case n < 6:
			return // lost
		case n < 10: // comes late
			f.due += time.Duration(r.IntN(600)) * time.Millisecond
		case n < 13: // comes again, perhaps much later
			again := f
			again.due += time.Duration(r.IntN(8000)) * time.Millisecond
			heap.Push(&l.queue, again)
			continue
		}
		heap.Push(&l.queue, f)
		return
	}
}

// run carries frames until done.
func (l *life) run(done <-chan error) error {
	timer := time.NewTimer(0)
	for {
		for len(l.queue) > 0 && l.queue[0].due <= l.clock.now() {
			f := heap.Pop(&l.queue).(flight)
			if f.past {
				l.mu.Lock()
				p := l.peer[f.side]
				l.mu.Unlock()
				pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(f.f)})
				p.ch.InjectInbound(0, pkt)
				pkt.DecRef()
				continue
			}
			out := l.cross(f.side, l.clock.now(), f.f)
			l.note(&f, out[0], out[1])
			for s, fs := range out {
				for _, g := range fs {
					l.onWire(flight{side: replay.Side(s), past: true, f: g})
				}
			}
		}
		next := time.Hour
		if len(l.queue) > 0 {
			next = (l.queue[0].due - l.clock.now()) / speed
		}
		timer.Reset(max(next, 0))
		select {
		case f := <-l.sent:
			if packet.Type(f.f) == packet.TypeIPv4 {
				l.onWire(f)
			}
		case <-timer.C:
		case err := <-done:
			return err
		}
	}
}

// note keeps the last packets, for diagnosis.
func (l *life) note(f *flight, out ...[][]byte) {
	n := len(out[0]) + len(out[1])
	l.last = append(l.last[max(0, len(l.last)-200):], fmt.Sprintf("%8.3f %v %s; %d left", l.clock.now().Seconds(), f.side, describe(f.f), n))
}

package differential

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/thurward/thurward/internal/host/replay"
)

var lives = flag.Uint64("lives", 2, "how many lives of honest ends each crossing sees")

// real is how long a time of the ends is.
func real(d time.Duration) time.Time { return time.Now().Add(d / speed) }

func pause(d time.Duration) { time.Sleep(d / speed) }

// listen lets the server accept connections, or not.
func (l *life) listen(on bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil {
		l.listener.Close()
		l.listener = nil
	}
	if !on {
		return nil
	}
	at := replay.WAN
	if l.inbound {
		at = replay.LAN
	}
	ln, err := gonet.ListenTCP(l.peer[at].s, tcpip.FullAddress{Port: 443}, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	l.listener = ln
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return nil
}

// serve answers one request: who closes first, and how many bytes follow, which it
// sends back, each one higher.
func serve(c net.Conn) {
	defer c.Close()
	c.SetDeadline(real(2 * time.Minute)) //nolint:errcheck // what is late fails
	var h [5]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return
	}
	b := make([]byte, binary.BigEndian.Uint32(h[1:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	for i := range b {
		b[i]++
	}
	if _, err := c.Write(b); err != nil {
		return
	}
	if h[0] != 0 {
		io.Copy(io.Discard, c) //nolint:errcheck // until the client closes
	}
}

// dial connects from a port that has been used before.
func (l *life) dial() (*gonet.TCPConn, error) {
	l.attempts++
	from, to := replay.LAN, tcpip.FullAddress{Addr: addressOf(l.address(replay.WAN)), Port: 443}
	if l.inbound {
		from, to.Addr = replay.WAN, addressOf(wanAddr)
	}
	l.mu.Lock()
	s := l.peer[from].s
	l.mu.Unlock()
	ctx, cancel := context.WithDeadline(context.Background(), real(20*time.Second))
	defer cancel()
	own := tcpip.FullAddress{Addr: addressOf(l.address(from)), Port: uint16(4000 + l.r.IntN(l.ports))}
	c, err := gonet.DialTCPWithBind(ctx, s, own, to, ipv4.ProtocolNumber)
	if err != nil && strings.Contains(err.Error(), "in use") {
		own.Port += uint16(10 + l.r.IntN(1000))
		return gonet.DialTCPWithBind(ctx, s, own, to, ipv4.ProtocolNumber)
	}
	return c, err
}

// hold opens a connection and leaves it open: both ends will lose it.
func (l *life) hold() error {
	c, err := l.dial()
	if err == nil {
		_, err = c.Write([]byte{1, 0, 0})
	}
	return err
}

// ask makes one connection, and asks.
func (l *life) ask() error {
	c, err := l.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(real(time.Minute)) //nolint:errcheck // what is late fails
	b := make([]byte, 5+l.r.IntN(30_000))
	for i := range b {
		b[i] = byte(l.r.Uint32())
	}
	b[0] &= 1
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-5))
	if _, err := c.Write(b); err != nil {
		return err
	}
	if l.r.IntN(3) == 0 {
		c.CloseWrite() //nolint:errcheck // half-closed
	}
	answer := make([]byte, len(b)-5)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	for i, v := range b[5:] {
		if answer[i] != v+1 {
			return fmt.Errorf("byte %d of %d is wrong", i, len(answer))
		}
	}
	return nil
}

// bound is how long the ends may take in the worst case.
const bound = 5 * time.Minute

// until tries until ok accepts an attempt's outcome.
func (l *life) until(what string, try func() error, ok func(error) bool) error {
	begin := l.clock.now()
	var err error
	for {
		if err = try(); ok(err) {
			break
		}
		if l.clock.now()-begin > bound {
			return fmt.Errorf("not %s within %v: %v", what, bound, err)
		}
		pause(time.Second)
	}
	l.slowest = max(l.slowest, l.clock.now()-begin)
	return nil
}

// drive causes random events.
func (l *life) drive(rounds int) error {
	client, srv := replay.LAN, replay.WAN
	if l.inbound {
		client, srv = srv, client
	}
	if err := l.listen(true); err != nil {
		return err
	}
	done := func(err error) bool { return err == nil }
	for ; l.rounds < rounds; l.rounds++ {
		what := (l.rounds*2 + l.first) % 5 // of nothing, a crash of the client, the server, both, and both with a refusal
		crash := func(sides ...replay.Side) (err error) {
			for _, s := range sides {
				err = errors.Join(err, l.boot(s))
				if s == srv {
					err = errors.Join(err, l.listen(what != 4))
				}
			}
			return err
		}
		if what == 4 {
			err := l.until("connected", l.hold, done)
			if err == nil {
				pause(time.Duration(l.r.IntN(2000)) * time.Millisecond)
				err = crash(client, srv)
			}
			if err == nil {
				err = l.until("refused", l.ask, func(err error) bool { return err != nil && strings.Contains(err.Error(), "refused") })
			}
			if err = errors.Join(err, l.listen(true)); err != nil {
				return err
			}
			l.refusals++
			if err := l.until("answered", l.ask, done); err != nil {
				return err
			}
			continue
		}
		crashed := make(chan error, 1)
		after := time.Duration(l.r.IntN(4000)) * time.Millisecond
		go func() {
			pause(after)
			crashed <- crash([][]replay.Side{nil, {client}, {srv}, {client, srv}}[what]...)
		}()
		if err := errors.Join(l.until("answered", l.ask, done), <-crashed); err != nil {
			return err
		}
	}
	return nil
}

// live runs a life to its end, in the caller's goroutine.
func live(seed uint64, inbound bool, rounds int, cross crossing) (*life, error) {
	l := &life{clock: fastClock{time.Now()}, cross: cross, inbound: inbound, ports: 1 + int(seed%2), first: int(seed % 5), sent: make(chan flight, 4096),
		wire: rand.New(rand.NewPCG(seed, 1)), r: rand.New(rand.NewPCG(seed, 2))}
	for side := range l.peer {
		if err := l.boot(replay.Side(side)); err != nil {
			return l, err
		}
	}
	defer func() {
		l.listen(false) //nolint:errcheck // it closes only
		for _, p := range l.peer {
			p.cancel()
			p.s.Close()
		}
	}()
	done := make(chan error, 1)
	go func() { done <- l.drive(rounds) }()
	return l, l.run(done)
}

// report fails the test when something did not happen.
func (l *life) report(t *testing.T, name string, seed uint64, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s, seed %d, round %d: %v\n%s", name, seed, l.rounds, err, strings.Join(l.last[max(0, len(l.last)-60):], "\n"))
		return
	}
	if l.attempts < l.rounds || l.rounds == 0 {
		t.Errorf("%s, seed %d: %d rounds, %d attempts", name, seed, l.rounds, l.attempts)
	}
	t.Logf("%s, seed %d: %d rounds, %d of them refused first; %d connections; the slowest took %.0f s of %.0f", name, seed, l.rounds, l.refusals, l.attempts,
		l.slowest.Seconds(), l.clock.now().Seconds())
}

// TestHonestEnds: the data plane beside a plain wire.
func TestHonestEnds(t *testing.T) {
	var all sync.WaitGroup
	room := make(chan bool, 4) // so that the machine keeps up with the ends' time
	for seed := range *lives {
		for _, kind := range []string{"plain wire", "outbound", "inbound"} {
			cross := crossing(plainWire)
			if kind != "plain wire" {
				var err error
				if cross, err = through(compiled(t), seed); err != nil {
					t.Fatal(err)
				}
			}
			all.Go(func() {
				room <- true
				defer func() { <-room }()
				l, err := live(seed, kind == "inbound", 5, cross)
				l.report(t, kind, seed, err)
			})
		}
	}
	all.Wait()
}

// TestHonestEndsLinux: the same through the kernel.
func TestHonestEndsLinux(t *testing.T) {
	r := newRouter(t)
	for seed := range uint64(2) {
		r.reset()
		l, err := live(seed, seed == 1, 5, func(from replay.Side, _ time.Duration, f []byte) [2][][]byte { return r.exchange(from, f) })
		l.report(t, "Linux", seed, err)
	}
}

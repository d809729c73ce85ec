package vhostuser

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// An echo device copies what it reads into what it may write.
type echo struct {
	wg   sync.WaitGroup
	err  chan error // of rings that ended by themselves
	runs int
}

func newEcho() *echo { return &echo{err: make(chan error, 16)} }

func (e *echo) Start(r *Ring) {
	e.runs++
	e.wg.Go(func() {
		if err := r.Mem.Guard(func() error { return e.run(r) }); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			e.err <- err
		}
	})
}

func (e *echo) Stop(*Ring) { e.wg.Wait() }

func (e *echo) run(r *Ring) error {
	var c Chain
	for {
		ok, err := r.Pop(&c)
		if err != nil {
			return err
		}
		if ok {
			n := 0
			for i := range min(len(c.Read), len(c.Write)) {
				n += copy(c.Write[i], c.Read[i])
			}
			r.Push(c.Head, n)
			if err := r.Publish(); err != nil {
				return err
			}
			continue
		}
		more, err := r.RequestKick()
		if err != nil {
			return err
		}
		if !more {
			if err := r.Wait(); err != nil {
				return err
			}
		}
		r.SuppressKicks()
	}
}

// serve runs an echo device for a new front end.
func serve(t *testing.T, size uint16) (*front, *echo, chan error) {
	t.Helper()
	a, b := pair(t)
	e, done := newEcho(), make(chan error, 1)
	go func() {
		done <- Serve(b, Device{Features: FeatureVersion1 | FeatureEventIdx, Queues: 2, Config: []byte{1, 2, 3, 4}}, e)
	}()
	return newFront(t, a, size), e, done
}

func within(t *testing.T, ch chan error) error {
	t.Helper()
	select {
	case err := <-ch:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("nothing happened within 5 seconds")
		return nil
	}
}

func TestEcho(t *testing.T) {
	for name, features := range map[string]uint64{"flags": FeatureVersion1, "event idx": FeatureVersion1 | FeatureEventIdx} {
		t.Run(name, func(t *testing.T) {
			f, e, done := serve(t, 8)
			f.start(0, features)
			for round := range 40 { // several times around the ring
				want := bytes.Repeat([]byte{byte(round)}, 100)
				copy(f.mem[bufBase:], want)
				f.describe(0, guestBase+bufBase, 100, descNext, 3)
				f.describe(3, guestBase+bufBase+0x1000, 200, descWrite, 0)
				f.offer(0)
				if round%2 == 0 {
					time.Sleep(time.Millisecond) // it sleeps
				}
				f.ring()
				if id, n := f.await(); id != 0 || n != 100 || !bytes.Equal(f.mem[bufBase+0x1000:][:100], want) {
					t.Fatalf("round %d: id %d, %d bytes", round, id, n)
				}
			}
			// The monitor takes the ring back and learns how far it came.
			if b := f.ask(reqGetVringBase, pairOf(0, 0)); binary.LittleEndian.Uint32(b[4:]) != 40 {
				t.Errorf("base %x", b)
			}
			f.c.Close()
			if err := within(t, done); err != nil {
				t.Error(err)
			}
			if len(e.err) > 0 {
				t.Error(<-e.err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	f, _, _ := serve(t, 8)
	req := append(pairOf(1, 8), make([]byte, 12)...)
	if b := f.ask(reqGetConfig, req); !bytes.Equal(b[12:], []byte{2, 3, 4, 0, 0, 0, 0, 0}) {
		t.Errorf("%x", b)
	}
}

// TestHostileGuest: a guest that violates the rules of rings ends the ring; memory
// outside the guest's is not accessed.
func TestHostileGuest(t *testing.T) {
	const buf = guestBase + bufBase
	for _, c := range []struct {
		name, want string
		do         func(f *front)
	}{
		{"index ahead", "ahead of a ring of 8", func(f *front) { f.setAvail(9) }},
		{"head out of range", "descriptor 8 of 8", func(f *front) { f.offer(8) }},
		{"next out of range", "descriptor 99 of 8", func(f *front) { f.describe(0, buf, 1, descNext, 99); f.offer(0) }},
		{"loop", "without end", func(f *front) { f.describe(0, buf, 1, descNext, 0); f.offer(0) }},
		{"indirect", "indirect", func(f *front) { f.describe(0, buf, 16, descIndirect, 0); f.offer(0) }},
		{"outside", "outside the guest's memory", func(f *front) { f.describe(0, guestBase-1, 16, 0, 0); f.offer(0) }},
		{"beyond the end", "outside the guest's memory", func(f *front) { f.describe(0, guestBase+memSize-8, 9, 0, 0); f.offer(0) }},
		{"length wraps", "outside the guest's memory", func(f *front) { f.describe(0, buf, 1<<32-1, 0, 0); f.offer(0) }},
		{"address wraps", "outside the guest's memory", func(f *front) { f.describe(0, 1<<64-8, 16, 0, 0); f.offer(0) }},
		{"order", "behind a writable one", func(f *front) {
			f.describe(0, buf, 1, descNext|descWrite, 1)
			f.describe(1, buf, 1, 0, 0)
			f.offer(0)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, e, _ := serve(t, 8)
			f.start(1, FeatureVersion1)
			c.do(f)
			f.ring()
			if err := within(t, e.err); !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestMonitorErrors: a monitor that violates the protocol ends the session with an
// error.
func TestMonitorErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(f *front)
	}{
		{"unknown request", "request 99", func(f *front) { f.send(99, nil) }},
		{"ring number", "ring 2 of 2", func(f *front) { f.send(reqSetVringNum, pairOf(2, 8)) }},
		{"short", "has only 4 bytes", func(f *front) { f.send(reqSetVringNum, make([]byte, 4)) }},
		{"memory without descriptor", "1 regions", func(f *front) { f.send(reqSetMemTable, memTable(memSize)) }},
		{"memory beyond its file", "of a file of", func(f *front) { f.send(reqSetMemTable, memTable(memSize+1), f.fd) }},
		{"kick without descriptor", "without a file descriptor", func(f *front) { f.send(reqSetVringKick, u64(0)) }},
		{"features", "not offered", func(f *front) { f.send(reqSetFeatures, u64(1)) }},
		{"ring size", "ring of 7 entries", func(f *front) { f.size = 7; f.start(0, FeatureVersion1) }},
		{"ring outside", "outside the shared memory", func(f *front) {
			f.send(reqSetMemTable, memTable(0x1000), f.fd)
			f.send(reqSetVringNum, pairOf(0, 8))
			f.send(reqSetVringAddr, ringAddr(0))
			f.send(reqSetVringKick, u64(0), raw(f.t, eventfd(f.t)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _, done := serve(t, 8)
			go func() { // the session may end while the front end still talks
				defer func() { recover() }() //nolint:errcheck // a failed write panics below
				f.t = quiet{f.t}
				c.do(f)
			}()
			if err := within(t, done); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// quiet makes failures of a front end, whose session ends under it, end its
// goroutine only.
type quiet struct{ testing.TB }

func (quiet) Fatal(...any)          { panic("over") }
func (quiet) Fatalf(string, ...any) { panic("over") }

// FuzzSession: no sequence of bytes makes a session panic or keeps it from ending.
func FuzzSession(f *testing.F) {
	msg := func(request uint32, payload []byte) []byte {
		b := binary.LittleEndian.AppendUint32(nil, request)
		b = binary.LittleEndian.AppendUint32(b, flagVersion)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
		return append(b, payload...)
	}
	f.Add(msg(reqGetFeatures, nil))
	f.Add(append(msg(reqSetFeatures, u64(FeatureVersion1)), msg(reqSetVringNum, pairOf(0, 8))...))
	f.Add(append(msg(reqSetMemTable, memTable(memSize)), msg(reqGetVringBase, pairOf(1, 0))...))
	f.Add(msg(reqGetConfig, append(pairOf(0, 4000), make([]byte, 12)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, back := pair(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer back.Close()
			Serve(back, Device{Features: FeatureVersion1, Queues: 2, Config: []byte{1}}, newEcho()) //nolint:errcheck // anything but a crash
		}()
		go func() {
			a.Write(b) //nolint:errcheck // the session may end early
			a.CloseWrite()
		}()
		drain(a)
		<-done
	})
}

func drain(c *net.UnixConn) {
	var b [4096]byte
	for {
		if _, err := c.Read(b[:]); err != nil {
			return
		}
	}
}

// TestPairs: a device with several pairs of queues says so to a monitor that asks, and all of its
// rings run; one with one pair offers nothing new.
func TestPairs(t *testing.T) {
	for _, pairs := range []int{0, 1, 2} {
		a, back := pair(t)
		dev := Device{Features: FeatureVersion1, Queues: 4, Pairs: pairs}
		go Serve(back, dev, newEcho()) //nolint:errcheck // its end is not the matter
		f := newFront(t, a, 8)
		offered := binary.LittleEndian.Uint64(f.ask(reqGetProtoFeatures, nil))
		if (offered&protoMQ != 0) != (pairs > 1) {
			t.Errorf("%d pairs: protocol features %#x", pairs, offered)
		}
		want := uint64(pairs)
		if pairs == 0 {
			want = 4
		}
		if n := binary.LittleEndian.Uint64(f.ask(reqGetQueueNum, nil)); n != want {
			t.Errorf("%d pairs: %d queues, want %d", pairs, n, want)
		}
	}
}

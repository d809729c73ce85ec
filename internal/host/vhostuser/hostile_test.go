package vhostuser

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ringAt is ringAddr with given addresses of the parts.
func ringAt(i uint32, desc, used, avail uint64) []byte {
	b := pairOf(i, 0)
	for _, v := range []uint64{userBase + desc, userBase + used, userBase + avail, 0} {
		b = append(b, u64(v)...)
	}
	return b
}

// set sends all messages of ring i up to its kick.
func (f *front) set(i uint32, desc, used, avail uint64) {
	f.t.Helper()
	f.kick = eventfd(f.t)
	f.send(reqSetVringNum, pairOf(i, uint32(f.size)))
	f.send(reqSetVringAddr, ringAt(i, desc, used, avail))
	f.send(reqSetVringKick, u64(uint64(i)), raw(f.t, f.kick))
}

// TestRingsLaidOverEachOther: overlapping rings, in which each answer would be the next
// request, are refused, also if the monitor shares one file at two addresses. Adjacent
// rings are not.
func TestRingsLaidOverEachOther(t *testing.T) {
	twice := pairOf(2, 0)
	for _, v := range []uint64{guestBase, memSize, userBase, 0, guestBase + memSize, memSize, userBase + memSize, 0} {
		twice = append(twice, u64(v)...)
	}
	for _, c := range []struct {
		name   string
		do     func(f *front)
		honest bool
	}{
		{"beside", func(f *front) { f.set(0, 0, 0x1000, 0x2000); f.set(1, 0x3000, 0x4000, 0x5000) }, true},
		{"end to end", func(f *front) { f.set(0, 0, 0x100, 128); f.set(1, 0x200, 0x300, 0x280) }, true},
		{"used is avail", func(f *front) { f.set(0, 0, 0x1000, 0x1000) }, false},
		{"used in desc", func(f *front) { f.set(0, 0, 0x40, 0x1000) }, false},
		{"avail in desc", func(f *front) { f.set(0, 0, 0x1000, 0x40) }, false},
		{"crossed", func(f *front) { f.set(0, 0, 0x1000, 0x2000); f.set(1, 0x3000, 0x2000, 0x1000) }, false},
		{"the same twice", func(f *front) { f.set(0, 0, 0x1000, 0x2000); f.set(1, 0, 0x1000, 0x2000) }, false},
		{"last bytes", func(f *front) { f.set(0, 0, 0x1000, 0x2000); f.set(1, 0x3000, 0x4000, 0x1000+4+8*8) }, false},
		{"by two addresses", func(f *front) {
			f.send(reqSetMemTable, twice, f.fd, f.fd)
			f.set(0, 0, 0x1000, 0x2000)
			f.set(1, 0x3000, memSize+0x2000, memSize+0x1000)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _, done := serve(t, 8)
			f.send(reqSetMemTable, memTable(memSize), f.fd)
			go func() {
				defer func() { recover() }() //nolint:errcheck // a failed write panics below
				f.t = quiet{f.t}
				c.do(f)
				f.ask(reqGetFeatures, nil)
				f.c.Close()
			}()
			err := within(t, done)
			if c.honest && err != nil || !c.honest && (err == nil || !strings.Contains(err.Error(), "rings overlap")) {
				t.Error(err)
			}
		})
	}
}

// A busy device never waits: only errors of the ring end it.
type busy struct{ echo }

func (b *busy) Start(r *Ring) {
	b.wg.Go(func() {
		for {
			if _, err := r.RequestKick(); err != nil {
				return
			}
		}
	})
}

// TestBusyDeviceGivesItsRingBack: a loop that never waits ends with the session.
func TestBusyDeviceGivesItsRingBack(t *testing.T) {
	a, b := pair(t)
	done := make(chan error, 1)
	go func() { done <- Serve(b, Device{Features: FeatureVersion1, Queues: 1}, &busy{}) }()
	f := newFront(t, a, 8)
	f.send(reqSetMemTable, memTable(memSize), f.fd)
	f.set(0, 0, 0x1000, 0x2000)
	f.ask(reqGetVringBase, pairOf(0, 0))
	a.Close()
	if err := within(t, done); err != nil {
		t.Error(err)
	}
}

// A deaf device does not stop its ring before the test lets it.
type deaf struct{ letGo, gone chan struct{} }

func (d *deaf) Start(r *Ring) {}
func (d *deaf) Stop(r *Ring) {
	<-d.letGo
	_ = *r.availHead // the memory must still be there
	close(d.gone)
}

// TestStopHasADeadline: if a handler does not stop a ring the monitor's connection ends,
// and the memory is unmapped only after the handler's end.
func TestStopHasADeadline(t *testing.T) {
	a, b := pair(t)
	done, d := make(chan error, 1), &deaf{make(chan struct{}), make(chan struct{})}
	go func() { done <- Serve(b, Device{Features: FeatureVersion1, Queues: 1}, d) }()
	f := newFront(t, a, 8)
	f.send(reqSetMemTable, memTable(memSize), f.fd)
	f.set(0, 0, 0x1000, 0x2000)
	f.send(reqGetVringBase, pairOf(0, 0))
	a.SetReadDeadline(time.Now().Add(stopLimit + 3*time.Second))
	var buf [64]byte
	if n, err := a.Read(buf[:]); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v: the monitor waits", n, err)
	}
	if err := within(t, done); !errors.Is(err, errStuck) {
		t.Error(err)
	}
	close(d.letGo)
	<-d.gone
}

// TestMemoryIsSealed: a shared memory file that can be sealed cannot be truncated; one
// that cannot works, too.
func TestMemoryIsSealed(t *testing.T) {
	f, _, _ := serve(t, 8)
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, memSize); err != nil {
		t.Fatal(err)
	}
	f.send(reqSetMemTable, memTable(memSize), fd)
	f.ask(reqGetFeatures, nil)
	if err := unix.Ftruncate(fd, 0); err == nil {
		t.Error("the memory could be truncated")
	}
}

// TestMemoryCutShort: a memory file that is truncated ends the device and not the
// process, before a ring starts and in its loop.
func TestMemoryCutShort(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		f, _, done := serve(t, 8)
		f.send(reqSetMemTable, memTable(memSize), f.fd)
		f.ask(reqGetFeatures, nil)
		if err := unix.Ftruncate(f.fd, 0); err != nil {
			t.Fatal(err)
		}
		f.set(0, 0, 0x1000, 0x2000)
		if err := within(t, done); !errors.Is(err, ErrFault) {
			t.Error(err)
		}
	})
	t.Run("while it runs", func(t *testing.T) {
		f, e, done := serve(t, 8)
		f.start(0, FeatureVersion1)
		f.ask(reqGetFeatures, nil)
		if err := unix.Ftruncate(f.fd, 0); err != nil {
			t.Fatal(err)
		}
		f.ring()
		if err := within(t, e.err); !errors.Is(err, ErrFault) {
			t.Error(err)
		}
		f.ask(reqGetVringBase, pairOf(0, 0)) // the monitor is still answered
		f.c.Close()
		if err := within(t, done); err != nil {
			t.Error(err)
		}
	})
}

// TestGuardTakesNothingElse: Guard does not recover other panics.
func TestGuardTakesNothingElse(t *testing.T) {
	for name, f := range map[string]func() error{
		"nil":     func() error { var p *Ring; p.next++; return nil },
		"a value": func() error { panic("x") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the panic is gone", name)
				}
			}()
			(&Memory{}).Guard(f) //nolint:errcheck // it does not return
		}()
	}
}

// TestDescriptorsThatAreNoEventfds: descriptors other than eventfds are refused as kick
// and as call.
func TestDescriptorsThatAreNoEventfds(t *testing.T) {
	open := func(path string) *os.File {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	a, b := pair(t)
	defer b.Close()
	sock, err := a.File()
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	for name, fd := range map[string]int{"/dev/zero": int(open("/dev/zero").Fd()), "/dev/null": int(open("/dev/null").Fd()), "a pipe": raw(t, r), "a full pipe": raw(t, w), "a socket": int(sock.Fd()), "epoll": epoll} {
		for what, req := range map[string]uint32{"kick": reqSetVringKick, "call": reqSetVringCall} {
			f, _, done := serve(t, 8)
			f.send(req, u64(0), fd)
			if err := within(t, done); err == nil || !strings.Contains(err.Error(), "not an eventfd") {
				t.Errorf("%s as %s: %v", name, what, err)
			}
		}
	}
}

// TestInterruptDoesNotWait: an eventfd that is full, and made blocking by the other
// side, does not block the device.
func TestInterruptDoesNotWait(t *testing.T) {
	f, _, _ := serve(t, 8)
	f.start(0, FeatureVersion1)
	f.ask(reqGetFeatures, nil)
	fd := raw(t, f.call)
	if _, err := unix.Write(fd, u64(1<<64-2)); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	f.describe(0, guestBase+bufBase, 10, 0, 0)
	f.offer(0)
	f.ring()
	f.await()
	f.ask(reqGetVringBase, pairOf(0, 0))
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
}

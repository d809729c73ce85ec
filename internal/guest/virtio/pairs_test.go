package virtio

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

const allPairs = allNet | featCtrlVQ | featMQ

// A fakeMQ is a network device with several pairs of queues.
type fakeMQ struct {
	*fakeNet
	asked  []int // numbers of pairs that the driver has asked for
	answer byte
	time   int64 // of the driver's clock, which each look moves on
}

// newMQ makes a device that has so many pairs and offers features.
func newMQ(pairs int, features uint64) *fakeMQ {
	d := &fakeMQ{fakeNet: newFake(features)}
	d.pairs, d.queues = uint16(pairs), uint32(2*pairs+1)
	d.commands = d.command
	return d
}

func (d *fakeMQ) now() int64 { d.time += 1e6; return d.time }

// command does what the driver asks of the control queue.
func (d *fakeMQ) command() {
	i := int(d.queues - 1)
	id, b, write, ok := d.next(i)
	if !ok {
		d.bad("the control queue was notified, and there is nothing")
		return
	}
	e := d.at(d.fakeNet.q[i].desc)[16*uint64(id):]
	flags, next := binary.LittleEndian.Uint16(e[12:]), binary.LittleEndian.Uint16(e[14:])
	a := d.at(d.fakeNet.q[i].desc)[16*uint64(next):]
	n, last := binary.LittleEndian.Uint32(a[8:]), binary.LittleEndian.Uint16(a[12:])
	if write || flags != descNext || len(b) != 4 || b[0] != 4 || b[1] != 0 || n != 1 || last != descWrite {
		d.bad(fmt.Sprintf("command %x, flags %d, answer of %d bytes with flags %d", b, flags, n, last))
		return
	}
	want := int(binary.LittleEndian.Uint16(b[2:]))
	if want < 1 || want > int(d.pairs) {
		d.bad("asked for more pairs than there are")
	}
	for i := range want {
		if d.q[2*i].ready == 0 || d.q[2*i+1].ready == 0 {
			d.bad("asked for a pair that is not set up")
		}
	}
	d.asked = append(d.asked, want)
	d.at(binary.LittleEndian.Uint64(a))[0] = d.answer
	d.done(i, uint32(id), 1)
}

// open opens k pairs over t.
func (d *fakeMQ) open(t Transport, k, buffers int) ([]*Net, []*framebuf.Pool, error) {
	pools := d.pool(k * buffers).Split(k)
	dev, err := FindNet(t, Wanted{Pairs: true})
	if err != nil {
		return nil, nil, err
	}
	ns, err := dev.OpenPairs(d.alloc, pools, NetOptions{QueueSize: 16, Now: d.now})
	return ns, pools, err
}

// TestPairs: a device with several pairs of queues is asked for as many as there are pools, and
// each pair receives and sends by queues of its own, with buffers of its own.
func TestPairs(t *testing.T) {
	for _, c := range []struct{ has, use int }{{1, 1}, {2, 1}, {2, 2}, {4, 2}, {4, 4}, {8, 8}} {
		for _, pci := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d of %d, PCI %v", c.use, c.has, pci), func(t *testing.T) {
				d := newMQ(c.has, allPairs)
				var tr Transport = NewMMIO(d)
				if pci {
					p := &fakePCI{fakeNet: d.fakeNet, offset: 1}
					w := p.windows()
					w.NotifyLen = 8*uint32(2*c.has) + 2
					tr = NewPCI(w)
				}
				ns, pools, err := d.open(tr, c.use, 40)
				if err != nil {
					t.Fatal(err)
				}
				if want := c.use > 1; want != (len(d.asked) == 1) || want && d.asked[0] != c.use || len(ns) != c.use || d.status != 15 {
					t.Fatalf("asked for %v pairs, got %d, status %d", d.asked, len(ns), d.status)
				}
				for round := range 50 {
					for k, n := range ns {
						size := 60 + 10*k + round
						if _, ok := d.deliverTo(2*k, make([]byte, size)); !ok {
							t.Fatalf("pair %d has no buffer", k)
						}
						var dst [4]framebuf.Frame
						for j, o := range ns {
							if j != k && o.Receive(dst[:]) != 0 {
								t.Fatalf("pair %d has a frame of pair %d", j, k)
							}
						}
						if n.Receive(dst[:]) != 1 || dst[0].Len != uint32(size) {
							t.Fatalf("pair %d: %+v", k, dst[0])
						}
						if n.Transmit(dst[:1]) != 1 {
							t.Fatal("the frame is not taken")
						}
						if f, ok := d.sentBy(2*k + 1); !ok || len(f) != size {
							t.Fatalf("pair %d sent %d bytes", k, len(f))
						}
						n.reclaim()
					}
				}
				for k, p := range pools {
					if p.Free() != 40-16 {
						t.Errorf("pair %d has %d free buffers", k, p.Free())
					}
					if m := ns[k].Counters(); m.RxPackets != 50 || m.TxPackets != 50 {
						t.Errorf("pair %d: %+v", k, *m)
					}
				}
				if len(d.broken) > 0 {
					t.Error(d.broken)
				}
			})
		}
	}
}

// TestPairsAreOptional: a device without both features has one pair, and one that has them is
// not told of it where one is wanted.
func TestPairsAreOptional(t *testing.T) {
	for _, feat := range []uint64{allNet, allNet | featMQ, allNet | featCtrlVQ} {
		d := newMQ(4, feat)
		d.queues = 2
		dev, err := FindNet(NewMMIO(d), Wanted{Pairs: true})
		if err != nil || dev.Pairs() != 1 || d.accepted&(featMQ|featCtrlVQ) != 0 {
			t.Errorf("%#x: %v, accepted %#x", feat, err, d.accepted)
		}
		if _, err := dev.Open(d.alloc, d.pool(40), NetOptions{}); err != nil || len(d.broken) > 0 {
			t.Errorf("%#x: %v %v", feat, err, d.broken)
		}
	}
	d := newMQ(4, allPairs)
	dev, err := FindNet(NewMMIO(d), Wanted{})
	if err != nil || dev.Pairs() != 1 || d.accepted&(featMQ|featCtrlVQ) != 0 {
		t.Errorf("%v, accepted %#x", err, d.accepted)
	}
	d = newMQ(9, allPairs)
	d.queues = fakeQueues
	if dev, err := FindNet(NewMMIO(d), Wanted{Pairs: true}); err != nil || dev.Pairs() != MaxPairs {
		t.Errorf("%d pairs of 9: %v", dev.Pairs(), err)
	}
	pools := d.pool(90).Split(9)
	for _, c := range []struct {
		pools int
		now   func() int64
	}{{0, d.now}, {9, d.now}, {2, nil}} {
		dev := &NetDevice{t: NewMMIO(d), pairs: 9}
		if _, err := dev.OpenPairs(d.alloc, pools[:c.pools], NetOptions{Now: c.now}); err == nil {
			t.Errorf("%d pools are taken", c.pools)
		}
	}
}

// TestPairsHostile: a device that lies about its pairs of queues, or does not do as it is asked, is
// refused with the reason, and waited for no longer than two seconds.
func TestPairsHostile(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(d *fakeMQ)
		want string
	}{
		"no pairs":          {func(d *fakeMQ) { d.pairs = 0 }, "has 0 pairs of queues"},
		"more than virtio":  {func(d *fakeMQ) { d.pairs = 0x8001 }, "has 32769 pairs of queues"},
		"more than queues":  {func(d *fakeMQ) { d.pairs, d.queues, d.qMissing = 4, 9, 5 }, "queue 5 has no usable size (0)"},
		"no control queue":  {func(d *fakeMQ) { d.pairs, d.queues, d.qMissing = 4, 9, 8 }, "queue 8 has no usable size (0)"},
		"one descriptor":    {func(d *fakeMQ) { d.qSmall = 8 }, "has room for no command"},
		"no answer":         {func(d *fakeMQ) { d.commands = func() {} }, "no answer within 2 s"},
		"an error":          {func(d *fakeMQ) { d.answer = 1 }, "it answers 1"},
		"another answer":    {func(d *fakeMQ) { d.answer = 0x80 }, "it answers 128"},
		"no byte written":   {func(d *fakeMQ) { d.answer = ctrlUnset }, "it answers 255"},
		"index ahead":       {func(d *fakeMQ) { d.commands = func() { d.setUsed(8, 3) } }, "used index"},
		"not its command":   {func(d *fakeMQ) { d.commands = func() { d.done(8, 5, 1) } }, "descriptor that it does not have"},
		"the answer's":      {func(d *fakeMQ) { d.commands = func() { d.done(8, 62, 1) } }, "descriptor that it does not have"},
		"beyond the queue":  {func(d *fakeMQ) { d.commands = func() { d.done(8, 1<<30, 1) } }, "descriptor that it does not have"},
		"a reset meanwhile": {func(d *fakeMQ) { d.commands = func() { d.status = 0 } }, "no answer within 2 s"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newMQ(4, allPairs)
			c.edit(d)
			began := d.time
			ns, _, err := d.open(NewMMIO(d), 4, 20)
			if err == nil || !strings.Contains(err.Error(), c.want) || ns != nil {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if took := d.time - began; took > 3e9 {
				t.Errorf("waited for %d ms", took/1e6)
			}
			if d.status&statusFailed == 0 {
				t.Errorf("status %d: the device does not know that it was given up", d.status)
			}
		})
	}
}

// TestPairsMissedNotification: a control queue that missed its notification is notified again.
func TestPairsMissedNotification(t *testing.T) {
	d := newMQ(2, allPairs)
	calls := 0
	d.commands = func() {
		if calls++; calls == 2 {
			d.command()
		}
	}
	if _, _, err := d.open(NewMMIO(d), 2, 20); err != nil || calls != 2 {
		t.Errorf("%v after %d notifications", err, calls)
	}
}

// TestPairsRenew: when one pair of queues has broken the rules, the device is renewed with all of
// its pairs; then they carry frames as before, and no buffer of any pool is lost.
func TestPairsRenew(t *testing.T) {
	for _, by := range []int{0, 1, 3} {
		d := newMQ(4, allPairs)
		ns, pools, err := d.open(NewMMIO(d), 4, 40)
		if err != nil {
			t.Fatal(err)
		}
		ns[2].Transmit(frames(t, pools[2], 3))
		d.setUsed(2*by, 1000)
		var dst [4]framebuf.Frame
		ns[by].Receive(dst[:])
		if why := ns[0].Stopped(); !strings.Contains(why, "used index") {
			t.Fatalf("pair %d: %q", by, why)
		}
		if other := ns[(by+1)%4]; other.Receive(dst[:]) != 0 || other.reason != "" {
			t.Fatal("another pair has stopped by itself")
		}
		if err := ns[0].Renew(); err != nil || ns[0].Stopped() != "" {
			t.Fatalf("%v, %q", err, ns[0].Stopped())
		}
		if len(d.asked) != 2 || d.asked[1] != 4 {
			t.Errorf("asked for %v pairs", d.asked)
		}
		if m := ns[0].Counters(); m.Renewals != 1 || ns[2].Counters().TxLost != 3 {
			t.Errorf("%+v, %+v", *m, *ns[2].Counters())
		}
		for k, n := range ns {
			if _, ok := d.deliverTo(2*k, make([]byte, 100)); !ok || n.Receive(dst[:]) != 1 {
				t.Fatalf("pair %d does not receive", k)
			}
			if n.Transmit(dst[:1]) != 1 {
				t.Fatalf("pair %d does not send", k)
			}
			d.sentBy(2*k + 1)
			if n.reclaim(); pools[k].Free() != 40-16 {
				t.Errorf("pair %d has %d free buffers", k, pools[k].Free())
			}
		}
		if len(d.broken) > 0 {
			t.Error(d.broken)
		}
		// What it does not take any more leaves it given up, and it comes back.
		d.answer = 1
		d.setUsed(2, 1000)
		ns[1].Receive(dst[:])
		if err := ns[0].Renew(); err == nil || ns[0].Stopped() == "" || ns[3].Transmit(nil) != 0 || ns[3].reason == "" {
			t.Errorf("%v, %q", err, ns[0].Stopped())
		}
		d.answer, d.pairs = 0, 3
		if err := ns[0].Renew(); err == nil || !strings.Contains(err.Error(), "another number of queues") {
			t.Error(err)
		}
		d.pairs = 4
		if err := ns[0].Renew(); err != nil || ns[0].Stopped() != "" {
			t.Errorf("%v, %q", err, ns[0].Stopped())
		}
		for k, p := range pools {
			if p.Free() != 40-16 {
				t.Errorf("pair %d has %d free buffers", k, p.Free())
			}
		}
	}
}

// FuzzControl: whatever a device writes into the control queue's ring and the answer, the driver
// ends with an error or with pairs that the device has confirmed.
func FuzzControl(f *testing.F) {
	f.Add(uint16(1), uint32(63), uint32(1), byte(0))
	f.Add(uint16(2), uint32(0), uint32(1), byte(0)) // two answers to one request
	f.Add(uint16(1), uint32(62), uint32(9), byte(0))
	f.Add(uint16(1), uint32(1<<31), uint32(1), byte(1))
	f.Add(uint16(0), uint32(63), uint32(1), byte(0))
	f.Fuzz(func(t *testing.T, idx uint16, id, n uint32, answer byte) {
		d := newMQ(2, allPairs)
		d.commands = func() {
			q := &d.q[4]
			e := d.at(q.used)[4:]
			binary.LittleEndian.PutUint32(e, id)
			binary.LittleEndian.PutUint32(e[4:], n)
			if a := d.at(q.desc)[16*uint64(binary.LittleEndian.Uint16(d.at(q.avail)[4:])):]; idx > 0 {
				b := d.at(q.desc)[16*uint64(binary.LittleEndian.Uint16(a[14:])):]
				d.at(binary.LittleEndian.Uint64(b))[0] = answer
			}
			d.setUsed(4, idx)
		}
		ns, _, err := d.open(NewMMIO(d), 2, 20)
		head := uint32(binary.LittleEndian.Uint16(d.at(d.q[4].avail)[4:]))
		if good := idx == 1 && id == head && answer == ctrlOK; good != (err == nil) || good != (len(ns) == 2) {
			t.Errorf("index %d, descriptor %d of %d, answer %d: %v", idx, id, head, answer, err)
		}
	})
}

// TestSharesInterrupt: several pairs of queues share an interrupt over MMIO, and not over PCI.
func TestSharesInterrupt(t *testing.T) {
	for pairs := 1; pairs <= 2; pairs++ {
		for _, pci := range []bool{false, true} {
			d := newMQ(2, allPairs)
			var tr Transport = NewMMIO(d)
			if pci {
				w := (&fakePCI{fakeNet: d.fakeNet, offset: 1}).windows()
				w.NotifyLen, w.Vectors = 66, 2
				tr = NewPCI(w)
			}
			ns, _, err := d.open(tr, pairs, 20)
			if err != nil {
				t.Fatal(err)
			}
			if got := ns[0].SharesInterrupt(); got != (pairs == 2 && !pci) {
				t.Errorf("%d pairs, PCI %v: %v", pairs, pci, got)
			}
		}
	}
}

// TestPairsInterrupts: over PCI each pair of queues has an MSI-X entry of its own, as far as there
// are some, and what one learns of the configuration reaches the first.
func TestPairsInterrupts(t *testing.T) {
	for _, vectors := range []uint32{0, 1, 2, 3, 4} {
		d := newMQ(4, allPairs)
		p := &fakePCI{fakeNet: d.fakeNet, offset: 1}
		w := p.windows()
		w.NotifyLen, w.Vectors = 66, vectors
		if _, _, err := d.open(NewPCI(w), 4, 20); err != nil {
			t.Fatal(err)
		}
		for q := range uint32(8) {
			if want := uint16(1 + q/2%max(vectors, 1)); p.vectors[q] != want {
				t.Errorf("%d entries: queue %d has %d, want %d", vectors, q, p.vectors[q], want)
			}
		}
	}
	d := newMQ(2, allPairs)
	ns, _, err := d.open(NewMMIO(d), 2, 20)
	if err != nil {
		t.Fatal(err)
	}
	d.isr, d.link = 3, 0
	if !ns[1].Ack() || d.isr != 0 || !ns[0].LinkUp() {
		t.Fatal("the second pair has looked at the configuration itself, or nobody will")
	}
	if ns[0].News(); ns[0].LinkUp() {
		t.Error("the first pair does not learn that the link is down")
	}
	d.isr, d.link = 3, 1
	if ns[0].Ack() || !ns[0].LinkUp() {
		t.Error("the first pair does not look itself")
	}
	d.isr = 1
	if ns[1].Ack() || ns[1].Counters().Interrupts != 2 || ns[0].Counters().Interrupts != 1 {
		t.Error("an interrupt of the queues is one of the configuration")
	}
}

package virtio

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

var window []uint64 // does not move, as a stack does

// TestMMIO: each access touches what it names and nothing beside it.
func TestMMIO(t *testing.T) {
	window = make([]uint64, 64)
	mem := window
	b := unsafe.Slice((*byte)(unsafe.Pointer(&mem[0])), 512)
	for i := range b {
		b[i] = byte(i * 7)
	}
	m := NewWindow(unsafe.Pointer(&mem[0]))
	for _, off := range []uint32{0, 4, 0x70, 0xfc, 0x100, 0x1fc} {
		if got, want := m.Read32(off), *(*uint32)(unsafe.Pointer(&b[off])); got != want {
			t.Errorf("Read32(%#x) = %#x, want %#x", off, got, want)
		}
		if got, want := m.Read16(off+2), *(*uint16)(unsafe.Pointer(&b[off+2])); got != want {
			t.Errorf("Read16(%#x) = %#x, want %#x", off+2, got, want)
		}
		if got := m.Read8(off + 3); got != b[off+3] {
			t.Errorf("Read8(%#x) = %#x, want %#x", off+3, got, b[off+3])
		}
		want := slices.Clone(b)
		copy(want[off:], []byte{0x78, 0x56, 0x34, 0x12})
		if m.Write32(off, 0x12345678); !slices.Equal(b, want) {
			t.Errorf("Write32(%#x) changed something else", off)
		}
	}
}

// A scripted device answers some reads with what the test says, and notes
// what is written.
type scripted struct {
	*fakeNet
	says map[uint32]uint32
	log  []string
}

func (d *scripted) Read32(off uint32) uint32 {
	if v, ok := d.says[off]; ok {
		return v
	}
	return d.fakeNet.Read32(off)
}

func (d *scripted) Write32(off, v uint32) {
	d.log = append(d.log, fmt.Sprintf("%03x=%x", off, v))
	d.fakeNet.Write32(off, v)
}

// TestRegisters is the set-up of a device, write by write (virtio 1.2, 3.1.1
// and 4.2.3.2): of a fresh one, and of one that was in use, which is reset.
func TestRegisters(t *testing.T) {
	const features = "014=0 014=1 024=0 020=20018028 024=1 020=1 070=b"
	for _, c := range []struct {
		status uint32
		want   string
	}{
		{0, "070=1 070=3 " + features},
		{15, "070=0 070=1 070=3 " + features},
		{128, "070=0 070=1 070=3 " + features},
	} {
		d := &scripted{fakeNet: newFake(allNet | 1<<0 | 1<<40)}
		pool := d.pool(300)
		if d.status = c.status; c.status != 0 {
			d.used = (d.used + 4095) &^ 4095
		}
		if c.status != 0 { // the fake knows no way back
			d.says = map[uint32]uint32{}
		}
		dev, err := FindNet(NewMMIO(resetting{d}), Wanted{})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(d.log, " "); got != c.want {
			t.Errorf("status %d: wrote %s\nwant %s", c.status, got, c.want)
		}
		d.log = nil
		base := (d.used + 4095) &^ 4095
		n, err := dev.Open(d.alloc, pool, NetOptions{QueueSize: 64})
		if err != nil || len(d.broken) > 0 {
			t.Fatal(err, d.broken)
		}
		lo := func(off int) string { return fmt.Sprintf("%x", uint32(memBase+base+off)) }
		// 64 descriptors take 1792 bytes, and memory comes in pages.
		want := "030=0 038=40 080=" + lo(0) + " 084=5 090=" + lo(1024) + " 094=5 0a0=" + lo(1216) + " 0a4=5 044=1 " +
			"030=1 038=40 080=" + lo(4096) + " 084=5 090=" + lo(4096+1024) + " 094=5 0a0=" + lo(4096+1216) + " 0a4=5 044=1 " +
			"070=f 050=0"
		if got := strings.Join(d.log, " "); got != want {
			t.Errorf("status %d: wrote %s\nwant %s", c.status, got, want)
		}
		if n.rx.size != 64 || n.tx.size != 64 || n.rx.number != 0 || n.tx.number != 1 {
			t.Errorf("queues %d and %d of %d and %d", n.rx.number, n.tx.number, n.rx.size, n.tx.size)
		}
	}
}

// resetting lets a device that was in use be reset.
type resetting struct{ *scripted }

func (d resetting) Write32(off, v uint32) {
	if off == regStatus && v == 0 && d.status != 0 {
		d.log = append(d.log, "070=0")
		d.status = 0
		return
	}
	d.scripted.Write32(off, v)
}

// TestNegotiationErrors: no device, devices of another type or version, and devices that
// reject the negotiated features. Each error identifies its cause, and FAILED is set where
// the driver had acknowledged the device.
func TestNegotiationErrors(t *testing.T) {
	for _, c := range []struct {
		says map[uint32]uint32
		edit func(d *fakeNet)
		want string
		fail bool // FAILED is set
	}{
		{map[uint32]uint32{regMagic: 0}, nil, "no device at this address (magic 0x0)", false},
		{map[uint32]uint32{regMagic: 0x74726977}, nil, "magic 0x74726977", false},
		{map[uint32]uint32{regVersion: 1}, nil, "transport version 1, want 2", false},
		{map[uint32]uint32{regVersion: 3}, nil, "transport version 3, want 2", false},
		{map[uint32]uint32{regDeviceID: 0}, nil, "device type 0, want 1", false},
		{map[uint32]uint32{regDeviceID: 2}, nil, "device type 2, want 1", false},
		{nil, func(d *fakeNet) { d.offered = ^uint64(featVersion1) }, "VERSION_1", true},
		{nil, func(d *fakeNet) { d.refuse = true }, "refuses features 0x120018028", true},
	} {
		d := &scripted{fakeNet: newFake(allNet), says: c.says}
		if c.edit != nil {
			c.edit(d.fakeNet)
		}
		dev, err := FindNet(NewMMIO(d), Wanted{})
		if dev != nil || err == nil || !strings.HasPrefix(err.Error(), "virtio: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: device %v, error %v, want one with %q", c.says, dev, err, c.want)
		}
		if (d.status&statusFailed != 0) != c.fail || c.fail && d.status&^statusFailed != 3 {
			t.Errorf("%q: status %#x", c.want, d.status)
		}
		d = &scripted{fakeNet: newFake(allNet), says: c.says}
		if c.edit != nil {
			c.edit(d.fakeNet)
		}
		if feat, err := negotiate(NewMMIO(d), netID, allNet); feat != 0 || err == nil {
			t.Errorf("%q: features %#x with error %v", c.want, feat, err)
		}
	}
	// Each status that is not the right one after the start.
	for _, s := range []uint32{0, 7, 11, 14, 13, 15 | statusNeedsReset, 15 | statusFailed} {
		d := &scripted{fakeNet: newFake(allNet)}
		pool := d.pool(300)
		dev, err := FindNet(NewMMIO(d), Wanted{})
		if err != nil {
			t.Fatal(err)
		}
		d.says = map[uint32]uint32{regStatus: s}
		if n, err := dev.Open(d.alloc, pool, NetOptions{}); n != nil || err == nil || !strings.Contains(err.Error(), fmt.Sprintf("did not start (status %#x)", s)) {
			t.Errorf("status %d: %v", s, err)
		}
		if pool.Free() != pool.Cap() {
			t.Errorf("status %d: %d buffers went to a device that did not start", s, pool.Cap()-pool.Free())
		}
	}
	// Bits above the eight are ignored.
	d := &scripted{fakeNet: newFake(allNet)}
	pool := d.pool(300)
	dev, _ := FindNet(NewMMIO(d), Wanted{})
	d.says = map[uint32]uint32{regStatus: 0x10f}
	if _, err := dev.Open(d.alloc, pool, NetOptions{}); err != nil {
		t.Error(err)
	}
}

// TestQueueSizes: the device's size limits the queue's, down to one descriptor; sizes that
// are not a power of two are refused, and so are invalid requests.
func TestQueueSizes(t *testing.T) {
	for _, c := range []struct {
		asked int
		max   uint32
		want  uint16 // 0: refused
	}{
		{0, 1024, 256}, {0, 256, 256}, {0, 255, 0}, {0, 128, 128}, {0, 1, 1}, {0, 2, 2}, {0, 3, 0}, {0, 0, 0},
		{0, 257, 256}, {0, 32768, 256}, {0, 1<<32 - 1, 256}, {1024, 1024, 1024}, {1024, 512, 512}, {1024, 1 << 16, 1024},
		{2, 1024, 2}, {2, 1, 1}, {1, 1024, 0}, {3, 1024, 0}, {1023, 1024, 0}, {1025, 4096, 0}, {2048, 4096, 0}, {-1, 1024, 0}, {-256, 1024, 0}, {1 << 17, 1 << 17, 0},
	} {
		d := newFake(allNet)
		d.qMax = c.max
		p := d.pool(64)
		n, err := openNet(d, d.alloc, p, NetOptions{QueueSize: c.asked})
		if c.want == 0 {
			if err == nil || n != nil {
				t.Errorf("asked for %d of %d: size %d", c.asked, c.max, n.rx.size)
			}
			continue
		}
		if err != nil || n.rx.size != c.want || n.tx.size != c.want || d.q[0].num != uint32(c.want) || d.q[1].num != uint32(c.want) || n.rx.room() != max(int(c.want)-64, 0) {
			t.Errorf("asked for %d of %d: %v, want %d", c.asked, c.max, err, c.want)
			continue
		}
		var dst [4]framebuf.Frame // and it works
		for range 5 {
			if _, ok := d.deliver(make([]byte, 60)); !ok || n.Receive(dst[:]) != 1 || n.Transmit(dst[:1]) != 1 {
				t.Fatalf("asked for %d of %d: %q", c.asked, c.max, n.Stopped())
			}
			if f, ok := d.sent(); !ok || len(f) != 60 {
				t.Fatalf("asked for %d of %d: nothing was sent", c.asked, c.max)
			}
		}
	}
}

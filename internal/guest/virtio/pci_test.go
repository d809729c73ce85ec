package virtio

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// A fakePCI puts a PCI function's windows before a fakeNet: the common
// configuration, the notifications and the device's own.
type fakePCI struct {
	*fakeNet
	vectors  [fakeQueues]uint16 // of the queues
	config   uint16             // vector of changes
	noVector bool               // the device has no room for vectors
	slow     int                // reads of the status until a reset is over
	offset   uint16             // of queue 1's notifications
}

type (
	fakeCommon struct{ *fakePCI }
	fakeNotify struct{ *fakePCI }
	fakeConfig struct{ *fakePCI }
)

func newFakePCI(features uint64) *fakePCI { return &fakePCI{fakeNet: newFake(features), offset: 1} }

func (d *fakePCI) windows() PCIWindows {
	return PCIWindows{ID: d.id, Common: fakeCommon{d}, Notify: fakeNotify{d}, NotifyLen: 16, Multiplier: 8, Config: fakeConfig{d}, ConfigLen: 12}
}

func (d fakeCommon) Read8(off uint32) uint8 {
	if off != pciStatus {
		d.bad("8-bit read of another register than the status")
	}
	if d.slow > 0 {
		d.slow--
		return 15
	}
	return uint8(d.status)
}

func (d fakeCommon) Write8(off uint32, v uint8) {
	if off != pciStatus {
		d.bad("8-bit write of another register than the status")
	}
	d.fakeNet.Write32(regStatus, uint32(v))
}

func (d fakeCommon) Read16(off uint32) uint16 {
	switch off {
	case pciQueueSize:
		return uint16(d.qMax)
	case pciQueueEnable:
		return uint16(d.q[d.qSel].ready)
	case pciQueueNotify:
		return uint16(d.qSel) * d.offset
	case pciQueueMSIX:
		if d.noVector {
			return noVector
		}
		return d.vectors[d.qSel]
	}
	d.bad("16-bit read of an unknown register")
	return 0
}

func (d fakeCommon) Write16(off uint32, v uint16) {
	switch off {
	case pciQueueSel:
		d.fakeNet.Write32(regQueueSel, uint32(v))
	case pciQueueSize:
		d.fakeNet.Write32(regQueueNum, uint32(v))
	case pciQueueEnable:
		d.fakeNet.Write32(regQueueReady, uint32(v))
	case pciQueueMSIX:
		d.vectors[d.qSel] = v
	case pciConfigMSIX:
		d.config = v + 100
	default:
		d.bad("16-bit write of an unknown register")
	}
}

func (d fakeCommon) Read32(off uint32) uint32 {
	if off != pciFeatures {
		d.bad("32-bit read of another register than the features")
	}
	return d.fakeNet.Read32(regFeatures)
}

func (d fakeCommon) Write32(off, v uint32) {
	to, ok := map[uint32]uint32{pciFeatSel: regFeatSel, pciDriverSel: regDriverSel, pciDriver: regDriver,
		pciDesc: regDesc, pciDesc + 4: regDesc + 4, pciAvail: regAvail, pciAvail + 4: regAvail + 4, pciUsed: regUsed, pciUsed + 4: regUsed + 4}[off]
	if !ok {
		d.bad("32-bit write of an unknown register")
		return
	}
	d.fakeNet.Write32(to, v)
}

func (d fakeNotify) Write16(off uint32, v uint16) {
	if off != uint32(v)*uint32(d.offset)*8 {
		d.bad("notification in the wrong place")
	}
	d.fakeNet.Write32(regNotify, uint32(v))
}

func (d fakeNotify) Read8(uint32) uint8     { d.bad("read of the notifications"); return 0 }
func (d fakeNotify) Read16(uint32) uint16   { d.bad("read of the notifications"); return 0 }
func (d fakeNotify) Read32(uint32) uint32   { d.bad("read of the notifications"); return 0 }
func (d fakeNotify) Write8(uint32, uint8)   { d.bad("8-bit notification") }
func (d fakeNotify) Write32(_, _ uint32)    { d.bad("32-bit notification") }
func (d fakeConfig) Read8(o uint32) uint8   { return d.fakeNet.Read8(regConfig + o) }
func (d fakeConfig) Read16(o uint32) uint16 { return d.fakeNet.Read16(regConfig + o) }
func (d fakeConfig) Read32(o uint32) uint32 { return d.fakeNet.Read32(regConfig + o) }
func (d fakeConfig) Write8(uint32, uint8)   { d.bad("write of the configuration") }
func (d fakeConfig) Write16(uint32, uint16) { d.bad("write of the configuration") }
func (d fakeConfig) Write32(_, _ uint32)    { d.bad("write of the configuration") }

func openPCI(d *fakePCI, buffers int) (*Net, error) {
	dev, err := FindNet(NewPCI(d.windows()), Wanted{})
	if err != nil {
		return nil, err
	}
	return dev.Open(d.alloc, d.pool(buffers), NetOptions{QueueSize: 16})
}

// TestPCI: a device on PCI is set up by the same rules, receives, transmits and is
// notified in the right place.
func TestPCI(t *testing.T) {
	d := newFakePCI(allNet)
	n, err := openPCI(d, 64)
	if err != nil {
		t.Fatal(err)
	}
	if mac, ok := n.MAC(); !ok || mac != d.mac || n.MTU() != 1400 || !n.LinkUp() {
		t.Errorf("address %x %v, MTU %d, link %v", mac, ok, n.MTU(), n.LinkUp())
	}
	if d.config != vectorConfig+100 || d.vectors != [fakeQueues]uint16{vectorQueues, vectorQueues} {
		t.Errorf("vectors %d and %v", d.config, d.vectors)
	}
	d.wantNotify(0)
	d.wantNotify(1)
	notified := d.notified
	transfer(t, d.fakeNet, n)
	if d.notified[1] == notified[1] {
		t.Error("the device was not notified of a frame")
	}
	d.link = 0
	n.Ack()
	if !n.LinkUp() {
		t.Error("an interrupt of the queues was taken for a change")
	}
	if n.Changed(); n.LinkUp() {
		t.Error("the change was not noticed")
	}
	d.status |= statusNeedsReset
	if n.Changed(); n.Stopped() == "" {
		t.Error("a device that asks for a reset goes on")
	}
	if len(d.broken) > 0 {
		t.Errorf("the driver broke the device's rules: %v", d.broken)
	}
}

// TestPCIVsock: the context id is read in halves of 32 bits.
func TestPCIVsock(t *testing.T) {
	d := newFakePCI(featEventIdx)
	d.id, d.queues, d.cid = vsockID, 3, 0x1_0000_0007
	w := d.windows()
	w.NotifyLen = 18
	v, err := OpenVsock(NewPCI(w), d.alloc, 5)
	if err != nil {
		t.Fatal(err)
	}
	if v.CID() != d.cid || len(d.broken) > 0 {
		t.Errorf("context id %#x, broken %v", v.CID(), d.broken)
	}
	if v.Changed(); v.Stopped() != "" {
		t.Error(v.Stopped())
	}
	d.status |= statusNeedsReset
	if v.Changed(); v.Stopped() == "" {
		t.Error("a device that asks for a reset goes on")
	}
}

func TestPCIRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(d *fakePCI, w *PCIWindows)
		want string
	}{
		"another type":            {func(d *fakePCI, w *PCIWindows) { w.ID = 2 }, "device type 2, want 1"},
		"no room for vectors":     {func(d *fakePCI, w *PCIWindows) { d.noVector = true }, "queue 0 gets no interrupt"},
		"notified beyond":         {func(d *fakePCI, w *PCIWindows) { d.offset = 2 }, "queue 1 is notified at offset 16 of a window of 16 bytes"},
		"notified across the end": {func(d *fakePCI, w *PCIWindows) { w.NotifyLen = 9 }, "queue 1 is notified at offset 8"},
		"notified oddly":          {func(d *fakePCI, w *PCIWindows) { w.Multiplier = 1 }, "queue 1 is notified at offset 1"},
		"notified far away":       {func(d *fakePCI, w *PCIWindows) { d.offset, w.Multiplier = 0xffff, 0xfffffffe }, "queue 1 is notified at offset 281470681612290"},
		"no configuration":        {func(d *fakePCI, w *PCIWindows) { w.ConfigLen = 11 }, "MTU of 0"},
	} {
		d := newFakePCI(allNet)
		w := d.windows()
		c.edit(d, &w)
		dev, err := FindNet(NewPCI(w), Wanted{})
		if err == nil {
			_, err = dev.Open(d.alloc, d.pool(64), NetOptions{QueueSize: 16})
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// TestPCIConfigEnds: nothing is read beyond the device's configuration.
func TestPCIConfigEnds(t *testing.T) {
	d := newFakePCI(0)
	for _, n := range []uint32{0, 1, 3} {
		w := d.windows()
		w.ConfigLen, w.Config = n, nil
		if n > 0 {
			w.Config = fakeConfig{d}
		}
		p := NewPCI(w)
		if p.Config32(0) != 0 || p.Config16(2) != 0 || p.Config8(n) != 0 || p.Config32(0xfffffffc) != 0 || p.Config16(0xfffffffe) != 0 || p.Config8(0xffffffff) != 0 {
			t.Errorf("of %d bytes more are read", n)
		}
	}
	p := NewPCI(d.windows())
	if p.Config8(0) != 2 || p.Config16(10) != 1400 {
		t.Error("the last bytes are not read")
	}
}

// ones reads as ones everywhere.
type ones struct{ Wide }

func (ones) Read8(uint32) uint8   { return 0xff }
func (ones) Read16(uint32) uint16 { return 0xffff }
func (ones) Read32(uint32) uint32 { return 0xffffffff }

// TestPCIConfigFits: a field of the device's configuration is read if all of it is there.
func TestPCIConfigFits(t *testing.T) {
	for n := range uint32(8) {
		p := NewPCI(PCIWindows{Config: ones{}, ConfigLen: n})
		for off := range uint32(8) {
			if got := p.Config8(off) != 0; got != (off+1 <= n) {
				t.Errorf("of %d bytes the one at %d is read: %v", n, off, got)
			}
			if got := p.Config16(off) != 0; got != (off+2 <= n) {
				t.Errorf("of %d bytes two at %d are read: %v", n, off, got)
			}
			if got := p.Config32(off) != 0; got != (off+4 <= n) {
				t.Errorf("of %d bytes four at %d are read: %v", n, off, got)
			}
		}
	}
}

// TestPCIReset: the driver waits until a reset is over, and not for ever.
func TestPCIReset(t *testing.T) {
	d := newFakePCI(allNet)
	d.slow = 10
	p := NewPCI(d.windows())
	d.status = 15
	d.slow = 1000
	p.SetStatus(0)
	if d.slow != 0 {
		t.Errorf("the driver went on %d reads before the end of the reset", d.slow)
	}
	d.slow = 10 * resetReads
	if p.SetStatus(0); d.slow < 8*resetReads {
		t.Error("the driver waits for ever")
	}
}

// transfer receives a frame and sends it back.
func transfer(t *testing.T, d *fakeNet, n *Net) {
	t.Helper()
	frame := "fourteen bytes and a few more"
	if _, ok := d.deliver([]byte(frame)); !ok {
		t.Fatal("no receive buffer is posted")
	}
	var f [4]framebuf.Frame
	if got := n.Receive(f[:]); got != 1 || f[0].Len != uint32(len(frame)) {
		t.Fatalf("%d frames, the first of %d bytes", got, f[0].Len)
	}
	if n.Transmit(f[:1]) != 1 {
		t.Fatal("the frame was not taken")
	}
	if got, ok := d.sent(); !ok || string(got) != frame {
		t.Fatalf("the device got %q", got)
	}
}

// A scriptedWindow answers reads with bytes of a script, over and over: a device
// that says anything.
type scriptedWindow struct {
	script []byte
	at     int
	writes int
}

func (w *scriptedWindow) next() uint32 {
	if len(w.script) == 0 {
		return 0
	}
	w.at++
	return uint32(w.script[w.at%len(w.script)]) * 0x01010101
}

func (w *scriptedWindow) Read8(uint32) uint8     { return uint8(w.next()) }
func (w *scriptedWindow) Read16(uint32) uint16   { return uint16(w.next()) }
func (w *scriptedWindow) Read32(uint32) uint32   { return w.next() }
func (w *scriptedWindow) Write8(uint32, uint8)   { w.writes++ }
func (w *scriptedWindow) Write16(uint32, uint16) { w.writes++ }
func (w *scriptedWindow) Write32(uint32, uint32) { w.writes++ }

// bounded is a window for notifications of which every write must lie inside.
type bounded struct {
	scriptedWindow
	t *testing.T
	n uint32
}

func (w *bounded) Write16(off uint32, _ uint16) {
	if off+2 > w.n {
		w.t.Fatalf("a notification at %d of %d bytes", off, w.n)
	}
}

// FuzzPCI: whatever the registers of a device say, the driver comes to an end, and
// notifies within the window.
func FuzzPCI(f *testing.F) {
	f.Add([]byte{0}, uint32(16), uint32(4))
	f.Add([]byte{0, 1, 3, 11, 15, 255}, uint32(2), uint32(0))
	f.Add([]byte{0, 1, 0, 3, 255, 255, 255, 255, 11, 0, 0, 0, 1, 0, 0, 15, 15}, uint32(4096), uint32(0xfffffffe))
	f.Add([]byte{255}, uint32(0xffffffff), uint32(4))
	f.Fuzz(func(t *testing.T, script []byte, notify, multiplier uint32) {
		mem := newFake(0)
		common := &scriptedWindow{script: script}
		w := PCIWindows{ID: netID, Common: common, Notify: &bounded{t: t, n: notify}, NotifyLen: notify, Multiplier: multiplier, Config: common, ConfigLen: 12}
		if dev, err := FindNet(NewPCI(w), Wanted{}); err == nil {
			if n, err := dev.Open(mem.alloc, mem.pool(64), NetOptions{QueueSize: 16}); err == nil {
				n.Kick()
				n.Changed()
				n.Ack()
			}
		}
		w.ID = vsockID
		if v, err := OpenVsock(NewPCI(w), mem.alloc, 1); err == nil {
			v.Poll()
			v.Changed()
		}
		if common.at > 20*resetReads {
			t.Fatalf("%d reads", common.at)
		}
	})
}

// TestPCIBells: where the notifications' window is memory, the queue's number is stored
// at the queue's place in it, and nowhere else.
func TestPCIBells(t *testing.T) {
	memory := make([]uint16, 16)
	d := newFakePCI(0)
	w := d.windows()
	w.Notify = NewWindow(unsafe.Pointer(&memory[0]))
	p := NewPCI(w)
	p.offset[1], p.offset[3] = 4, 30
	for q, at := range map[uint32]int{1: 2, 3: 15} {
		clear(memory)
		memory[at] = 0xffff
		p.Notify(q)
		for i, v := range memory {
			if want := map[bool]uint16{true: uint16(q)}[i == at]; v != want {
				t.Errorf("queue %d: place %d is %#x, want %#x", q, i, v, want)
			}
		}
	}
}

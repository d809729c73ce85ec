package virtio

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// TestRenew: a device that asks for a reset, one that has reset itself and one that has broken
// the rules are set up again, carry frames as before, and no buffer is lost; the frames that
// were under way are counted.
func TestRenew(t *testing.T) {
	for name, c := range map[string]struct {
		trouble func(d *fakeNet)
		why     string
	}{
		"asks for a reset": {func(d *fakeNet) { d.status |= statusNeedsReset }, "asks for a reset"},
		"has reset itself": {func(d *fakeNet) { d.status, d.accepted, d.q = 0, 0, [fakeQueues]fakeQueue{} }, "has reset itself"},
		"index ahead":      {func(d *fakeNet) { d.setUsed(0, 1000) }, "used index"},
		"not its buffer":   {func(d *fakeNet) { d.done(1, 77, 0) }, "descriptor"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newFake(allNet)
			n, p := open(t, d, 64, NetOptions{QueueSize: 8})
			total := p.Free() + 8
			n.Transmit(frames(t, p, 5))
			d.sent()
			d.sent()
			var dst [8]framebuf.Frame
			d.deliver(make([]byte, 60))
			reset := strings.HasPrefix(name, "has reset")
			if c.trouble(d); !strings.HasPrefix(name, "asks") && !reset {
				n.Receive(dst[:])
				n.reclaim()
			}
			n.Look()
			if why := n.Stopped(); !strings.Contains(why, c.why) {
				t.Fatalf("stopped: %q, want %q", why, c.why)
			}
			if n.Transmit(nil) != 0 || n.Receive(dst[:]) != 0 && name != "not its buffer" {
				t.Error("a device that was given up carries frames")
			}
			if reset {
				d.broken = nil // FAILED was set while it was fresh
			}
			if err := n.Renew(); err != nil {
				t.Fatal(err)
			}
			if n.Stopped() != "" || d.status != 15 || len(d.broken) > 0 {
				t.Fatalf("%q, status %d, %v", n.Stopped(), d.status, d.broken)
			}
			m := n.Counters()
			if m.Renewals != 1 || m.TxLost < 2 || m.TxLost > 5 {
				t.Errorf("%+v", *m)
			}
			for i := range 20 {
				if _, ok := d.deliver(make([]byte, 60+i)); !ok {
					t.Fatalf("frame %d: no buffer", i)
				}
				if n.Receive(dst[:]) != 1 || dst[0].Len != uint32(60+i) {
					t.Fatalf("frame %d is not received", i)
				}
				if n.Transmit(dst[:1]) != 1 {
					t.Fatalf("frame %d is not taken", i)
				}
				if f, ok := d.sent(); !ok || len(f) != 60+i {
					t.Fatalf("frame %d is not sent", i)
				}
			}
			n.reclaim()
			held := 0
			if name == "not its buffer" {
				held = 1 // the frame that was received before
			}
			if free := p.Free() + 8 + held; free != total {
				t.Errorf("%d of %d buffers are there", free, total)
			}
			if len(d.broken) > 0 {
				t.Error(d.broken)
			}
		})
	}
}

// TestRenewRefuses: a device that is not what it was, or whose reset does not end, stays given
// up, and its buffers are not used again while it may write to them.
func TestRenewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *fakeNet)
		want   string
		kept   bool // the buffers may still be the device's
	}{
		"another address":  {func(d *fakeNet) { d.mac[5]++ }, "another hardware address", false},
		"other features":   {func(d *fakeNet) { d.offered &^= featMTU }, "other features", false},
		"a smaller queue":  {func(d *fakeNet) { d.qMax = 4 }, "not as it was", false},
		"refuses features": {func(d *fakeNet) { d.refuse = true }, "refuses features", false},
		"does not end":     {func(d *fakeNet) { d.stuck = true }, "reset does not end", true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newFake(allNet)
			n, p := open(t, d, 64, NetOptions{QueueSize: 8})
			free := p.Free()
			d.status |= statusNeedsReset
			n.Changed()
			before := d.status
			c.change(d)
			err := n.Renew()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n.Stopped() == "" || n.Counters().Renewals != 0 {
				t.Errorf("%q, %d renewals", n.Stopped(), n.Counters().Renewals)
			}
			if back := p.Free() - free; c.kept != (back == 0) {
				t.Errorf("%d buffers came back", back)
			}
			if c.kept && d.status != before {
				t.Errorf("status %d", d.status)
			}
			// What it was before comes back.
			d2 := newFake(allNet)
			d.mac, d.offered, d.qMax, d.refuse, d.stuck = d2.mac, d2.offered, d2.qMax, false, false
			if err := n.Renew(); err != nil || n.Stopped() != "" {
				t.Errorf("%v, %q", err, n.Stopped())
			}
		})
	}
}

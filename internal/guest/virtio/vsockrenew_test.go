package virtio

import (
	"bytes"
	"testing"
)

// TestVsockRenew: a device that asks for a reset, has reset itself or has broken the rules is set
// up again; the host is told of the connection's end, and the next one carries data as before.
func TestVsockRenew(t *testing.T) {
	for name, trouble := range map[string]func(h *fakeHost){
		"asks for a reset": func(h *fakeHost) { h.status |= statusNeedsReset },
		"has reset itself": func(h *fakeHost) { h.status, h.accepted, h.q = 0, 0, [fakeQueues]fakeQueue{} },
		"index ahead":      func(h *fakeHost) { h.setUsed(vsockRx, 1000) },
	} {
		h, v := newHost(t, featEventIdx)
		for round := range 3 {
			connect(h, v)
			send(v, []byte("before"))
			port := h.local
			trouble(h)
			v.Poll()
			v.Look()
			if v.Stopped() == "" || v.State() != Closed || v.Buffer() != nil {
				t.Fatalf("%s: stopped %q, state %d", name, v.Stopped(), v.State())
			}
			v.Connect(hostPort)
			if v.State() != Closed {
				t.Fatalf("%s: a device that was given up connects", name)
			}
			h.broken = nil // FAILED was set while it was fresh
			clear(h.ops)
			if err := v.Renew(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			h.run()
			if v.Stopped() != "" || h.status != 15 || h.ops[vopRST] != 1 || v.Counters().Renewals != uint64(round+1) {
				t.Fatalf("%s: stopped %q, status %d, %d resets, %+v", name, v.Stopped(), h.status, h.ops[vopRST], *v.Counters())
			}
			h.got = nil
			connect(h, v)
			if h.local == port {
				t.Errorf("%s: the next connection has the same port", name)
			}
			want := bytes.Repeat([]byte("after "), 10_000)
			for n := 0; n < len(want); {
				n += send(v, want[n:])
				h.run()
				h.taken = uint32(len(h.got))
				h.say(vopCreditUpdate, 0, nil)
				v.Poll()
			}
			h.run()
			if !bytes.Equal(h.got, want) {
				t.Fatalf("%s: %d bytes arrived of %d, or others", name, len(h.got), len(want))
			}
			h.rules()
			v.Close()
			v.Poll()
			h.run()
		}
	}
}

// TestVsockRenewRefuses: a device that does not end its reset, or is another than before, stays
// given up.
func TestVsockRenewRefuses(t *testing.T) {
	for name, edit := range map[string]func(h *fakeHost){
		"other features": func(h *fakeHost) { h.offered &^= featEventIdx },
		"no queue":       func(h *fakeHost) { h.qMax = 0 },
		"refuses":        func(h *fakeHost) { h.refuse = true },
	} {
		h, v := newHost(t, featEventIdx)
		connect(h, v)
		h.status |= statusNeedsReset
		v.Look()
		edit(h)
		if err := v.Renew(); err == nil || v.Stopped() == "" || v.State() != Closed {
			t.Errorf("%s: %v, stopped %q", name, err, v.Stopped())
		}
	}
}

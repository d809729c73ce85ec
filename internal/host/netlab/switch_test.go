package netlab

import (
	"bytes"
	"testing"
)

// eth returns a frame from one locally administered address to another;
// 255 is broadcast.
func eth(dst, src byte) []byte {
	f := make([]byte, 60)
	copy(f, []byte{2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src})
	if dst == 255 {
		copy(f, bytes.Repeat([]byte{255}, 6))
	}
	return f
}

func TestSwitchLearns(t *testing.T) {
	sw := NewSwitch("lan")
	got := map[string]int{}
	port := func(name string) *Port { return sw.Attach(name, func([]byte) { got[name]++ }) }
	a, b, c := port("a"), port("b"), port("c")
	expect := func(step string, na, nb, nc int) {
		t.Helper()
		if got["a"] != na || got["b"] != nb || got["c"] != nc {
			t.Fatalf("%s: %v", step, got)
		}
	}
	a.Send(eth(2, 1))
	expect("unknown destination is flooded", 0, 1, 1)
	b.Send(eth(1, 2))
	expect("known destination is not", 1, 1, 1)
	a.Send(eth(2, 1))
	expect("both are known", 1, 2, 1)
	a.Send(eth(255, 1))
	expect("broadcast is flooded", 1, 3, 2)
	c.Send(eth(1, 2))
	expect("a host that moved", 2, 3, 2)
	a.Send(eth(2, 1))
	expect("is found there", 2, 3, 3)
	c.Detach()
	a.Send(eth(2, 1))
	expect("its port is gone: flooded", 2, 4, 3)
	var told string
	sw.OnDrop(func(at string, f []byte) { told = at })
	a.Send([]byte{1, 2, 3})
	if a.Dropped() != 1 || told != a.Name {
		t.Error("a frame without header was not dropped")
	}
}

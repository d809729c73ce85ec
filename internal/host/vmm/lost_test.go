package vmm

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestLostNetwork: a TAP device that is deleted, or made again under the same name, or taken off its
// bridge, is not what the machine was joined to; one that is there is.
func TestLostNetwork(t *testing.T) {
	tap, bridge := fmt.Sprintf("thwx%d", os.Getpid()%100000), fmt.Sprintf("thwy%d", os.Getpid()%100000)
	ip := func(args string) error {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	}
	if err := ip("tuntap add dev " + tap + " mode tap"); err != nil {
		t.Skipf("TAP devices may not be made here: %v", err)
	}
	t.Cleanup(func() { ip("link del " + tap); ip("link del " + bridge) }) //nolint:errcheck // they may be gone
	do := func(args string) {
		t.Helper()
		if err := ip(args); err != nil {
			t.Fatal(err)
		}
	}
	do("link add " + bridge + " type bridge")
	do("link set " + tap + " master " + bridge)
	alone, joined := whileThere(tap, ""), whileThere(tap, bridge)
	check := func(when, a, b string) {
		t.Helper()
		for i, f := range [][]func() string{alone, joined} {
			want := [2]string{a, b}[i]
			if why := f[0](); (why == "") != (want == "") || !strings.Contains(why, want) {
				t.Errorf("%s: %q, want %q", when, why, want)
			}
		}
	}
	check("there", "", "")
	do("link set " + tap + " down")
	check("down", "", "")
	do("link set " + tap + " nomaster")
	check("off the bridge", "", "not on the bridge")
	do("link set " + tap + " master " + bridge)
	check("on it again", "", "")
	do("link del " + tap)
	check("deleted", "is gone", "is gone")
	do("tuntap add dev " + tap + " mode tap")
	do("link set " + tap + " master " + bridge)
	check("made again", "is gone", "is gone")
	m := &Machine{done: make(chan struct{}), there: alone}
	select {
	case err := <-m.lost():
		if o := (&Outcome{Ready: true, Err: err}); o.kind() != ReasonNetwork || !strings.Contains(o.err().Error(), "lost a network") {
			t.Errorf("%s: %v", o.kind(), o.err())
		}
	case <-time.After(20 * lookEvery):
		t.Error("the loss is not noticed")
	}
	if whileThere(tap+"no", "") != nil {
		t.Error("a device that does not exist is watched")
	}
}

package vmm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGate: a machine is joined and parted as its gate is, and what cannot be joined is
// parted again.
func TestGate(t *testing.T) {
	var did []string
	fails := ""
	plug := func(name string) *Plug {
		do := func(what string) func() error {
			return func() error {
				did = append(did, name+" "+what)
				if fails == name+" "+what {
					return errors.New("no")
				}
				return nil
			}
		}
		return &Plug{In: do("in"), Out: do("out")}
	}
	steps := func(want string) {
		t.Helper()
		if got := strings.Join(did, ", "); got != want {
			t.Errorf("%s; want %s", got, want)
		}
		did = nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	old, new := NewGate(true), NewGate(false)
	must(old.add(plug("a")))
	must(old.add(plug("b")))
	steps("a in, b in")
	must(new.add(plug("c")))
	must(new.add(plug("d")))
	steps("c out, d out")
	must(Switch(old, new))
	steps("a out, b out, d in, c in")
	must(Switch(new, old))
	steps("c out, d out, b in, a in")
	fails = "c in"
	if err := Switch(old, new); err == nil {
		t.Error("no error")
	}
	steps("a out, b out, d in, c in, c out, d out, b in, a in")
	fails = "b out"
	if err := Switch(old, new); err == nil {
		t.Error("no error")
	}
	steps("a out, b out, b in, a in") // a machine that cannot be parted is not doubled
	must(Switch(nil, new))
	steps("d in, c in")

	if err := NewGate(false).add(nil); !errors.Is(err, ErrNoPlug) {
		t.Errorf("a machine that cannot be parted stands by: %v", err)
	}
	g := NewGate(true)
	must(g.add(nil))
	if g.Movable() || !old.Movable() {
		t.Error("movable")
	}
	var none *Gate
	must(none.add(plug("x")))
	must(none.add(nil))
	steps("x in")
}

// TestGateStream: the stream of a machine is passed on while its gate is open, and what of
// it exists ends when it is shut.
func TestGateStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := NewGate(false)
	c := Config{Gate: g}
	dial := c.dialer()
	if _, err := dial(path); !errors.Is(err, errShut) {
		t.Errorf("a stream while the gate is shut: %v", err)
	}
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	for range 200 { // connections that have ended are not kept
		s, err := dial(path)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if s, err = l.(*net.UnixListener).AcceptUnix(); err == nil {
			s.Close()
		}
	}
	s, err := dial(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.stream) != 1 {
		t.Errorf("%d connections are kept", len(g.stream))
	}
	if err := g.Shut(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stream goes on: %v", err)
	}
}

// run runs ip(8), or skips.
func ipOrSkip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Skipf("ip %s: %v: %s (root, and iproute2)", args, err, bytes.TrimSpace(out))
	}
}

// pass sends broadcasts of a made-up protocol from one TAP device's file, each with a number
// of its own, and reports whether one arrives at another's within d.
func pass(t *testing.T, from, to *os.File, d time.Duration) bool {
	t.Helper()
	in, out := int(from.Fd()), int(to.Fd()) // Fd makes them block: they are polled
	for _, fd := range []int{in, out} {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	var sent [][]byte
	b := make([]byte, 2000)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		frames++
		f := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, byte(in), 0x88, 0xb5)
		f = append(binary.BigEndian.AppendUint64(f, frames), make([]byte, 38)...)
		if _, err := unix.Write(in, append(make([]byte, 10), f...)); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, f)
		for {
			n, err := unix.Read(out, b)
			if err != nil {
				break
			}
			if n >= 10 && slices.ContainsFunc(sent, func(f []byte) bool { return bytes.Equal(f, b[10:n]) }) {
				return true
			}
		}
	}
	return false
}

var frames uint64 // that were sent

// TestPlugs: frames pass to and from a machine on a bridge while it is joined, and none does
// while it is parted; of a TAP device with several queues the attached one gets them.
func TestPlugs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make bridges")
	}
	id := os.Getpid() % 100000
	br, far, multi := fmt.Sprintf("thgb%d", id), fmt.Sprintf("thgf%d", id), fmt.Sprintf("thgm%d", id)
	ipOrSkip(t, "link add "+br+" type bridge")
	t.Cleanup(func() { exec.Command("ip", "link", "del", br).Run() }) //nolint:errcheck // it is gone then
	ipOrSkip(t, "link set "+br+" up")
	host, _, err := openTap(far)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if err := joinBridge(br, far); err != nil {
		t.Fatal(err)
	}
	passes := func(machine *os.File, want bool, what string) {
		t.Helper()
		wait := 5 * time.Second
		if !want {
			wait = 100 * time.Millisecond
		}
		if pass(t, host, machine, wait) != want {
			t.Errorf("%s: a frame to it passes: %v", what, !want)
		}
	}

	backend, err := NewBackend(Spec{Kind: Bridge, Arg: br}, Network{})
	if err != nil {
		t.Fatal(err)
	}
	var machines [2]Attachment
	var gates [2]*Gate
	for i := range machines {
		if machines[i], err = backend("n0", Version{}, 3); err != nil {
			t.Fatal(err)
		}
		defer machines[i].drop()
		gates[i] = NewGate(i == 0)
		for range 10 { // what a machine that stands by must not see
			if _, err := unix.Write(int(host.Fd()), append(make([]byte, 10), bytes.Repeat([]byte{0xff}, 60)...)); err != nil {
				t.Fatal(err)
			}
		}
		if err := gates[i].add(machines[i].plug()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := unix.Read(int(machines[1].Files[0].Fd()), make([]byte, 2000)); err == nil {
		t.Errorf("a frame of %d bytes waits for a machine that stands by", n)
	}
	a, b := machines[0].Files[0], machines[1].Files[0]
	passes(a, true, "the first")
	passes(b, false, "the second stands by")
	if pass(t, b, host, 100*time.Millisecond) {
		t.Error("a frame of a machine that stands by passes")
	}
	var took []time.Duration
	for i := range 11 {
		from, to := i%2, 1-i%2
		began := time.Now()
		if err := Switch(gates[from], gates[to]); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		passes(machines[to].Files[0], true, "joined")
		passes(machines[from].Files[0], false, "parted")
	}
	slices.Sort(took)
	t.Logf("a switch of one network takes %v (median of %d)", took[len(took)/2], len(took))
	if !pass(t, b, host, 5*time.Second) {
		t.Error("a frame of a machine that is joined does not pass")
	}

	ipOrSkip(t, "tuntap add dev "+multi+" mode tap multi_queue")
	t.Cleanup(func() { exec.Command("ip", "link", "del", multi).Run() }) //nolint:errcheck // it is gone then
	ipOrSkip(t, "link set "+multi+" master "+br+" up")
	if backend, err = NewBackend(Spec{Kind: Tap, Arg: multi}, Network{}); err != nil {
		t.Fatal(err)
	}
	for i := range machines {
		if machines[i], err = backend("n0", Version{}, 3); err != nil {
			t.Fatal(err)
		}
		defer machines[i].drop()
		gates[i] = NewGate(i == 0)
		if err := gates[i].add(machines[i].plug()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		from, to := i%2, 1-i%2
		passes(machines[from].Files[0], true, "attached")
		passes(machines[to].Files[0], false, "detached")
		if err := Switch(gates[from], gates[to]); err != nil {
			t.Fatal(err)
		}
	}
}

package e2e

import (
	"context"
	"encoding/binary"
	"net"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// many sends datagrams from many ports of the LAN's host in turn, one each millisecond, and
// notes when one of each arrives. The kernel puts what it sends to a TAP device into the queue
// of the flow.
type many struct {
	mu   sync.Mutex
	gaps []time.Duration // by port: the longest time without a datagram
	last []time.Time
	sent []int
	got  []int
}

func (d *deployed) many(ports int) *many {
	d.t.Helper()
	s := &many{gaps: make([]time.Duration, ports), last: make([]time.Time, ports), sent: make([]int, ports), got: make([]int, ports)}
	var to net.PacketConn
	from := make([]net.PacketConn, ports)
	within(d.t, d.wan, func() (err error) { to, err = net.ListenPacket("udp4", "198.51.100.80:5001"); return err })
	within(d.t, d.lan, func() error {
		for i := range from {
			c, err := net.ListenPacket("udp4", "10.0.0.2:0")
			if err != nil {
				return err
			}
			from[i] = c
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	d.t.Cleanup(func() {
		cancel()
		to.Close()
		for _, c := range from {
			c.Close()
		}
	})
	go func() {
		b := make([]byte, 4)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i = (i + 1) % ports {
			<-tick.C
			binary.BigEndian.PutUint32(b, uint32(i))
			s.mu.Lock()
			s.sent[i]++
			s.mu.Unlock()
			from[i].WriteTo(b, to.LocalAddr()) //nolint:errcheck // lost
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			n, _, err := to.ReadFrom(b)
			if err != nil {
				return
			}
			i := int(binary.BigEndian.Uint32(b))
			if now := time.Now(); n == 4 && i < ports {
				s.mu.Lock()
				if !s.last[i].IsZero() {
					s.gaps[i] = max(s.gaps[i], now.Sub(s.last[i]))
				}
				s.last[i] = now
				s.got[i]++
				s.mu.Unlock()
			}
		}
	}()
	return s
}

// begin forgets what was before.
func (s *many) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.gaps {
		s.gaps[i], s.sent[i], s.got[i] = 0, 0, 0
	}
}

// result returns the longest time that any flow was without a datagram, and how many were
// sent and have arrived.
func (s *many) result() (gap time.Duration, sent, got int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.gaps {
		gap = max(gap, s.gaps[i], time.Since(s.last[i]))
		sent, got = sent+s.sent[i], got+s.got[i]
	}
	return gap, sent, got
}

// TestDeployQueues: while two machines have queues of the same TAP devices, of the LAN and of
// the WAN, as the package's files for systemd-networkd make them, no flow's packets are put
// into the queue of the machine that is parted: not while the new one waits for its place, and
// not while the old one waits to come back.
func TestDeployQueues(t *testing.T) {
	t.Parallel()
	h := newHosts(t)
	wanTap := "q" + h.tap
	for _, tap := range []struct{ name, bridge string }{{h.tap, h.brL}, {wanTap, h.brW}} {
		if tap.name == h.tap {
			h.ip("link del " + tap.name)
		}
		h.ip("tuntap add dev " + tap.name + " mode tap multi_queue")
		h.ip("link set " + tap.name + " master " + tap.bridge + " up")
	}
	t.Cleanup(func() { exec.Command("ip", "link", "del", wanTap).Run() }) //nolint:errcheck // it may be gone
	const ports = 64
	d := newDeployedOn(t, h, false, "first", "--lan", "tap:"+h.tap, "--wan", "tap:"+wanTap)
	s := d.many(ports)
	time.Sleep(2 * time.Second)
	s.begin()
	time.Sleep(3 * time.Second)
	quiet, sent, got := s.result()
	t.Logf("without a change: %d of %d datagrams, %v without one of a flow", got, sent, quiet)

	// A machine is watched for 3 seconds and then taken back: the old one waits as long.
	second := deployImage(t, d.dir, "second", "203.0.113.1")
	for _, c := range []struct {
		what string
		args []string
		good bool
	}{
		{"to the new machine", []string{"--watch", "3s"}, true},
		{"and back, by a check that fails", []string{"--watch", "3s", "--check", "false"}, false},
	} {
		image := second
		if !c.good {
			image = deployImage(t, d.dir, "third", "203.0.113.1")
		}
		s.begin()
		out, err := d.run("deploy", append([]string{image}, c.args...)...)
		time.Sleep(time.Second)
		gap, sent, got := s.result()
		t.Logf("%s: %d of %d datagrams, %v without one of a flow", c.what, got, sent, gap)
		if (err == nil) != c.good {
			t.Fatalf("%v\n%s", err, out)
		}
		// A flow in the queue of a machine that is parted would be without for all of the
		// watch, and that would be one of two.
		if gap > quiet+time.Second || got < sent*3/4 {
			t.Errorf("%s: %v without a datagram of a flow, %d of %d arrived\n%s", c.what, gap, got, sent, out)
		}
	}
}

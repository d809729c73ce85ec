package e2e

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A stoppable is a machine whose clock is looked at: its LAN side is a UDP socket.
type stoppable struct {
	t      *testing.T
	qmp    net.Conn
	lan    net.Conn
	events chan ecs.Event
	ready  chan string
	end    func() error
	pid    int // of QEMU

	mu             sync.Mutex
	lines, answers []string // of the console, of QMP
}

// newStoppable boots the image with events on the console.
func newStoppable(ctx context.Context, t *testing.T, accel ...string) *stoppable {
	t.Helper()
	there, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	guest := there.LocalAddr().String()
	here, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	local := here.LocalAddr().(*net.UDPAddr)
	here.Close()
	there.Close() // QEMU's from now on
	args := append(accel, "-M", "microvm,rtc=on", "-global", "virtio-mmio.force-legacy=false", "-kernel", testImage(t),
		"-append", "thurward.events=console thurward.lan="+vmm.DefaultMAC(vmm.LAN)+" thurward.wan="+vmm.DefaultMAC(vmm.WAN),
		"-netdev", "socket,id=n0,udp="+local.String()+",localaddr="+guest, "-netdev", "hubport,id=n1,hubid=1",
		"-device", "virtio-net-device,netdev=n0,mac="+vmm.DefaultMAC(vmm.LAN), "-device", "virtio-net-device,netdev=n1,mac="+vmm.DefaultMAC(vmm.WAN))
	s := startStoppable(ctx, t, args)
	if s.lan, err = net.DialUDP("udp4", local, net.UDPAddrFromAddrPort(there.LocalAddr().(*net.UDPAddr).AddrPort())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.lan.Close() })
	return s
}

// startStoppable boots a machine that has QMP and its console here, and waits until it is
// ready, unless its state comes from elsewhere.
func startStoppable(ctx context.Context, t *testing.T, args []string) *stoppable {
	t.Helper()
	socket := t.TempDir() + "/qmp"
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{"-m", "64M", "-nodefaults", "-no-user-config", "-display", "none",
		"-serial", "stdio", "-no-reboot", "-qmp", "unix:" + socket + ",server=on,wait=off"}, args...)...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &stoppable{t: t, events: make(chan ecs.Event, 1000), ready: make(chan string, 1), end: cmd.Process.Kill, pid: cmd.Process.Pid}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for r := bufio.NewScanner(out); r.Scan(); {
			l := strings.TrimSpace(r.Text())
			s.mu.Lock()
			s.lines = append(s.lines, l)
			s.mu.Unlock()
			if e, err := ecs.Parse(strings.TrimPrefix(l, "thurward: event ")); err == nil {
				select {
				case s.events <- e:
				default: // nobody waits for events: the console must be read all the same
				}
			} else if strings.HasPrefix(l, "thurward: ready ") {
				select {
				case s.ready <- l:
				default:
				}
			}
		}
		cmd.Wait() //nolint:errcheck // it is killed
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-over
	})
	if !slices.Contains(args, "-incoming") { // what is restored was ready before
		select {
		case l := <-s.ready:
			t.Log(l)
		case <-time.After(limit):
			t.Fatal("not ready")
		}
	}
	for late := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if s.qmp, err = net.Dial("unix", socket); err == nil {
			break
		} else if time.Now().After(late) {
			t.Fatal(err)
		}
	}
	go func() {
		for r := bufio.NewScanner(s.qmp); r.Scan(); {
			s.mu.Lock()
			s.answers = append(s.answers, r.Text())
			s.mu.Unlock()
		}
	}()
	s.execute("qmp_capabilities")
	t.Cleanup(func() { s.qmp.Close() })
	return s
}

// resume lets a machine go on, whose state may still be read, and waits until it does.
func (s *stoppable) resume(ctx context.Context) {
	s.t.Helper()
	for ; ; time.Sleep(100 * time.Millisecond) {
		s.execute("cont") // without effect while its state is read
		s.mu.Lock()
		runs := slices.ContainsFunc(s.answers, func(l string) bool { return strings.Contains(l, `"RESUME"`) })
		s.mu.Unlock()
		if runs {
			return
		} else if ctx.Err() != nil {
			s.t.Fatalf("the machine does not go on: %q", s.answers)
		}
	}
}

// said reports whether a line of the console has the text.
func (s *stoppable) said(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.lines, func(l string) bool { return strings.Contains(l, text) })
}

// save writes the state of a stopped machine to a file.
func (s *stoppable) save(ctx context.Context, file string) {
	s.t.Helper()
	fmt.Fprintf(s.qmp, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":%q}}\n", "exec:cat > "+file+".part && mv "+file+".part "+file) //nolint:errcheck // no state then
	for {
		if _, err := os.Stat(file); err == nil {
			return
		} else if ctx.Err() != nil {
			s.t.Fatal("no state was saved")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *stoppable) execute(command string) {
	if _, err := fmt.Fprintf(s.qmp, "{\"execute\":%q}\n", command); err != nil {
		s.t.Fatal(err)
	}
}

// await returns the next event with the action.
func (s *stoppable) await(action string, within time.Duration) ecs.Event {
	s.t.Helper()
	for late := time.After(within); ; {
		select {
		case e := <-s.events:
			if e.Str(ecs.EventAction) == action {
				return e
			}
		case <-late:
			s.t.Fatalf("no %s within %v", action, within)
		}
	}
}

// adjusted returns the event of the time of day being set right, which comes within 5 seconds,
// but for the time that the host gave to others than QEMU.
func (s *stoppable) adjusted() ecs.Event {
	s.t.Helper()
	waited := func() (sum time.Duration) {
		for _, tid := range threads(s.pid) {
			if _, d, err := schedstat(s.pid, tid); err == nil {
				sum += d
			}
		}
		return sum
	}
	began, before := time.Now(), waited()
	e := s.await(ecs.ClockAdjusted, 2*limit)
	if took, others := time.Since(began), waited()-before; took > 5*time.Second+others {
		s.t.Errorf("the time of day was set right after %v, of which the host gave %v to others", took, others)
	}
	return e
}

// fast returns by how much the firewall's time of day is fast at least and at most, by the
// events of five packets that it drops: a busy host delays some.
func (s *stoppable) fast(port uint16) (least, most time.Duration) {
	s.t.Helper()
	least, most = s.fastBy(5 * port)
	for i := range uint16(4) {
		l, m := s.fastBy(5*port + i + 1)
		least, most = max(least, l), min(most, m)
	}
	return least, most
}

func (s *stoppable) fastBy(port uint16) (least, most time.Duration) {
	s.t.Helper()
	f := make([]byte, 60)
	packet.PutEth(f, &[6]byte{0x52, 0x54, 0, 0x74, 0x68, 1}, &sprayMAC, packet.TypeIPv4)
	packet.PutIPv4(f[14:], sprayAddr, 198<<24|51<<16|100<<8|80, packet.UDP, 64, 26)
	f[34], f[35], f[36], f[37], f[39] = 4, 0, byte(port>>8), byte(port), 26
	sent := time.Now()
	if _, err := s.lan.Write(f); err != nil {
		s.t.Fatal(err)
	}
	e := s.await(ecs.Drop, limit)
	for e.Int(ecs.DestinationPort) != int64(port) { // of a frame before
		s.t.Logf("another drop: %v", e)
		e = s.await(ecs.Drop, limit)
	}
	return time.Until(e.Time()), e.Time().Sub(sent)
}

// TestClockAfterStop: a machine that was stopped for 10 seconds has the time of day again
// within 5 seconds of going on, and says by how much it was wrong. QEMU's real-time clock
// begins with a whole second at its own start, and so is slow by up to one: with it the
// error after is compared with that before.
func TestClockAfterStop(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	const gap = 10 * time.Second
	for name, accel := range map[string][]string{"tcg": {"-accel", "tcg", "-cpu", "max"}, "kvm": {"-accel", "kvm", "-cpu", "host,-arch-capabilities"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if why := noKVM(); name == "kvm" && why != "" && !softwareKVM() {
				t.Skip(why)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			s := newStoppable(ctx, t, accel...)
			time.Sleep(3 * time.Second) // a real-time clock is first read for a second
			low, high := s.fast(2000)
			s.execute("stop")
			stopped := time.Now()
			time.Sleep(gap)
			resumed := time.Now()
			s.execute("cont")
			e := s.adjusted()
			by := time.Duration(e.Int(ecs.ClockAdjustment))
			took := time.Since(resumed)
			low2, high2 := s.fast(2001)
			t.Logf("%s: fast by %v to %v before, %v to %v after; %v after going on it was adjusted by %v", e.Str(ecs.Clock), low, high, low2, high2, took, by)
			if d := by - resumed.Sub(stopped); d < -200*time.Millisecond || d > 200*time.Millisecond {
				t.Errorf("adjusted by %v", by)
			}
			const good = 100 * time.Millisecond
			switch e.Str(ecs.Clock) {
			case "kvmclock":
				if high2 < -good || low2 > good {
					t.Errorf("fast by %v to %v", low2, high2)
				}
			case "rtc":
				if high2-low < -good || low2-high > good || high2 < -time.Second-good || low2 > good {
					t.Errorf("fast by %v to %v, which was %v to %v", low2, high2, low, high)
				}
			default:
				t.Errorf("the clock is %q", e.Str(ecs.Clock))
			}
		})
	}
}

// TestClockAfterRestore: a machine whose state was saved and restored in another process
// has the time of day again within 5 seconds.
func TestClockAfterRestore(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tcg := []string{"-accel", "tcg", "-cpu", "max"}
	state := t.TempDir() + "/state"
	s := newStoppable(ctx, t, tcg...)
	time.Sleep(3 * time.Second)
	low, high := s.fast(2000)
	s.execute("stop")
	stopped := time.Now()
	s.save(ctx, state)
	s.end() //nolint:errcheck // it may have ended
	time.Sleep(5 * time.Second)
	r := newStoppable(ctx, t, append(tcg, "-incoming", "exec:cat "+state)...)
	time.Sleep(time.Second) // until the state is read
	resumed := time.Now()
	r.execute("cont")
	e := r.adjusted()
	by, gap := time.Duration(e.Int(ecs.ClockAdjustment)), resumed.Sub(stopped)
	low2, high2 := r.fast(2001)
	t.Logf("fast by %v to %v before, %v to %v after; adjusted by %v after %v", low, high, low2, high2, by, gap)
	const good = 100 * time.Millisecond
	if high2-low < -good || low2-high > good {
		t.Errorf("fast by %v to %v, which was %v to %v", low2, high2, low, high)
	}
}

var driftFor = flag.Duration("drift", 15*time.Second, "how long TestDrift compares the image's clock with the host's")

// TestDrift: under TCG, where the time comes from a time-stamp counter that was calibrated in
// milliseconds and may be off by some 600 ppm, and under KVM, where it comes from kvmclock, the
// time of day stays within 100 ms of what it was against the host's, and has no slope.
func TestDrift(t *testing.T) {
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	for name, accel := range map[string][]string{"tcg": {"-accel", "tcg", "-cpu", "max"}, "kvm": {"-accel", "kvm", "-cpu", "host,-arch-capabilities"}} {
		t.Run(name, func(t *testing.T) {
			if why := noKVM(); name == "kvm" && why != "" && !softwareKVM() {
				t.Skip(why)
			}
			t.Parallel()
			drift(t, accel)
		})
	}
}

func drift(t *testing.T, accel []string) {
	ctx, cancel := context.WithTimeout(t.Context(), *driftFor+time.Minute)
	defer cancel()
	s := newStoppable(ctx, t, accel...)
	time.Sleep(3 * time.Second) // a real-time clock is first read for a second
	low, high := s.fast(2000)
	begun := time.Now()
	const good = 100 * time.Millisecond
	least, most := time.Duration(0), time.Duration(0) // that it is off, for certain
	var last, told time.Duration
	for port := uint16(2001); time.Since(begun) < *driftFor; port++ {
		time.Sleep(min(5*time.Second, *driftFor/4))
		l, h := s.fast(port)
		least, most = min(least, h-low), max(most, l-high)
		if h-low < -good || l-high > good {
			t.Errorf("after %v it is fast by %v to %v, and was by %v to %v", time.Since(begun).Round(time.Second), l, h, low, high)
		}
		last = (l + h - low - high) / 2
		if took := time.Since(begun); took-told >= 10*time.Minute {
			told = took
			t.Logf("within %v: off by %v to %v, now by %v", took.Round(time.Second), least, most, last)
		}
	}
	took := time.Since(begun)
	t.Logf("within %v: off by %v to %v, at the end by %v: %.0f ppm", took.Round(time.Second), least, most, last, float64(last)/float64(took)*1e6)
}

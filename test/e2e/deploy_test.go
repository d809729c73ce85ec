package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/image"
	rules "github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/service"
)

// deployRules is a policy for the hosts of newHosts, with a gateway, more defaults, and a
// rule whose id tells two policies apart.
const deployRules = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: %s }
defaults: { default_action: deny%s }
nat:
  snat: [{ out_interface: wan0, source: 10.0.0.0/24, masquerade: true }]
rules:
  - { id: out, action: accept, direction: egress, protocol: [tcp, udp, icmp] }
  - { id: %s, action: deny, direction: ingress, protocol: tcp, destination_port: 1 }
  - { id: back, action: accept, direction: ingress, state: established }
`

// deployImage writes the image of such a policy.
func deployImage(t *testing.T, dir, name, gateway string, defaults ...string) string {
	t.Helper()
	src := fmt.Sprintf(deployRules, gateway, strings.Join(append([]string{""}, defaults...), ", "), name)
	path := filepath.Join(dir, name+".img")
	linkRules(t, path, src)
	if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// linkRules writes the image of a policy.
func linkRules(t *testing.T, path, src string) {
	t.Helper()
	p, ds := rules.Load(filepath.Base(path)+".yaml", []byte(src))
	if p == nil {
		t.Fatal(ds)
	}
	seg, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	in, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	in.Policy = compile.Encode(seg)
	b, err := image.Link(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// within runs f in a network namespace. Sockets that it makes stay there.
func within(t *testing.T, ns string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + ns)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A deployed is a firewall that runs as a service between two hosts.
type deployed struct {
	*hosts
	t          *testing.T
	bin, state string
	dir        string
	service    *exec.Cmd
	log        *bytes.Buffer
}

func newDeployed(t *testing.T, kvm bool, first string, args ...string) *deployed {
	t.Helper()
	return newDeployedOn(t, newHosts(t), kvm, first, args...)
}

func newDeployedOn(t *testing.T, h *hosts, kvm bool, first string, args ...string) *deployed {
	t.Helper()
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	d := &deployed{hosts: h, t: t, bin: bin, dir: t.TempDir(), log: &bytes.Buffer{}}
	d.state = filepath.Join(d.dir, "edge")
	if out, err := d.run("deploy", deployImage(t, d.dir, first, "203.0.113.1")); err != nil {
		t.Fatalf("deploying without a service: %v\n%s", err, out)
	}
	d.start(kvm, args...)
	return d
}

// run runs a command about the firewall.
func (d *deployed) run(command string, args ...string) (string, error) {
	args = append([]string{command, "--name", "edge", "--state", d.state}, args...)
	out, err := exec.CommandContext(soon(d.t), d.bin, args...).CombinedOutput()
	return string(out), err
}

// start starts the service, and waits until it is healthy.
func (d *deployed) start(kvm bool, args ...string) {
	d.t.Helper()
	d.service = exec.Command(d.bin, append([]string{"run", "--name", "edge", "--state", d.state, "--lan", "bridge:" + d.brL, "--wan", "bridge:" + d.brW,
		"--vsock", filepath.Join(d.dir, "v"), "--page", "none", "--accel", map[bool]string{false: "tcg", true: "kvm"}[kvm]}, args...)...)
	d.service.Stdout, d.service.Stderr = d.log, d.log
	if err := d.service.Start(); err != nil {
		d.t.Fatal(err)
	}
	over := make(chan struct{})
	go func() { d.service.Wait(); close(over) }() //nolint:errcheck // ended by the test
	d.t.Cleanup(func() {
		d.service.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		<-over
		if d.t.Failed() {
			d.t.Logf("the service:\n%s", d.log)
		}
	})
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if _, err := d.run("status"); err == nil {
			return
		}
		if time.Now().After(end) {
			out, _ := d.run("status")
			d.t.Fatalf("the service is not healthy:\n%s", out)
		}
	}
}

// status returns what status --json says.
func (d *deployed) status() (s service.Status) {
	d.t.Helper()
	out, _ := d.run("status", "--json") // it says by its code whether the firewall is healthy
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
	return s
}

// A stream is datagrams from the LAN's host to the WAN's, one each millisecond.
type stream struct {
	mu      sync.Mutex
	arrived []time.Time
	stop    context.CancelFunc
}

func (d *deployed) stream() *stream {
	d.t.Helper()
	s := &stream{}
	var from, to net.PacketConn
	within(d.t, d.wan, func() (err error) { to, err = net.ListenPacket("udp4", "198.51.100.80:5000"); return err })
	within(d.t, d.lan, func() (err error) { from, err = net.ListenPacket("udp4", "10.0.0.2:5000"); return err })
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	d.t.Cleanup(func() { cancel(); from.Close(); to.Close() })
	go func() {
		b := make([]byte, 100)
		dst := to.LocalAddr()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := uint64(1); ctx.Err() == nil; n++ {
			<-tick.C
			binary.BigEndian.PutUint64(b, n)
			from.WriteTo(b, dst) //nolint:errcheck // lost
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			if _, _, err := to.ReadFrom(b); err != nil {
				return
			}
			s.mu.Lock()
			s.arrived = append(s.arrived, time.Now())
			s.mu.Unlock()
		}
	}()
	return s
}

// gap returns the longest time without a datagram since a time.
func (s *stream) gap(since time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, most := since, time.Duration(0)
	for _, a := range s.arrived {
		if a.After(since) {
			most, last = max(most, a.Sub(last)), a
		}
	}
	return max(most, time.Since(last))
}

// TestDeployCommands: without a service: what deploy, rollback and status say and how they
// end.
func TestDeployCommands(t *testing.T) {
	t.Parallel()
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	state := filepath.Join(dir, "edge")
	a, b := deployImage(t, dir, "a", "203.0.113.1"), deployImage(t, dir, "b", "203.0.113.1", "max_flows: 4096")
	rules := func(image string) string { return strings.TrimSuffix(image, ".img") + ".yaml" }
	failing := filepath.Join(dir, "failing.img") // its tests do not hold: build would have made no image
	src := fmt.Sprintf(deployRules, "203.0.113.1", "", "x") + "tests: [{ from: lan, proto: udp, src: 10.0.0.2, dst: \"192.0.2.1:53\", expect: deny }]\n"
	linkRules(t, failing, src)
	if err := os.WriteFile(rules(failing), []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	truncated := filepath.Join(dir, "truncated.img")
	whole, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(truncated, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"status"}, 1, "no image was deployed yet (thurward deploy IMAGE --name edge)"},
		{[]string{"rollback"}, 1, "no image was deployed yet"},
		{[]string{"run", "--lan", "user", "--wan", "user"}, 1, "no image was deployed yet"},
		{[]string{"deploy", a, "-f", rules(a), "--dry-run"}, 0, "edge has no image yet"},
		{[]string{"status"}, 1, "no image was deployed yet"}, // dry
		{[]string{"deploy", a, "-f", rules(b)}, 1, "is not the policy that the image was built from"},
		{[]string{"deploy", failing, "-f", rules(failing)}, 1, "1 of the policy's 1 test failed"},
		{[]string{"deploy", truncated}, 1, "truncated"},
		{[]string{"deploy", dir}, 1, "not a regular file"},
		{[]string{"deploy", "/dev/zero"}, 1, "not a regular file"},
		{[]string{"deploy", filepath.Join(dir, "none.img")}, 1, "there is no such file"},
		{[]string{"deploy"}, 2, "want one image"},
		{[]string{"deploy", a, "--watch", "-1s"}, 2, "out of range"},
		{[]string{"deploy", a, "-f", rules(a)}, 0, "no service runs the firewall"},
		{[]string{"status"}, 1, "edge: down, NOT HEALTHY"},
		{[]string{"rollback"}, 1, "there is no previous image"},
		{[]string{"deploy", b, "-f", rules(b), "--dry-run"}, 0, "max_flows"},
		{[]string{"deploy", b, "-f", rules(b)}, 0, "ingress"}, // rule a is rule b now
		{[]string{"deploy", b}, 0, "the same policy as the current image's"},
		{[]string{"status"}, 1, "previous\n"},
		{[]string{"rollback"}, 0, "is current"},
		{[]string{"deploy", b, "-f", rules(b)}, 0, "max_flows"}, // a's was kept
		{[]string{"run", "--lan", "demo", "--wan", "user"}, 2, "is for a firewall with networks"},
		{[]string{"run", "--image", a, "--lan", "user", "--wan", "user"}, 2, "an image and --state"},
	} {
		args := append([]string{c.args[0], "--name", "edge", "--state", state}, c.args[1:]...)
		out, err := exec.CommandContext(soon(t), bin, args...).CombinedOutput()
		if code := exitCode(t, err); code != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	for _, name := range []string{"../edge", "a/b", "", "Edge", "-x"} {
		for _, c := range []string{"deploy", "status", "rollback"} {
			args := []string{c, "--name", name}
			if c == "deploy" {
				args = append(args, a)
			}
			if out, err := exec.CommandContext(soon(t), bin, args...).CombinedOutput(); exitCode(t, err) != 2 {
				t.Errorf("%v: %s", args, out)
			}
		}
	}
}

// TestDeployOutage: from the last packet through the old machine to the first through the
// new one, under load, less than 100 ms pass, and what passed without a packet just before,
// without a change: the median of several changes, and where the host is busy three of at
// most nine.
func TestDeployOutage(t *testing.T) {
	const enough, most, good = 3, 9, 100 * time.Millisecond
	eachAlone(t, func(t *testing.T, kvm bool) {
		d := newDeployed(t, kvm, "first")
		second := deployImage(t, d.dir, "second", "203.0.113.1")
		s := d.stream()
		var quiets, outages, whole []time.Duration
		short := 0
		for i := 0; i < enough || short < enough && 2*short <= i && i < most; i++ {
			before := time.Now()
			time.Sleep(time.Second)
			quiet := s.gap(before)
			began := time.Now()
			out, err := "", error(nil)
			if i == 0 {
				out, err = d.run("deploy", second, "--watch", "1s")
			} else {
				out, err = d.run("rollback", "--watch", "1s")
			}
			if err != nil {
				t.Fatalf("change %d: %v\n%s", i, err, out)
			}
			gap := s.gap(began)
			quiets, outages, whole = append(quiets, quiet), append(outages, gap), append(whole, time.Since(began))
			if gap < good+quiet {
				short++
			}
		}
		t.Logf("outages %v, before %v, changes %v", outages, quiets, whole)
		if 2*short <= len(outages) && short < enough {
			t.Errorf("of the outages %d of %d are shorter than %v", short, len(outages), good)
		}
	})
}

// TestDeployElsewhere: the new machine stands by and takes over on Firecracker and
// cloud-hypervisor as well, and with a TAP device that has several queues; with one that has
// one the old machine ends first.
func TestDeployElsewhere(t *testing.T) {
	t.Parallel()
	const cold = "the old machine ends first"
	for _, vmm := range []string{"firecracker", "cloud-hypervisor"} {
		t.Run(vmm, func(t *testing.T) {
			if _, err := exec.LookPath(vmm); err != nil {
				t.Skip(err)
			}
			if why := noKVM(); why != "" {
				t.Skip(why)
			}
			d := newDeployed(t, true, "first", "--vmm", vmm)
			s := d.stream()
			time.Sleep(time.Second)
			began := time.Now()
			out, err := d.run("deploy", deployImage(t, d.dir, "second", "203.0.113.1"), "--watch", "1s")
			gap := s.gap(began)
			t.Logf("%v without a packet", gap)
			if err != nil || strings.Contains(out, cold) || !strings.Contains(out, "has taken over") || gap > 2*time.Second {
				t.Errorf("%v, %v without a packet\n%s", err, gap, out)
			}
			d.connect()
		})
	}
	for _, several := range []bool{true, false} {
		t.Run(fmt.Sprintf("tap, several queues %v", several), func(t *testing.T) {
			h := newHosts(t)
			h.ip("link del " + h.tap) // it has several where there are several processors
			h.ip("tuntap add dev " + h.tap + " mode tap" + map[bool]string{true: " multi_queue"}[several])
			h.ip("link set " + h.tap + " master " + h.brL + " up")
			d := newDeployedOn(t, h, false, "first", "--lan", "tap:"+h.tap)
			s := d.stream()
			time.Sleep(time.Second)
			began := time.Now()
			out, err := d.run("deploy", deployImage(t, d.dir, "second", "203.0.113.1"), "--watch", "1s")
			gap := s.gap(began)
			t.Logf("%v without a packet", gap)
			if err != nil || strings.Contains(out, cold) == several || gap > map[bool]time.Duration{true: 2 * time.Second, false: 10 * time.Second}[several] {
				t.Errorf("%v, %v without a packet\n%s", err, gap, out)
			}
			d.connect()
		})
	}
}

// connect opens a connection from the LAN's host to a server on the WAN that sends back what
// it gets. Neither end probes whether the other is there: a probe would be reset by a machine
// that does not know the connection.
func (d *deployed) connect() net.Conn {
	d.t.Helper()
	var l net.Listener
	within(d.t, d.wan, func() (err error) {
		l, err = (&net.ListenConfig{KeepAlive: -1}).Listen(d.t.Context(), "tcp4", "198.51.100.80:0")
		return err
	})
	d.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c) //nolint:errcheck // until its end
		}
	}()
	var c net.Conn
	within(d.t, d.lan, func() (err error) {
		c, err = (&net.Dialer{Timeout: limit, KeepAlive: -1}).Dial("tcp4", l.Addr().String())
		return err
	})
	d.t.Cleanup(func() { c.Close() })
	if err := echoes(c, limit); err != nil {
		d.t.Fatal(err)
	}
	return c
}

// echoes sends a word and waits for it to come back.
func echoes(c net.Conn, within time.Duration) error {
	c.SetDeadline(time.Now().Add(within)) //nolint:errcheck // a socket takes one
	b := []byte("word")
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

// TestDeployTellsConnections: a connection through the old machine is reset at the client's
// next write, unless the policy says that it is not to be; then nothing comes.
func TestDeployTellsConnections(t *testing.T) {
	t.Parallel()
	d := newDeployed(t, false, "first")
	for _, silent := range []bool{false, true} {
		c := d.connect()
		next := deployImage(t, d.dir, "second", "203.0.113.1")
		if silent {
			next = deployImage(t, d.dir, "silent", "203.0.113.1", "tcp_reset_unknown: false")
		}
		if out, err := d.run("deploy", next, "--watch", "0"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		began := time.Now()
		err := echoes(c, 3*time.Second)
		t.Logf("silent %v: %v after %v", silent, err, time.Since(began))
		if silent && !errors.Is(err, os.ErrDeadlineExceeded) || !silent && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("silent %v: %v", silent, err)
		}
		d.connect() // a new one passes
	}
}

// TestDeployGoesBack: an image whose firewall cannot hear its gateway is taken back by
// itself, and connections live on in the old machine.
func TestDeployGoesBack(t *testing.T) {
	t.Parallel()
	d := newDeployed(t, false, "good")
	c := d.connect()
	before := d.status()
	out, err := d.run("deploy", deployImage(t, d.dir, "broken", "203.0.113.99"), "--watch", "1s")
	if err == nil || !strings.Contains(out, "gateway") {
		t.Errorf("%v: %s", err, out)
	}
	after := d.status()
	if after.Current != before.Current || after.Failed == nil || !after.Healthy || after.Running.Since != before.Running.Since {
		t.Errorf("after: %+v, %+v", after, after.Running)
	}
	if err := echoes(c, limit); err != nil {
		t.Errorf("a connection through the old machine: %v", err)
	}
}

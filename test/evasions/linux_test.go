package evasions

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/test/netns"
)

// wires are the two ends of veth pairs in a network namespace of their own,
// which has no addresses, so that nothing there answers by itself. The other
// ends are where a firewall is: lan and wan in another namespace, or on bridges
// of this one.
type wires struct {
	t            testing.TB
	outer, inner string    // namespaces
	bridge       [2]string // in place of inner
	sock         [2]int
	buf          []byte
	quiet        time.Duration // without a frame for so long, all has had its effect
	port, id     uint16
	macs         [2][6]byte // of the firewall
	missing      []string   // settings that could not be made
}

// made counts the pairs of namespaces that were made.
var made atomic.Int32

// newWires makes the namespaces, or one and the bridges, or skips the test with
// the reason.
func newWires(t testing.TB, quiet time.Duration, bridges bool) *wires {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed (scripts/need.sh evasions installs it)")
	}
	id := fmt.Sprintf("%d", (os.Getpid()+int(made.Add(1)-1))%100000) // names of before may be on their way out
	w := &wires{t: t, outer: "theo" + id, inner: "ther" + id, buf: make([]byte, 65536), quiet: quiet, port: 20000, id: 100, macs: replay.DefaultMAC}
	if out, err := exec.Command("ip", "netns", "add", w.outer).CombinedOutput(); err != nil {
		t.Skipf("network namespaces may not be made here (root is needed): %s", bytes.TrimSpace(out))
	}
	t.Cleanup(func() {
		for _, ns := range []string{w.outer, w.inner} {
			exec.Command("ip", "netns", "del", ns).Run() //nolint:errcheck // the second may not be there
		}
	})
	for i, n := range []string{"lan", "wan"} {
		if bridges {
			w.bridge[i] = "theb" + n[:1] + id
			veth := "thev" + n[:1] + id
			w.run("ip link add " + w.bridge[i] + " type bridge mcast_snooping 0")
			w.t.Cleanup(func() { exec.Command("ip", "link", "del", w.bridge[i]).Run() }) //nolint:errcheck // it is going away
			w.run("ip link add " + veth + " type veth peer name " + n + "o netns " + w.outer)
			for _, d := range []string{w.bridge[i], veth} {
				exec.Command("sysctl", "-qw", "net.ipv6.conf."+d+".disable_ipv6=1").Run() //nolint:errcheck // there may be no IPv6
			}
			w.run("ip link set " + veth + " master " + w.bridge[i] + " up")
			// A host that uses another's link-layer address misleads a switch; that is not what is tested.
			w.run("ip link set " + veth + " type bridge_slave learning off")
			w.run("ip link set " + w.bridge[i] + " up")
			continue
		}
		if i == 0 {
			w.run("ip netns add " + w.inner)
			w.sysctl(w.inner, "net.ipv6.conf.all.disable_ipv6=1")
			w.run("ip -n " + w.inner + " link set lo up")
		}
		mac := w.macs[i]
		w.run(fmt.Sprintf("ip -n %s link add %s address %s type veth peer name %so netns %s", w.inner, n, net.HardwareAddr(mac[:]), n, w.outer))
		w.run("ip -n " + w.inner + " link set " + n + " up")
	}
	w.sysctl(w.outer, "net.ipv6.conf.all.disable_ipv6=1")
	for _, n := range []string{"lan", "wan"} {
		w.run("ip -n " + w.outer + " link set " + n + "o up")
	}
	w.open()
	return w
}

func (w *wires) run(cmd string) {
	w.t.Helper()
	a := strings.Fields(cmd)
	if out, err := exec.Command(a[0], a[1:]...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

// in returns a command in the firewall's namespace.
func (w *wires) in(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", w.inner}, args...)...)
}

// sysctl makes a setting in a namespace. Which ones a namespace may change
// depends on the kernel; what is refused is noted.
func (w *wires) sysctl(ns, set string) {
	k, v, _ := strings.Cut(set, "=")
	path := "/proc/sys/" + strings.ReplaceAll(k, ".", "/")
	if out, err := exec.Command("ip", "netns", "exec", ns, "sh", "-c", "echo "+v+" > "+path).CombinedOutput(); err != nil {
		w.missing = append(w.missing, fmt.Sprintf("%s: %s", set, bytes.TrimSpace(out)))
	}
}

// inside runs f on a thread that is in a namespace, and goes with it.
func inside(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread must not be reused
		fd, err := os.Open("/run/netns/" + ns)
		if err == nil {
			defer fd.Close()
			if err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err == nil {
				err = f()
			}
		}
		done <- err
	}()
	return <-done
}

func (w *wires) open() {
	w.t.Helper()
	err := inside(w.outer, func() error {
		for i, n := range []string{"lano", "wano"} {
			netns.NoOffload(n)
			nif, err := net.InterfaceByName(n)
			if err != nil {
				return err
			}
			proto := binary.LittleEndian.Uint16([]byte{0, unix.ETH_P_ALL})
			s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
			if err != nil {
				return err
			}
			w.t.Cleanup(func() { unix.Close(s) })
			unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20) //nolint:errcheck // without it floods may lose frames
			if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
				return err
			}
			if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: nif.Index}); err != nil {
				return err
			}
			w.sock[i] = s
		}
		return nil
	})
	if err == nil && w.bridge[0] == "" {
		err = inside(w.inner, func() error { netns.NoOffload("lan"); netns.NoOffload("wan"); return nil })
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *wires) put(s side, f []byte) {
	for {
		_, err := unix.Write(w.sock[s], f)
		switch {
		case err == nil:
			return
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS):
			w.t.Fatalf("sending %d bytes: %v", len(f), err)
		}
		runtime.Gosched()
	}
}

// settle returns what arrives until it has been quiet for a while.
func (w *wires) settle() (out [2][][]byte) {
	end := time.Now().Add(w.quiet)
	for {
		left := time.Until(end)
		if left <= 0 {
			return out
		}
		fds := []unix.PollFd{{Fd: int32(w.sock[0]), Events: unix.POLLIN}, {Fd: int32(w.sock[1]), Events: unix.POLLIN}}
		ts := unix.NsecToTimespec(int64(left))
		if _, err := unix.Ppoll(fds, &ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
			w.t.Fatal(err)
		}
		any := false
		for s := range w.sock {
			for {
				n, _, err := unix.Recvfrom(w.sock[s], w.buf, unix.MSG_DONTWAIT)
				if err != nil {
					break
				}
				any = true
				out[s] = append(out[s], bytes.Clone(w.buf[:n]))
			}
		}
		if any {
			return out // the hosts answer at once, and ask again
		}
	}
}

func (w *wires) pass(d time.Duration) { time.Sleep(d) }

func (w *wires) mac(s side) [6]byte { return w.macs[s] }

func (*wires) note() string { return "" }

// begin goes on where the last arena may have been.
func (w *wires) begin() (port, id uint16) {
	if w.port += 500; w.port > 60000 {
		w.port = 20000
	}
	w.id += 5000
	return w.port, w.id
}

// router makes the inner namespace a Linux router with these nftables rules.
func (w *wires) router(rules string) {
	w.t.Helper()
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1", "net.ipv4.conf.lan.rp_filter=1", "net.ipv4.conf.wan.rp_filter=1"} {
		w.sysctl(w.inner, s)
	}
	w.run("ip -n " + w.inner + " addr add " + fwLAN + "/24 dev lan")
	w.run("ip -n " + w.inner + " addr add " + fwWAN + "/24 dev wan")
	w.run("ip -n " + w.inner + " route add default via " + gateway)
	cmd := w.in("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Skipf("nft does not take the rules here: %v: %s", err, bytes.TrimSpace(out))
	}
}

// reset has the router forget flows and neighbours.
func (w *wires) reset() {
	w.t.Helper()
	if out, err := w.in("sh", "-c", "conntrack -F 2>/dev/null; ip neigh flush all 2>/dev/null; true").CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	w.settle()
}

// daemon starts a program in the router, and ends it with the test.
type daemon struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func (w *wires) daemon(args ...string) *daemon {
	w.t.Helper()
	d := &daemon{cmd: w.in(args...)}
	d.cmd.Stdout, d.cmd.Stderr = &d.out, &d.out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (d *daemon) end() {
	syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
	d.cmd.Wait()                                      //nolint:errcheck // killed
}

// listens waits until something in the router listens at a port.
func (w *wires) listens(port int, udp bool) bool {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		flag := "-Hltn"
		if udp {
			flag = "-Hlun"
		}
		if out, _ := w.in("ss", flag, fmt.Sprintf("sport = :%d", port)).Output(); len(bytes.TrimSpace(out)) > 0 {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

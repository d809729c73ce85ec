package importing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/test/netns"
)

// A kernel is Linux with a rule set, between veth pairs in a network namespace of its own:
//
//	namespace outer                     namespace router
//	AF_PACKET ─ p0 ════════ veth ══════ interfaces[0], named as the rule set does
//	AF_PACKET ─ p1 ════════ veth ══════ interfaces[1]
//	AF_PACKET ─ sync0 ═ veth ═ sync1 ─ AF_PACKET
//
// The router's interfaces use no ARP (IFF_NOARP), so that every address is a neighbour at
// once. The outer namespace has no addresses, and answers nothing.
type kernel struct {
	t            *testing.T
	about        *about
	outer, inner string
	sock         []int // by interface
	sync         [2]int
	ctl, trace   int // netlink sockets in the router
	seq          uint64
	buf          []byte
	places       map[traced]string
	listing      []byte // nft's, in JSON
}

// programs that are needed. iptables-nft-restore is of Debian's package iptables.
var programs = []string{"ip", "nft", "iptables-nft-restore"}

// needsRoot skips a test where namespaces may not be made or programs are missing.
func needsRoot(t *testing.T) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (scripts/need.sh importing installs it)", p)
		}
	}
	ns := fmt.Sprintf("thip%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
		t.Skipf("network namespaces may not be made here (root is needed): %s", bytes.TrimSpace(out))
	}
	exec.Command("ip", "netns", "del", ns).Run() //nolint:errcheck // it is empty
}

var namespaces int

// newKernel makes the namespaces of a rule set and loads it.
func newKernel(t *testing.T, a *about) *kernel {
	t.Helper()
	namespaces++
	id := fmt.Sprintf("%d-%d", os.Getpid(), namespaces)
	k := &kernel{t: t, about: a, outer: "thio" + id, inner: "thir" + id, buf: make([]byte, 65536)}
	t.Cleanup(func() {
		for _, ns := range []string{k.outer, k.inner} {
			exec.Command("ip", "netns", "del", ns).Run() //nolint:errcheck // the second may not be there
		}
	})
	k.run("ip netns add " + k.outer)
	k.run("ip netns add " + k.inner)
	set := func(ns string, settings ...string) {
		for _, s := range settings {
			key, v, _ := strings.Cut(s, "=")
			k.run("ip netns exec " + ns + " sh -c 'echo " + v + " > /proc/sys/" + strings.ReplaceAll(key, ".", "/") +
				"'")
		}
	}
	noIPv6 := []string{"net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"}
	set(k.outer, noIPv6...)
	set(k.inner, append(noIPv6, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0",
		"net.ipv4.conf.default.send_redirects=0", "net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=1000000",
		"net.ipv4.icmp_msgs_burst=1000000", "net.ipv4.conf.all.rp_filter="+a.reversePath(),
		"net.ipv4.conf.default.rp_filter="+a.reversePath())...)
	var batch strings.Builder
	for i, n := range a.Interfaces {
		mac := macOfInterface(i)
		fmt.Fprintf(&batch, "link add %s address %s type veth peer name p%d netns %s\n",
			n.Name, net.HardwareAddr(mac[:]), i, k.outer)
		fmt.Fprintf(&batch, "link set %s arp off up\n", n.Name)
		for _, p := range n.Addresses {
			fmt.Fprintf(&batch, "addr add %s dev %s\n", p, n.Name)
		}
	}
	fmt.Fprintf(&batch, "link set lo up\n")
	for _, r := range a.Routes {
		fmt.Fprintf(&batch, "route add %s\n", r)
	}
	k.input("ip -n "+k.inner+" -batch -", batch.String())
	batch.Reset()
	fmt.Fprintf(&batch, "link add sync0 type veth peer name sync1\nlink set sync0 up\nlink set sync1 up\n")
	for i := range a.Interfaces {
		fmt.Fprintf(&batch, "link set p%d up\n", i)
	}
	k.input("ip -n "+k.outer+" -batch -", batch.String())
	k.listing = k.load()
	k.open()
	return k
}

// load loads the rule set as its software left it, and returns what nft tells of it. Then it
// loads it again with rates that nothing exceeds and times of day that last all day, so that no
// outcome depends on time: what a limit does to whoever exceeds it is not compared.
func (k *kernel) load() (listing []byte) {
	k.t.Helper()
	how := "nft -f -"
	if k.about.format() == "iptables" {
		how = "iptables-nft-restore"
	}
	src, err := os.ReadFile(k.about.rules())
	if err != nil {
		k.t.Fatal(err)
	}
	if sets := filepath.Join(k.about.dir, "sets.ipset"); exists(sets) {
		k.run("ip netns exec " + k.inner + " ipset restore -file " + sets)
	}
	k.input("ip netns exec "+k.inner+" "+how, string(src))
	listing = k.list("-j")
	if raised := raise(string(src)); raised != string(src) {
		k.run("ip netns exec " + k.inner + " nft flush ruleset")
		k.input("ip netns exec "+k.inner+" "+how, raised)
	}
	k.find(k.list("-j"))
	return listing
}

var rates = []struct {
	is *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`--limit \S+( --limit-burst \d+)?`), "--limit 10000/sec --limit-burst 10000"},
	{regexp.MustCompile(`--hashlimit-(upto|above) \S+`), "--hashlimit-$1 10000/sec"},
	{regexp.MustCompile(`--hashlimit-burst \d+`), "--hashlimit-burst 10000"},
	{regexp.MustCompile(`limit rate (over )?\d+/\w+( burst \d+ packets)?`),
		"limit rate ${1}1000000/second burst 1000000 packets"},
	{regexp.MustCompile(`--timestart \S+ --timestop \S+`), "--timestart 00:00:00 --timestop 23:59:59"},
}

// raise returns a rule set with higher rates and longer times.
func raise(s string) string {
	for _, r := range rates {
		s = r.is.ReplaceAllString(s, r.to)
	}
	return s
}

// list returns what nft tells of the rule set that the kernel has.
func (k *kernel) list(args string) []byte {
	k.t.Helper()
	out, err := exec.Command("ip", strings.Fields("netns exec "+k.inner+" nft "+args+" list ruleset")...).Output()
	if err != nil {
		k.t.Fatalf("nft list ruleset: %v", err)
	}
	return out
}

// watch makes the kernel report each rule that a packet matches, and that it has arrived at
// the firewall itself. It is called after list: the rules are not of the set.
func (k *kernel) watch() {
	k.t.Helper()
	k.input("ip netns exec "+k.inner+" nft -f -", `table inet thurward-trace {
	chain begin { type filter hook prerouting priority -2000; meta nftrace set 1; }
	chain arrived { type filter hook input priority 2000; meta nftrace set 1; }
}
`)
}

func (k *kernel) run(cmd string) {
	k.t.Helper()
	k.input(cmd, "")
}

func (k *kernel) input(cmd, in string) {
	k.t.Helper()
	c := exec.Command("sh", "-c", cmd)
	c.Stdin = strings.NewReader(in)
	if out, err := c.CombinedOutput(); err != nil {
		k.t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// open opens the sockets. exchange relies on the order of one processor's queue.
func (k *kernel) open() {
	k.t.Helper()
	netns.Pin(k.t)
	netns.Enter(k.t, k.outer, func() {
		for i := range k.about.Interfaces {
			k.sock = append(k.sock, k.packets(fmt.Sprintf("p%d", i)))
		}
		k.sync = [2]int{k.packets("sync0"), k.packets("sync1")}
	})
	netns.Enter(k.t, k.inner, func() {
		for _, n := range k.about.Interfaces {
			netns.NoOffload(n.Name)
		}
		k.ctl, k.trace = k.netlink(), k.netlink()
		const group = 9 // NFNLGRP_NFTRACE
		if err := unix.SetsockoptInt(k.trace, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			k.t.Fatal(err)
		}
		if err := unix.SetsockoptInt(k.trace, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			k.t.Fatal(err)
		}
		if err := unix.SetNonblock(k.trace, true); err != nil {
			k.t.Fatal(err)
		}
	})
}

func (k *kernel) netlink() int {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { unix.Close(s) })
	if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		k.t.Fatal(err)
	}
	return s
}

// packets opens a packet socket at a device.
func (k *kernel) packets(dev string) int {
	k.t.Helper()
	netns.NoOffload(dev)
	return netns.Packets(k.t, dev)
}

// reset empties the kernel's flow table.
func (k *kernel) reset() {
	k.t.Helper()
	netns.EmptyFlows(k.t, k.ctl)
}

// exchange sends a frame to an interface, and returns what leaves the interfaces because of
// it, and the rules that it met. The frame waits in its CPU's queue, and what the router sends
// comes behind whatever waits there then: when two markers, one after the other, have gone the
// same way, nothing is left to come.
func (k *kernel) exchange(in int, f []byte) (out [][][]byte, met meeting) {
	k.t.Helper()
	k.send(k.sock[in], f)
	for range 3 {
		k.seq++
		mark := make([]byte, 60)
		packet.PutEth(mark, &[6]byte{2, 8, 0, 0, 0, 1}, &[6]byte{2, 8, 0, 0, 0, 2}, 0x88b5)
		binary.BigEndian.PutUint64(mark[20:], k.seq)
		k.send(k.sync[0], mark)
		for deadline := time.Now().Add(10 * time.Second); ; {
			n, _, err := unix.Recvfrom(k.sync[1], k.buf, 0)
			if err == nil && bytes.Equal(k.buf[:n], mark) {
				break
			}
			if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				k.t.Fatal(err)
			}
			if time.Now().After(deadline) {
				k.t.Fatal("a marker has not arrived in time")
			}
		}
	}
	out = make([][][]byte, len(k.sock))
	for i, s := range k.sock {
		for {
			n, _, err := unix.Recvfrom(s, k.buf, 0)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				break
			}
			if err != nil {
				k.t.Fatal(err)
			}
			if packet.Type(k.buf[:n]) == packet.TypeIPv4 {
				out[i] = append(out[i], bytes.Clone(k.buf[:n]))
			}
		}
	}
	return out, k.traces()
}

func (k *kernel) send(s int, f []byte) {
	k.t.Helper()
	for {
		_, err := unix.Write(s, f)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			k.t.Fatalf("sending %d bytes: %v", len(f), err)
		}
		runtime.Gosched()
	}
}

// macOfInterface is the link-layer address of the router's interface.
func macOfInterface(i int) [6]byte { return [6]byte{2, 7, 0, 0, 0, byte(i)} }

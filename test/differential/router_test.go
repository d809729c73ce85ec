package differential

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
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/test/netns"
)

// A router is a Linux kernel that forwards between two veth pairs in a network
// namespace of its own, with nftables:
//
//	namespace outer                     namespace router
//	AF_PACKET ─ lano ══════ veth ══════ lan 10.0.0.1/24
//	AF_PACKET ─ wano ══════ veth ══════ wan 203.0.113.10/24
//
// The outer namespace has no addresses, so nothing there answers by itself.
// Neighbours are permanent entries: no ARP.
type router struct {
	t     *testing.T
	sock  [2]int
	ctl   int // netlink socket in the router, to empty the flow table
	seq   uint64
	buf   []byte
	notes []string // settings that could not be made
}

// needs are the programs; scripts/need.sh differential installs them.
var needs = []string{"ip", "nft"}

// newRouter makes the namespaces, or skips the test with the reason.
func newRouter(t *testing.T) *router {
	t.Helper()
	for _, p := range needs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (scripts/need.sh differential installs it)", p)
		}
	}
	id := fmt.Sprintf("%d", os.Getpid())
	outer, inner := "thdo"+id, "thdr"+id
	r := &router{t: t, buf: make([]byte, 65536)}
	if out, err := exec.Command("ip", "netns", "add", outer).CombinedOutput(); err != nil {
		t.Skipf("network namespaces may not be made here (root is needed): %s", bytes.TrimSpace(out))
	}
	t.Cleanup(func() {
		for _, ns := range []string{outer, inner} {
			exec.Command("ip", "netns", "del", ns).Run() //nolint:errcheck // the second may not be there
		}
	})
	r.run("ip netns add " + inner)
	for i, n := range []string{"lan", "wan"} {
		mac := replay.DefaultMAC[i]
		r.run(fmt.Sprintf("ip -n %s link add %s address %s type veth peer name %so netns %s", inner, n, net.HardwareAddr(mac[:]), n, outer))
	}
	// IPv6 would send packets of its own; ICMP must not be limited, since the comparison
	// counts each message. Fragments of many short sequences, as when a difference is
	// minimised, must not fill the kernel's memory for them.
	for _, s := range []string{"net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"} {
		r.sysctl(outer, s)
		r.sysctl(inner, s)
	}
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1",
		"net.ipv4.conf.lan.rp_filter=1", "net.ipv4.conf.wan.rp_filter=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.lan.send_redirects=0", "net.ipv4.conf.wan.send_redirects=0",
		fmt.Sprintf("net.ipv4.ipfrag_time=%d", fragTime/time.Second), "net.ipv4.ipfrag_high_thresh=268435456", "net.ipv4.ipfrag_max_dist=0",
		"net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=1000000", "net.ipv4.icmp_msgs_burst=1000000"} {
		r.sysctl(inner, s)
	}
	for _, n := range []string{"lan", "wan"} {
		r.run("ip -n " + outer + " link set " + n + "o up")
		r.run("ip -n " + inner + " link set " + n + " up")
	}
	r.run("ip -n " + inner + " link set lo up")
	r.run("ip -n " + inner + " addr add " + lanAddr + "/24 dev lan")
	r.run("ip -n " + inner + " addr add " + wanAddr + "/24 dev wan")
	r.run("ip -n " + inner + " route add default via " + gateway)
	for side, as := range [2][]string{append([]string{syncLAN}, lanHosts...), append([]string{gateway, syncWAN}, wanHosts...)} {
		for _, a := range as {
			if side == int(replay.WAN) && !strings.HasPrefix(a, "203.0.113.") {
				continue // behind the gateway
			}
			mac := macOf(ip(a))
			r.run(fmt.Sprintf("ip -n %s neigh add %s lladdr %s dev %s nud permanent", inner, a, net.HardwareAddr(mac[:]), replay.Side(side)))
		}
	}
	cmd := exec.Command("ip", "netns", "exec", inner, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(nftRules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("this kernel does not take the nftables rules: %s", bytes.TrimSpace(out))
	}
	// Connection tracking is there now, and so are its settings.
	for _, s := range []string{"net.netfilter.nf_conntrack_tcp_loose=0", "net.netfilter.nf_conntrack_tcp_be_liberal=0", "net.netfilter.nf_conntrack_checksum=1",
		"net.netfilter.nf_conntrack_tcp_timeout_syn_recv=60", "net.netfilter.nf_conntrack_udp_timeout=30"} {
		r.sysctl(inner, s)
	}
	r.open(outer, inner)
	return r
}

func (r *router) run(cmd string) {
	r.t.Helper()
	a := strings.Fields(cmd)
	if out, err := exec.Command(a[0], a[1:]...).CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v: %s", cmd, err, out)
	}
}

// sysctl makes a setting in a namespace. Which ones a namespace may change depends on the
// kernel; refused ones are recorded.
func (r *router) sysctl(ns, set string) {
	k, v, _ := strings.Cut(set, "=")
	path := "/proc/sys/" + strings.ReplaceAll(k, ".", "/")
	if out, err := exec.Command("ip", "netns", "exec", ns, "sh", "-c", "echo "+v+" > "+path).CombinedOutput(); err != nil {
		r.notes = append(r.notes, fmt.Sprintf("%s: %s", set, bytes.TrimSpace(out)))
	}
}

// open opens the sockets. The end marker of exchange relies on the order of one
// processor's queue.
func (r *router) open(outer, inner string) {
	r.t.Helper()
	netns.Pin(r.t)
	netns.Enter(r.t, outer, func() {
		for i, n := range []string{"lano", "wano"} {
			r.notes = append(r.notes, netns.NoOffload(n)...)
			r.sock[i] = netns.Packets(r.t, n)
		}
	})
	netns.Enter(r.t, inner, func() {
		for _, n := range []string{"lan", "wan"} {
			r.notes = append(r.notes, netns.NoOffload(n)...)
		}
		var err error
		if r.ctl, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { unix.Close(r.ctl) })
	})
}

// reset empties the kernel's flow table.
func (r *router) reset() {
	r.t.Helper()
	netns.EmptyFlows(r.t, r.ctl)
}

// exchange sends a frame to one side and returns what leaves both sides because
// of it. A marker follows it through the router; since one CPU handles all in
// order, nothing is missing once the marker has come out.
func (r *router) exchange(s replay.Side, f []byte) (out [2][][]byte) {
	r.t.Helper()
	r.send(s, f)
	r.seq++
	mark := marker(r.seq)
	r.send(replay.LAN, mark)
	want := mark[packet.EthLen+packet.MinIPv4+packet.UDPLen:]
	deadline := time.Now().Add(5 * time.Second)
	for done := false; !done; {
		for _, s := range []replay.Side{replay.WAN, replay.LAN} {
			for {
				n, _, err := unix.Recvfrom(r.sock[s], r.buf, 0)
				if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
					break
				}
				if err != nil {
					r.t.Fatal(err)
				}
				b := bytes.Clone(r.buf[:n])
				if s == replay.WAN && bytes.HasSuffix(b, want) {
					done = true
					continue
				}
				if packet.Type(b) == packet.TypeIPv4 && !reassemblyTimeout(b) {
					out[s] = append(out[s], b)
				}
			}
		}
		if !done && time.Now().After(deadline) {
			r.t.Fatal("the router does not forward the marker")
		}
	}
	return out
}

// fragTime is how long the kernel keeps the fragments of an incomplete datagram.
const fragTime = 2 * time.Second

// reassemblyTimeout reports whether a frame is the ICMP message that the kernel sends
// fragTime after the first fragment of a packet, possibly during a later step.
func reassemblyTimeout(b []byte) bool {
	if len(b) < 36 || b[22] != 64 || b[23] != packet.ICMP || b[34] != packet.TimeExceeded || b[35] != 1 {
		return false
	}
	src := packet.Addr(binary.BigEndian.Uint32(b[26:]))
	return src == ip(lanAddr) || src == ip(wanAddr)
}

func (r *router) send(s replay.Side, f []byte) {
	r.t.Helper()
	for {
		_, err := unix.Write(r.sock[s], f)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			r.t.Fatalf("sending %d bytes: %v", len(f), err)
		}
		runtime.Gosched()
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The second control: this machine's Linux as the firewall, with nftables.
//
//	[lan] lan0 ── fl0 [fw: filter, masquerade] fw0 ── wan0 [wan: dropped on arrival]
//
// It is measured in two ways. On a processor of its own, as the guest is: fl0
// hands its packets to a thread of the kernel there (threaded NAPI), whose time
// counts. On the sender's: the kernel forwards in the context of the thread that
// sends, up to the drop, and packets are in its caches already; the same is sent
// into a pair that drops at once, and what the thread takes more for a packet is
// the firewall's share.
const nftRules = `
table inet filter {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		iifname "fl0" ip saddr 10.1.0.0/16 udp dport 9 accept
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority 100
		oifname "fw0" ip saddr 10.1.0.0/16 masquerade
	}
}
`

// dropAll drops what arrives at a device before the network stack sees it.
const dropAll = `
table netdev sink {
	chain in { type filter hook ingress device "wan0" priority -500; policy drop; }
}
`

// nftBatch is how many frames one system call sends.
const nftBatch = 64

// A linux is the three namespaces.
type linux struct {
	lan, fw, wan string
	tx           int // socket that sends on lan0
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

func (l *linux) close() {
	if l.tx > 0 {
		unix.Close(l.tx) //nolint:errcheck // at the end
	}
	for _, ns := range []string{l.lan, l.fw, l.wan} {
		exec.Command("ip", "netns", "del", ns).Run() //nolint:errcheck // it may not be there
	}
}

// newLinux makes the namespaces; direct joins [lan] and [wan] without a
// firewall between them.
func newLinux(direct bool) (_ *linux, err error) {
	id := strconv.Itoa(os.Getpid() % 100000)
	l := &linux{lan: "thnl" + id, fw: "thnf" + id, wan: "thnw" + id}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	steps := []string{"netns add " + l.lan, "netns add " + l.wan, "netns add " + l.fw}
	if direct {
		steps = append(steps, "-n "+l.lan+" link add lan0 type veth peer name wan0 netns "+l.wan)
	} else {
		steps = append(steps,
			"-n "+l.lan+" link add lan0 type veth peer name fl0 netns "+l.fw,
			"-n "+l.wan+" link add wan0 type veth peer name fw0 netns "+l.fw,
			"-n "+l.fw+" addr add 10.1.255.254/16 dev fl0", "-n "+l.fw+" addr add 203.0.113.10/24 dev fw0",
			"-n "+l.fw+" link set fl0 up", "-n "+l.fw+" link set fw0 up",
			"-n "+l.fw+" route add default via 203.0.113.1",
			"-n "+l.fw+" neigh add 203.0.113.1 lladdr 02:be:ef:00:00:01 dev fw0 nud permanent",
			"-n "+l.wan+" link set wan0 address 02:be:ef:00:00:01")
	}
	steps = append(steps, "-n "+l.lan+" link set lan0 up", "-n "+l.wan+" link set wan0 up")
	for _, s := range steps {
		if err := ip(s); err != nil {
			return nil, err
		}
	}
	if !direct {
		for _, c := range []string{"echo 1 > /proc/sys/net/ipv4/ip_forward", "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/fl0/rp_filter"} {
			if out, err := exec.Command("ip", "netns", "exec", l.fw, "sh", "-c", c).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("%s: %w: %s", c, err, out)
			}
		}
		if err := l.nft(l.fw, nftRules); err != nil {
			return nil, err
		}
	}
	l.tx, err = packetSocket(l.lan, "lan0")
	return l, err
}

func (l *linux) nft(ns, rules string) error {
	cmd := exec.Command("ip", "netns", "exec", ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// packetSocket opens a raw socket on a device of a namespace.
func packetSocket(ns, dev string) (fd int, err error) {
	done := make(chan struct{})
	go func() { // a thread of its own, which is not used again
		defer close(done)
		runtime.LockOSThread()
		var f *os.File
		if f, err = os.Open(filepath.Join("/run/netns", ns)); err != nil {
			return
		}
		defer f.Close()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		const all = 3 << 8 // ETH_P_ALL in network order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		var ifr *unix.Ifreq
		if ifr, err = unix.NewIfreq(dev); err != nil {
			return
		}
		if err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
			return
		}
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(ifr.Uint32())})
	}()
	<-done
	return fd, err
}

// firewallMAC returns the address of fl0.
func (l *linux) firewallMAC() (m [6]byte, err error) {
	out, err := exec.Command("ip", "netns", "exec", l.fw, "cat", "/sys/class/net/fl0/address").Output()
	if err != nil {
		return m, err
	}
	_, err = fmt.Sscanf(strings.TrimSpace(string(out)), "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5])
	return m, err
}

// prime sends one frame of every flow and answers what reaches [wan].
func (l *linux) prime(st *stream, flows int) error {
	rx, err := packetSocket(l.wan, "wan0")
	if err != nil {
		return err
	}
	defer unix.Close(rx) //nolint:errcheck // at the end
	var in, out [2048]byte
	size := st.size
	st.size = 60
	defer func() { st.size = size }()
	for range flows {
		n := st.fill(out[:])
		if _, err := unix.Write(l.tx, out[:n]); err != nil {
			return err
		}
		for range 8 { // other frames may come too
			n, _, err := unix.Recvfrom(rx, in[:], unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			if f := in[:n]; isUDP(f) && f[30] == 198 {
				if _, err := unix.Write(rx, answer(f)); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// send sends for a time and returns how many packets arrived at wan0 and the
// processor time that they took, with that of the kernel's own thread.
func (l *linux) send(st *stream, d time.Duration) (n float64, cpu time.Duration, err error) {
	var msgs [nftBatch]mmsghdr
	var iov [nftBatch]unix.Iovec
	bufs := make([]byte, nftBatch*2048)
	for i := range msgs {
		iov[i].Base = &bufs[i*2048]
		msgs[i].hdr.Iov, msgs[i].hdr.Iovlen = &iov[i], 1
	}
	before, err := l.arrived()
	if err != nil {
		return 0, 0, err
	}
	c0, err := threadTime()
	if err != nil {
		return 0, 0, err
	}
	for until := time.Now().Add(d); time.Now().Before(until); {
		for i := range iov {
			iov[i].SetLen(st.fill(bufs[i*2048:][:2048]))
		}
		if err := sendmmsg(l.tx, msgs[:]); err != nil {
			return 0, 0, err
		}
	}
	c1, err := threadTime()
	if err != nil {
		return 0, 0, err
	}
	after, err := l.arrived()
	return float64(after - before), c1 - c0, err
}

// arrived returns how many packets wan0 has received.
func (l *linux) arrived() (uint64, error) {
	out, err := exec.Command("ip", "netns", "exec", l.wan, "cat", "/sys/class/net/wan0/statistics/rx_packets").Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
}

// threadTime is the processor time of this thread and of ksoftirqd on its
// processor, which takes over what the thread does not finish.
func threadTime() (time.Duration, error) {
	return taskTime(append(kernelThreads("ksoftirqd/0"), fmt.Sprintf("/proc/self/task/%d/schedstat", unix.Gettid()))...)
}

// taskTime adds up the processor time of several schedstat files.
func taskTime(files ...string) (time.Duration, error) {
	total := int64(0)
	for _, p := range files {
		b, err := os.ReadFile(p)
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += ns
	}
	return time.Duration(total), nil
}

// kernelThreads finds the schedstats of kernel threads by the beginning of their
// names.
func kernelThreads(name string) (stats []string) {
	found, _ := filepath.Glob("/proc/[0-9]*/comm") //nolint:errcheck // the pattern is right
	for _, p := range found {
		if b, err := os.ReadFile(p); err == nil && strings.HasPrefix(string(b), name) {
			stats = append(stats, filepath.Join(filepath.Dir(p), "schedstat"))
		}
	}
	return stats
}

// nftables returns how many packets a second of processor time this kernel
// forwards with a stateful filter and masquerade: the generator's part, as
// measured without a firewall, is taken off.
func nftables(flows, size int, d time.Duration) (perCPU float64, err error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return 0, errors.New("nft is not installed (apt-get install nftables)")
	}
	var cost [2]float64 // seconds for a packet: without and with the firewall
	for i := range cost {
		l, err := newLinux(i == 0)
		if err != nil {
			return 0, err
		}
		defer l.close()
		mac := [6]byte{2, 0xbe, 0xef, 0, 0, 1}
		if i == 1 {
			if mac, err = l.firewallMAC(); err != nil {
				return 0, err
			}
		}
		st := newStream(flows, size, false, [6]byte{2, 0xbe, 0xef, 0, 0, 0}, mac)
		if i == 1 {
			if err := l.prime(st, flows); err != nil {
				return 0, err
			}
		}
		if err := l.nft(l.wan, dropAll); err != nil {
			return 0, err
		}
		n, cpu, err := l.send(st, d)
		l.close()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, errors.New("nothing arrived")
		}
		cost[i] = cpu.Seconds() / n
	}
	if cost[1] <= cost[0] {
		return 0, errors.New("the firewall costs nothing: the machine is too busy to tell")
	}
	return 1 / (cost[1] - cost[0]), nil
}

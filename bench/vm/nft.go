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

	"golang.org/x/sys/unix"
)

// The second control: this machine's Linux as the firewall, with nftables, on a
// processor of its own as the guest.
//
//	[lan] lan0 ── fl0 [fw: filter, masquerade] fw0 ── wan0 [wan: dropped on arrival]
//
// fl0 is given bare frames, as a NIC gives them (nftnic.go), of which the
// firewall's processor makes skbs: all work of its devices is in its time, as it
// is in the guest's.
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

// A linux is the three namespaces.
type linux struct {
	lan, fw, wan string
	tx           int     // socket that sends on lan0
	mac          [6]byte // of fl0
}

// newLinux makes the namespaces.
func newLinux() (_ *linux, err error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return nil, errors.New("nft is not installed (apt-get install nftables)")
	}
	id := strconv.Itoa(os.Getpid() % 100000)
	l := &linux{lan: "thnl" + id, fw: "thnf" + id, wan: "thnw" + id, tx: -1}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, s := range []string{
		"netns add " + l.lan, "netns add " + l.wan, "netns add " + l.fw,
		"-n " + l.lan + " link add lan0 type veth peer name fl0 netns " + l.fw,
		"-n " + l.wan + " link add wan0 type veth peer name fw0 netns " + l.fw,
		"-n " + l.fw + " addr add 10.1.255.254/16 dev fl0", "-n " + l.fw + " addr add 203.0.113.10/24 dev fw0",
		"-n " + l.fw + " link set fl0 up", "-n " + l.fw + " link set fw0 up",
		"-n " + l.fw + " route add default via 203.0.113.1",
		"-n " + l.fw + " neigh add 203.0.113.1 lladdr 02:be:ef:00:00:01 dev fw0 nud permanent",
		"-n " + l.wan + " link set wan0 address 02:be:ef:00:00:01",
		"-n " + l.lan + " link set lan0 address 02:be:ef:00:00:00",
		// The flows' sources are behind one neighbour: nobody in [lan] answers ARP.
		"-n " + l.fw + " neigh add 10.1.255.253 lladdr 02:be:ef:00:00:00 dev fl0 nud permanent",
		"-n " + l.fw + " route add 10.1.0.0/17 via 10.1.255.253", "-n " + l.fw + " route add 10.1.128.0/17 via 10.1.255.253",
		"-n " + l.lan + " link set lan0 up", "-n " + l.wan + " link set wan0 up",
	} {
		if err := ip(s); err != nil {
			return nil, err
		}
	}
	for _, c := range []string{"echo 1 > /proc/sys/net/ipv4/ip_forward", "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/fl0/rp_filter"} {
		if out, err := exec.Command("ip", "netns", "exec", l.fw, "sh", "-c", c).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", c, err, out)
		}
	}
	if err := l.nft(l.fw, nftRules); err != nil {
		return nil, err
	}
	if l.mac, err = l.firewallMAC(); err != nil {
		return nil, err
	}
	l.tx, err = packetSocket(l.lan, "lan0")
	return l, err
}

func (l *linux) close() {
	if l.tx >= 0 {
		unix.Close(l.tx) //nolint:errcheck // at the end
	}
	for _, ns := range []string{l.lan, l.fw, l.wan} {
		exec.Command("ip", "netns", "del", ns).Run() //nolint:errcheck // it may not be there
	}
}

// stream makes the frames of so many flows, for fl0.
func (l *linux) stream(flows, size int) *stream {
	return newStream(flows, size, false, [6]byte{2, 0xbe, 0xef, 0, 0, 0}, l.mac)
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

func (l *linux) nft(ns, rules string) error {
	cmd := exec.Command("ip", "netns", "exec", ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
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

// within calls f in a namespace, on a thread that ends with it.
func within(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: nothing else may run there
		done <- func() error {
			n, err := os.Open(filepath.Join("/run/netns", ns))
			if err != nil {
				return err
			}
			defer n.Close()
			if err := unix.Setns(int(n.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering a network namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

// packetSocket opens a raw socket on a device of a namespace.
func packetSocket(ns, dev string) (fd int, err error) {
	fd = -1
	err = within(ns, func() error {
		const all = 3 << 8 // ETH_P_ALL in network order
		s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(dev)
		if err == nil {
			err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr)
		}
		if err == nil {
			err = unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(ifr.Uint32())})
		}
		if err != nil {
			unix.Close(s) //nolint:errcheck // it was never used
			return err
		}
		fd = s
		return nil
	})
	return fd, err
}

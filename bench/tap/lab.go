package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/thurward/thurward/internal/host/vmm"
)

// A lab has the two hosts, and a bridge on each side:
//
//	[lan] 10.0.0.2 ── brL ── … ── brW ── 203.0.113.1 [wan]
//
// What the hosts offload stays as Linux has it.
type lab struct {
	lan, wan, fw string // namespaces
	brL, brW     string
	vethL, vethW string
	server       *exec.Cmd
	told         *told // of the machine between the hosts; nil: it is none
	closing      []func()
}

func newLab() (l *lab, err error) {
	for _, p := range []string{"ip", "nft", "iperf3"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("%s is not installed (Debian: iproute2 nftables iperf3)", p)
		}
	}
	id := fmt.Sprint(os.Getpid() % 100000)
	l = &lab{lan: "tbl" + id, wan: "tbw" + id, fw: "tbf" + id, brL: "tbbl" + id, brW: "tbbw" + id, vethL: "tbvl" + id, vethW: "tbvw" + id}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, ns := range []string{l.lan, l.wan, l.fw} {
		if err := ip("netns add " + ns); err != nil {
			return nil, err
		}
		l.closing = append(l.closing, func() { ip("netns del " + ns) }) //nolint:errcheck // at the end
	}
	for _, s := range []struct{ ns, br, veth, addr string }{{l.lan, l.brL, l.vethL, "10.0.0.2/24"}, {l.wan, l.brW, l.vethW, "203.0.113.1/24"}} {
		if err := ip("link add " + s.br + " type bridge"); err != nil {
			return nil, err
		}
		l.closing = append(l.closing, func() { ip("link del " + s.br) }) //nolint:errcheck // at the end
		err := errors.Join(ip("link set "+s.br+" up"),
			ip("link add "+s.veth+" type veth peer name eth0 netns "+s.ns),
			ip("link set "+s.veth+" master "+s.br+" up"), ip("-n "+s.ns+" addr add "+s.addr+" dev eth0"),
			ip("-n "+s.ns+" link set lo up"), ip("-n "+s.ns+" link set eth0 up"))
		if err != nil {
			return nil, err
		}
	}
	l.server = exec.Command("ip", "netns", "exec", l.wan, "iperf3", "-s", "-p", "80")
	if err := l.server.Start(); err != nil {
		return nil, err
	}
	l.closing = append(l.closing, func() {
		l.server.Process.Kill() //nolint:errcheck // it may have ended
		l.server.Wait()         //nolint:errcheck // killed
	})
	return l, nil
}

func (l *lab) close() {
	for i := len(l.closing) - 1; i >= 0; i-- {
		l.closing[i]()
	}
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

// openBridge joins the hosts by one more pair of interfaces, to the bridge of the WAN.
func (l *lab) openBridge() (func() error, error) {
	veth := "tbx" + l.lan[3:]
	err := errors.Join(ip("link add "+veth+" type veth peer name eth1 netns "+l.lan), ip("link set "+veth+" master "+l.brW+" up"),
		ip("-n "+l.lan+" addr add 203.0.113.9/24 dev eth1"), ip("-n "+l.lan+" link set eth1 up"))
	return func() error { return ip("link del " + veth) }, err
}

// openRouter puts a namespace with the firewall's addresses between the bridges.
func (l *lab) openRouter() (func() error, error) {
	id := l.lan[3:]
	err := errors.Join(
		ip("link add tbrl"+id+" type veth peer name fl0 netns "+l.fw), ip("link add tbrw"+id+" type veth peer name fw0 netns "+l.fw),
		ip("link set tbrl"+id+" master "+l.brL+" up"), ip("link set tbrw"+id+" master "+l.brW+" up"),
		ip("-n "+l.fw+" addr add 10.0.0.1/24 dev fl0"), ip("-n "+l.fw+" addr add 203.0.113.10/24 dev fw0"),
		ip("-n "+l.fw+" link set fl0 up"), ip("-n "+l.fw+" link set fw0 up"),
		ip("netns exec "+l.fw+" sysctl -qw net.ipv4.ip_forward=1"),
		ip("-n "+l.lan+" route replace default via 10.0.0.1"))
	if err == nil {
		cmd := exec.Command("ip", "netns", "exec", l.fw, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(`flush ruleset
table inet filter {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established accept
		iifname "fl0" tcp dport { 80, 443 } accept
		iifname "fl0" ip protocol icmp accept
	}
}
table ip nat {
	chain postrouting {
		type nat hook postrouting priority 100;
		oifname "fw0" masquerade
	}
}
`)
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("nft: %w: %s", err, out)
		}
	}
	l.forget()
	return func() error { return errors.Join(ip("link del tbrl"+id), ip("link del tbrw"+id)) }, err
}

// forget makes the hosts forget each other's link-layer addresses.
func (l *lab) forget() {
	ip("-n " + l.lan + " neigh flush all") //nolint:errcheck // none is known
	ip("-n " + l.wan + " neigh flush all") //nolint:errcheck // likewise
}

// machine returns the way through the image on a hypervisor, with one processor and 64 MB.
func machine(name string, h vmm.Hypervisor, c vmm.Config) way {
	return way{name, func(l *lab) (func() error, error) {
		if err := ip("-n " + l.lan + " route replace default via 10.0.0.1"); err != nil {
			return nil, err
		}
		l.forget()
		c := c
		c.Image, c.MemoryMB, c.CPUs = *image, 64, 1
		for i, role := range []vmm.Role{vmm.LAN, vmm.WAN} {
			s := vmm.Spec{Kind: vmm.Bridge, Arg: []string{l.brL, l.brW}[i]}
			b, err := vmm.NewBackend(s, vmm.Network{})
			if err != nil {
				return nil, err
			}
			t, err := vmm.NewTap(s, vmm.Network{})
			if err != nil {
				return nil, err
			}
			c.NICs = append(c.NICs, vmm.NIC{Role: role, MAC: vmm.DefaultMAC(role), Backend: b, Tap: t})
		}
		dir, err := os.MkdirTemp("", "thurward-tap")
		if err != nil {
			return nil, err
		}
		if l.told, err = listenTold(dir); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		c.Vsock.Path = l.told.path
		gone := func() error {
			l.told.close()
			l.told = nil
			return os.RemoveAll(dir)
		}
		g, err := vmm.Start(h, c, vmm.RunOptions{})
		if err != nil {
			return nil, errors.Join(err, gone())
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			if o := g.Wait(ctx); ctx.Err() == nil {
				ended <- fmt.Errorf("the machine ended: %v", o.Reason())
			}
			close(ended)
		}()
		shut := func() error { cancel(); return errors.Join(<-ended, gone()) }
		select {
		case <-g.Ready():
			return shut, nil
		case err := <-ended:
			cancel()
			return nil, errors.Join(err, gone())
		}
	}}
}

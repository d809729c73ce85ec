package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/thurward/thurward/bench/parts"
	"github.com/thurward/thurward/internal/host/vmm"
)

// A way is what stands between the two hosts.
type way struct {
	name string
	open func(l *lab) (shut func() error, err error)
}

// wanted returns the ways of these names, and those whose names contain what is none's name.
func wanted(ws []way, names []string) (some []way) {
	for _, w := range ws {
		if slices.ContainsFunc(names, func(s string) bool {
			return w.name == s || strings.Contains(w.name, s) && !slices.ContainsFunc(ws, func(o way) bool { return o.name == s })
		}) {
			some = append(some, w)
		}
	}
	return some
}

// wirePolicy is that of the image that is only a wire, which does not look at it.
const wirePolicy = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny }
rules: []
`

// ways returns those that there are here and are wanted; done is called when they are not
// needed any more.
func (l *lab) ways() (ws []way, done func(), err error) {
	dir, err := os.MkdirTemp("", "thurward-tap")
	if err != nil {
		return nil, nil, err
	}
	done = func() { os.RemoveAll(dir) }
	wire := filepath.Join(dir, "wire.img")
	ws = []way{{"bridge", (*lab).openBridge}, {"Linux, masquerade", (*lab).openRouter}}
	const none, like = "thurward.offload=none", "wire.like=firewall"
	if q, err := vmm.FindQEMU(); err == nil {
		pci := vmm.Config{Image: *image, KVM: true, Machine: vmm.MicrovmPCI, NoDog: true} // as run does
		plain, only := pci, pci
		plain.Append, only.Append, only.Image = none, like, wire
		ws = append(ws, machine("QEMU, KVM, PCI", q, pci), machine("QEMU, KVM, PCI, no offload", q, plain), machine("QEMU, KVM, PCI, wire", q, only),
			machine("QEMU, KVM, MMIO", q, vmm.Config{Image: *image, KVM: true}),
			machine("QEMU, TCG", q, vmm.Config{Image: *image}), machine("QEMU, TCG, no offload", q, vmm.Config{Image: *image, Append: none}))
	}
	if f, err := vmm.FindFirecracker(); err == nil {
		pci := *f
		pci.PCI = true
		ws = append(ws, machine("Firecracker, MMIO", f, vmm.Config{Image: *image, KVM: true}),
			machine("Firecracker, PCI", &pci, vmm.Config{Image: *image, KVM: true}),
			machine("Firecracker, PCI, no offload", &pci, vmm.Config{Image: *image, KVM: true, Append: none}),
			machine("Firecracker, PCI, wire", &pci, vmm.Config{Image: wire, KVM: true, Append: like}))
	}
	ws = wanted(ws, strings.Split(*only, "|"))
	p, err := parts.Build(dir)
	if err == nil {
		err = p.Link(wire, p.Wire, wirePolicy)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return ws, done, nil
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
		wire := strings.HasPrefix(c.Append, "wire.")
		route, back := "-n "+l.lan+" route replace default via 10.0.0.1", ""
		if wire {
			const addr = " addr %s 203.0.113.9/24 dev eth0"
			route, back = "-n "+l.lan+fmt.Sprintf(addr, "add"), "-n "+l.lan+fmt.Sprintf(addr, "del")
		}
		if err := ip(route); err != nil {
			return nil, err
		}
		l.forget()
		c := c
		c.MemoryMB, c.CPUs = 64, 1
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
		if !wire {
			if l.told, err = listenTold(dir); err != nil {
				return nil, errors.Join(err, os.RemoveAll(dir))
			}
			c.Vsock.Path = l.told.path
		}
		l.machine = true
		gone := func() error {
			l.told.close()
			l.told, l.machine = nil, false
			if wire {
				return errors.Join(ip(back), os.RemoveAll(dir))
			}
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

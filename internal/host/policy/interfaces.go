package policy

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// interfaces reads interfaces: one whose name begins with lan, one with wan.
func (l *loader) interfaces(n *node, path string) {
	if n.kind != mapping {
		l.err(n, path, "type", "is "+n.kind.String(), "want names with their settings, as lan0: { address: 10.0.0.1/24 }")
		return
	}
	count := map[bool]int{}
	for i, k := range n.keys {
		p := join(path, k.text)
		lan, wan := strings.HasPrefix(k.text, "lan"), strings.HasPrefix(k.text, "wan")
		if !lan && !wan || !identifier.MatchString(k.text) {
			l.err(k, p, "interface-name", "the name says neither lan nor wan", "names begin with lan or wan, as lan0 and wan0")
			continue
		}
		count[lan]++
		if count[lan] > 1 {
			l.err(k, p, "interface-count", "a second "+k.text[:3]+" interface", "this version has one lan and one wan")
			continue
		}
		l.iface(n.items[i], p, k.text, lan)
	}
	for _, side := range []struct {
		lan  bool
		name string
	}{{true, "lan"}, {false, "wan"}} {
		if count[side.lan] == 0 {
			l.err(n, path, "missing", "no "+side.name+" interface", "name one that begins with "+side.name)
		}
	}
	if len(l.p.Interfaces) == 2 {
		a, b := &l.p.Interfaces[0], &l.p.Interfaces[1]
		if a.Prefix.IsValid() && b.Prefix.IsValid() && a.Prefix.Overlaps(b.Prefix) {
			l.err(n, path, "overlap", fmt.Sprintf("the networks of %s and %s overlap", a.Name, b.Name), "each side needs a network of its own")
		}
	}
}

func (l *loader) iface(n *node, path, name string, lan bool) {
	f := Interface{Name: name, LAN: lan}
	var gatewayAt *node
	ok := l.fields(n, path, []field{
		{"address", func(n *node, path string) {
			p, ok := l.prefix(n, path, true)
			if !ok {
				return
			}
			switch {
			case p.Bits() == 0 || p.Bits() > 31:
				l.err(n, path, "prefix-length", fmt.Sprintf("/%d is no network with room for hosts", p.Bits()), "want the interface's own address and its network's length, as 10.0.0.1/24")
				return
			case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsUnspecified() || p.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
				l.err(n, path, "address", p.Addr().String()+" cannot be an interface's address", "want a unicast address")
				return
			case p.Bits() < 31 && p.Masked().Addr() == p.Addr():
				l.err(n, path, "address", p.Addr().String()+" is the network's own address", "want a host's address in it, as "+p.Addr().Next().String()+fmt.Sprintf("/%d", p.Bits()))
				return
			case p.Bits() < 31 && Broadcast(p) == p.Addr():
				l.err(n, path, "address", p.Addr().String()+" is the network's broadcast address", "want a host's address in it")
				return
			}
			f.Prefix = p
		}},
		{"gateway", func(n *node, path string) {
			gatewayAt = n
			if a, ok := l.address(n, path); ok {
				f.Gateway = a
			}
		}},
		{"mac", func(n *node, path string) {
			hw, err := net.ParseMAC(n.text)
			if n.kind != scalar || err != nil || len(hw) != 6 || hw[0]&1 != 0 {
				l.err(n, path, "mac", "not a host's hardware address", "want six bytes, as 02:00:00:00:00:01")
				return
			}
			f.MAC, f.HasMAC = [6]byte(hw), true
		}},
		{"mtu", func(n *node, path string) {
			if v, ok := l.number(n, path, 576, ruleset.MaxMTU); ok {
				f.MTU = v
			}
		}},
	})
	if !ok {
		return
	}
	if n.get("address") == nil {
		l.err(n, path+".address", "missing", "missing", "want the interface's own address with its network's length, as 10.0.0.1/24")
	}
	if !lan && n.get("gateway") == nil {
		l.err(n, path+".gateway", "missing", "missing", "want the address of the next router, as gateway: 203.0.113.1")
	}
	if lan && gatewayAt != nil {
		l.err(gatewayAt, path+".gateway", "gateway", "a lan interface has no gateway", "remove it; the default route leads through the wan")
	}
	if !lan && f.Gateway.IsValid() && f.Prefix.IsValid() {
		switch {
		case !f.Prefix.Contains(f.Gateway):
			l.err(gatewayAt, path+".gateway", "gateway", f.Gateway.String()+" is not in the interface's network "+f.Prefix.Masked().String(), "want an address in it")
		case f.Gateway == f.Prefix.Addr():
			l.err(gatewayAt, path+".gateway", "gateway", "is the interface's own address", "want that of the next router")
		}
	}
	l.p.Interfaces = append(l.p.Interfaces, f)
}

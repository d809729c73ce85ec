package policy

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
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
			case p.Bits() < 31 && broadcast(p) == p.Addr():
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
			if v, ok := l.number(n, path, 576, 1500); ok {
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

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// snat reads nat.snat.
func (l *loader) snat(n *node, path string) {
	l.each(n, path, func(n *node, path string) {
		s := SNAT{Interface: -1, PortLo: 1024, PortHi: 65535, Source: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
		masquerade := false
		ok := l.fields(n, path, []field{
			{"out_interface", func(n *node, path string) {
				for i, f := range l.p.Interfaces {
					if n.kind == scalar && f.Name == n.text {
						s.Interface = i
					}
				}
				switch {
				case s.Interface < 0:
					l.err(n, path, "interface", fmt.Sprintf("no interface %q", n.text), "interfaces are "+l.p.knownInterfaces())
				case l.p.Interfaces[s.Interface].LAN:
					l.err(n, path, "interface", "sources are translated towards the wan only", "want the wan interface")
				}
			}},
			{"source", func(n *node, path string) {
				if p, ok := l.prefix(n, path, false); ok {
					s.Source = p
				}
			}},
			{"masquerade", func(n *node, path string) {
				if v, ok := l.flag(n, path); ok {
					masquerade = v
				}
			}},
			{"external_ip", func(n *node, path string) {
				if a, ok := l.address(n, path); ok {
					s.External = a
				}
			}},
			{"port_range", func(n *node, path string) {
				if r, ok := l.portRange(n, path); ok {
					s.PortLo, s.PortHi = r.Lo, r.Hi
				}
			}},
		})
		if !ok {
			return
		}
		if n.get("out_interface") == nil {
			l.err(n, path+".out_interface", "missing", "missing", "want the wan interface's name")
		}
		switch {
		case masquerade && s.External.IsValid():
			l.err(n, path, "snat", "both masquerade and external_ip", "masquerade takes the interface's address; remove one of them")
		case !masquerade && !s.External.IsValid():
			l.err(n, path, "snat", "neither masquerade: true nor external_ip", "say which address sources get")
		}
		if s.External.IsValid() && s.Interface >= 0 {
			// The firewall answers ARP for the interface's address alone.
			if f := l.p.Interfaces[s.Interface]; f.Prefix.IsValid() && f.Prefix.Addr() != s.External {
				l.err(n.get("external_ip"), path+".external_ip", "not-supported", "an external address other than the interface's own is not supported by this version's image", "want "+f.Prefix.Addr().String()+", or masquerade: true")
			}
		}
		l.p.SNAT = append(l.p.SNAT, s)
	})
}

// dnat refuses what the image cannot do yet.
func (l *loader) dnat(n *node, path string) {
	if n.kind == list && len(n.items) == 0 {
		return
	}
	l.err(n, path, "not-supported", "destination NAT is not supported by this version's image", "remove the entries; they come with a later version")
}

// rules reads rules.
func (l *loader) rules(n *node, path string) {
	if n.kind == null {
		l.err(n, path, "type", "is empty", "want a list of rules, or [] for none")
		return
	}
	if n.kind != list {
		l.err(n, path, "type", "is "+n.kind.String(), "want a list: one rule each, beginning with -")
		return
	}
	first := map[string]int{}
	for i, v := range n.items {
		l.rule(v, fmt.Sprintf("%s[%d]", path, i), first)
	}
}

func (l *loader) rule(n *node, path string, first map[string]int) {
	r := Rule{Line: n.line, Column: n.col}
	words := func(into *[]string, ws ...string) func(*node, string) {
		return func(n *node, path string) {
			l.each(n, path, func(n *node, path string) {
				if w, ok := l.word(n, path, ws...); ok && !has(*into, w) {
					*into = append(*into, w)
				}
			})
		}
	}
	var portsAt *node
	ok := l.fields(n, path, []field{
		{"id", func(n *node, path string) {
			switch {
			case n.kind != scalar || !identifier.MatchString(n.text):
				l.err(n, path, "id", fmt.Sprintf("%q is no id", n.text), "want letters, digits, - _ and ., at most 63, beginning with a letter or digit")
			case strings.HasPrefix(n.text, "default-"):
				l.err(n, path, "id", "ids that begin with default- stand for the default action", "choose another")
			case first[n.text] != 0:
				l.err(n, path, "duplicate-id", fmt.Sprintf("the id %q is taken by the rule in line %d", n.text, first[n.text]), "give each rule an id of its own")
			default:
				first[n.text] = n.line
				r.ID = n.text
			}
		}},
		{"name", func(n *node, path string) {
			if n.kind != scalar || len(n.text) > 200 {
				l.err(n, path, "name", "not a name", "want text of at most 200 bytes")
				return
			}
			r.Name = n.text
		}},
		{"action", func(n *node, path string) {
			if w, ok := l.word(n, path, "accept", "deny"); ok {
				r.Accept = w == "accept"
			}
		}},
		{"direction", func(n *node, path string) {
			if w, ok := l.word(n, path, "egress", "ingress"); ok {
				r.Direction = w
			}
		}},
		{"source", func(n *node, path string) { r.Source = l.prefixes(n, path) }},
		{"destination", func(n *node, path string) { r.Destination = l.prefixes(n, path) }},
		{"destination_port", func(n *node, path string) { portsAt, r.Ports = n, l.ports(n, path) }},
		{"destination_fqdn", func(n *node, path string) { l.names(n, path) }},
		{"protocol", words(&r.Protocols, "tcp", "udp", "icmp")},
		{"state", words(&r.States, "new", "established")},
	})
	if !ok {
		return
	}
	if n.get("id") == nil {
		l.err(n, path+".id", "missing", "missing", "events and counters name the rule by it")
	}
	if n.get("action") == nil {
		l.err(n, path+".action", "missing", "missing", "want accept or deny")
	}
	if f := n.get("destination_fqdn"); f != nil && !r.Accept && n.get("action") != nil && n.get("action").text == "deny" {
		l.err(f, path+".destination_fqdn", "deny-by-name", "a deny rule with a name is unsound: whoever knows another address of it walks past", "use names in accept rules only, under default_action: deny")
	}
	if portsAt != nil {
		if has(r.Protocols, "icmp") && len(r.Protocols) == 1 {
			l.err(portsAt, path+".destination_port", "port-without-protocol", "ICMP has no ports", "remove destination_port, or choose tcp or udp")
		} else if len(r.Protocols) == 0 || has(r.Protocols, "icmp") {
			l.err(portsAt, path+".destination_port", "port-without-protocol", "ports belong to tcp and udp", "add protocol: tcp, udp, or both as a list")
		}
	}
	l.p.Rules = append(l.p.Rules, r)
}

var label = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// names checks destination_fqdn (exact names, or one wildcard label in front)
// and then refuses it: the image has no DNS proxy yet.
func (l *loader) names(n *node, path string) {
	good := true
	l.each(n, path, func(n *node, path string) {
		if n.kind != scalar {
			l.err(n, path, "type", "is "+n.kind.String(), "want a name, as example.com or *.example.com")
			good = false
			return
		}
		if why := badName(n.text); why != "" {
			l.err(n, path, "fqdn", fmt.Sprintf("%q: %s", n.text, why), "want a name, as example.com, or one wildcard label in front, as *.example.com")
			good = false
		}
	})
	if good {
		l.err(n, path, "not-supported", "rules by name are not supported by this version's image", "use addresses; names come with a later version's DNS proxy")
	}
}

func badName(s string) string {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return "longer than 253 characters"
	}
	labels := strings.Split(s, ".")
	if len(labels) < 2 {
		return "has a single label"
	}
	for i, v := range labels {
		switch {
		case v == "*" && i == 0:
		case strings.Contains(v, "*"):
			return "a wildcard is one whole label, and the first"
		case !label.MatchString(v):
			return fmt.Sprintf("the label %q is not valid", v)
		}
	}
	if labels[0] == "*" && len(labels) < 3 {
		return "a wildcard for a whole top-level domain"
	}
	return ""
}

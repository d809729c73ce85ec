package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxExternal is how many external addresses all entries may have.
const maxExternal = 256

// snat reads nat.snat.
func (l *loader) snat(n *node, path string) {
	l.each(n, path, func(n *node, path string) {
		s := SNAT{Interface: -1, PortLo: 1024, PortHi: 65535, Line: n.line, Column: n.col, Path: path}
		var sourceAt *node
		var sources []netip.Prefix
		masquerade, none := false, false // none: an entry without effect
		externalAt := n.get("external_ip")
		ok := l.fields(n, path, []field{
			{"out_interface", func(n *node, path string) {
				for i, f := range l.p.Interfaces {
					if n.kind == scalar && f.Name == n.text {
						s.Interface = i
					}
				}
				switch {
				case s.Interface < 0:
					none = true
					l.lenient(n, path, "interface", fmt.Sprintf("no interface %q", n.text), "interfaces are "+l.p.knownInterfaces())
				case l.p.Interfaces[s.Interface].LAN:
					none = true
					l.lenient(n, path, "interface", "sources are translated towards the wan only", "want the wan interface")
				}
			}},
			{"source", func(n *node, path string) { sourceAt, sources = n, l.prefixes(n, path) }},
			{"masquerade", func(n *node, path string) {
				if v, ok := l.flag(n, path); ok {
					masquerade = v
				}
			}},
			{"external_ip", func(n *node, path string) {
				l.each(n, path, func(n *node, path string) {
					a, ok := l.external(n, path)
					if ok {
						s.External = append(s.External, a)
					}
					none = none || !ok
				})
				if len(Unique(s.External)) < len(s.External) {
					l.err(n, path, "duplicate", "an address is here twice", "name each once")
				}
			}},
			{"port_range", func(n *node, path string) {
				if r, ok := l.portPool(n, path); ok {
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
		case masquerade && externalAt != nil:
			l.err(n, path, "snat", "both masquerade and external_ip", "masquerade takes the interface's address; remove one of them")
		case !masquerade && externalAt == nil:
			l.err(n, path, "snat", "neither masquerade: true nor external_ip", "say which address sources get")
		}
		if sourceAt != nil && !l.insideLAN(sourceAt, path+".source", sources) || none {
			return
		}
		for _, p := range OrAny(sources) {
			s.Source = p
			l.p.SNAT = append(l.p.SNAT, s)
		}
	})
}

// external reads an address of the firewall on the WAN: its interface's own, or
// another that is routed to it. Any address is accepted that cannot belong to
// another host.
func (l *loader) external(n *node, path string) (netip.Addr, bool) {
	a, ok := l.host(n, path)
	if !ok {
		return a, false
	}
	for i := range l.p.Interfaces {
		f := &l.p.Interfaces[i]
		switch {
		case !f.Prefix.IsValid():
			continue
		case f.LAN && f.Prefix.Contains(a):
			l.lenient(n, path, "outside-interface", fmt.Sprintf("%v is in the network of %s", a, f.Name), "want an address on the wan: the interface's own, another of its network, or one that is routed to it")
		case !f.LAN && a == f.Gateway:
			l.lenient(n, path, "address", a.String()+" is the gateway's address", "want an address of the firewall's")
		case !f.LAN && f.Prefix.Bits() < 31 && (a == f.Prefix.Masked().Addr() || a == Broadcast(f.Prefix)):
			l.lenient(n, path, "address", a.String()+" is the network's own or its broadcast address", "want a host's address")
		default:
			continue
		}
		return a, false
	}
	return a, true
}

// insideLAN refuses sources that the LAN interface cannot have behind it: the
// firewall drops packets from them as martian before any entry is looked at. It
// reports whether there are none.
func (l *loader) insideLAN(n *node, path string, ps []netip.Prefix) bool {
	f := l.p.side(true)
	if f == nil || !f.Prefix.IsValid() {
		return true
	}
	for _, p := range ps {
		if !p.Overlaps(f.Prefix) {
			l.lenient(n, path, "outside-interface", fmt.Sprintf("%v is outside the network of %s, %v", p, f.Name, f.Prefix.Masked()), "want addresses in it; packets from others are dropped as martian")
			return false
		}
	}
	return true
}

// dnat reads nat.dnat.
func (l *loader) dnat(n *node, path string) {
	if n.kind == list && len(n.items) == 0 {
		return
	}
	l.each(n, path, func(n *node, path string) { l.dnatEntry(n, path) })
}

func (l *loader) dnatEntry(n *node, path string) {
	d := DNAT{Line: n.line, Column: n.col, Path: path}
	var toAt *node
	toHi := 0
	none := false // the entry is without effect
	ok := l.fields(n, path, []field{
		{"wan_ip", func(n *node, path string) {
			var ok bool
			d.WAN, ok = l.external(n, path)
			none = !ok
		}},
		{"wan_port", func(n *node, path string) { d.Ports, _ = l.portRange(n, path) }},
		{"to", func(n *node, path string) { toAt = n; d.To, d.ToPort, toHi = l.endpoint(n, path) }},
		{"proto", someOf(l, &d.Protocols, TCP, UDP)},
		{"from", func(n *node, path string) { d.From = l.prefixes(n, path) }},
		{"hairpin", func(n *node, path string) { d.Hairpin, _ = l.flag(n, path) }},
	})
	if !ok {
		return
	}
	for _, k := range [][2]string{{"wan_ip", "want the address that clients connect to, as the wan interface's"}, {"wan_port", "want the port that clients connect to"},
		{"to", `want the server, as "10.0.0.5:443"`}, {"proto", "want tcp or udp"}} {
		if n.get(k[0]) == nil {
			l.err(n, path+"."+k[0], "missing", "missing", k[1])
		}
	}
	if d.ToPort != 0 && d.Ports.Lo != 0 {
		width := d.Ports.Hi - d.Ports.Lo
		switch {
		case toHi != 0 && toHi-d.ToPort != width:
			l.err(toAt, path+".to", "port-range", fmt.Sprintf("%d ports become %d", width+1, toHi-d.ToPort+1), fmt.Sprintf("want as many on both sides, as %v:%d-%d", d.To, d.ToPort, d.ToPort+width))
		case d.ToPort+width > 65535:
			l.err(toAt, path+".to", "port-range", fmt.Sprintf("%d ports from %d on end beyond 65535", width+1, d.ToPort), "choose a lower first port")
		}
	}
	if f := l.p.side(true); f != nil && f.Prefix.IsValid() && d.To.IsValid() {
		switch {
		case d.To == f.Prefix.Addr():
			none = true
			l.lenient(toAt, path+".to", "outside-interface", d.To.String()+" is the firewall itself, which offers no service", "want a server on the lan")
		case !f.Prefix.Contains(d.To):
			none = true
			l.lenient(toAt, path+".to", "outside-interface", fmt.Sprintf("%v is outside the network of %s, %v", d.To, f.Name, f.Prefix.Masked()), "want a server on the lan")
		}
	}
	if l.first {
		if !none {
			l.apart(n, path, &d)
		}
		return
	}
	if i, ok := l.entries.first(&d); ok {
		l.err(n, path, "overlapping-dnat", fmt.Sprintf("shares addresses and ports with the entry in line %d, which comes first", l.p.DNAT[i].Line), "give each its own ports, or sources with from")
	}
	l.addDNAT(&d)
}

// addDNAT adds an entry behind the others.
func (l *loader) addDNAT(d *DNAT) {
	l.entries.add(d, len(l.p.DNAT))
	l.p.DNAT = append(l.p.DNAT, *d)
}

// overlaps reports whether a packet could belong to both entries.
func (d *DNAT) overlaps(e *DNAT) bool {
	proto := false
	for _, v := range d.Protocols {
		proto = proto || slices.Contains(e.Protocols, v)
	}
	from := len(d.From) == 0 || len(e.From) == 0
	for _, a := range d.From {
		for _, b := range e.From {
			from = from || a.Overlaps(b)
		}
	}
	return proto && from && d.WAN == e.WAN && d.Ports.Lo <= e.Ports.Hi && e.Ports.Lo <= d.Ports.Hi
}

// endpoint reads an address with a port, or with a range of them (hi is 0
// without).
func (l *loader) endpoint(n *node, path string) (a netip.Addr, port, hi int) {
	const want = `want an address and a port, as "10.0.0.5:443"`
	if n.kind != scalar {
		l.err(n, path, "type", "is "+n.kind.String(), want)
		return
	}
	host, ports, _ := strings.Cut(n.text, ":")
	v, err := netip.ParseAddr(host)
	r, ok := ParsePorts(ports)
	switch {
	case strings.Count(n.text, ":") > 1:
		l.err(n, path, "endpoint", fmt.Sprintf("%q is not an IPv4 address with a port", n.text), want)
	case err != nil || !v.Is4():
		l.err(n, path, "endpoint", fmt.Sprintf("%q does not begin with an IPv4 address", n.text), want)
	case !ok:
		l.err(n, path, "endpoint", fmt.Sprintf("%q does not end with a port from 1 to 65535", n.text), want)
	case r.Lo > r.Hi:
		l.err(n, path, "port-range", fmt.Sprintf("the range %s is reversed", ports), fmt.Sprintf("want %d-%d", r.Hi, r.Lo))
	case strings.Contains(ports, "-"):
		return v, r.Lo, r.Hi
	default:
		return v, r.Lo, 0
	}
	return netip.Addr{}, 0, 0
}

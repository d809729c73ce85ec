package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// dns reads dns.
func (l *loader) dns(n *node, path string) {
	d := &l.p.DNS
	l.fields(n, path, []field{
		{"upstreams", func(n *node, path string) {
			if len(d.Upstreams) > 0 {
				l.err(n, path, "upstreams", "defaults.upstream_dns names upstreams too", "upstreams is its long form; keep one of them")
				return
			}
			l.each(n, path, l.upstreamEntry)
		}},
		{"resolvers", func(n *node, path string) {
			l.each(n, path, func(n *node, path string) {
				a, ok := l.address(n, path)
				f := l.p.side(true)
				switch {
				case !ok:
				case f != nil && f.Prefix.IsValid() && !f.Prefix.Contains(a):
					l.err(n, path, "outside-interface", fmt.Sprintf("%v is outside the network of %s, %v", a, f.Name, f.Prefix.Masked()), "a resolver is a name server on the lan, which asks the firewall for its clients")
				case f != nil && f.Prefix.IsValid() && a == f.Prefix.Addr():
					l.err(n, path, "address", a.String()+" is the firewall itself", "want a name server on the lan")
				case len(d.Resolvers) == ruleset.MaxServers:
					l.err(n, path, "range", "too many resolvers", fmt.Sprintf("at most %d are supported", ruleset.MaxServers))
				default:
					d.Resolvers = append(d.Resolvers, a)
				}
			})
			d.Resolvers = Unique(d.Resolvers)
		}},
		{"queries", func(n *node, path string) {
			w, _ := l.word(n, path, "all", "policy")
			d.Follow = w == "policy"
		}},
		{"intercept", func(n *node, path string) { d.Intercept, _ = l.flag(n, path) }},
		{"block", func(n *node, path string) { d.Block = l.names(n, path) }},
		{"private_names", func(n *node, path string) { d.Private = l.names(n, path) }},
		{"ttl_floor", func(n *node, path string) { d.TTLFloor, _ = l.secondsOrNone(n, path) }},
		{"ttl_grace", func(n *node, path string) {
			if v, ok := l.secondsOrNone(n, path); ok && v > MaxTTLGrace {
				l.err(n, path, "range", n.text+" is out of range", "want a number from 0 to "+strconv.Itoa(MaxTTLGrace)+": the longer, the more addresses are open that belong to somebody else by then")
			} else {
				d.TTLGrace = v
			}
		}},
		{"plain_fallback", func(n *node, path string) { d.PlainFallback, _ = l.flag(n, path) }},
		{"max_names", func(n *node, path string) {
			if v, ok := l.number(n, path, 1, ruleset.MaxBindings); ok {
				d.MaxNames = v
			}
		}},
	})
	l.mixed(n, path)
}

// mixed refuses a list that has upstreams with and without TLS: what is to be
// private must not leave in the clear because a server does not answer.
func (l *loader) mixed(n *node, path string) {
	d := &l.p.DNS
	tls := 0
	for _, u := range d.Upstreams {
		if u.ServerName != "" {
			tls++
		}
	}
	at := n.get("upstreams")
	switch {
	case at == nil:
	case tls > ruleset.MaxTLS:
		l.err(at, path+".upstreams", "range", "too many upstreams with tls", fmt.Sprintf("at most %d are supported", ruleset.MaxTLS))
	case tls > 0 && tls < len(d.Upstreams) && !d.PlainFallback:
		l.err(at, path+".upstreams", "mixed-upstreams", "some upstreams have tls and others do not", "remove those without tls; or say plain_fallback: true, and they are asked in the clear while all with tls are down")
	case d.PlainFallback && (tls == 0 || tls == len(d.Upstreams)):
		f := n.get("plain_fallback")
		l.Warn(f.line, f.col, path+".plain_fallback", "no-effect", "does nothing: the upstreams are not of both kinds", "remove it")
	}
}

// upstreamEntry reads an address, or one with its port and the name of its TLS
// certificate.
func (l *loader) upstreamEntry(n *node, path string) {
	u := Upstream{}
	if n.kind == scalar {
		if a, ok := l.host(n, path); ok {
			l.upstream(n, path, Upstream{Address: a, Port: DNSPort})
		}
		return
	}
	good := true
	ok := l.fields(n, path, []field{
		{"address", func(n *node, path string) { u.Address, good = l.host(n, path) }},
		{"port", func(n *node, path string) { u.Port, _ = l.number(n, path, 1, 65535) }},
		{"tls", func(n *node, path string) {
			if _, err := netip.ParseAddr(n.text); n.kind == scalar && err == nil {
				good = false
				l.err(n, path, "fqdn", "is an address", "want the name in the server's certificate, as dns.quad9.net: a certificate is for a name")
				return
			}
			if why := BadName(n.text); n.kind != scalar || why != "" || strings.HasPrefix(n.text, "*") {
				l.err(n, path, "fqdn", "is not the name of a server", "want the name in its certificate, as one.one.one.one")
				return
			}
			u.ServerName = strings.ToLower(strings.TrimSuffix(n.text, "."))
		}},
		{"ca", func(n *node, path string) {
			der, ok := l.certificates(n, path)
			u.CA, good = der, good && ok
		}},
	})
	if !ok {
		return
	}
	if n.get("address") == nil {
		l.err(n, path+".address", "missing", "missing", "want the name server's address, as 1.1.1.1")
		return
	}
	if n.get("ca") != nil && n.get("tls") == nil {
		l.err(n.get("ca"), path+".ca", "missing", "there is no tls beside it", "say tls: and the name in the server's certificate, or remove ca")
		return
	}
	if u.Port == 0 {
		u.Port = DNSPort
		if n.get("tls") != nil {
			u.Port = DNSOverTLSPort
		}
	}
	if good {
		l.upstream(n, path, u)
	}
}

// upstream adds a name server. The proxy asks it through the WAN: one on the LAN
// would be asked past the policy.
func (l *loader) upstream(n *node, path string, u Upstream) {
	d := &l.p.DNS
	for i := range l.p.Interfaces {
		f := &l.p.Interfaces[i]
		switch {
		case !f.Prefix.IsValid():
		case u.Address == f.Prefix.Addr():
			l.err(n, path, "address", u.Address.String()+" is the firewall itself", "want the name server that it asks")
			return
		case f.LAN && f.Prefix.Contains(u.Address):
			l.err(n, path, "outside-interface", u.Address.String()+" is on the lan", "want a name server on the wan side; one on the lan belongs under dns.resolvers")
			return
		}
	}
	for _, v := range d.Upstreams {
		if v == u {
			l.err(n, path, "duplicate", u.Address.String()+" is here twice", "remove one of them")
			return
		}
	}
	if len(d.Upstreams) == ruleset.MaxServers {
		l.err(n, path, "range", "too many upstreams", fmt.Sprintf("at most %d are supported", ruleset.MaxServers))
		return
	}
	d.Upstreams = append(d.Upstreams, u)
}

// host reads the address of one host.
func (l *loader) host(n *node, path string) (netip.Addr, bool) {
	a, ok := l.address(n, path)
	if ok && !IsHost(a) {
		l.err(n, path, "address", a.String()+" is not the address of a host", "want a unicast address")
		return a, false
	}
	return a, ok
}

// secondsOrNone reads a time that may be 0.
func (l *loader) secondsOrNone(n *node, path string) (int, bool) {
	if n.kind == scalar && n.integer && n.text == "0" {
		return 0, true
	}
	return l.seconds(n, path)
}

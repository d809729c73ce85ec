package importer

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// one returns the condition that a field has one of some values.
func (p *nftParser) one(left any, values []any, not bool) cond {
	hard := func(what string) cond { return cond{hard: []string{shorten(what)}} }
	l := newObject(left)
	if a, ok := l.only("payload"); ok {
		o := newObject(a)
		proto, f := o.text("protocol"), o.text("field")
		switch {
		case o.rest() != "":
			return hard("payload: " + o.rest())
		case proto == "ip6" || proto == "icmpv6":
			return cond{ipv6: true}
		case proto == "ip" && (f == "saddr" || f == "daddr"):
			s, ok := addresses(values)
			if !ok {
				return hard(fmt.Sprintf("%s %s %v", proto, f, values))
			}
			if not {
				s = s.not(^uint32(0))
			}
			if f == "saddr" {
				return cond{src: s}
			}
			return cond{dst: s}
		case proto == "ip" && f == "protocol":
			return protocols(values, not)
		case (proto == "tcp" || proto == "udp" || proto == "th") && f == "dport":
			s, ok := numbers(values)
			if !ok {
				return hard(fmt.Sprintf("%s dport %v", proto, values))
			}
			if not {
				s = s.not(65535)
			}
			c := cond{ports: s}
			if proto != "th" {
				c.protos = words{proto}
			}
			return c
		case proto == "icmp" && f == "type" && !not:
			c := cond{protos: words{"icmp"}, icmp: words{}}
			for _, v := range values {
				c.icmp = append(c.icmp, word(v))
			}
			return c
		case proto == "tcp" || proto == "udp" || proto == "icmp":
			return cond{protos: words{proto}, hard: []string{proto + " " + f}}
		}
		return hard(proto + " " + f)
	}
	if a, ok := l.only("meta"); ok {
		o := newObject(a)
		k := o.text("key")
		if why := o.rest(); why != "" {
			return hard("meta: " + why)
		}
		switch ws, named := names(values); {
		case k == "l4proto":
			return protocols(values, not)
		case !named: // a number or a range: none of what follows
		case k == "iifname" || k == "iif":
			return cond{in: []iface{{ws, not}}}
		case k == "oifname" || k == "oif":
			return cond{out: []iface{{ws, not}}}
		case k == "nfproto" && onlyWords(values, "ipv4", "ipv6"), k == "protocol" && onlyWords(values, "ip", "ip6", "arp", "vlan"):
			ip4 := slices.Contains(ws, "ipv4") || slices.Contains(ws, "ip")
			if ip4 != not {
				return cond{}
			}
			return cond{ipv6: true}
		}
		return hard(fmt.Sprintf("meta %s %v", k, values))
	}
	if a, ok := l.only("ct"); ok {
		o := newObject(a)
		k := o.text("key")
		if why := o.rest(); why != "" {
			return hard("ct: " + why)
		}
		all := words{"new", "established", "related", "invalid", "untracked"}
		var ws words
		for _, v := range values {
			ws = append(ws, word(v))
		}
		switch {
		case k == "state":
			for _, w := range ws {
				if !slices.Contains(all, w) {
					return hard("ct state " + w)
				}
			}
			if not {
				ws = slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(ws, s) })
			}
			return cond{states: ws}
		case k == "status" && len(ws) == 1 && ws[0] == "dnat" && !not:
			return cond{states: words{"dnat"}}
		}
		return hard("ct " + k)
	}
	t, _ := json.Marshal(left)
	return hard(string(t))
}

// names returns values that are all words.
func names(values []any) (ws []string, ok bool) {
	for _, v := range values {
		s, isText := v.(string)
		if !isText {
			return nil, false
		}
		ws = append(ws, s)
	}
	return ws, true
}

func word(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	t, _ := json.Marshal(v)
	return string(t)
}

// protocols returns a condition on the transport protocol.
func protocols(values []any, not bool) cond {
	c := cond{protos: words{}}
	for _, v := range values {
		w := word(v)
		switch v.(type) {
		case string, float64:
		default:
			return cond{hard: []string{shorten("protocol " + w)}}
		}
		switch w {
		case "6":
			w = "tcp"
		case "17":
			w = "udp"
		case "1":
			w = "icmp"
		case "ipv6-icmp", "icmpv6", "58":
			continue
		}
		c.protos = append(c.protos, w)
	}
	if not {
		// The others that are forwarded at all.
		c.protos = slices.DeleteFunc(words{"tcp", "udp", "icmp"}, func(s string) bool { return slices.Contains(c.protos, s) })
	}
	if len(c.protos) == 0 {
		c.ipv6 = true
	}
	return c
}

// addresses reads IPv4 addresses, networks and ranges.
func addresses(values []any) (spans, bool) {
	s := spans{}
	for _, v := range values {
		switch v := v.(type) {
		case string:
			p, err := netip.ParsePrefix(v)
			if a, err2 := netip.ParseAddr(v); err2 == nil {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
			if err != nil || !p.Addr().Is4() {
				return nil, false
			}
			s = append(s, prefixSpan(p))
		case map[string]any:
			if q, ok := newObject(v).only("prefix"); ok {
				o := newObject(q)
				a, err := netip.ParseAddr(o.text("addr"))
				length, _ := o.take("len")
				n, ok := length.(float64)
				if err != nil || !a.Is4() || !ok || o.rest() != "" || n < 0 || n > 32 || n != float64(int(n)) {
					return nil, false
				}
				s = append(s, prefixSpan(netip.PrefixFrom(a, int(n))))
				continue
			}
			both, _ := newObject(v).only("range")
			r, ok := both.([]any)
			if !ok || len(r) != 2 {
				return nil, false
			}
			lo, err1 := netip.ParseAddr(word(r[0]))
			hi, err2 := netip.ParseAddr(word(r[1]))
			if err1 != nil || err2 != nil || !lo.Is4() || !hi.Is4() || hi.Less(lo) {
				return nil, false
			}
			s = append(s, span{addrSpan(lo).lo, addrSpan(hi).lo})
		default:
			return nil, false
		}
	}
	return s.normal(), true
}

// services are the names of ports that nft and iptables write without -n.
var services = map[string]uint32{"ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "http": 80, "pop3": 110, "ntp": 123, "imap2": 143, "imap": 143,
	"snmp": 161, "https": 443, "submission": 587, "ldaps": 636, "domain-s": 853, "imaps": 993, "pop3s": 995, "openvpn": 1194, "http-alt": 8080}

// numbers reads ports and ranges of ports.
func numbers(values []any) (spans, bool) {
	port := func(v any) (uint32, bool) {
		if s, ok := v.(string); ok {
			if n, ok := services[s]; ok {
				return n, true
			}
			n, err := strconv.ParseUint(s, 10, 16)
			return uint32(n), err == nil
		}
		n, ok := v.(float64)
		return uint32(n), ok && n >= 0 && n <= 65535 && n == float64(uint32(n))
	}
	s := spans{}
	for _, v := range values {
		lo, hi := v, v
		if _, ok := v.(map[string]any); ok {
			both, _ := newObject(v).only("range")
			r, ok := both.([]any)
			if !ok || len(r) != 2 {
				return nil, false
			}
			lo, hi = r[0], r[1]
		}
		a, ok1 := port(lo)
		b, ok2 := port(hi)
		if !ok1 || !ok2 || a > b {
			return nil, false
		}
		s = append(s, span{a, b})
	}
	return s.normal(), true
}

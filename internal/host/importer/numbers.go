package importer

import (
	"net/netip"
	"strconv"
)

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

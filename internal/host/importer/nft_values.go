package importer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// one returns the condition that a field has one of some values.
func (p *nftParser) one(left any, values []any, not bool) cond {
	l := newObject(left)
	for kind, read := range map[string]func(o *object, values []any, not bool) cond{"payload": payload, "meta": meta, "ct": tracking, "fib": fib} {
		if a, ok := l.only(kind); ok {
			o := newObject(a)
			c := read(o, values, not)
			if why := o.rest(); why != "" {
				return withHard(kind + ": " + why)
			}
			return c
		}
	}
	if a, ok := l.only("&"); ok {
		return masked(a, values, not)
	}
	t, _ := json.Marshal(left)
	return withHard(string(t))
}

// numbered returns the condition that a field has one of some numbers.
func numbered(field int, s spans, ok, not bool, what string, values []any) cond {
	if !ok {
		return withHard(fmt.Sprintf("%s %v", what, values))
	}
	if not {
		s = s.not(largestOf[field])
	}
	return withSet(field, s)
}

func payload(o *object, values []any, not bool) cond {
	proto, f := o.text("protocol"), o.text("field")
	switch {
	case proto == "ip6" || proto == "icmpv6":
		return cond{ipv6: true}
	case proto == "ip" && f == "saddr":
		s, ok := addresses(values)
		return numbered(fSrc, s, ok, not, "ip saddr", values)
	case proto == "ip" && f == "daddr":
		s, ok := addresses(values)
		return numbered(fDst, s, ok, not, "ip daddr", values)
	case proto == "ip" && f == "protocol":
		return protocols(values, not)
	case proto == "icmp" && f == "type":
		s := spans{}
		for _, v := range values {
			n, ok := icmpType(word(v))
			if !ok {
				return cond{sets: [numSpans]spans{fProto: only(protoICMP)}, hard: []string{shorten(fmt.Sprintf("icmp type %v", values))}}
			}
			s = append(s, span{n, n})
		}
		return numbered(fICMP, s.normal(), true, not, "icmp type", values)
	case proto == "tcp" && f == "flags":
		return tcpFlags(^uint8(0), values, not)
	case proto == "th" || slices.Contains([]string{"tcp", "udp", "sctp", "dccp", "udplite"}, proto):
		var c cond
		if n, ok := protoNumber(proto); ok {
			c = withSet(fProto, only(n))
		}
		field := map[string]int{"dport": fPort, "sport": fSport}[f]
		if field == 0 {
			return c.and(withHard(proto + " " + f))
		}
		s, ok := numbers(values)
		return c.and(numbered(field, s, ok, not, proto+" "+f, values))
	case proto == "icmp":
		return withSet(fProto, only(protoICMP)).and(withHard("icmp " + f))
	}
	return withHard(proto + " " + f)
}

func meta(o *object, values []any, not bool) cond {
	k := o.text("key")
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
	case k == "pkttype" && onlyWords(values, "unicast", "host", "broadcast", "multicast", "other"):
		one := slices.Contains(ws, "unicast") || slices.Contains(ws, "host")
		switch {
		case one == not: // at most what is for others
			return withMask(fCast, isYes)
		case len(ws) == 1 && one:
			return withMask(fCast, isNo)
		}
		return cond{} // what is for one host, and more
	}
	return withHard(fmt.Sprintf("meta %s %v", k, values))
}

func tracking(o *object, values []any, not bool) cond {
	k := o.text("key")
	var ws []string
	for _, v := range values {
		ws = append(ws, word(v))
	}
	switch {
	case k == "state":
		var m mask
		for _, w := range ws {
			bit, ok := stateNames[w]
			if !ok {
				return withHard("ct state " + w)
			}
			m |= bit
		}
		if not {
			m = allOf[fState] &^ m
		}
		return withMask(fState, m)
	case k == "status" && len(ws) == 1 && ws[0] == "dnat":
		if not {
			return withMask(fDNAT, dnatNo)
		}
		return withMask(fDNAT, dnatYes)
	}
	return withHard("ct " + k + " " + shorten(fmt.Sprint(values)))
}

// fib reads what is asked of the routes: the type of an address, or whether packets
// to the source would leave where this one came from.
func fib(o *object, values []any, not bool) cond {
	result := o.text("result")
	flags, _ := o.take("flags")
	fs, ok := flags.([]any)
	if !ok {
		fs = []any{flags}
	}
	ws, named := names(values)
	has := func(f string) bool { return slices.Contains(fs, any(f)) }
	local := []string{"multicast", "broadcast", "anycast"}
	switch {
	case result == "type" && named && has("daddr") && len(ws) == 1 && ws[0] == "local" && onlyWords(flags, "daddr"):
		if not {
			return withMask(fLocal, isNo)
		}
		return withMask(fLocal, isYes)
	case result == "type" && named && has("daddr") && onlyWords(values, "multicast", "broadcast", "anycast"):
		if not {
			return cond{}
		}
		return withMask(fCast, isYes)
	case result == "type" && named && has("daddr") && not && onlyWords(values, append(local, "local")...) && slices.Contains(ws, "local") && onlyWords(flags, "daddr"):
		return withMask(fLocal, isNo)
	case result == "type" && named && has("saddr") && !has("daddr") && (onlyWords(values, append(local, "local", "blackhole", "unreachable", "prohibit")...) && !not || len(ws) == 1 && ws[0] == "unicast" && not):
		return withMask(fPath, isNo)
	case (result == "oif" || result == "oifname" || result == "check") && has("saddr") && !has("daddr") && len(values) == 1:
		if missing, ok := values[0].(bool); ok || values[0] == 0.0 || values[0] == "0" {
			if missing == not {
				return withMask(fPath, isNo)
			}
			return withMask(fPath, isYes)
		}
	}
	return withHard(fmt.Sprintf("fib %v %s %v", flags, result, values))
}

// masked reads bits of a field: TCP's flags, and whether it is a fragment.
func masked(a any, values []any, not bool) cond {
	if both, ok := a.([]any); ok && len(both) == 2 {
		left, _ := newObject(both[0]).only("payload")
		o := newObject(left)
		proto, field := o.text("protocol"), o.text("field")
		if n, ok := both[1].(float64); ok && proto == "ip" && field == "frag-off" && n == 0x1fff && len(values) == 1 && values[0] == 0.0 {
			if not {
				return cond{never: true} // a fragment but for the first
			}
			return cond{}
		}
		if bits, ok := flagBits(both[1]); ok && proto == "tcp" && field == "flags" {
			return tcpFlags(bits, values, not)
		}
	}
	t, _ := json.Marshal(a)
	return withHard(string(t))
}

// flagBits reads names of TCP's flags.
func flagBits(v any) (bits uint8, ok bool) {
	if o := newObject(v); o.wrong == "" {
		if v, ok = o.only("|"); !ok {
			return 0, false
		}
	}
	switch x := v.(type) {
	case float64:
		return uint8(x), x >= 0 && x < 256 && x == float64(uint8(x))
	case string:
		v = []any{x}
	}
	list, isList := v.([]any)
	for _, e := range list {
		b, known := map[string]uint8{"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}[word(e)]
		if !known {
			inner, ok := flagBits(e)
			if _, isText := e.(string); isText || !ok {
				return 0, false
			}
			b = inner
		}
		bits |= b
	}
	return bits, isList
}

// tcpFlags returns the condition that some of TCP's flags are these. Several values
// are alternatives.
func tcpFlags(of uint8, values []any, not bool) cond {
	var are []uint8
	for _, v := range values {
		b, ok := flagBits(v)
		if !ok {
			return withSet(fProto, only(protoTCP)).and(withHard(fmt.Sprintf("tcp flags %v", values)))
		}
		are = append(are, b)
	}
	return flagCond(func(f uint8) bool { return slices.Contains(are, f&of) != not }, fmt.Sprintf("tcp flags %v", values))
}

// changes says what it means that a packet is not changed.
func changes(key, value any) aside {
	if opt, ok := newObject(key).only("tcp option"); ok {
		o := newObject(opt)
		if o.text("name") == "maxseg" {
			if n, ok := value.(float64); ok {
				return aside{why: fmt.Sprintf("the MSS is lowered to what both links carry; an mtu of wan0 of 40 more than %.0f would bound it so", n), effect: Differs}
			}
			return aside{design: byMSS}
		}
	}
	return aside{why: "packets are not changed or marked; rules that look at marks are listed, and routing by them is not done", effect: Differs}
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
	s := spans{}
	for _, v := range values {
		w := word(v)
		n, ok := protoNumber(w)
		switch v.(type) {
		case string, float64:
		default:
			ok = false
		}
		if !ok {
			return withHard("protocol " + w)
		}
		s = append(s, span{n, n})
	}
	if s = s.normal(); not {
		s = s.not(255)
	}
	c := withSet(fProto, s)
	c.ipv6 = len(s) == 1 && s[0] == (span{58, 58})
	return c
}

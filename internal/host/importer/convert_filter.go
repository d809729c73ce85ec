package importer

import (
	"fmt"
	"slices"
	"strings"
)

// filter converts a rule of the forward chain.
func (c *converter) filter(r rule) {
	action := map[string]string{"accept": "accept", "drop": "deny", "reject": "reject"}[r.do.kind]
	e := c.effect(r)
	x := r.cond
	switch {
	case action == "":
		if r.do.kind == "flow" || r.do.kind == "mangle" {
			c.note(r, "established flows always take the fast path, and the MSS is always clamped", Nothing)
			return
		}
		c.note(r, r.do.kind+" has no counterpart", e)
		return
	case x.ipv6:
		if e == Permissive {
			e = Nothing
		}
		c.note(r, "thurward does not forward IPv6", e)
		return
	case x.empty():
		c.note(r, "nothing matches it", Nothing)
		return
	case len(x.hard) > 0:
		c.note(r, "conditions without counterpart: "+strings.Join(x.hard, ", "), e)
		return
	case c.own(x.dst):
		c.note(r, "nothing is forwarded to the firewall's own address; rules see the address after destination NAT", Nothing)
		return
	}
	o := outRule{action: action, name: r.comment, src: x.src, dst: x.dst, ports: x.ports}
	inLAN, inWAN := c.sides(x.in)
	outLAN, outWAN := c.sides(x.out)
	egress, ingress := inLAN && outWAN, inWAN && outLAN
	switch {
	case !egress && !ingress:
		if c.lan == "" || c.wan == "" {
			c.note(r, "it is not known which interface is the LAN and which the WAN (--lan, --wan)", e)
		} else {
			c.note(r, fmt.Sprintf("it is about other traffic than between %s and %s, and there are no other interfaces", c.lan, c.wan), Nothing)
		}
		return
	case !ingress:
		o.direction = "egress"
	case !egress:
		o.direction = "ingress"
	}
	if !c.state(r, &o, e) || !c.protocol(r, &o, e) {
		return
	}
	if slices.Contains(x.states, "dnat") {
		c.translated(r, o)
		return
	}
	// The opposite of a set takes many networks to write. Behind the LAN
	// interface there is nothing but its network.
	home := &o.src
	if o.direction == "ingress" {
		home = &o.dst
	}
	if o.direction != "" && c.lanKnown && *home != nil && len(home.prefixes()) > 4 {
		if *home = home.and(spans{prefixSpan(c.lanNet)}); len(*home) == 0 {
			c.note(r, "it is about other hosts than those of the LAN's network", Nothing)
			return
		}
	}
	c.emit(r, o)
}

// state converts connection states; false when there is nothing left.
func (c *converter) state(r rule, o *outRule, e Effect) bool {
	for _, s := range r.cond.states {
		switch s {
		case "new", "established":
			o.states = append(o.states, s)
		case "dnat":
			o.states = append(o.states, "new")
		}
	}
	if r.cond.states == nil || len(o.states) > 0 {
		if slices.Contains(r.cond.states, "untracked") || slices.Contains(r.cond.states, "invalid") && o.action == "accept" {
			c.note(r, "every packet is tracked, and invalid ones are always dropped; the rule is converted without that condition", Nothing)
		}
		if len(o.states) == 2 {
			o.states = nil
		}
		return true
	}
	switch {
	case slices.Contains(r.cond.states, "related") && o.action == "accept":
		c.note(r, "ICMP errors about known flows always pass; connections announced in others (as of FTP) have no counterpart", Stricter)
	case slices.Contains(r.cond.states, "related"):
		c.note(r, "ICMP errors about known flows always pass", Permissive)
	case o.action == "accept":
		c.note(r, "invalid packets are always dropped, and every packet is tracked", Stricter)
	default:
		c.note(r, "invalid packets are always dropped", Nothing)
	}
	return false
}

// protocol converts protocols and ICMP types; false when there is nothing left.
func (c *converter) protocol(r rule, o *outRule, e Effect) bool {
	protos := r.cond.protos
	if r.cond.icmp != nil {
		var echo, reply, rest bool
		for _, t := range r.cond.icmp {
			switch t {
			case "echo-request", "8":
				echo = true
			case "echo-reply", "0":
				reply = true
			default:
				rest = true
			}
		}
		if rest {
			if o.action == "accept" {
				c.note(r, "ICMP errors about known flows always pass, and other ICMP but echo has no counterpart; the rule is converted for echo alone, if at all", Nothing)
			} else {
				c.note(r, "ICMP errors about known flows always pass; the rule is converted for echo alone, if at all", Permissive)
			}
		}
		if !echo && !reply {
			return false
		}
		want := "new" // an echo request begins a flow, the reply answers
		if !echo {
			want = "established"
		}
		if echo != reply {
			if o.states != nil && !slices.Contains(o.states, want) {
				c.note(r, "nothing matches it", Nothing)
				return false
			}
			o.states = words{want}
		}
		protos = protos.and(words{"icmp"})
	}
	if o.ports != nil {
		protos = protos.and(words{"tcp", "udp"})
		if len(o.ports) > 0 && o.ports[0].lo == 0 {
			o.ports[0].lo = 1 // no service is at port 0
		}
		if o.ports = o.ports.and(spans{{1, 65535}}); len(o.ports) == 0 {
			c.note(r, "nothing matches it", Nothing)
			return false
		}
		if len(o.ports) == 1 && o.ports[0] == (span{1, 65535}) {
			o.ports = nil
		}
	}
	if protos == nil {
		return true
	}
	var other []string
	for _, p := range protos {
		if p == "tcp" || p == "udp" || p == "icmp" {
			if !slices.Contains(o.protos, p) {
				o.protos = append(o.protos, p)
			}
		} else {
			other = append(other, p)
		}
	}
	if len(other) > 0 {
		e := Nothing
		if o.action == "accept" {
			e = Stricter
		}
		c.note(r, "only TCP, UDP and ICMP echo are forwarded, "+strings.Join(other, ", ")+" is not", e)
	}
	return len(o.protos) > 0
}

// translated converts a rule about what destination NAT has translated.
func (c *converter) translated(r rule, o outRule) {
	if len(c.dnat) == 0 {
		c.note(r, "there is no destination NAT for it", Nothing)
		return
	}
	o.direction, o.states = "ingress", words{"new"}
	for _, d := range c.dnat {
		q := o
		hi := d.toPort + d.ports.hi - d.ports.lo
		q.dst, q.src, q.protos = o.dst.and(spans{addrSpan(d.to)}), o.src.and(d.from), o.protos.and(words{d.proto})
		q.ports = o.ports.and(spans{{d.toPort, hi}})
		if len(q.dst) > 0 && len(q.protos) > 0 && len(q.ports) > 0 && (q.src == nil || len(q.src) > 0) {
			c.emit(r, q)
		}
	}
}

// emit adds a rule to the result, with an id of its own.
func (c *converter) emit(r rule, o outRule) {
	base := strings.Map(func(v rune) rune {
		if v >= 'a' && v <= 'z' || v >= 'A' && v <= 'Z' || v >= '0' && v <= '9' || v == '-' || v == '_' {
			return v
		}
		return -1
	}, strings.ReplaceAll(strings.ToLower(r.comment), " ", "-"))
	for strings.Contains(base, "--") {
		base = strings.ReplaceAll(base, "--", "-")
	}
	base = strings.Trim(base, "-_")
	if base == "" || len(base) > 40 || strings.HasPrefix(base, "default-") {
		base = "rule"
	}
	for {
		c.ids[base]++
		o.id = fmt.Sprintf("%s-%d", base, c.ids[base])
		if base != "rule" && c.ids[base] == 1 {
			o.id = base
		}
		if !slices.ContainsFunc(c.rules, func(q outRule) bool { return base != "rule" && q.id == o.id }) {
			break
		}
	}
	if r.comment == "" {
		o.name = "from " + r.place
	}
	c.rules = append(c.rules, o)
}

// own reports whether a set holds nothing but addresses of the firewall on the
// WAN, which forwarded packets do not have as their destination: after
// destination NAT they have the server's.
func (c *converter) own(s spans) bool {
	if len(s) == 0 {
		return false
	}
	own := c.external()
	for _, v := range s {
		if v.lo != v.hi || !slices.Contains(own, v.addr()) {
			return false
		}
	}
	return true
}

package router

import (
	"fmt"
	"net/netip"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// An oracle is a second firewall, plain and slow, that the real one is compared with: rules
// in a list, flows and mappings in maps, addresses as text. It shares no code with the data
// plane. It knows no sequence numbers and no timers: for TCP it decides what must not pass,
// for UDP and ping also what must.

type otuple struct {
	side         int // where it arrives
	proto        uint8
	src, dst     string
	sport, dport uint16
}

type oracleRule struct {
	action       string
	egress, in   bool // neither: both ways
	proto        uint8
	src, dst     string // prefix, or ""
	lo, hi       uint16 // 0, 0: any
	new, replied bool   // neither: any
}

// text is the rule as the lab reads it.
func (r *oracleRule) text() rule {
	s := r.action
	if r.egress {
		s += " egress"
	}
	if r.in {
		s += " ingress"
	}
	s += map[uint8]string{0: "", packet.TCP: " tcp", packet.UDP: " udp", packet.ICMP: " icmp"}[r.proto]
	if r.src != "" {
		s += " " + r.src
	}
	if r.dst != "" {
		s += " -> " + r.dst
	}
	if r.lo != 0 {
		s += fmt.Sprintf(" :%d-%d", r.lo, r.hi)
	}
	if r.new {
		s += " new"
	}
	if r.replied {
		s += " established"
	}
	return rule(s)
}

func within(prefix, a string) bool {
	return prefix == "" || netip.MustParsePrefix(prefix).Contains(netip.MustParseAddr(a))
}

func (r *oracleRule) matches(egress bool, proto uint8, src, dst string, dport uint16, replied bool) bool {
	return (r.egress == r.in || r.egress == egress) && (r.proto == 0 || r.proto == proto) && within(r.src, src) && within(r.dst, dst) &&
		(r.lo == 0 || r.lo <= dport && dport <= r.hi) && (r.new == r.replied || r.replied == replied)
}

// A half is one direction of a flow.
type half struct {
	in      otuple
	out     otuple // as it leaves; side is where it arrives next
	seen    [4]string
	dport   uint16
	egress  bool
	reply   bool
	verdict string // "" until its first packet
	other   *half
}

type oracle struct {
	rules    []oracleRule
	fallback string
	dnat     []ruleset.DNAT
	halves   map[otuple]*half
	ext      map[[2]any]uint16 // protocol and inner endpoint: external port
	owner    map[[2]any]string // protocol and external port: inner endpoint
	rejected map[string]bool   // senders that may be notified
}

func newOracle(rules []oracleRule, fallback string, dnat []ruleset.DNAT) *oracle {
	o := &oracle{rules: rules, fallback: fallback, dnat: dnat, rejected: map[string]bool{}}
	o.forget()
	return o
}

// forget is what enough time does.
func (o *oracle) forget() {
	o.halves = map[otuple]*half{}
	o.ext, o.owner = map[[2]any]uint16{}, map[[2]any]string{}
	for _, d := range o.dnat {
		in := fmt.Sprintf("%s:%d", addr(must4(d.To)), d.ToPort)
		o.ext[[2]any{d.Proto, in}] = d.PortLo
		o.owner[[2]any{d.Proto, d.PortLo}] = in
	}
}

func must4(a ruleset.Addr) packet.Addr {
	v, ok := packet.AddrFrom16(a)
	if !ok {
		panic("not IPv4")
	}
	return v
}

func (o *oracle) judge(egress bool, proto uint8, src, dst string, dport uint16, replied bool) string {
	for i := range o.rules {
		if o.rules[i].matches(egress, proto, src, dst, dport, replied) {
			return o.rules[i].action
		}
	}
	return o.fallback
}

// tupleOf reads the tuple off a packet description.
func tupleOf(side int, p *pkt) otuple {
	t := otuple{side: side, proto: p.proto, src: p.src, dst: p.dst, sport: p.sport, dport: p.dport}
	if p.proto == packet.ICMP {
		t.dport = t.sport
	}
	return t
}

// A ruling is the oracle's decision about a packet.
type ruling struct {
	may, must bool
	h         *half // the direction it belongs to, if it may pass
	fresh     bool  // h is new: its external port is not known yet
	echoed    bool  // the firewall itself answers
}

const inside = "10.0.0.0/24"

// rule returns what may and must happen to a packet.
func (o *oracle) rule(side int, p *pkt) (r ruling) {
	t := tupleOf(side, p)
	if h := o.halves[t]; h != nil {
		if p.proto == packet.ICMP && (p.typ == packet.EchoReply) != h.reply {
			return r
		}
		if p.proto == packet.TCP && p.flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN && !h.reply {
			// Perhaps a new connection on one that is over: judged anew.
			if o.judge(h.egress, p.proto, h.seen[0], h.seen[1], h.dport, false) == "accept" {
				return ruling{may: true, h: h}
			}
		}
		if h.verdict == "" {
			h.verdict = o.judge(h.egress, p.proto, h.seen[0], h.seen[1], h.dport, h.reply)
		}
		if h.verdict != "accept" {
			if h.verdict == "reject" {
				o.rejected[p.src] = true
			}
			return r
		}
		return ruling{may: true, must: p.proto != packet.TCP, h: h}
	}
	// No flow: where from, and where to?
	lanSide := side == lan
	if lanSide != within(inside, p.src) || p.src == "10.0.0.1" || p.src == ours || within("127.0.0.0/8", p.src) {
		return r
	}
	to, port, exit, hidden := p.dst, p.dport, wan, false
	if p.proto == packet.ICMP {
		port = 0
	}
	switch {
	case p.dst == "10.0.0.1" || p.dst == ours:
		var d *ruleset.DNAT
		for i := range o.dnat {
			if p.dst == ours && o.dnat[i].Proto == p.proto && o.dnat[i].PortLo == p.dport {
				d = &o.dnat[i]
			}
		}
		if o.fallback == "reject" && (d == nil || lanSide && d.Hairpin == 0) {
			o.rejected[p.src] = true // there is nothing, or not for hosts inside
		}
		if d == nil {
			v := o.judge(lanSide, p.proto, p.src, p.dst, port, false)
			if v == "reject" {
				o.rejected[p.src] = true
			}
			r.echoed = v == "accept" && p.proto == packet.ICMP && p.typ == packet.EchoRequest && lanSide == (p.dst == "10.0.0.1")
			return r
		}
		if lanSide && d.Hairpin == 0 {
			return r
		}
		to, port, exit = addr(must4(d.To)).String(), d.ToPort, lan
	case within(inside, p.dst) == lanSide:
		return r // stays on its side
	case within(inside, p.dst):
		exit, hidden = lan, true // sources inside are translated
	}
	v := o.judge(lanSide, p.proto, p.src, to, port, false)
	if v == "reject" {
		o.rejected[p.src] = true
	}
	switch {
	case p.proto == packet.TCP && p.flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) != packet.SYN, p.proto == packet.ICMP && p.typ != packet.EchoRequest:
		return r
	case v != "accept", hidden:
		return r
	}
	h := &half{in: t, out: otuple{side: exit, proto: p.proto, src: p.src, dst: to, sport: p.sport, dport: port}, egress: lanSide, verdict: v,
		seen: [4]string{p.src, to}, dport: port}
	if p.proto == packet.ICMP {
		h.out.dport = p.sport
	}
	if lanSide {
		h.out.src = ours
	} else if o.halves[otuple{side: exit, proto: p.proto, src: to, dst: p.src, sport: h.out.dport, dport: p.sport}] != nil {
		return r // its answers would be those of a flow that goes to the server by its own address
	}
	return ruling{may: true, must: true, h: h, fresh: true}
}

// passed checks a packet that has left against the ruling about the one that
// arrived, and learns the external port of a new flow. It returns what is
// wrong, or "".
func (o *oracle) passed(r ruling, side int, p *pkt, v *view) string {
	if !r.may {
		return "it may not pass"
	}
	h := r.h
	want := h.out
	if h.egress && !h.reply {
		in := fmt.Sprintf("%s:%d", p.src, p.sport)
		k := [2]any{p.proto, in}
		known, ok := o.ext[k]
		if ok && known != v.SrcPort && p.proto != packet.TCP {
			return fmt.Sprintf("external port %d, which was %d (RFC 4787 REQ-1)", v.SrcPort, known)
		}
		if own := o.owner[[2]any{p.proto, v.SrcPort}]; own != "" && own != in {
			return fmt.Sprintf("external port %d is %s's (RFC 4787 REQ-3)", v.SrcPort, own)
		}
		o.ext[k], o.owner[[2]any{p.proto, v.SrcPort}] = v.SrcPort, in
		want.sport = v.SrcPort
		if p.proto == packet.ICMP {
			want.dport = v.SrcPort
		}
	}
	got := otuple{side: side, proto: v.Proto, src: addr(v.Src).String(), dst: addr(v.Dst).String(), sport: v.SrcPort, dport: v.DstPort}
	if got != want {
		return fmt.Sprintf("left as %+v, want %+v", got, want)
	}
	if v.TTL != 63 {
		return fmt.Sprintf("TTL %d", v.TTL)
	}
	if r.fresh || h.egress && !h.reply && h.out.sport != v.SrcPort {
		h.out = want
		o.halves[h.in] = h
		back := &half{reply: true, other: h, egress: want.side == lan,
			in:  otuple{side: want.side, proto: want.proto, src: want.dst, dst: want.src, sport: want.dport, dport: want.sport},
			out: otuple{side: h.in.side, proto: want.proto, src: h.in.dst, dst: h.in.src, sport: h.in.dport, dport: h.in.sport}}
		back.seen = [4]string{want.dst, h.in.src}
		back.dport = h.in.sport
		if want.proto == packet.ICMP {
			back.dport = 0
		}
		o.halves[back.in] = back
		h.other = back
	}
	return ""
}

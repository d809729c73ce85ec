package router

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

var oracleHosts = []string{host, "10.0.0.3", server}
var oracleServers = []string{web, "192.0.2.7", "203.0.113.77"}

// drawRules makes a policy of few addresses and ports, so that rules meet.
func drawRules(r *rapid.T) (rules []oracleRule) {
	addrs := []string{"", "", inside, "10.0.0.2/31", server + "/32", web + "/32", "192.0.2.0/24", "0.0.0.0/0"}
	for range rapid.IntRange(1, 8).Draw(r, "rules") {
		o := oracleRule{action: rapid.SampledFrom([]string{"accept", "accept", "deny", "reject"}).Draw(r, "action"),
			proto: rapid.SampledFrom([]uint8{0, packet.TCP, packet.UDP, packet.ICMP}).Draw(r, "protocol"),
			src:   rapid.SampledFrom(addrs).Draw(r, "source"), dst: rapid.SampledFrom(addrs).Draw(r, "destination")}
		switch rapid.IntRange(0, 3).Draw(r, "direction") {
		case 0:
			o.egress = true
		case 1:
			o.in = true
		}
		if (o.proto == packet.TCP || o.proto == packet.UDP) && rapid.Bool().Draw(r, "has port") {
			o.lo = rapid.Uint16Range(52, 54).Draw(r, "port")
			o.hi = o.lo + rapid.Uint16Range(0, 1).Draw(r, "range")
		}
		switch rapid.IntRange(0, 3).Draw(r, "state") {
		case 0:
			o.new = true
		case 1:
			o.replied = true
		}
		rules = append(rules, o)
	}
	return rules
}

// TestOracle compares the data plane with a plain linear model of policy, flows and
// translation (oracle_test.go): with random rules, destination translation, hairpinning,
// rejection and fragments, nothing passes that the model would drop, what it would pass
// does, translated as in the model and with right checksums, and the invariants hold after
// each packet: counters add up, no two flows share an external tuple, translation has its
// inverse.
func TestOracle(t *testing.T) {
	passed, dropped, split := 0, 0, 0
	rapid.Check(t, func(r *rapid.T) {
		rules := drawRules(r)
		var text []rule
		for i := range rules {
			text = append(text, rules[i].text())
		}
		entries := []ruleset.DNAT{dnat(packet.UDP, ours, 5300, 5300, server, 53), dnat(packet.TCP, ours, 443, 443, server, 52), dnat(packet.UDP, ours, 5400, 5400, server, 54)}
		for i := range entries {
			entries[i].Hairpin = uint8(rapid.IntRange(0, 1).Draw(r, "hairpin"))
		}
		fallback := rapid.SampledFrom([]string{"accept", "deny", "reject"}).Draw(r, "default")
		l := newLabWith(t, func(p *ruleset.Policy) {
			p.DNAT = entries
			p.Settings.DefaultAction = map[string]ruleset.Action{"accept": ruleset.Accept, "deny": ruleset.Deny, "reject": ruleset.Reject}[fallback]
			p.Settings.Fragments = ruleset.FragmentsReassemble
			p.Settings.MaxFlows = 512
		}, text...)
		l.t = fatal{t, r}
		o := newOracle(rules, fallback, entries)
		quiet := 0.0 // seconds since all was forgotten
		var used []pkt
		var sides []int
		draw := func(r *rapid.T) (int, pkt) {
			if len(used) > 0 && rapid.IntRange(0, 2).Draw(r, "again") == 0 {
				// A packet of a known flow, in either direction.
				i := rapid.IntRange(0, len(used)-1).Draw(r, "which")
				p, side := used[i], sides[i]
				if h := o.halves[tupleOf(side, &p)]; h != nil && rapid.Bool().Draw(r, "reply") {
					b := h.other
					p = pkt{src: b.in.src, dst: b.in.dst, sport: b.in.sport, dport: b.in.dport, proto: p.proto, flags: packet.SYN | packet.ACK, seq: 5000, ack: p.seq + 1, win: 1000}
					side = b.in.side
					p.typ = packet.EchoRequest
					if b.reply {
						p.typ = packet.EchoReply
					}
				}
				return side, p
			}
			side := rapid.IntRange(0, 1).Draw(r, "side")
			port := rapid.Uint16Range(52, 54)
			p := pkt{proto: rapid.SampledFrom([]uint8{packet.UDP, packet.UDP, packet.TCP, packet.ICMP}).Draw(r, "protocol"),
				sport: rapid.SampledFrom([]uint16{4000, 4001, 53, 54}).Draw(r, "sport"), dport: port.Draw(r, "dport"), seq: 1000, win: 1000,
				flags: rapid.SampledFrom([]uint8{packet.SYN, packet.SYN, packet.SYN, packet.SYN, packet.ACK, packet.RST, packet.SYN | packet.ACK}).Draw(r, "flags"), typ: packet.EchoRequest}
			if p.proto == packet.ICMP && rapid.IntRange(0, 3).Draw(r, "stray reply") == 0 {
				p.typ = packet.EchoReply
			}
			from, to := oracleHosts, oracleServers
			if side == wan {
				from, to = to, from
			}
			p.src, p.dst = rapid.SampledFrom(from).Draw(r, "from"), rapid.SampledFrom(to).Draw(r, "to")
			way := rapid.IntRange(0, 5).Draw(r, "to the firewall")
			if side == wan && way > 2 && way < 5 {
				way = 0 // straight to hosts nothing passes
			}
			served := rapid.IntRange(0, 3).Draw(r, "other port") > 0 // by an entry of nat.dnat
			switch way {
			case 0, 1:
				p.dst = ours
				if p.proto != packet.ICMP {
					p.dport = rapid.SampledFrom([]uint16{5300, 5400, 443, 4000}).Draw(r, "external port")
					if served && p.proto == packet.TCP {
						p.dport = 443
					} else if served && p.dport != 5300 {
						p.dport = 5400
					}
				}
			case 2:
				p.dst = "10.0.0.1"
			}
			if rapid.IntRange(0, 9).Draw(r, "spoofed") == 0 {
				p.src = rapid.SampledFrom([]string{host, web, ours, "10.0.0.1", "127.0.0.1"}).Draw(r, "spoof")
			}
			if p.src == server && p.dst == ours {
				p.src = host // a server that calls itself by its external address is a scenario of its own
			}
			return side, p
		}
		send := func(r *rapid.T) {
			side, p := draw(r)
			if quiet += 0.01; quiet > 20 {
				return
			}
			p.data = make([]byte, rapid.IntRange(0, 60).Draw(r, "size"))
			for i := range p.data {
				p.data[i] = byte(i + len(p.data))
			}
			ruling := o.rule(side, &p)
			var out [2][]*view
			if cut := p.proto == packet.UDP && len(p.data) > 16 && rapid.IntRange(0, 2).Draw(r, "cut") == 0; cut {
				split++
				fs := fragments(p, [2][6]byte{lanMAC, wanMAC}[side], 36, rapid.Uint16().Draw(r, "id"))
				for _, f := range rapid.Permutation(fs).Draw(r, "order") {
					l.port[side].in = append(l.port[side].in, f)
					l.run()
				}
				for s := range out {
					out[s] = joined(l, s)
				}
			} else {
				l.port[side].in = append(l.port[side].in, p.frame([2][6]byte{lanMAC, wanMAC}[side]))
				l.run()
				out[lan], out[wan] = l.taken(lan), l.taken(wan)
			}
			n := 0
			for s, vs := range out {
				for _, v := range vs {
					if s == side && (p.dst != ours || v.Class == packet.ClassICMPError || v.Flags&packet.RST != 0) || v.Src == ip(ours) && v.Class == packet.ClassICMPError {
						if told := o.rejected[addr(v.Dst).String()]; !told && !(ruling.echoed && v.ICMPType == packet.EchoReply) {
							r.Fatalf("%+v was answered with %v; rules %q, default %s", p, v, text, fallback)
						}
						continue
					}
					if ruling.echoed && v.ICMPType == packet.EchoReply && v.Proto == packet.ICMP {
						continue
					}
					n++
					if why := o.passed(ruling, s, &p, v); why != "" {
						r.Fatalf("side %d, %+v: %s; left %d: %v; rules %q, default %s", side, p, why, s, v, text, fallback)
					}
					if data := v.frame[len(v.frame)-len(p.data):]; !bytes.Equal(data, p.data) {
						r.Fatalf("payload %x became %x", p.data, data)
					}
				}
			}
			if n > 1 || ruling.must && n == 0 {
				r.Fatalf("side %d, %+v: %d left, want 1; drops: %s; rules %q, default %s", side, p, n, l.drops(), text, fallback)
			}
			if n == 1 {
				passed++
				used, sides = append(used, p), append(sides, side)
			} else {
				dropped++
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			// Most of what happens is packets: waiting makes no flow.
			"packet": send, "one more": send, "and another": send, "and one again": send,
			"wait": func(r *rapid.T) {
				l.pass(0.3)
				quiet += 0.3
				l.taken(lan)
				l.taken(wan)
			},
			"forget": func(r *rapid.T) {
				if rapid.IntRange(0, 9).Draw(r, "really") > 0 {
					return
				}
				for range 8 {
					l.pass(1000)
				}
				if n := l.e.flows.Len(); n != 0 {
					r.Fatalf("%d flows after 8000 s", n)
				}
				o.forget()
				quiet, used, sides = 0, nil, nil
				l.taken(lan)
				l.taken(wan)
			},
			"": func(*rapid.T) { l.invariants() },
		})
	})
	t.Logf("%d packets passed, %d did not, %d came in fragments", passed, dropped, split)
	if passed < 100 || dropped < 100 || split < 10 {
		t.Error("that is too few to prove anything")
	}
}

// joined takes what left by a side and puts fragments together: by hand, in
// order of their offsets.
func joined(l *lab, side int) (vs []*view) {
	l.t.Helper()
	type id struct {
		src, dst uint32
		id       uint16
	}
	parts := map[id]map[int][]byte{}
	length := map[id]int{}
	head := map[id][]byte{}
	var rest [][]byte
	for _, f := range l.port[side].out {
		h := f[packet.EthLen:]
		off := int(binary.BigEndian.Uint16(h[6:])&0x1fff) * 8
		more := h[6]&0x20 != 0
		if packet.Type(f) != packet.TypeIPv4 || off == 0 && !more {
			rest = append(rest, f)
			continue
		}
		k := id{binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:]), binary.BigEndian.Uint16(h[4:])}
		if packet.Sum(h[:20], 0) != 0xffff {
			l.t.Fatalf("a fragment's header checksum is wrong: %x", f)
		}
		if parts[k] == nil {
			parts[k] = map[int][]byte{}
		}
		total := int(binary.BigEndian.Uint16(h[2:]))
		parts[k][off] = h[20:total]
		if !more {
			length[k] = off + total - 20
		}
		if off == 0 {
			head[k] = f[:packet.EthLen+20]
		}
	}
	for k, ps := range parts {
		data := make([]byte, 0, length[k])
		for len(data) < length[k] {
			p := ps[len(data)]
			if len(p) == 0 {
				l.t.Fatalf("fragments of %v do not join: %d of %d bytes", k, len(data), length[k])
			}
			data = append(data, p...)
		}
		f := append(bytes.Clone(head[k]), data...)
		h := f[packet.EthLen:]
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
		h[6], h[7] = 0, 0
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h[:20], 0))
		rest = append(rest, f)
	}
	l.port[side].out = rest
	return l.taken(side)
}

package explain_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// randomPolicy writes a small policy of what packets can meet: both kinds of
// NAT, rules of all actions and directions, shadow rules, the DNS proxy.
func randomPolicy(r *rand.Rand) string {
	var b strings.Builder
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	maybe := func(key string, words ...string) string {
		if r.IntN(2) == 0 {
			return ""
		}
		return ", " + key + ": " + pick(words...)
	}
	fmt.Fprintf(&b, "interfaces:\n  lan0: { address: 10.0.0.1/24 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\n")
	dns := maybe("upstream_dns", "9.9.9.9")
	names := dns != ""
	fmt.Fprintf(&b, "defaults: { default_action: %s, max_flows: 1024%s }\n", pick("accept", "deny", "reject"), dns)
	fmt.Fprintf(&b, "dns: { intercept: %s%s%s%s%s }\n", pick("true", "false"), maybe("block", "b.example", "b.example", "'*.a.example'", "[www.a.example, x.org]"),
		maybe("private_names", "a.example", "'*.b.example'", "['*.a.example', a.example, '*.b.example']", "['*.a.example', a.example, '*.b.example']"), maybe("ttl_floor", "20", "100"), maybe("ttl_grace", "5", "30"))
	b.WriteString("nat:\n  snat:\n")
	for range r.IntN(3) {
		fmt.Fprintf(&b, "    - { out_interface: wan0, port_range: 30000-30999%s, %s }\n", maybe("source", "10.0.0.0/25", "10.0.0.5", "[10.0.0.5, 10.0.0.128/25]"), pick("masquerade: true", "external_ip: 203.0.113.10", "external_ip: 198.51.100.7", "external_ip: [203.0.113.11, 198.51.100.7]"))
	}
	b.WriteString("    - { out_interface: wan0, source: 10.0.0.9, port_range: 30000-30999, masquerade: true }\n  dnat:\n")
	for port := range 2 + r.IntN(3) {
		fmt.Fprintf(&b, "    - { wan_ip: %s, wan_port: %d, to: \"10.0.0.%s:%s\", proto: %s%s%s }\n", pick("203.0.113.10", "203.0.113.20"), []int{53, 80, 443, 8000, 8001}[port], pick("5", "6"),
			pick("80", "443", "8000"), pick("tcp", "udp", "[tcp, udp]"), maybe("from", "198.51.100.0/25", "10.0.0.0/25", "any"), maybe("hairpin", "true", "false"))
	}
	b.WriteString("rules:\n  - { id: ask, action: accept, direction: egress, protocol: udp, destination: 10.0.0.1, destination_port: 53 }\n")
	if names && r.IntN(2) == 0 {
		b.WriteString("  - { id: named, action: accept, direction: egress, destination_fqdn: [a.example, '*.a.example', '*.b.example'] }\n")
	}
	for i := range 1 + r.IntN(8) {
		ports := ""
		proto := pick("", "tcp", "udp", "icmp", "[tcp, udp]")
		if proto != "" {
			if !strings.Contains(proto, "icmp") {
				ports = maybe("destination_port", "80", "53", "443", "[80, 8000-8100]", "1-1023")
			}
			proto = ", protocol: " + proto
		}
		action, direction := pick("accept", "accept", "deny", "reject"), maybe("direction", "egress", "ingress")
		to := maybe("destination", "10.0.0.5", "10.0.0.0/28", "10.0.0.1", "198.51.100.0/25", "192.0.2.0/24", "203.0.113.20")
		if names && action == "accept" && !strings.Contains(direction, "ingress") && r.IntN(3) != 0 {
			to = ", destination_fqdn: " + pick("a.example", "'*.a.example'", "host.b.example", "[www.a.example, '*.b.example']")
		}
		fmt.Fprintf(&b, "  - { id: r%d, action: %s%s%s%s%s%s%s%s }\n", i, action, direction, proto, ports,
			maybe("source", "10.0.0.0/25", "10.0.0.5", "198.51.100.0/25", "192.0.2.0/24"), to,
			maybe("state", "new", "established", "[new, established]"), []string{"", "", "", ", mode: shadow"}[r.IntN(4)])
	}
	return b.String()
}

// frameOf builds the first packet of a flow.
func frameOf(f policy.Flow, dst, src [6]byte) []byte {
	put := binary.BigEndian.PutUint16
	l4 := make([]byte, 20)
	proto := byte(6)
	switch f.Protocol {
	case policy.TCP:
		put(l4, f.Src.Port())
		put(l4[2:], f.Dst.Port())
		l4[12], l4[13] = 5<<4, 2 // SYN
		put(l4[14:], 65535)
	case policy.UDP:
		proto = 17
		put(l4, f.Src.Port())
		put(l4[2:], f.Dst.Port())
		put(l4[4:], 20)
	case policy.ICMP:
		proto = 1
		l4[0] = 8
		put(l4[4:], 77)
	default:
		proto = byte(f.Protocol)
	}
	b := append(append(append([]byte{}, dst[:]...), src[:]...), 8, 0)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, proto
	put(ip[2:], 40)
	s, d := f.Src.Addr().As4(), f.Dst.Addr().As4()
	copy(ip[12:], s[:])
	copy(ip[16:], d[:])
	put(ip[10:], checksum(ip))
	switch proto {
	case 1:
		put(l4[2:], checksum(l4))
	case 6, 17:
		c := checksum(append(append(append(append([]byte{}, s[:]...), d[:]...), 0, proto, 0, 20), l4...))
		put(l4[map[byte]int{6: 16, 17: 6}[proto]:], c)
	}
	return append(append(b, ip...), l4...)
}

// checksum is the internet checksum of an even number of bytes (RFC 1071).
func checksum(b []byte) uint16 {
	var n uint32
	for i := 0; i < len(b); i += 2 {
		n += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for n>>16 != 0 {
		n = n&0xffff + n>>16
	}
	return ^uint16(n)
}

// sent is a frame that left.
type sent struct {
	side     replay.Side
	src, dst netip.Addr
	port     uint16
}

// TestDecideOnRandomPolicies: for random policies and first packets, what
// explain, test and suggest say is what the data plane does: which rule decides,
// for which reason, and what leaves where with which addresses.
func TestDecideOnRandomPolicies(t *testing.T) {
	const seed = 20261125
	r := rand.New(rand.NewPCG(seed, 1))
	const policies = 80
	reasons := map[verdict.Reason]int{}
	met := map[string]int{}
	for n := range policies {
		src := randomPolicy(r)
		p, ds := policy.Load("random.yaml", []byte(src))
		if p == nil && !slices.ContainsFunc(ds, func(d policy.Diagnostic) bool { return d.Severity == policy.Error && d.Code != "before-dnat" }) {
			continue // a rule that would never match
		}
		if p == nil {
			t.Fatalf("%v\n%s", ds, src)
		}
		rs, err := compile.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			addrs := []string{"10.0.0.1", "10.0.0.5", "10.0.0.6", "10.0.0.9", "10.0.0.130", "198.51.100.66", "198.51.100.200", "192.0.2.1", "203.0.113.1", "203.0.113.10", "203.0.113.11", "203.0.113.20", "198.51.100.7", "169.254.1.1", "10.0.0.255", "127.0.0.1"}
			f := policy.Flow{FromLAN: r.IntN(2) == 0, Protocol: []policy.Protocol{6, 6, 17, 17, 1, 1, 47, 50, 132, 253}[r.IntN(10)]}
			from := addrs[5:9]
			if f.FromLAN {
				from = addrs[1:5]
			}
			if r.IntN(10) == 0 {
				from = addrs
			}
			sport, dport := uint16(20000+r.IntN(40000)), []uint16{53, 80, 443, 8000, 8001, 22}[r.IntN(6)]
			if f.Protocol != policy.TCP && f.Protocol != policy.UDP {
				sport, dport = 0, 0
			}
			f.Src = netip.AddrPortFrom(netip.MustParseAddr(from[r.IntN(len(from))]), sport)
			f.Dst = netip.AddrPortFrom(netip.MustParseAddr(addrs[r.IntN(len(addrs))]), dport)
			var asked *question
			if f.FromLAN && strings.Contains(src, "upstream_dns") && r.IntN(4) != 0 {
				f.Src = netip.AddrPortFrom(netip.MustParseAddr(addrs[1+r.IntN(4)]), f.Src.Port())
				asked = randomQuestion(r, p, &f)
			}
			o := explain.Decide(p, rs, f)
			reasons[o.Reason]++

			var events []event.Record
			var texts []string // names in events
			var out []sent
			var last [2][]byte // frames that left, by side
			fw, err := replay.NewFirewall(replay.Config{Policy: rs, Seed: seed, Buffers: 512,
				Neighbour: func(replay.Side, packet.Addr) ([6]byte, bool) { return [6]byte{2, 9, 9, 9, 9, 9}, true },
				Event: func(e *event.Record, name []byte) {
					if e.Kind == event.Verdict && (e.Action == verdict.Accept || e.Action == verdict.Drop) {
						events, texts = append(events, *e), append(texts, string(name))
					}
				},
				Sent: func(s replay.Side, _ int64, b []byte) {
					last[s] = bytes.Clone(b)
					if len(b) >= 38 && b[12] == 8 && b[13] == 0 {
						out = append(out, sent{s, netip.AddrFrom4([4]byte(b[26:])), netip.AddrFrom4([4]byte(b[30:])), binary.BigEndian.Uint16(b[36:])})
					}
				}})
			if err != nil {
				t.Fatal(err)
			}
			side := replay.WAN
			if f.FromLAN {
				side = replay.LAN
			}
			at := replay.Start + int64(1e9)
			if asked != nil {
				at = asked.ask(t, fw, &last)
				events, texts, out = nil, nil, nil
			}
			fw.Receive(side, at, frameOf(f, fw.MAC(side), [6]byte{2, 9, 9, 9, 9, 9}))
			first, took := len(events), slices.Clone(out)
			fw.Advance(at + 7e9) // a rejected SYN is answered after six seconds
			problem := compare(p, f, &o, side, events, out)
			if problem == "" {
				problem = reproduced(p, rs, events, texts, met)
			}
			if problem == "" && o.Accept && !o.Local && len(took) > 0 {
				// And the answer.
				events, texts = events[:first], texts[:first]
				back := took[0].side
				fw.Receive(back, at+8e9, answerTo(last[took[0].side], fw.MAC(back)))
				fw.Advance(at + 9e9)
				if problem = reproduced(p, rs, events[first:], texts[first:], met); len(events) == first {
					problem = "no event about the answer"
				}
				met["answers"] += len(events) - first
			}
			if problem != "" {
				t.Fatalf("policy %d: %v: %s\n%s\nevents %+v\nnames %q\nframes %v\noutcome %+v", n, f, problem, src, events, texts, out, o)
			}
			met[o.Hint.Name()]++
			if len(o.Names) > 0 {
				met["named"]++
			}
			if o.Asked && o.Action == ruleset.Reject && !f.Protocol.Forwarded() {
				met["other protocol rejected"]++
			}
			if f.FQDN != "" && o.Local {
				met["own address named"]++
			}
		}
	}
	for _, why := range []verdict.Reason{verdict.RuleAccept, verdict.DefaultAction, verdict.ExplicitDeny, verdict.NoMatchingAllowRule, verdict.Martian, verdict.HairpinUnsupported, verdict.NoLocalService, verdict.UntranslatedDestination} {
		if reasons[why] == 0 {
			t.Errorf("no packet met %v: %v", why, reasons)
		}
	}
	for _, what := range []string{"name_expired", "name_resolved_by_other_client", "named", "other protocol rejected", "own address named", "answers", "reproduced", "conntrack_invalid"} {
		if met[what] == 0 {
			t.Errorf("no packet met %q: %v", what, met)
		}
	}
}

// compare returns where an outcome and what happened differ.
func compare(p *policy.Policy, f policy.Flow, o *explain.Outcome, side replay.Side, events []event.Record, out []sent) string {
	dns := o.Accept && o.Local && f.Protocol != policy.ICMP
	if len(events) == 0 && dns && f.Protocol == policy.TCP {
		return "" // the connection is told of when it is up
	}
	if len(events) == 0 {
		return "no event"
	}
	e := &events[0]
	switch {
	case (e.Action == verdict.Accept) != o.Accept:
		return fmt.Sprintf("it is %v for %v, want accept %v", e.Action, e.Reason, o.Accept)
	case e.Reason != o.Reason:
		return fmt.Sprintf("the reason is %v, want %v", e.Reason, o.Reason)
	case o.Hint != 0 && e.Hint != o.Hint, o.Hint == 0 && e.Hint.Name() != "":
		return fmt.Sprintf("the hint is %q, want %q", e.Hint.Name(), o.Hint.Name())
	case o.Asked && (o.Accept || o.Action != ruleset.Accept) && int(e.Rule) != o.Rule:
		return fmt.Sprintf("rule %d decides, want %d", e.Rule, o.Rule)
	}
	if !o.Accept || dns {
		for _, v := range out {
			if v.dst != f.Src.Addr() && !dns {
				return fmt.Sprintf("a frame to %v", v.dst)
			}
		}
		return ""
	}
	if o.Local {
		if len(out) != 1 || out[0].side != side || out[0].dst != f.Src.Addr() {
			return "no echo reply"
		}
		return ""
	}
	if len(out) == 0 {
		return "nothing leaves"
	}
	v := out[0]
	want := replay.LAN
	if f.FromLAN && o.DNAT < 0 {
		want = replay.WAN
	}
	switch {
	case v.side != want:
		return fmt.Sprintf("it leaves by the %v", v.side)
	case v.dst != o.Seen.Dst.Addr() || f.Protocol != policy.ICMP && v.port != o.Seen.Dst.Port():
		return fmt.Sprintf("it goes to %v:%d, want %v", v.dst, v.port, o.Seen.Dst)
	case len(o.SNAT) == 0 && v.src != f.Src.Addr(), len(o.SNAT) > 0 && !slices.Contains(o.SNAT, v.src):
		return fmt.Sprintf("its source is %v, want one of %v", v.src, o.SNAT)
	}
	return ""
}

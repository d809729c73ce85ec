package check

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestUnreachableIsExact: on random policies over a small world, the rules that
// are reported as dead are those that no packet of it reaches, and taking away
// what is said to cover one makes it reachable.
func TestUnreachableIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(20261125, 2))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	dead, alive := 0, 0
	for range 400 {
		var b strings.Builder
		b.WriteString("interfaces:\n  lan0: { address: 10.0.0.1/29 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\ndefaults: { default_action: deny, upstream_dns: 9.9.9.9 }\nrules:\n")
		for i := range 2 + r.IntN(9) {
			fmt.Fprintf(&b, "  - { id: r%d", i)
			field := func(odds int, key string, words ...string) {
				if r.IntN(odds) > 0 {
					fmt.Fprintf(&b, ", %s: %s", key, pick(words...))
				}
			}
			names := r.IntN(4) == 0
			if names {
				fmt.Fprintf(&b, ", action: accept, direction: egress, destination_fqdn: %s", pick("a.example.com", "\"*.example.com\"", "[a.example.com, b.example.com]"))
			} else {
				fmt.Fprintf(&b, ", action: %s", pick("accept", "deny"))
				field(2, "direction", "egress", "ingress")
			}
			field(3, "source", "10.0.0.0/30", "10.0.0.4/30", "[10.0.0.0/31, 10.0.0.2/31]", "10.0.0.0/29")
			field(2, "destination", "198.51.100.0/31", "198.51.100.2/31", "198.51.100.0/30", "0.0.0.0/0")
			switch r.IntN(3) {
			case 0:
				fmt.Fprintf(&b, ", protocol: %s", pick("tcp", "udp", "icmp", "[tcp, udp, icmp]"))
			case 1:
				fmt.Fprintf(&b, ", protocol: %s, destination_port: %s", pick("tcp", "[tcp, udp]"), pick("1-3", "2-4", "[1, 2]", "[3, 4]", "1-65535"))
			}
			field(2, "state", "new", "established", "[new, established]")
			if r.IntN(8) == 0 {
				b.WriteString(", mode: shadow")
			}
			b.WriteString(" }\n")
		}
		p, ds := policy.Load("random.yaml", []byte(b.String()))
		if p == nil {
			t.Fatalf("%v\n%s", ds, b.String())
		}
		rs, err := compile.Tables(p)
		if err != nil {
			t.Fatal(err)
		}
		reached := reachedRules(p, rs)
		found, all := unreachable(rs)
		if !all {
			t.Fatal("not all were looked at")
		}
		for i := range p.Rules {
			at := slices.IndexFunc(found, func(d deadRule) bool { return d.rule == i })
			if reached[i] == (at >= 0) {
				t.Fatalf("rule %q: reached by a packet: %v, reported as dead: %v\n%s", p.Rules[i].ID, reached[i], at >= 0, b.String())
			}
			if at < 0 {
				alive++
				continue
			}
			dead++
			without := *p
			without.Rules = nil
			for j := range p.Rules {
				if !slices.Contains(found[at].by, j) {
					without.Rules = append(without.Rules, p.Rules[j])
				}
			}
			s, err := compile.Tables(&without)
			if err != nil {
				t.Fatal(err)
			}
			k := slices.IndexFunc(without.Rules, func(v policy.Rule) bool { return v.ID == p.Rules[i].ID })
			if !reachedRules(&without, s)[k] {
				// Others may cover it as well; what is named must then do so alone.
				only := *p
				only.Rules = nil
				for j := range i + 1 {
					if j == i || slices.Contains(found[at].by, j) {
						only.Rules = append(only.Rules, p.Rules[j])
					}
				}
				s, err := compile.Tables(&only)
				if err != nil {
					t.Fatal(err)
				}
				if reachedRules(&only, s)[len(only.Rules)-1] {
					t.Fatalf("rule %q: %v do not cover it\n%s", p.Rules[i].ID, found[at].by, b.String())
				}
			}
		}
	}
	if dead < 100 || alive < 100 {
		t.Errorf("%d dead, %d alive: too few to say anything", dead, alive)
	}
}

// reachedRules says which rules some packet of the small world reaches: a rule
// is reached when it decides, or would if shadow rules were enforced.
func reachedRules(p *policy.Policy, rs *ruleset.Policy) []bool {
	reached := make([]bool, len(p.Rules)+1)
	f := linear.New(rs)
	var sets [][]uint32
	for _, name := range []string{"", "a.example.com", "b.example.com", "c.example.com"} {
		var ns []uint32
		for i := range rs.Names {
			if policy.MatchesName([]string{compile.Pattern(rs, &rs.Names[i])}, name) {
				ns = append(ns, uint32(i))
			}
		}
		if !slices.ContainsFunc(sets, func(o []uint32) bool { return slices.Equal(o, ns) }) {
			sets = append(sets, ns)
		}
	}
	base := policy.Number(netip.MustParseAddr("10.0.0.0"))
	dst := policy.Number(netip.MustParseAddr("198.51.100.0"))
	for _, d := range []verdict.Direction{verdict.Egress, verdict.Ingress} {
		for _, st := range []uint8{ruleset.StateNew, ruleset.StateEstablished} {
			for _, proto := range []uint8{1, 6, 17, 47} {
				ports := []uint16{0}
				if proto == 6 || proto == 17 {
					ports = []uint16{0, 1, 2, 3, 4, 5}
				}
				for s := range 9 {
					for e := range 5 {
						for _, port := range ports {
							for _, ns := range sets {
								v := f.Decide(&filter.Packet{Src: base + packet.Addr(s), Dst: dst + packet.Addr(e), DstPort: port, Proto: proto, Direction: d, State: st, Names: ns})
								reached[v.Rule] = true
								if v.Shadow != filter.NoRule {
									reached[v.Shadow] = true
								}
							}
						}
					}
				}
			}
		}
	}
	return reached
}

package diff

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func load(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, ds := policy.Load("rules.yaml", []byte(text))
	if p == nil {
		for _, d := range ds {
			if d.Severity == policy.Error {
				t.Error(d)
			}
		}
		t.FailNow()
	}
	return p
}

const diffHead = `interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
`

// randomRules returns a policy of a few rules over few values.
func randomRules(r *rand.Rand) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sdefaults: { default_action: %s, upstream_dns: 192.0.2.53 }\nrules:\n", diffHead, []string{"deny", "deny", "accept", "reject"}[r.IntN(4)])
	n := 1 + r.IntN(4)
	for i := range n {
		action := []string{"accept", "accept", "deny", "reject"}[r.IntN(4)]
		fmt.Fprintf(&b, "  - { id: r%d, action: %s", r.IntN(2)*10+i, action)
		dir := []string{"", "egress", "ingress"}[r.IntN(3)]
		if dir != "" {
			fmt.Fprintf(&b, ", direction: %s", dir)
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, ", state: %s", []string{"new", "established"}[r.IntN(2)])
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, ", source: [%s]", []string{"10.0.0.0/30", "10.0.0.2, 10.0.0.3", "10.0.0.0/24", "10.0.0.4/31, 10.0.0.2"}[r.IntN(4)])
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, ", destination: %s", []string{"10.0.0.0/30", "10.0.0.2", "192.0.2.0/24", "192.0.2.128/25"}[r.IntN(4)])
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, ", protocol: %s", []string{"tcp", "udp", "[tcp, udp]"}[r.IntN(3)])
			if r.IntN(2) == 0 {
				fmt.Fprintf(&b, ", destination_port: %s", []string{"80", "80-90", "[22, 80-85]", "1-65535"}[r.IntN(4)])
			}
		} else if r.IntN(4) == 0 {
			b.WriteString(", protocol: icmp")
		}
		if action == "accept" && dir != "ingress" && r.IntN(2) == 0 {
			fmt.Fprintf(&b, ", destination_fqdn: %s", []string{"a.x.org", `"*.x.org"`, `[b.x.org, c.y.org]`, `"*.y.org"`}[r.IntN(4)])
		}
		if r.IntN(6) == 0 && action != "reject" {
			b.WriteString(", mode: shadow")
		}
		b.WriteString(" }\n")
	}
	return b.String()
}

// TestDiffIsExact compares with the linear scan of both policies on every packet
// that can make a difference: each value at which a condition of either begins,
// ends, or has just ended, in all combinations.
func TestDiffIsExact(t *testing.T) {
	differed := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 11))
		ta, tb := randomRules(r), randomRules(r)
		if seed%3 == 0 { // a small change
			tb = strings.Replace(ta, "10.0.0.0/30", "10.0.0.0/31", 1)
			tb = strings.Replace(tb, "80-90", "81-90", 1)
		}
		a, b := load(t, ta), load(t, tb)
		sa, err := compile.Tables(a)
		if err != nil {
			t.Fatal(err)
		}
		sb, err := compile.Tables(b)
		if err != nil {
			t.Fatal(err)
		}
		c := &comparison{policies: [2]*policy.Policy{a, b}, ids: map[Decision]int{}, Space: packetset.NewSpace(append(compile.Patterns(sa), compile.Patterns(sb)...))}
		w := &walker{Space: c.Space, found: map[[2]int][]packetset.Region{}}
		var conds [2][]*cond
		for i, s := range [...]*ruleset.Policy{sa, sb} {
			conds[i] = c.conds(i, s)
			w.def[i] = c.decision(c.byDefault(i))
		}
		w.run(conds[0], conds[1])
		for k, rs := range w.found {
			w.found[k] = c.Merge(rs)
		}
		// The packets.
		var edge [packetset.NumRanges][]uint32
		for d, m := range packetset.All().Hi {
			edge[d] = []uint32{0}
			for _, cs := range conds {
				for _, x := range cs {
					edge[d] = append(edge[d], x.Lo[d])
					if x.Hi[d] < m {
						edge[d] = append(edge[d], x.Hi[d]+1)
					}
				}
			}
			slices.Sort(edge[d])
			edge[d] = slices.Compact(edge[d])
		}
		la, lb := linear.New(sa), linear.New(sb)
		names := c.Patterns()
		for set := range 1 << len(names) {
			feasible := true
			for i, n := range names {
				_, parent, _ := strings.Cut(n, ".")
				if j, ok := slices.BinarySearch(names, "*."+parent); ok {
					feasible = feasible && (set>>i&1 == 0 || set>>j&1 == 1)
				}
			}
			for k := range 16 {
				if !feasible || set != 0 && 1<<k&packetset.Named == 0 || 1<<k&packetset.Reaching == 0 {
					continue // only a LAN host that begins a flow knows names
				}
				for _, src := range edge[packetset.Src] {
					for _, dst := range edge[packetset.Dst] {
						for _, port := range edge[packetset.Port] {
							if 1<<k&packetset.Portless != 0 && port != 0 {
								continue
							}
							q := filter.Packet{Src: packet.Addr(src), Dst: packet.Addr(dst), DstPort: uint16(port), Proto: []uint8{6, 17, 1, 47}[k%packetset.NumClasses], Direction: verdict.Direction(1 + k/packetset.NumClasses%2), State: uint8(1 + k/packetset.NumClasses/2)}
							decide := func(side int, p *policy.Policy, s *ruleset.Policy, l *linear.Filter) int {
								q.Names = nil
								for i := range s.Names {
									j, _ := slices.BinarySearch(names, compile.Pattern(s, &s.Names[i]))
									if set>>j&1 == 1 {
										q.Names = append(q.Names, uint32(i))
									}
								}
								v := l.Decide(&q)
								if k%packetset.NumClasses == packetset.Other && v.Action != ruleset.Reject {
									return c.decision(dropped) // see TestDecideOnRandomPolicies
								}
								if int(v.Rule) == len(p.Rules) {
									return w.def[side]
								}
								return c.decision(Decision{Action: p.Rules[v.Rule].Action.String(), Rule: p.Rules[v.Rule].ID})
							}
							x, y := decide(0, a, sa, la), decide(1, b, sb, lb)
							hits := 0
							for key, rs := range w.found {
								for i := range rs {
									if holds(c.Space, &rs[i], k, src, dst, port, set) {
										hits++
										if key != [2]int{x, y} {
											t.Fatalf("seed %d: packet %+v names %b goes from %v to %v, the diff says %v to %v\n%s%s", seed, q, set, c.decisions[x], c.decisions[y], c.decisions[key[0]], c.decisions[key[1]], ta, tb)
										}
									}
								}
							}
							if want := map[bool]int{true: 1, false: 0}[x != y]; hits != want {
								t.Fatalf("seed %d: packet %+v names %b goes from %v to %v and is in %d sets of the diff, want %d\n%s%s", seed, q, set, c.decisions[x], c.decisions[y], hits, want, ta, tb)
							}
							if x != y {
								differed++
							}
						}
					}
				}
			}
		}
	}
	if differed < 10000 {
		t.Errorf("only %d packets differed", differed)
	}
}

// holds reports whether a packet is in a region; names is a set of patterns.
func holds(s *packetset.Space, r *packetset.Region, kind int, src, dst, port uint32, names int) bool {
	yes, no := s.NamesOf(r, false)
	for i, n := range s.Patterns() {
		if slices.Contains(yes, n) && names>>i&1 == 0 || slices.Contains(no, n) && names>>i&1 == 1 {
			return false
		}
	}
	return s.Has(&packetset.Region{Box: r.Box}, &packetset.Packet{Value: [...]uint32{src, dst, port}, Kind: uint8(kind)})
}

// TestDiffSame: what means the same is the same, however it is written.
func TestDiffSame(t *testing.T) {
	const a = diffHead + `defaults: { default_action: deny }
rules:
  - { id: web, action: accept, direction: egress, source: 10.0.0.0/24, protocol: tcp, destination_port: [80, 81, 443] }
  - { id: in, action: accept, direction: ingress, protocol: udp, destination: 10.0.0.7, destination_port: 53 }
  - { id: back, action: accept, direction: ingress, state: established }
`
	const b = diffHead + `defaults: { default_action: deny, max_flows: 65536 }
groups: { addresses: { lan: [10.0.0.128/25, 10.0.0.0/25] } }
rules:
  - { id: in, name: "Name server", action: accept, state: [new], direction: ingress, protocol: udp, destination: 10.0.0.7, destination_port: 53 }
  - { id: web, action: accept, direction: egress, source: $lan, protocol: [tcp], destination_port: [443, 80-81] }
  - { id: back, action: accept, direction: ingress, state: established }
`
	d, err := Compare(load(t, a), load(t, strings.Replace(b, "state: [new], ", "", 1)), 0, 0)
	if err != nil || !d.Same() {
		t.Errorf("%v %+v", err, d)
	}
	// With the state, answers from port 53 fall to the last rule.
	if d, err = Compare(load(t, a), load(t, b), 0, 0); err != nil || len(d.Traffic) != 1 || d.Traffic[0].From.Rule != "in" || d.Traffic[0].To.Rule != "back" {
		t.Errorf("%v %+v", err, d)
	}
}

// TestDiffOtherProtocols: what changes for protocols that no rule names is whether
// they are rejected, and by which rule.
func TestDiffOtherProtocols(t *testing.T) {
	const rules = "defaults: { default_action: deny }\nrules:\n  - { id: web, action: accept, protocol: tcp }\n  - { id: rest, action: ACTION }\n"
	with := func(action string) *policy.Policy {
		return load(t, diffHead+strings.Replace(rules, "ACTION", action, 1))
	}
	others := func(d *Diff) (n int, last string) {
		for i := range d.Traffic {
			for j := range d.Traffic[i].Packets {
				if slices.Contains(d.Traffic[i].Packets[j].Protocols, "other") {
					n, last = n+1, d.Traffic[i].From.String()+" -> "+d.Traffic[i].To.String()
				}
			}
		}
		return n, last
	}
	for _, c := range []struct{ old, new, want string }{
		{"deny", "reject", "drop -> reject by rest (rules.yaml:7)"},
		{"reject", "accept", "reject by rest (rules.yaml:7) -> drop"},
		{"deny", "accept", ""},
		{"reject", "reject", ""},
	} {
		d, err := Compare(with(c.old), with(c.new), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, got := others(d); got != c.want || n > 1 {
			t.Errorf("%s to %s: %d sets of other protocols, %q, want %q", c.old, c.new, n, got, c.want)
		}
	}
}

// thousand returns a policy of n rules of all sorts, of which some are changed.
func thousand(n, changed int) string {
	r := rand.New(rand.NewPCG(5, 6))
	other := rand.New(rand.NewPCG(7, 8))
	var b strings.Builder
	b.WriteString("interfaces:\n  lan0: { address: 10.0.0.1/8 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\ndefaults: { default_action: deny }\nrules:\n")
	for i := range n {
		g := r
		net, ip, port, kind, act := g.IntN(250), g.IntN(250), 1+g.IntN(60000), g.IntN(5), g.IntN(4)
		if changed > 0 && i%(n/changed) == 0 {
			net, ip, port = other.IntN(250), other.IntN(250), 1+other.IntN(60000)
		}
		action := "accept"
		if act == 0 {
			action = "deny"
		}
		fmt.Fprintf(&b, "  - { id: r%d, action: %s, ", i, action)
		switch kind {
		case 0:
			fmt.Fprintf(&b, "direction: egress, protocol: tcp, source: 10.%d.0.0/16, destination_port: %d", net, port)
		case 1:
			fmt.Fprintf(&b, "direction: egress, source: 10.%d.%d.0/24, destination: 198.51.%d.0/24", net, ip, ip)
		case 2:
			fmt.Fprintf(&b, "direction: egress, destination: [192.%d.%d.0/24, 198.18.%d.0/24]", net, ip, ip)
		case 3:
			fmt.Fprintf(&b, "direction: ingress, protocol: [tcp, udp], destination: 10.%d.0.%d, destination_port: [%d-%d, %d]", net, ip, port, port+100, 1+port/2)
		case 4:
			fmt.Fprintf(&b, "source: 10.%d.%d.%d", net, ip, net)
		}
		b.WriteString(" }\n")
	}
	b.WriteString("  - { id: back, action: accept, direction: ingress, state: established }\n")
	return b.String()
}

// cpu is the processor time of this process, which other load on the machine
// does not stretch.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestDiffThousandRules: two policies of 1,000 rules are compared in less than
// 5 seconds, whether one rule differs, a hundred, or the first denies all.
func TestDiffThousandRules(t *testing.T) {
	old := thousand(1000, 0)
	a := load(t, old)
	for _, c := range []struct {
		name, text string
		least      int
		limit      int
	}{
		{"one rule", thousand(1000, 1), 1, 0},
		{"ten rules", thousand(1000, 10), 10, 0},
		{"a hundred rules", thousand(1000, 100), 100, 0},
		{"a deny for all in front", strings.Replace(old, "rules:\n", "rules:\n  - { id: stop, action: deny, protocol: tcp }\n", 1), 100, 200000},
		{"another default", strings.Replace(old, "default_action: deny", "default_action: accept", 1), 1, 200000},
		{"the same", old, 0, 0},
	} {
		b := load(t, c.text)
		start := cpu()
		d, err := Compare(a, b, c.limit, 20)
		if err != nil {
			t.Fatal(err)
		}
		took := cpu() - start
		boxes := 0
		for i := range d.Traffic {
			boxes += d.Traffic[i].Sets
		}
		t.Logf("%s: %d changes, %d sets of packets, %v", c.name, len(d.Traffic), boxes, took)
		if d.Complete != (c.limit == 0) {
			t.Errorf("%s: complete: %v", c.name, d.Complete)
		}
		if len(d.Traffic) < c.least || took > 5*time.Second {
			t.Errorf("%s: %d changes in %v, want at least %d in less than 5 s", c.name, len(d.Traffic), took, c.least)
		}
	}
}

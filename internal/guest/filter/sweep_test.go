package filter

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/ruleset/rulesettest"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A variant is a kind of rule set, by the match of rule i of n.
type variant struct {
	name string
	rule func(r *rand.Rand, i, n int) ruleset.Match
}

func prefix(v uint32, length int) (a, m ruleset.Addr) {
	if length == 0 {
		return a, m
	}
	mask := ^uint32(0) << (32 - length)
	a, m = packet.Addr(v&mask).To16(), packet.Addr(mask).To16()
	for i := range m[:10] {
		m[i] = 0xff
	}
	return a, m
}

// variants are the rule sets of the sweep.
var variants = []variant{
	// Each rule has a source of its own, as a list of allowed or blocked
	// hosts and networks has.
	{"source prefixes", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535}
		m.Src, m.SrcMask = prefix(r.Uint32(), []int{32, 32, 24, 24, 22, 20, 16}[r.IntN(7)])
		return m
	}},
	// Networks of one site to networks elsewhere.
	{"prefix pairs", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535, Proto: packet.TCP, Direction: verdict.Egress}
		m.Src, m.SrcMask = prefix(10<<24|r.Uint32N(1<<24), []int{32, 28, 24, 24, 20, 16, 8}[r.IntN(7)])
		m.Dst, m.DstMask = prefix(r.Uint32(), []int{32, 32, 28, 24, 24, 20, 16}[r.IntN(7)])
		m.PortLo, m.PortHi = 443, 443
		return m
	}},
	// One network, many ports and ranges.
	{"ports", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{Proto: []uint8{packet.TCP, packet.UDP}[r.IntN(2)]}
		m.Src, m.SrcMask = prefix(10<<24, 8)
		m.PortLo = uint16(1 + r.IntN(65000))
		m.PortHi = m.PortLo
		if r.IntN(4) == 0 {
			m.PortHi += uint16(r.IntN(500))
		}
		return m
	}},
	// Everything together: who may go where at which port, who may not, and
	// some rules that leave most open.
	{"mixed", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535, Proto: []uint8{0, packet.TCP, packet.TCP, packet.UDP}[r.IntN(4)], Direction: verdict.Direction(r.IntN(3))}
		if k := r.IntN(4); k != 0 {
			m.Src, m.SrcMask = prefix([]uint32{10 << 24, 172<<24 | 16<<16, 192<<24 | 168<<16}[r.IntN(3)]|r.Uint32N(1<<16), []int{32, 30, 24, 24, 22}[r.IntN(5)])
			if k == 1 {
				m.Proto = max(m.Proto, packet.TCP)
				m.PortLo = []uint16{22, 53, 80, 443, 8080, uint16(r.IntN(65535))}[r.IntN(6)]
				m.PortHi = m.PortLo + uint16(r.IntN(3)*r.IntN(100))
			}
		}
		if m.SrcMask == (ruleset.Addr{}) || r.IntN(2) == 0 {
			m.Dst, m.DstMask = prefix(r.Uint32(), []int{32, 32, 24, 24, 16, 12}[r.IntN(6)])
		}
		return m
	}},
}

func (v *variant) policy(n int) *ruleset.Policy {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	p := &ruleset.Policy{Interfaces: rulesettest.Interfaces(), Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
	for i := range n {
		m := v.rule(r, i, n)
		m.Rule, m.Action = uint32(i), ruleset.Action(1+r.IntN(2))
		p.Matches = append(p.Matches, m)
		p.Rules = append(p.Rules, ruleset.Rule{Action: m.Action})
	}
	return p
}

// packetFor returns a random packet that match m covers.
func packetFor(r *rand.Rand, m *ruleset.Match) Packet {
	sm, dm := uint32(packet.Mask(m.SrcMask)), uint32(packet.Mask(m.DstMask))
	s, _ := packet.AddrFrom16(m.Src)
	d, _ := packet.AddrFrom16(m.Dst)
	p := Packet{Src: s | packet.Addr(r.Uint32()&^sm), Dst: d | packet.Addr(r.Uint32()&^dm), Proto: m.Proto, Direction: m.Direction, State: m.State & -m.State}
	p.DstPort = m.PortLo + uint16(r.IntN(int(m.PortHi-m.PortLo)+1))
	if p.Proto == 0 {
		p.Proto = packet.TCP
	}
	if p.Direction == verdict.Either {
		p.Direction = verdict.Direction(1 + r.IntN(2))
	}
	if p.State == 0 {
		p.State = 1 << r.IntN(2)
	}
	return p
}

// numPackets is the number of different packets of a measurement: the same for
// all sizes of policies.
const numPackets = 8192

// packets returns packets whose match lies at a place: the first rule, the
// last, any, or none.
func packets(p *ruleset.Policy, place string) []Packet {
	r := rand.New(rand.NewPCG(3, uint64(len(p.Matches))))
	ps := make([]Packet, numPackets)
	for i := range ps {
		n := len(p.Matches)
		switch place {
		case "first":
			ps[i] = packetFor(r, &p.Matches[0])
		case "last":
			ps[i] = packetFor(r, &p.Matches[n-1])
		case "any":
			ps[i] = packetFor(r, &p.Matches[r.IntN(n)])
		case "none":
			ps[i] = Packet{Src: packet.Addr(r.Uint32()), Dst: packet.Addr(r.Uint32()), Proto: packet.ICMP, Direction: verdict.Ingress, State: ruleset.StateNew}
		}
	}
	return ps
}

var places = []string{"first", "any", "last", "none"}

// A measurement is decisions of one classifier about some packets.
type measurement struct {
	d  interface{ Decide(*Packet) Verdict }
	ps []Packet
}

// measure returns the times of one decision in nanoseconds, the least of some
// rounds. What is compared is measured in turns, since the machine does other
// things too.
func measure(rounds int, ms ...measurement) []float64 {
	best := make([]float64, len(ms))
	for round := range rounds {
		for i, m := range ms {
			start := time.Now()
			for j := range m.ps {
				sink += m.d.Decide(&m.ps[j]).Rule
			}
			if ns := float64(time.Since(start).Nanoseconds()) / float64(len(m.ps)); round == 0 || ns < best[i] {
				best[i] = ns
			}
		}
	}
	return best
}

// cpu is the processor time of this process, which other load on the machine
// hardly stretches.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var sink uint32

var sweep = flag.Bool("sweep", false, "print the cost of classification for policies of 10 to 100,000 rules")

// TestSweep prints, for rule sets of different kinds and sizes, the time of a
// decision by the place of the rule that matches, and how it compares with 10
// rules.
func TestSweep(t *testing.T) {
	if !*sweep {
		t.Skip("-sweep prints the table")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t\tns a decision, match at\t\t\t\ttimes the cost with 10 rules\t\t\t\ttables\tlongest\t\tcompile\tlinear scan\t\n")
	fmt.Fprintf(w, "rule set\trules\tfirst\tany\tlast\tnone\tfirst\tany\tlast\tnone\tKiB\tleaf\ttrees\tms\tns (any)\t\n")
	for _, v := range variants {
		var base [4]measurement
		for _, n := range []int{10, 100, 1000, 10000, 100000} {
			p := v.policy(n)
			start := cpu()
			if err := Build(p); err != nil {
				t.Fatal(err)
			}
			took := cpu() - start
			c, err := New(p)
			if err != nil {
				t.Fatal(err)
			}
			var ns, ratio [4]float64
			for i, place := range places {
				m := measurement{c, packets(p, place)}
				if n == 10 {
					base[i] = m
				}
				got := measure(40, base[i], m)
				ns[i], ratio[i] = got[1], got[1]/got[0]
			}
			fmt.Fprintf(w, "%s\t%d\t", v.name, n)
			for _, x := range ns {
				fmt.Fprintf(w, "%.1f\t", x)
			}
			for _, x := range ratio {
				fmt.Fprintf(w, "%.2f\t", x)
			}
			lin := "-"
			if n <= 10000 {
				lin = fmt.Sprintf("%.0f", measure(20, measurement{NewLinear(p), packets(p, "any")[:64]})[0])
			}
			fmt.Fprintf(w, "%d\t%d\t%d\t%.0f\t%s\t\n", p.Classifier.Bytes()/1024, p.Classifier.Longest(), len(p.Classifier.Trees), float64(took.Microseconds())/1000, lin)
		}
	}
	w.Flush()
}

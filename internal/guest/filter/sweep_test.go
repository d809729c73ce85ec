package filter_test

import (
	"flag"
	"fmt"
	"os"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/filter/filtertest"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/linear"
)

// A measurement is decisions of one classifier about some packets.
type measurement struct {
	d interface {
		Decide(*filter.Packet) filter.Verdict
	}
	ps []filter.Packet
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
	for _, v := range filtertest.Variants {
		var base [4]measurement
		for _, n := range []int{10, 100, 1000, 10000, 100000} {
			p := v.Policy(n)
			start := cpu()
			if err := compile.Classifier(p); err != nil {
				t.Fatal(err)
			}
			took := cpu() - start
			c, err := filter.New(p)
			if err != nil {
				t.Fatal(err)
			}
			var ns, ratio [4]float64
			for i, place := range filtertest.Places {
				m := measurement{c, filtertest.Packets(p, place)}
				if n == 10 {
					base[i] = m
				}
				got := measure(40, base[i], m)
				ns[i], ratio[i] = got[1], got[1]/got[0]
			}
			fmt.Fprintf(w, "%s\t%d\t", v.Name, n)
			for _, x := range ns {
				fmt.Fprintf(w, "%.1f\t", x)
			}
			for _, x := range ratio {
				fmt.Fprintf(w, "%.2f\t", x)
			}
			lin := "-"
			if n <= 10000 {
				lin = fmt.Sprintf("%.0f", measure(20, measurement{linear.New(p), filtertest.Packets(p, "any")[:64]})[0])
			}
			fmt.Fprintf(w, "%d\t%d\t%d\t%.0f\t%s\t\n", p.Classifier.Bytes()/1024, p.Classifier.Longest(), len(p.Classifier.Trees), float64(took.Microseconds())/1000, lin)
		}
	}
	w.Flush()
}

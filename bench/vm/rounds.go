package main

import (
	"fmt"
	"io"
	"slices"
)

// A table is what one round gave, by scenario.
type table map[string]result

func (t table) add(name string, r result) { t[name] = r }

// A summary is several rounds. A machine's speed changes from minute to minute;
// what is compared is therefore of one round, and the median of all is printed.
type summary []table

// print prints the medians: the rate, its share of the wire's, and how often it
// is that of nftables with as many flows, the same for each second in which the
// firewall had something to do, and how often it is that of nftables when flooded.
func (s summary) print(w io.Writer) {
	fmt.Fprintf(w, "\nmedians of %d rounds, each ratio within its round (lowest to highest)\n%-20s %8s %20s %24s %24s %24s\n", len(s), "", "Mpps", "of wire", "times nftables", "the same when busy", "times, when flooded")
	for _, sc := range scenarios {
		if _, ok := s[0][sc.name]; !ok {
			continue
		}
		fmt.Fprintf(w, "%-20s %8.2f", sc.name, s.median(func(t table) float64 { return t[sc.name].perCPU / 1e6 })[1])
		m := s.median(func(t table) float64 { return 100 * t[sc.name].perCPU / t[sc.name].wire })
		fmt.Fprintf(w, " %6.0f%% (%3.0f to %3.0f)", m[1], m[0], m[2])
		if !sc.wire && sc.size == 60 && !sc.fresh {
			best, flooded := controls(sc.flows)
			s.times(w, best, func(t table) float64 { return t[sc.name].perCPU })
			s.times(w, best, func(t table) float64 { return t[sc.name].perCPU / t[sc.name].busy })
			s.times(w, flooded, func(t table) float64 { return t[sc.name].perCPU })
		}
		fmt.Fprintln(w)
	}
}

// times prints how often a rate is that of a control, which not every machine
// can measure.
func (s summary) times(w io.Writer, control string, rate func(t table) float64) {
	for _, t := range s {
		if t[control].perCPU == 0 {
			fmt.Fprintf(w, " %24s", "-")
			return
		}
	}
	m := s.median(func(t table) float64 { return rate(t) / t[control].perCPU })
	fmt.Fprintf(w, " %9.1f (%4.1f to %4.1f)", m[1], m[0], m[2])
}

// controls returns the scenarios of nftables with as many flows, or with the
// most there are.
func controls(flows int) (best, flooded string) {
	if flows <= linuxScenarios[0].flows {
		return linuxScenarios[0].name, linuxScenarios[2].name
	}
	return linuxScenarios[1].name, linuxScenarios[3].name
}

// median returns the lowest, the middle and the highest of the rounds.
func (s summary) median(of func(t table) float64) [3]float64 {
	v := make([]float64, 0, len(s))
	for _, t := range s {
		v = append(v, of(t))
	}
	slices.Sort(v)
	return [3]float64{v[0], v[len(v)/2], v[len(v)-1]}
}

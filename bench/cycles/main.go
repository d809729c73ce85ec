// Command cycles counts what the data plane does for a packet: instructions and cache misses
// by stage, as callgrind counts them, and cycles as this machine takes them. The firewall
// has two virtio devices, whose other ends are this program's and are not counted.
//
//	go run ./bench/cycles                   all scenarios (make bench-cycles)
//	go run ./bench/cycles -only udp-16,new  some
//
// Instructions are the same in each run, to a percent. Cache misses are of simulated caches
// (callgrind.go). Cycles are the processor time of this thread, multiplied by the clock that
// a chain of multiplications shows that runs by turns with it: 3 cycles each, on every x86-64
// of the last 15 years. Printed are those of polls that nobody disturbs, a twentieth of which
// take less, and the median, which a neighbour on the same core can double.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	only := flag.String("only", "", "names of scenarios, separated by commas")
	run := flag.String("run", "", "for valgrind: run this scenario, and print nothing")
	part := flag.Int("part", 1, "with an nth of the packets and flows")
	counts := flag.Bool("counts", true, "count, by valgrind; without only cycles are measured")
	turns := flag.Int("turns", 15, "how often cycles are measured")
	flag.Parse()
	if err := command(*run, *part, *only, *turns, *counts); err != nil {
		fmt.Fprintln(os.Stderr, "cycles:", err)
		os.Exit(1)
	}
}

func command(run string, part int, only string, turns int, counts bool) error {
	if run != "" {
		s, err := find(run, max(part, 1))
		if err != nil {
			return err
		}
		m, err := s.prepare()
		if err != nil {
			return err
		}
		return s.run(m)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for i := range scenarios {
		s, err := find(scenarios[i].name, part)
		if err != nil {
			return err
		}
		if only != "" && !strings.Contains(","+only+",", ","+s.name+",") {
			continue
		}
		fmt.Printf("\n%s (%s)\n", s.what, s.name)
		if counts {
			if err := s.report(self); err != nil {
				return err
			}
		}
		cycles, err := s.cycles(turns)
		if err != nil {
			return err
		}
		fmt.Printf("%-12s %12.0f   in the median %.0f, at %.2f GHz\n", "cycles", cycles.cycles, cycles.median, cycles.GHz)
	}
	return nil
}

// report prints a scenario's table.
func (s *scenario) report(program string) error {
	costs, err := count(program, s)
	if err != nil {
		return err
	}
	parts, err := s.split(costs)
	if err != nil {
		return err
	}
	fmt.Printf("%-12s %12s %12s %12s\n", "stage", "instructions", "misses L1", "misses LL")
	line := func(name string, c cost) {
		n := float64(s.packets)
		fmt.Printf("%-12s %12.1f %12.2f %12.2f\n", name, float64(c.instructions)/n, float64(c.d1)/n, float64(c.ll)/n)
	}
	for i, st := range s.stages {
		line(st.name, parts[i])
	}
	line("the rest", parts[len(parts)-1])
	line("all", costs[poll])
	return nil
}

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A kind is a kind of traffic of iperf3.
type kind struct {
	name, args string
	ping       bool // a host pings the other meanwhile
}

var kinds = []kind{
	{"1 stream", "", false}, {"1 from the server", "-R", false},
	{"8 streams", "-P 8", true}, {"8 from the server", "-P 8 -R", false},
	{"8, both at once", "-P 8 --bidir", false},
}

// wanted reports whether the kind is to be measured.
func (k kind) wanted() bool { return strings.Contains(k.name, *traffic) }

// A result is what one way carried in one round.
type result struct {
	gbit       [5]float64  // by kind
	cost       [5]cost     // by kind, of machines
	ping       percentiles // during 8 streams
	idle, half percentiles // of the first packets of connections
}

func (x result) String() string {
	return fmt.Sprintf("%.2f Gbit/s, ping %v, idle %v, half %v", x.gbit, x.ping, x.idle, x.half)
}

// percentiles are those of a latency: p50, p99 and p99.9.
type percentiles [3]time.Duration

func percentilesOf(d []time.Duration) (p percentiles) {
	if len(d) == 0 {
		return p
	}
	slices.Sort(d)
	for i, share := range [...]float64{0.5, 0.99, 0.999} {
		p[i] = d[min(int(share*float64(len(d))), len(d)-1)]
	}
	return p
}

func (p percentiles) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/1e6) }
	return ms(p[0]) + " / " + ms(p[1]) + " / " + ms(p[2])
}

// print prints the tables, for Markdown. A digest that differs has ended the measurement before.
func print(ws []way, res map[string][]result) {
	fmt.Printf("\nOn every way, in every round, %d MB in each direction at once arrived with the digest of what was sent.\n", digestBytes>>20)
	fmt.Print("\nTCP through iperf3, Gbit/s: median (lowest to highest); with both at once the sum.\n\n|")
	rule := "| ---"
	for _, k := range kinds {
		if k.wanted() {
			fmt.Print(" | ", k.name)
			rule += " | ---"
		}
	}
	fmt.Println(" |\n" + rule + " |")
	for _, w := range ws {
		fmt.Print("| ", w.name)
		for i, k := range kinds {
			if !k.wanted() {
				continue
			}
			v := make([]float64, 0, len(res[w.name]))
			for _, x := range res[w.name] {
				v = append(v, x.gbit[i])
			}
			slices.Sort(v)
			fmt.Printf(" | %.1f (%.1f to %.1f)", v[len(v)/2], v[0], v[len(v)-1])
		}
		fmt.Println(" |")
	}
	fmt.Print("\nLatency in ms: p50 / p99 / p99.9, of the round with the median p50.\n\n" +
		"| | first packet, idle | first packet, half load | ping during 8 streams |\n| --- | --- | --- | --- |\n")
	for _, w := range ws {
		fmt.Print("| ", w.name)
		for _, of := range []func(x result) percentiles{
			func(x result) percentiles { return x.idle }, func(x result) percentiles { return x.half }, func(x result) percentiles { return x.ping }} {
			p := make([]percentiles, 0, len(res[w.name]))
			for _, x := range res[w.name] {
				p = append(p, of(x))
			}
			slices.SortFunc(p, func(a, b percentiles) int { return int(a[0] - b[0]) })
			fmt.Print(" | ", p[len(p)/2])
		}
		fmt.Println(" |")
	}
}

// Command tap measures the image between two Linux hosts, each in a network namespace,
// joined by TAP devices and bridges, by turns with what Linux itself carries there: one
// bridge, and a router with nftables that masquerades. It needs root, iperf3 and ip, and
// an image of the repository's rules.yaml:
//
//	make bench-tap
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

var (
	image   = flag.String("image", "build/thurward.img", "the image")
	seconds = flag.Int("seconds", 5, "how long each throughput is measured")
	rounds  = flag.Int("rounds", 3, "how often each is, by turns; the median is printed, with the lowest and the highest")
	connect = flag.Int("connects", 1000, "how many connections the latency of the first packet is measured with")
	traffic = flag.String("traffic", "", "only kinds of traffic whose name contains this, without what half of the first carries")
	only    = flag.String("only", "", "only the ways of these names, or whose name contains what is none, separated by |")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tap:", err)
		os.Exit(1)
	}
}

func run() error {
	l, err := newLab()
	if err != nil {
		return err
	}
	defer l.close()
	defer l.closeOnSignal()()
	ws, done, err := l.ways()
	if err != nil {
		return err
	}
	defer done()
	res := map[string][]result{}
	for r := range *rounds {
		for _, w := range ws {
			x, err := measure(l, w)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d, %-24s %v\n", r+1, w.name, x)
			res[w.name] = append(res[w.name], x)
		}
	}
	print(ws, res)
	printCosts(ws, res)
	return nil
}

// measure opens a way and measures everything on it.
func measure(l *lab, w way) (x result, err error) {
	shut, err := w.open(l)
	if err != nil {
		return x, err
	}
	l.openWay(shut)
	defer func() { err = errors.Join(err, l.shutWay()) }()
	if err := l.reach(); err != nil {
		return x, err
	}
	if x.idle, err = l.connects(*connect, time.Millisecond); err != nil {
		return x, err
	}
	for i, k := range kinds {
		if !k.wanted() {
			continue
		}
		var stop func() percentiles
		if k.ping {
			stop = l.ping()
		}
		end := func(float64) (cost, error) { return cost{}, nil }
		if l.machine {
			if end, err = l.told.spending(); err != nil {
				return x, err
			}
		}
		var gb float64
		x.gbit[i], gb, err = l.iperf(k.args)
		if stop != nil {
			x.ping = stop()
		}
		c, err2 := end(gb)
		if err := errors.Join(err, err2); err != nil {
			return x, fmt.Errorf("%s: %w", k.name, err)
		}
		x.cost[i] = c
	}
	if *traffic != "" {
		return x, l.digests()
	}
	half := l.background(x.gbit[0] / 2)
	if x.half, err = l.connects(*connect, time.Millisecond); err != nil {
		return x, err
	}
	half()
	return x, l.digests()
}

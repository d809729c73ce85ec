// Command mutants measures the tests: it changes the code in many small ways,
// each of which is a mutant, and counts the mutants that no test notices.
//
// All mutants of all packages are compiled into the test binaries at once; an
// environment variable switches one of them on. So a mutant costs the run of
// the tests that reach it, and no build. docs/testing.md says what the kinds of
// mutants are, how survivors are read, and how one is listed as equivalent.
//
//	go run ./test/mutants                      all mutants of the core
//	go run ./test/mutants -sample 100 -seed 7  some of them, always the same
//	go run ./test/mutants -packages nat -list  what there is
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// core is what decides about packets and names, and what stands closest to it.
const core = "guest/conntrack,guest/nat,guest/neigh,guest/reassembly,guest/fqdn,guest/clienthello,guest/filter,shared/packet,shared/ruleset," +
	"guest/dnsproxy,guest/endpoint,guest/sni,guest/icmperr," +
	"guest/router,guest/dot,guest/tcp,guest/virtio,guest/kernel/vm,guest/kernel/clock,guest/kernel/acpi,guest/kernel/pci,guest/kernel/keys,host/policy/compile,host/policy/packetset"

func main() {
	o := options{}
	var packages, kinds string
	flag.StringVar(&packages, "packages", core, "packages under internal/ whose code is changed, separated by commas")
	flag.StringVar(&kinds, "kinds", "", "kinds of mutants, separated by commas; all when empty")
	flag.IntVar(&o.sample, "sample", 0, "number of mutants, chosen at random; 0: all")
	flag.Uint64Var(&o.seed, "seed", 1, "of the choice")
	flag.IntVar(&o.workers, "workers", 2, "mutants that are tested at the same time")
	flag.BoolVar(&o.list, "list", false, "print the mutants and test none")
	flag.BoolVar(&o.own, "own", false, "run the tests of the mutant's own package only, without the data plane's")
	flag.BoolVar(&o.verbose, "v", false, "print a line for each mutant, not only for those that survive")
	flag.Float64Var(&o.least, "least", 0, "fail when less than this share of the mutants is noticed, of those that are not listed as equivalent; in percent")
	flag.StringVar(&o.work, "work", "", "folder for binaries, kept afterwards; a temporary one when empty")
	flag.StringVar(&o.only, "only", "", "only mutants whose key contains this text")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: go run ./test/mutants [flags]\n\nCounts the changes of the code that no test notices (docs/testing.md).\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "mutants: unexpected argument %q; packages are named by -packages\n", flag.Arg(0))
		os.Exit(2)
	}
	o.packages = strings.Split(packages, ",")
	if kinds != "" {
		o.kinds = strings.Split(kinds, ",")
		for _, k := range o.kinds {
			if !known(k) {
				fmt.Fprintf(os.Stderr, "mutants: no kind %q; there are %s\n", k, strings.Join(allKinds, ", "))
				os.Exit(2)
			}
		}
	}
	start := time.Now()
	r, err := run(&o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
	if o.list {
		return
	}
	r.print(os.Stdout, time.Since(start))
	if share := r.share(); share < o.least {
		fmt.Printf("FAIL: %.1f %% noticed, %.1f %% wanted\n", share, o.least)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	packages, kinds []string
	sample          int
	seed            uint64
	workers         int
	list, verbose   bool
	own             bool // a package's own tests only
	least           float64
	work, only      string
}

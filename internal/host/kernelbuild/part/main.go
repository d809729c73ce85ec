// Command part compiles for make what is released: kernel.elf, firewall.elf and
// firewall-dot.elf, and the host's thurward and thurward-sigstore, by the names of the
// files that it is to write.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/thurward/thurward/internal/host/kernelbuild"
)

func main() {
	version := flag.String("version", "dev", "the version that the firewall tells")
	commit := flag.String("commit", "", "the commit that it tells")
	arch := flag.String("arch", "amd64", "the processor of a program of the host")
	flag.Parse()
	for _, out := range flag.Args() {
		if err := kernelbuild.Make(kernelbuild.Target{Out: out, Version: *version, Commit: *commit, Arch: *arch}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

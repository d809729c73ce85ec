package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

func newCheckCmd() *cobra.Command {
	var file, format string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate a policy",
		Long: `check reads a policy and prints every problem in it, each with its place, its
cause and a remedy. For a valid policy it prints the memory that it uses. It exits
with 0 if the policy can be built, 1 if not, and 2 for a wrong command line. The
policy's own tests are run by thurward test and thurward build.`,
		Example: `  thurward check
  thurward check -f examples/home.yaml
  thurward check --format sarif > report.sarif`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			show, err := shower(cmd.Name(), format)
			if err != nil {
				return err
			}
			src, err := readPolicy(file)
			if err != nil {
				return err
			}
			p, diags := check.Load(file, src)
			if err := show(cmd.OutOrStdout(), file, src, diags); err != nil {
				return err
			}
			if p == nil {
				return exitError(exitInvalid)
			}
			if format != "text" {
				return nil
			}
			seg, err := compile.Compile(p)
			if err != nil {
				return err
			}
			printable.Fprintf(cmd.OutOrStdout(), "%s: ok: %s, sha256:%x\n",
				file, counted(len(p.Rules), "rule"), p.Digest)
			printCost(cmd.OutOrStdout(), p, seg)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "rules.yaml", "the policy")
	cmd.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	return cmd
}

// printCost prints the memory that a policy uses in the image.
func printCost(w io.Writer, p *policy.Policy, seg *ruleset.Policy) {
	c := check.CostOf(seg)
	mb := func(n int) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
	printable.Fprintf(w, "  tables   %s: %s, %s\n", mb(c.Tables), counted(c.Matches, "combination of conditions", "combinations of conditions"), counted(c.Names, "name"))
	printable.Fprintf(w, "  flows    %s for %d flows\n", mb(c.Memory.Flows), p.Defaults.MaxFlows)
	printable.Fprintf(w, "  ports    %s for the external ports of source translation\n", mb(c.Memory.Ports))
	if c.Memory.Names > 0 {
		printable.Fprintf(w, "  names    %s for %d answers of the DNS proxy\n", mb(c.Memory.Names), p.DNS.MaxNames)
	}
	if n := len(p.Tests); n > 0 {
		printable.Fprintf(w, "  tests    %d, which thurward test runs\n", n)
	}
}

// counted returns a number with its noun.
func counted(n int, noun ...string) string {
	if n == 1 {
		return "1 " + noun[0]
	}
	if len(noun) == 1 {
		noun = append(noun, noun[0]+"s")
	}
	return fmt.Sprint(n, " ", noun[1])
}

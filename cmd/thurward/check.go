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
		Use:   "check [FILE...]",
		Short: "Validate policies",
		Long: `check reads a policy, or several, and prints every problem in it, each with its
place, its cause and a remedy. For a valid policy it prints the memory that it uses.
The file - is standard input. It exits with 0 if all can be built, 1 if not, and 2 for
a wrong command line. The policy's own tests are run by thurward test and thurward
build.`,
		Example: `  thurward check
  thurward check examples/*.yaml
  git show HEAD:rules.yaml | thurward check -
  thurward check --format sarif > report.sarif`,
		ValidArgsFunction: completesFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			show, err := shower(cmd.Name(), format)
			if err != nil {
				return err
			}
			if len(args) > 0 && cmd.Flags().Changed("file") {
				return usageError{fmt.Errorf("check: --file and files beside it (name each once)")}
			}
			if len(args) == 0 {
				args = []string{file}
			}
			return checkAll(cmd, args, format, show)
		},
	}
	policyFlag(cmd, &file, "the policy, if none is named as an argument")
	cmd.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	completes(cmd, "format", "text", "json", "sarif")
	return cmd
}

// checkAll checks policies. One that cannot be read does not hide the others.
func checkAll(cmd *cobra.Command, files []string, format string, show showFunc) error {
	out := cmd.OutOrStdout()
	var all policy.Diagnostics
	var failed error
	for _, file := range files {
		name, src, err := readPolicy(file)
		if err != nil && len(files) == 1 {
			return err
		}
		if err != nil {
			printable.Fprintf(cmd.ErrOrStderr(), "thurward: %v\n", err)
			failed = exitError(exitInvalid)
			continue
		}
		p, diags := check.Load(name, src)
		if p == nil {
			failed = exitError(exitInvalid)
		}
		all = append(all, diags...)
		if format != "text" {
			continue
		}
		if err := show(out, name, src, diags); err != nil {
			return err
		}
		if p == nil {
			continue
		}
		seg, err := compile.Compile(p)
		if err != nil {
			return err
		}
		printable.Fprintf(out, "%s: ok: %s, sha256:%x\n", name, counted(len(p.Rules), "rule"), p.Digest)
		printCost(out, p, seg)
	}
	if format != "text" {
		if err := show(out, "", nil, all); err != nil {
			return err
		}
	}
	return failed
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
	printable.Fprintf(w, "  buffers  %s for packets of up to %d bytes\n", mb(c.Memory.Buffers), c.MTU)
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

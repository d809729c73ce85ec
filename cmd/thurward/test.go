package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newTestCmd() *cobra.Command {
	var file, format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Run the policy's own tests",
		Long: `test evaluates the tests under tests: in a policy, as the image would decide, and
prints each that fails: its place, what it expects, what the policy does instead and
why. build does the same and makes no image if one fails. It exits with 0 if all
pass, 1 if not, and 2 for a wrong command line.`,
		Example: `  thurward test
  thurward test -v -f examples/home.yaml
  thurward test --format sarif > report.sarif`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			show, err := shower(cmd.Name(), format)
			if err != nil {
				return err
			}
			p, seg, src, err := openPolicy(cmd, file, true)
			if err != nil {
				return err
			}
			results := explain.RunTests(p, seg)
			ds := explain.Failures(p, results)
			out := cmd.OutOrStdout()
			if verbose && format == "text" {
				for _, r := range results {
					if r.Wrong == "" {
						printable.Fprintf(out, "%s:%d:%d: ok: %s: %s\n",
							file, r.Test.Line, r.Test.Column, r.Test.Name, explain.Describe(p, &r.Outcome))
					}
				}
			}
			if err := show(out, file, src, ds); err != nil {
				return err
			}
			if format == "text" {
				printable.Fprintf(out, "%s\n", summary(file, len(results), len(ds)))
			}
			if len(ds) > 0 {
				return exitError(exitInvalid)
			}
			return nil
		},
	}
	policyFlag(cmd, &file, "the policy")
	cmd.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	completes(cmd, "format", "text", "json", "sarif")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the tests that pass, too")
	return cmd
}

func summary(file string, all, failed int) string {
	switch {
	case all == 0:
		return file + ": no tests (write what must hold under tests:)"
	case failed > 0:
		return fmt.Sprintf("%s: %d of %s failed", file, failed, counted(all, "test"))
	}
	return fmt.Sprintf("%s: ok: %s", file, counted(all, "test"))
}

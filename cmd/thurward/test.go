package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

func newTestCmd() *cobra.Command {
	var file, format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Run the policy's own tests",
		Long: `test evaluates the expectations under tests: in a policy, as the image would
decide, and prints each that is not met: its place, what was expected, what the
policy does instead and why. build does the same and makes no image when one
fails. It exits with 0 when all are met, 1 when not, and 2 for a wrong command
line.`,
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
			results := p.RunTests(seg)
			ds := policy.Failures(p, results)
			out := cmd.OutOrStdout()
			if verbose && format == "text" {
				for _, r := range results {
					if r.Wrong == "" {
						printable.Fprintf(out, "%s:%d:%d: ok: %s: %s\n", file, r.Test.Line, r.Test.Column, r.Test.Name, p.Describe(&r.Outcome))
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
	cmd.Flags().StringVarP(&file, "file", "f", "rules.yaml", "the policy")
	cmd.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the tests that are met, too")
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

// shower returns the function that prints diagnostics in a format.
func shower(name, format string) (func(io.Writer, string, []byte, policy.Diagnostics) error, error) {
	show, ok := map[string]func(io.Writer, string, []byte, policy.Diagnostics) error{"text": showText, "json": showJSON, "sarif": showSARIF}[format]
	if !ok {
		return nil, usageError{fmt.Errorf("%s: unknown format %q (want text, json or sarif)", name, format)}
	}
	return show, nil
}

// openPolicy reads, validates and compiles a policy. What is wrong with it goes
// to standard error, and with warn also what is allowed and probably not meant.
func openPolicy(cmd *cobra.Command, file string, warn bool) (*policy.Policy, *ruleset.Policy, []byte, error) {
	src, err := readPolicy(file)
	if err != nil {
		return nil, nil, nil, err
	}
	p, diags := policy.Load(file, src)
	if p == nil || warn {
		if err := showText(cmd.ErrOrStderr(), file, src, diags); err != nil {
			return nil, nil, nil, err
		}
	}
	if p == nil {
		return nil, nil, nil, fmt.Errorf("%s is not valid", file)
	}
	seg, err := policy.Compile(p)
	return p, seg, src, err
}

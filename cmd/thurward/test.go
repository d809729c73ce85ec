package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newTestCmd() *cobra.Command {
	var file, format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test [FILE...]",
		Short: "Run the policy's own tests",
		Long: `test evaluates the tests under tests: in a policy, or in several, as the image would
decide, and decides the statements under never: and always: for all packets. It prints
each that fails: its place, what it expects, what the policy does instead and why. build
does the same and makes no image if one fails. It exits with 0 if all pass, 1 if not,
and 2 for a wrong command line.`,
		Example: `  thurward test
  thurward test -v -f examples/home.yaml
  thurward test examples/*.yaml
  thurward test --format sarif > report.sarif
  thurward test --format junit > report.xml`,
		ValidArgsFunction: completesFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			show := showFunc(nil)
			if format != "junit" {
				var err error
				if show, err = shower(cmd.Name(), format, "junit"); err != nil {
					return err
				}
			}
			switch {
			case len(args) > 0 && cmd.Flags().Changed("file"):
				return usageError{fmt.Errorf("test: --file and files beside it (name each once)")}
			case len(args) > 1 && format != "text":
				return usageError{fmt.Errorf("test: --format %s is about one policy (want one file)", format)}
			case len(args) == 0:
				args = []string{file}
			}
			var failed error
			for _, file := range args {
				err := testPolicy(cmd, file, format, show, verbose)
				if err != nil && len(args) == 1 {
					return err
				}
				if err != nil { // one does not hide the others
					if _, said := errors.AsType[exitError](err); !said {
						printable.Fprintf(cmd.ErrOrStderr(), "thurward: %v\n", err)
					}
					failed = exitError(exitInvalid)
				}
			}
			return failed
		},
	}
	policyFlag(cmd, &file, "the policy, if none is named as an argument")
	cmd.Flags().StringVar(&format, "format", "text", "text, json, sarif or junit")
	completes(cmd, "format", "text", "json", "sarif", "junit")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the tests that pass, too")
	return cmd
}

// testPolicy runs the tests of one policy. Its error is an exitError where the output says
// what failed.
func testPolicy(cmd *cobra.Command, file, format string, show showFunc, verbose bool) error {
	p, seg, src, err := openPolicy(cmd, file, true)
	if err != nil {
		return err
	}
	results, proofs := explain.RunTests(p, seg), prove.Run(p, seg)
	ds := append(explain.Failures(p, results), prove.Failures(p, proofs)...)
	out := cmd.OutOrStdout()
	if verbose && format == "text" {
		printPassed(out, p, results, proofs)
	}
	if format == "junit" {
		err = showJUnit(out, p, results, proofs)
	} else {
		err = show(out, p.File, src, ds)
	}
	if err != nil {
		return err
	}
	if format == "text" {
		printable.Fprintf(out, "%s\n", summary(p.File, p, len(ds)))
	}
	if len(ds) > 0 {
		return exitError(exitInvalid)
	}
	return nil
}

// printPassed prints what is as expected.
func printPassed(w io.Writer, p *policy.Policy, results []explain.TestResult, proofs []prove.Result) {
	for _, r := range results {
		if r.Wrong == "" {
			printable.Fprintf(w, "%s:%d:%d: ok: %s: %s\n", p.File, r.Test.Line, r.Test.Column, r.Test.Name, explain.Describe(p, &r.Outcome))
		}
	}
	for _, r := range proofs {
		if s := r.Statement; r.Wrong == "" {
			printable.Fprintf(w, "%s:%d:%d: ok: %s: %s\n", p.File, s.Line, s.Column, s.Word(), s.Name)
		}
	}
}

// summary counts tests and statements.
func summary(file string, p *policy.Policy, failed int) string {
	what, n := "", len(p.Tests)+len(p.Statements)
	switch {
	case n == 0:
		return file + ": no tests (write what must hold under tests:, never: and always:)"
	case len(p.Statements) == 0:
		what = counted(n, "test")
	case len(p.Tests) == 0:
		what = counted(n, "statement")
	default:
		what = counted(len(p.Tests), "test") + " and " + counted(len(p.Statements), "statement")
	}
	if failed > 0 {
		return fmt.Sprintf("%s: %d of %s failed", file, failed, what)
	}
	return fmt.Sprintf("%s: ok: %s", file, what)
}

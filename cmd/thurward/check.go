package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

func newCheckCmd() *cobra.Command {
	var file, format string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate a policy",
		Long: `check reads a policy and prints every problem in it, each with its place, what
is wrong and what would be right. For a valid one it prints what it costs. It
exits with 0 when the policy can be built, 1 when not, and 2 for a wrong command
line. The policy's own tests are run by thurward test and thurward build.`,
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
			p, diags := policy.Load(file, src)
			if err := show(cmd.OutOrStdout(), file, src, diags); err != nil {
				return err
			}
			if p == nil {
				return exitError(exitInvalid)
			}
			if format != "text" {
				return nil
			}
			seg, err := policy.Compile(p)
			if err != nil {
				return err
			}
			printable.Fprintf(cmd.OutOrStdout(), "%s: ok: %s, sha256:%x\n", file, counted(len(p.Rules), "rule"), p.Digest)
			printCost(cmd.OutOrStdout(), p, seg)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "rules.yaml", "the policy")
	cmd.Flags().StringVar(&format, "format", "text", "text, json or sarif")
	return cmd
}

// printCost says what a policy takes of the machine that it runs on.
func printCost(w io.Writer, p *policy.Policy, seg *ruleset.Policy) {
	c := policy.CostOf(seg)
	mb := func(n int) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
	printable.Fprintf(w, "  tables   %s: %s, %s\n", mb(c.Tables), counted(c.Matches, "combination of conditions", "combinations of conditions"), counted(c.Names, "name"))
	printable.Fprintf(w, "  flows    %s for %d flows\n", mb(c.FlowTable), p.Defaults.MaxFlows)
	printable.Fprintf(w, "  ports    %s for the external ports of source translation\n", mb(c.Ports))
	if c.DNS > 0 {
		printable.Fprintf(w, "  names    %s for %d answers of the DNS proxy\n", mb(c.DNS), p.DNS.MaxNames)
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

// readPolicy reads a policy's file.
func readPolicy(file string) ([]byte, error) {
	src, err := limited.ReadFile(file, policy.MaxBytes)
	if err != nil {
		return nil, fileError(err)
	}
	return src, nil
}

// fileError explains why a file cannot be read.
func fileError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (name the policy with -f)", err)
	}
	return err
}

// maxLine is how much of a line of a policy is shown, in bytes.
const maxLine = 1000

// showText prints one problem a line; on a terminal the source line and a
// caret under the place follow.
func showText(w io.Writer, _ string, src []byte, ds policy.Diagnostics) error {
	f, isFile := terminal.File(w)
	tty := isFile && isTerminal(f)
	lines := strings.Split(string(src), "\n")
	for _, d := range ds {
		printable.Fprintf(w, "%s\n", d)
		if tty && d.Line >= 1 && d.Line <= len(lines) {
			l := strings.ReplaceAll(strings.TrimRight(lines[d.Line-1], "\r"), "\t", " ")
			before := utf8.RuneCountInString(printable.String(firstRunes(l, d.Column-1), maxLine))
			mark := printable.Line("^")
			if terminal.Colour(w) {
				mark = printable.Line("\x1b[1;31m^\x1b[0m")
			}
			printable.Fprintf(w, "  %s\n  %s%s\n", printable.String(l, maxLine), strings.Repeat(" ", before), mark)
		}
	}
	return nil
}

func firstRunes(s string, n int) string {
	r := []rune(s)
	return string(r[:min(max(n, 0), len(r))])
}

func showJSON(w io.Writer, _ string, _ []byte, ds policy.Diagnostics) error {
	if ds == nil {
		ds = policy.Diagnostics{}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(ds)
}

// showSARIF prints SARIF 2.1.0, which code review systems show beside the
// lines.
func showSARIF(w io.Writer, _ string, _ []byte, ds policy.Diagnostics) error {
	type m = map[string]any
	results := []m{}
	rules, seen := []m{}, map[string]bool{}
	for _, d := range ds {
		if !seen[d.Code] {
			seen[d.Code] = true
			rules = append(rules, m{"id": d.Code})
		}
		text := d.Message
		if d.Path != "" {
			text = d.Path + ": " + text
		}
		if d.Hint != "" {
			text += " (" + d.Hint + ")"
		}
		results = append(results, m{
			"ruleId": d.Code, "level": string(d.Severity), "message": m{"text": text},
			"locations": []m{{"physicalLocation": m{
				"artifactLocation": m{"uri": d.File},
				"region":           m{"startLine": d.Line, "startColumn": d.Column}}}},
		})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(m{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []m{{"tool": m{"driver": m{"name": "thurward", "version": version, "rules": rules}}, "results": results}},
	})
}

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/diff"
)

// What the text form of diff shows without --all.
const (
	diffChanges = 50
	diffSets    = 10     // of each change
	diffSearch  = 200000 // sets of packets
)

// exitOpens is the exit code of diff when something becomes more permissive.
const exitOpens = 4

func newDiffCmd() *cobra.Command {
	var format, file string
	var all bool
	cmd := &cobra.Command{
		Use:   "diff OLD [NEW]",
		Short: "Show what two policies do differently",
		Long: `diff computes the packets for which the verdict or the deciding rule (by id)
differs between two policies: as sets of direction, state, protocol, addresses,
destination port and names, each with an example. Nothing is sampled. Packets
are as rules see them, after destination NAT and before source NAT. What becomes
more permissive comes first. Changes of NAT, settings and shadow rules follow;
names of rules and tests do not count.

OLD and NEW are files, - for standard input, or policies in git: REV:FILE, or REV for
the policy of --file as it was then, under the name that it had. main... is where this branch
left main. Without NEW, the policy of --file, or the FILE of OLD, is the new one.

It exits with 0 if the policies do the same, 3 if they differ, 4 if they differ and
traffic becomes more permissive, or nat, dns or interfaces change, on which rules
build, 1 if one of them is not valid, and 2 for a wrong command line.`,
		Example: `  thurward diff rules.yaml new.yaml
  thurward diff HEAD
  thurward diff main...
  thurward diff main:rules.yaml --format markdown`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageError{fmt.Errorf("diff: want two policies, the old and the new one, or the old one in git: thurward diff HEAD")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch format {
			case "text", "json", "markdown", "sarif":
			default:
				return usageError{fmt.Errorf("diff: unknown format %q (want text, json, markdown or sarif)", format)}
			}
			name := file
			if _, of, ok := strings.Cut(args[0], ":"); ok && of != "" && !cmd.Flags().Changed("file") && !exists(args[0]) {
				name = of // HEAD:edge.yaml is compared with edge.yaml
			}
			if len(args) == 2 {
				name = args[1]
			}
			if args[0] == "-" && name == "-" {
				return usageError{errors.New("diff: both policies cannot be standard input")}
			}
			old, err := openRevised(cmd, args[0], file)
			if err != nil {
				return err
			}
			new, err := openRevised(cmd, name, file)
			if err != nil {
				return err
			}
			changes, sets, search := diffChanges, diffSets, diffSearch
			if all || format == "json" {
				changes, sets, search = -1, 0, 0
			}
			d, err := diff.Compare(old, new, search, sets)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch format {
			case "json":
				err = printJSON(out, d)
			case "sarif":
				err = showSARIF(out, "", nil, findings(d))
			case "markdown":
				d.WriteMarkdown(out, changes)
			default:
				d.Write(out, changes)
			}
			switch {
			case err != nil:
				return err
			case d.Same():
				return nil
			case d.Opens():
				return exitError(exitOpens)
			}
			return exitError(exitDiffers)
		},
	}
	policyFlag(cmd, &file, "the policy, where OLD or NEW does not name a file")
	cmd.Flags().BoolVar(&all, "all", false, fmt.Sprintf("show everything, not %d changes with %d sets each", diffChanges, diffSets))
	cmd.Flags().StringVar(&format, "format", "text", "text, json (has everything), markdown or sarif")
	completes(cmd, "format", "text", "json", "markdown", "sarif")
	return cmd
}

// exists reports whether there is a file of that name.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// findings returns a diff as diagnostics of the new policy, which review systems show
// beside its lines. What becomes more permissive is a warning.
func findings(d *diff.Diff) (ds policy.Diagnostics) {
	for i := range d.Traffic {
		t := &d.Traffic[i]
		x := policy.Diagnostic{File: d.New, Line: 1, Severity: "note", Code: "diff-" + t.Effect.String()}
		if t.Effect == diff.Opens {
			x.Severity = policy.Warning
		}
		// The line of the rule that decides now; of the one that is gone there is none.
		if file, line, ok := cutPlace(t.To.Place); ok {
			x.File, x.Line = file, line
		}
		var sets []string
		for j := range t.Packets {
			sets = append(sets, t.Packets[j].String())
		}
		x.Message = fmt.Sprintf("%s -> %s: %s", &t.From, &t.To, strings.Join(sets, "; "))
		if n := t.Sets - len(t.Packets); n > 0 {
			x.Message += fmt.Sprintf("; and %d more sets of packets", n)
		}
		x.Hint = "for example " + t.Example.String()
		ds = append(ds, x)
	}
	for _, o := range d.Other {
		ds = append(ds, policy.Diagnostic{File: d.New, Line: 1, Path: o.What, Severity: policy.Warning, Code: "diff-other", Message: fmt.Sprintf("%q -> %q", o.Old, o.New)})
	}
	if !d.Complete {
		ds = append(ds, policy.Diagnostic{File: d.New, Line: 1, Severity: policy.Warning, Code: "diff-other", Message: "there is more: so many sets of packets differ that the search was stopped"})
	}
	return ds
}

// cutPlace divides file:line.
func cutPlace(place string) (file string, line int, ok bool) {
	i := strings.LastIndex(place, ":")
	if i < 0 {
		return "", 0, false
	}
	line, err := strconv.Atoi(place[i+1:])
	return place[:i], line, err == nil
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy/diff"
)

// What the text form of diff shows without --all.
const (
	diffChanges = 50
	diffSets    = 10     // of each change
	diffSearch  = 200000 // sets of packets
)

func newDiffCmd() *cobra.Command {
	var format string
	var all bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Show what two policies do differently",
		Long: `diff computes the packets for which the verdict or the deciding rule (by id)
differs between two policies: as sets of direction, state, protocol, addresses,
destination port and names, each with an example. Nothing is sampled. Packets
are as rules see them, after destination NAT and before source NAT. Changes of
NAT, settings and shadow rules follow; names of rules and tests do not count.

It exits with 0 if the policies do the same, 3 if they differ, 1 if one of them is
not valid, and 2 for a wrong command line.`,
		Example: `  thurward diff rules.yaml new.yaml
  git show HEAD:rules.yaml > /tmp/old.yaml && thurward diff /tmp/old.yaml rules.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("diff: want two policies, the old and the new one")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("diff: unknown format %q (want text or json)", format)}
			}
			old, _, _, err := openPolicy(cmd, args[0], false)
			if err != nil {
				return err
			}
			new, _, _, err := openPolicy(cmd, args[1], false)
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
			if format == "json" {
				if err := printJSON(cmd.OutOrStdout(), d); err != nil {
					return err
				}
			} else {
				d.Write(cmd.OutOrStdout(), changes)
			}
			if !d.Same() {
				return exitError(exitDiffers)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, fmt.Sprintf("show everything, not %d changes with %d sets each", diffChanges, diffSets))
	cmd.Flags().StringVar(&format, "format", "text", "text or json (json has everything)")
	completes(cmd, "format", "text", "json")
	return cmd
}

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// refuseShells lets completion refuse a shell for which it has no script: by itself it prints
// its help, which "source <(…)" would take for one, and exits with 0.
func refuseShells(root *cobra.Command, args []string) {
	root.InitDefaultCompletionCmd(args...)
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		var shells []string
		for _, s := range c.Commands() {
			shells = append(shells, s.Name())
		}
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			what := "no shell is named"
			if len(args) > 0 {
				what = fmt.Sprintf("there is no script for %q", args[0])
			}
			return usageError{fmt.Errorf("completion: %s (want one of %s)", what, strings.Join(shells, ", "))}
		}
	}
}

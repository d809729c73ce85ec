//go:build man

package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCmd writes the manual pages; make release runs it. Programs that are released do
// not have it: it links a renderer of Markdown.
func newManCmd() *cobra.Command {
	return &cobra.Command{
		Use: "man FOLDER", Short: "Write the manual pages", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.Root().DisableAutoGenTag = true
			date := time.Unix(0, 0)
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Section: "1", Source: "thurward", Manual: "thurward", Date: &date}, args[0])
		},
	}
}

func init() { more = append(more, newManCmd) }

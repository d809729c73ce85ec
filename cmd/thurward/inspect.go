package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/inspect"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newInspectCmd() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what an image is made of",
		Long: `inspect reads an image and prints its version and commit, the digests of its policy
and of the schema of policies, rules, interfaces, linked packages, and the layout of
its file. It verifies no signature: verify does.`,
		Example: `  thurward inspect build/thurward.img
  thurward inspect --json build/thurward.img | jq .packages`,
		Args: oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := limited.ReadFile(args[0], maxImage)
			if err != nil {
				return err
			}
			r, err := inspect.Image(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			writeInspection(cmd.OutOrStdout(), args[0], r, all)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with everything")
	cmd.Flags().BoolVar(&all, "all", false, "print every rule and package")
	return cmd
}

// maxImage is the largest size of an image that is read, in bytes.
const maxImage = 128 << 20

// shownItems is how many rules or packages are printed without --all.
const shownItems = 12

// oneImage wants the name of one image.
func oneImage(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("%s: want one image (%s --help)", cmd.Name(), cmd.CommandPath())}
	}
	return nil
}

func writeInspection(w io.Writer, path string, r *inspect.Report, all bool) {
	line := func(name, format string, a ...any) {
		printable.Fprintf(w, "  %-10s "+format+"\n", append([]any{name}, a...)...)
	}
	list := func(name string, items []string) {
		shown := items
		if !all && len(items) > shownItems {
			shown = items[:shownItems]
		}
		text := strings.Join(shown, ", ")
		if n := len(items) - len(shown); n > 0 {
			text += fmt.Sprintf(", and %d more (--all)", n)
		}
		line(name, "%d: %s", len(items), text)
	}
	printable.Fprintf(w, "%s: %d bytes\n", path, r.Size)
	line("image", "sha256:%s", r.Digest)
	line("version", "%s", r.Version)
	line("commit", "%s", orUnknown(r.Commit))
	line("schema", "%s", orUnknown(r.Schema))
	line("toolchain", "%s", orUnknown(r.Toolchain))
	line("program", "%s", r.Program)
	line("policy", "sha256:%s", r.Policy)
	list("rules", r.Rules)
	for _, i := range r.Interfaces {
		text := i.Name + " " + i.Address
		if i.Gateway != "" {
			text += ", gateway " + i.Gateway
		}
		if i.MAC != "" {
			text += ", MAC " + i.MAC
		}
		line(i.Role, "%s", text)
	}
	if r.Cmdline != "" {
		line("append", "%s", r.Cmdline)
	}
	list("packages", r.Packages)
	for _, p := range r.Layout {
		at := "not loaded"
		if p.Address != 0 {
			at = fmt.Sprintf("at %#x", p.Address)
		}
		line("part", "%-22s %s %8d bytes, %s", p.Name, p.Access, p.Size, at)
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

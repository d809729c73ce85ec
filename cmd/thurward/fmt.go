package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy/layout"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newFmtCmd() *cobra.Command {
	var file string
	var check, write bool
	cmd := &cobra.Command{
		Use:   "fmt [FILE...]",
		Short: "Bring policies into the canonical layout",
		Long: `fmt prints a policy in the canonical layout: two spaces for each level, lists inside
what they belong to, one space after colons and commas, at most one empty line. It
changes white space only: comments, words, quotes, their order and the lines stay, and
the policy means what it meant. A file that is no YAML, or that cannot keep its meaning
in this layout, is an error and stays as it is. The file - is standard input.

It exits with 0, 1 if a file cannot be formatted or with --check is not, and 2 for a
wrong command line.`,
		Example: `  thurward fmt -w
  thurward fmt --check examples/*.yaml
  thurward fmt - < rules.yaml`,
		ValidArgsFunction: completesFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case check && write:
				return usageError{fmt.Errorf("fmt: --check and --write (want one of them)")}
			case len(args) > 0 && cmd.Flags().Changed("file"):
				return usageError{fmt.Errorf("fmt: --file and files beside it (name each once)")}
			case len(args) == 0:
				args = []string{file}
			}
			var failed error
			for _, name := range args {
				if write && name == "-" {
					return usageError{fmt.Errorf("fmt: standard input cannot be written to (leave out --write)")}
				}
				ok, err := formatFile(cmd, name, check, write)
				if err != nil {
					printable.Fprintf(cmd.ErrOrStderr(), "thurward: %v\n", err)
				}
				if err != nil || !ok {
					failed = exitError(exitInvalid)
				}
			}
			return failed
		},
	}
	policyFlag(cmd, &file, "the policy, if none is named as an argument")
	cmd.Flags().BoolVar(&check, "check", false, "print the names of files that are not formatted, and exit with 1 if there are any")
	cmd.Flags().BoolVarP(&write, "write", "w", false, "write the files that are not formatted, instead of printing")
	return cmd
}

// formatFile formats one policy. It reports false for one that check finds not formatted.
func formatFile(cmd *cobra.Command, file string, check, write bool) (ok bool, err error) {
	name, src, err := readPolicy(file)
	if err != nil {
		return false, err
	}
	out, err := layout.Format(src)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case check:
		if !bytes.Equal(src, out) {
			printable.Fprintf(cmd.OutOrStdout(), "%s\n", name)
			return false, nil
		}
	case write:
		if !bytes.Equal(src, out) {
			return true, replaceFile(file, out)
		}
	default:
		return true, printWhole(cmd, out)
	}
	return true, nil
}

// printWhole prints a document. A file or a pipe gets every byte of it, as a comment may have
// what is not shown on a terminal; a terminal gets that escaped.
func printWhole(cmd *cobra.Command, b []byte) error {
	var w io.Writer = cmd.OutOrStdout()
	if f, ok := terminal.File(w); ok && !isTerminal(f) {
		w = f
	}
	_, err := w.Write(b)
	return err
}

// replaceFile puts new content in a file's place, whole or not at all, with its mode. What
// a symbolic link leads to is replaced, not the link.
func replaceFile(file string, content []byte) error {
	path, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".thurward-fmt-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone if it took the file's place
	if _, err = f.Write(content); err == nil {
		err = f.Chmod(fi.Mode().Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

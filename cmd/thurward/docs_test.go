package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestDocumentedCommands: each command of thurward that a document shows is
// there, with the flags that it is shown with.
func TestDocumentedCommands(t *testing.T) {
	shown := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "build" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" || d.Name() == "CHANGELOG.md" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, c := range shownCommands(string(b)) {
			shown++
			if wrong := checkCommand(c); wrong != "" {
				t.Errorf("%s: %s: %s", strings.TrimPrefix(path, "../../"), c, wrong)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if shown < 80 {
		t.Errorf("%d commands", shown)
	}
}

// shownCommands returns the commands of thurward in a page's code spans and
// fenced blocks.
func shownCommands(page string) (all []string) {
	command := regexp.MustCompile(`(?:^|[\s|(;])(?:\S*/)?thurward ([a-z][^|#;)]*)`)
	fenced := false
	var rest []string
	join := ""
	for _, l := range strings.Split(page, "\n") {
		if strings.HasPrefix(strings.TrimSpace(l), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			rest = append(rest, l)
			continue
		}
		join += strings.TrimSuffix(l, "\\")
		if strings.HasSuffix(l, "\\") {
			continue
		}
		for _, m := range command.FindAllStringSubmatch(join, -1) {
			// What a block shows may also be what a command prints.
			if first := strings.Fields(m[1])[0]; strings.HasPrefix(strings.TrimLeft(join, "$ "), "thurward ") || strings.Contains(join, "/thurward "+first) {
				all = append(all, strings.TrimSpace(m[1]))
			}
		}
		join = ""
	}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Join(rest, "\n"), -1) {
		span := strings.Join(strings.Fields(m[1]), " ")
		for _, m := range command.FindAllStringSubmatch(span, -1) {
			all = append(all, strings.TrimSpace(m[1]))
		}
	}
	return all
}

// checkCommand returns what is wrong with a command, or "".
func checkCommand(c string) string {
	f := strings.Fields(c)
	var cmd *cobra.Command
	root := newRootCmd()
	root.InitDefaultCompletionCmd() // cobra adds it when it runs
	for _, have := range root.Commands() {
		if have.Name() == f[0] {
			cmd = have
		}
	}
	if cmd == nil {
		return "there is no such command"
	}
	if sub, _, err := cmd.Find(f[1:]); err == nil && sub != nil {
		cmd = sub
	}
	for _, w := range f[1:] {
		w = strings.Trim(w, `[]"'`)
		if !strings.HasPrefix(w, "-") || w == "-" || w == "--" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		found := name == "help" || name == "h"
		if strings.HasPrefix(w, "--") {
			found = found || cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil
		} else {
			found = found || len(name) == 1 && cmd.Flags().ShorthandLookup(name) != nil
		}
		if !found {
			return "there is no flag " + w
		}
	}
	return ""
}

// TestDocumentedCommandsAreChecked: wrong ones are noticed.
func TestDocumentedCommandsAreChecked(t *testing.T) {
	page := "`thurward melt IMAGE` and `sudo bin/thurward run\n--lan bridge:x --never`\n```\n$ thurward events --action drop | sort\nthurward: ready\n```\n"
	var got []string
	for _, c := range shownCommands(page) {
		got = append(got, c+": "+checkCommand(c))
	}
	want := "events --action drop: |melt IMAGE: there is no such command|run --lan bridge:x --never: there is no flag --never"
	if strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

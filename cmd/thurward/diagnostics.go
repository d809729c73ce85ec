package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/shared/printable"
)

// A showFunc prints the diagnostics of a policy in a file with the given source.
type showFunc func(w io.Writer, file string, src []byte, ds policy.Diagnostics) error

// shower returns the function that prints diagnostics in a format. Others are formats
// that a command has beside these.
func shower(name, format string, others ...string) (showFunc, error) {
	show, ok := map[string]showFunc{"text": showText, "json": showJSON, "sarif": showSARIF}[format]
	if !ok {
		known := append([]string{"text", "json", "sarif"}, others...)
		last := len(known) - 1
		return nil, usageError{fmt.Errorf("%s: unknown format %q (want %s or %s)", name, format, strings.Join(known[:last], ", "), known[last])}
	}
	return show, nil
}

// maxLine is how many bytes of a line of a policy are shown.
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
	return printJSON(w, ds)
}

// printJSON prints a value as JSON, indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Where the project and its pages are.
const (
	homepage   = "https://github.com/thurward/thurward"
	policyPage = homepage + "/blob/main/" + "docs/policy.md"
)

// sarifRule describes a kind of problem (section 3.49).
func sarifRule(code string) map[string]any {
	r := map[string]any{"id": code, "helpUri": policyPage}
	if h := policy.Help(code); h != "" {
		r["shortDescription"], r["help"] = map[string]any{"text": h}, map[string]any{"text": h}
	}
	return r
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
			rules = append(rules, sarifRule(d.Code))
		}
		text := d.Message
		if d.Path != "" {
			text = d.Path + ": " + text
		}
		if d.Hint != "" {
			text += " (" + d.Hint + ")"
		}
		// A file's name is a relative URI (section 3.4.3); lines begin at 1 (3.30.5).
		place := m{"artifactLocation": m{"uri": (&url.URL{Path: d.File}).String()}}
		if d.Line > 0 {
			place["region"] = m{"startLine": d.Line, "startColumn": max(d.Column, 1)}
		}
		results = append(results, m{
			"ruleId": d.Code, "level": string(d.Severity), "message": m{"text": text},
			"locations": []m{{"physicalLocation": place}},
		})
	}
	return printJSON(w, m{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []m{{"tool": m{"driver": m{"name": "thurward", "version": version, "informationUri": homepage, "rules": rules}}, "results": results}},
	})
}

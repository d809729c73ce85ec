// Package policy is the language of rules.yaml: it loads and validates a policy,
// and reports every error with its place. What is done with a Policy has packages
// of its own:
//
//	check      warnings about what is allowed and probably not meant
//	compile    the tables that the image carries (package ruleset)
//	linear     what compiled tables mean, in the plain way
//	prove      whether statements about sets of packets hold
//	explain    what a policy does with a packet, and why; the policy's own tests
//	diff       what two policies decide differently
//	suggest    rules for what was observed
//	packetset  sets of packets
package policy

import (
	"fmt"
	"slices"
	"sort"

	"github.com/thurward/thurward/internal/shared/printable"
)

// A Severity tells errors, which make a policy unusable, from warnings.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// A Diagnostic is one problem: where it is, what is wrong, what would be
// right.
type Diagnostic struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1
	Column   int      `json:"column"` // from 1, in characters
	Path     string   `json:"path"`   // in the document, as rules[2].protocol
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`        // what is wrong
	Hint     string   `json:"hint,omitempty"` // what would be right
	Code     string   `json:"code"`           // stable name of the kind of problem
}

// String returns the diagnostic on one line: file:line:col: path: what is
// wrong (what would be right). What comes from the policy is escaped.
func (d Diagnostic) String() string {
	s := printable.Sprintf("%s:%d:%d: ", d.File, d.Line, d.Column)
	if d.Severity == Warning {
		s += "warning: "
	}
	if d.Path != "" {
		s += printable.Sprintf("%s: ", d.Path)
	}
	s += printable.Sprintf("%s", d.Message)
	if d.Hint != "" {
		s += printable.Sprintf(" (%s)", d.Hint)
	}
	return s
}

// Diagnostics is a list of problems in order of their place.
type Diagnostics []Diagnostic

// HasErrors reports whether any of them is an error.
func (ds Diagnostics) HasErrors() bool {
	for _, d := range ds {
		if d.Severity == Error {
			return true
		}
	}
	return false
}

// A Report collects the problems of one file.
type Report struct {
	File string

	ds         Diagnostics
	more       int  // problems that were not kept
	moreErrors bool // errors are among them
}

// maxProblems is how many problems of a file are kept: one with a mistake
// in each line has more of them than anyone reads.
const maxProblems = 1000

// Add adds a problem.
func (r *Report) Add(d Diagnostic) {
	if len(r.ds) >= maxProblems {
		r.more++
		r.moreErrors = r.moreErrors || d.Severity == Error
		return
	}
	r.ds = append(r.ds, d)
}

// Warn adds a warning about a place of the file.
func (r *Report) Warn(line, col int, path, code, msg, hint string) {
	r.Add(Diagnostic{File: r.File, Line: line, Column: col, Path: path, Severity: Warning, Code: code, Message: msg, Hint: hint})
}

// Diagnostics returns the problems in order of their place, and how many more
// there were.
func (r *Report) Diagnostics() Diagnostics {
	ds := slices.Clone(r.ds)
	sort.SliceStable(ds, func(i, j int) bool {
		a, b := ds[i], ds[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	if r.more > 0 {
		severity := Warning
		if r.moreErrors {
			severity = Error
		}
		ds = append(ds, Diagnostic{File: r.File, Line: 1, Column: 1, Severity: severity, Code: "more", Message: fmt.Sprintf("%d more problems are not shown", r.more), Hint: "correct these first"})
	}
	return ds
}

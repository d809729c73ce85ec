// Package policy is the language of rules.yaml: it loads and validates a
// policy, reports every problem with its place, and compiles it into the
// tables that the image carries (package segment).
package policy

import (
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

func (ds Diagnostics) sort() {
	sort.SliceStable(ds, func(i, j int) bool {
		a, b := ds[i], ds[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
}

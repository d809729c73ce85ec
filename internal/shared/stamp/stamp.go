// Package stamp says which build a program is: its version, the commit and the schema
// of policies. It is one text that the linker sets, in a form that is found again in the
// bytes of an image, so that what an image tells when it runs and what inspecting its
// file shows cannot differ.
package stamp

import "strings"

// Symbol is the variable that the linker's flag -X sets, to what String returns.
const Symbol = "github.com/thurward/thurward/internal/shared/stamp.text"

// text is set by the linker.
var text string

// A Build is what was built.
type Build struct {
	Version string // as 1.2.3; "dev" where nobody said
	Commit  string // of git, 40 hexadecimal digits, and "-dirty" if files had been changed; "" if not known
	Schema  string // SHA-256 of the schema of policies, 64 hexadecimal digits; "" if not known
}

// What is around a stamp, and between its parts.
const (
	Prefix    = "thurward-build{"
	separator = ";"
	suffix    = "}"
	maxText   = 256
)

// Own returns what this program is.
func Own() Build {
	if b, ok := Parse(text); ok {
		return b
	}
	return Build{Version: "dev"}
}

// String returns the stamp.
func (b Build) String() string {
	return Prefix + b.Version + separator + b.Commit + separator + b.Schema + suffix
}

// Valid reports whether all parts have the form that Parse accepts.
func (b Build) Valid() bool {
	p, ok := Parse(b.String())
	return ok && p == b
}

// Parse reads the stamp at the beginning of s. Other text may follow it.
func Parse(s string) (Build, bool) {
	s, ok := strings.CutPrefix(s[:min(len(s), maxText)], Prefix)
	if !ok {
		return Build{}, false
	}
	s, _, ok = strings.Cut(s, suffix)
	if !ok {
		return Build{}, false
	}
	version, s, _ := strings.Cut(s, separator)
	commit, schema, ok := strings.Cut(s, separator)
	hash := strings.TrimSuffix(commit, "-dirty")
	if !ok || !isVersion(version) || !(isHex(hash, 40) || commit == "") || !(isHex(schema, 64) || schema == "") {
		return Build{}, false
	}
	return Build{version, commit, schema}, true
}

func isVersion(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '.' || c == '-' || c == '+' || c == '~') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 64
}

func isHex(s string, n int) bool {
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return len(s) == n
}

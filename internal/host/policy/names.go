package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

var label = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// names reads destination_fqdn: exact names, or one wildcard label in front.
// Names are kept in lower case, without the dot at the end.
func (l *loader) names(n *node, path string) (all []string) {
	l.each(n, path, func(n *node, path string) {
		if n.kind != scalar {
			l.err(n, path, "type", "is "+n.kind.String(), "want a name, as example.com or *.example.com")
			return
		}
		if why := BadName(n.text); why != "" {
			const hint = "want a name, as example.com, or one wildcard label in front, as *.example.com"
			msg := fmt.Sprintf("%q: %s", n.text, why)
			if !l.first || why != singleLabel && why != wholeDomain {
				l.err(n, path, "fqdn", msg, hint)
				return
			}
			l.Warn(n.line, n.col, path, "fqdn", msg, hint)
		}
		if name := strings.ToLower(strings.TrimSuffix(n.text, ".")); !slices.Contains(all, name) {
			all = append(all, name)
		}
	})
	return all
}

// Names that can be and are seldom meant.
const (
	singleLabel = "has a single label"
	wholeDomain = "a wildcard for a whole top-level domain"
)

// BadName says why a text is no name or wildcard of destination_fqdn, "" when it is.
func BadName(s string) string {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return "longer than 253 characters"
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "is an address; use destination"
	}
	labels := strings.Split(s, ".")
	switch {
	case s == "*":
		return "a wildcard needs a name behind it"
	case len(labels) < 2 && label.MatchString(s):
		return singleLabel
	}
	for i, v := range labels {
		switch {
		case v == "*" && i == 0:
		case strings.Contains(v, "*"):
			return "a wildcard is one whole label, and the first"
		case !label.MatchString(v):
			return fmt.Sprintf("the label %q is not valid", v)
		}
	}
	if labels[0] == "*" && len(labels) < 3 {
		return wholeDomain
	}
	return ""
}

// AtOrBelow reports whether a name has one of the patterns, or lies below a name
// that has.
func AtOrBelow(patterns []string, name string) bool {
	for first := true; name != ""; first = false {
		if slices.Contains(patterns, name) || !first && slices.Contains(patterns, "*."+name) {
			return true
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return false
}

// MatchesName reports whether a name has one of the patterns: exact names, or
// wildcards for exactly one label.
func MatchesName(patterns []string, name string) bool {
	_, parent, _ := strings.Cut(name, ".")
	return slices.Contains(patterns, name) || slices.Contains(patterns, "*."+parent)
}

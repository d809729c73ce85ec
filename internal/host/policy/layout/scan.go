package layout

import (
	"fmt"
	"strings"
)

// A part is a piece of a line that is written as it was: an indicator of YAML, a scalar or
// a comment.
type part struct {
	text string
	kind partKind
	flow int // open brackets around it
}

type partKind int

const (
	word    partKind = iota // scalar, anchor, alias, tag
	open                    // { [
	shut                    // } ]
	comma                   // ,
	colon                   // : after a key
	remark                  // a comment
	ongoing                 // a piece of a quoted scalar of several lines
)

// isDash reports whether text begins with the indicator of a list's entry.
func isDash(s string) bool {
	return s != "" && s[0] == '-' && (len(s) == 1 || s[1] == ' ' || s[1] == '\t')
}

// isKey reports whether a line of a block, after its dashes, begins with a key.
func isKey(s string) bool {
	for s != "" && (s[0] == '&' || s[0] == '!') { // properties of the key
		i := strings.IndexAny(s, " \t")
		if i < 0 {
			return false
		}
		s = strings.TrimLeft(s[i:], " \t")
	}
	if s == "" {
		return false
	}
	if s[0] == '{' || s[0] == '[' {
		return false
	}
	n := 0
	if s[0] == '"' || s[0] == '\'' {
		if n = quoted(s[1:], s[0]); n < 0 {
			return false
		}
		n++
	} else {
		n = plain(s, 0)
	}
	rest := strings.TrimLeft(s[n:], " \t")
	return rest != "" && rest[0] == ':' && (len(rest) == 1 || rest[1] == ' ' || rest[1] == '\t')
}

// quoted returns the length of a quoted scalar behind its first quote, with the last one;
// -1 if it does not end in this line.
func quoted(s string, quote byte) int {
	for i := 0; i < len(s); i++ {
		switch {
		case quote == '"' && s[i] == '\\':
			i++
		case s[i] == quote && quote == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
		case s[i] == quote:
			return i + 1
		}
	}
	return -1
}

// plain returns the length of a scalar without quotes, or of an anchor, an alias or a tag.
func plain(s string, flow int) int {
	end := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '#' && i > 0 && (s[i-1] == ' ' || s[i-1] == '\t'):
			return end
		case c == ':' && (i+1 == len(s) || s[i+1] == ' ' || s[i+1] == '\t' || flow > 0 && strings.IndexByte(",[]{}", s[i+1]) >= 0):
			return end
		case flow > 0 && strings.IndexByte(",[]{}", c) >= 0:
			return end
		case c != ' ' && c != '\t':
			end = i + 1
		}
	}
	return end
}

// scan divides a line, or the rest of one, and follows what is open behind it.
func (f *formatter) scan(s string, number int) (parts []part, err error) {
	if f.quote != 0 {
		n := quoted(s, f.quote)
		if n < 0 {
			return append(parts, part{strings.TrimRight(s, " \t"), ongoing, f.flow}), nil
		}
		parts = append(parts, part{s[:n], ongoing, f.flow})
		f.quote, s = 0, s[n:]
	}
	for after := true; ; after = false {
		t := strings.TrimLeft(s, " \t")
		if t == "" {
			return parts, nil
		}
		space := after || len(t) < len(s)
		s = t
		c := s[0]
		n, kind := 1, word
		switch {
		case c == '#' && space:
			s = strings.TrimRight(s, " \t")
			f.comments = append(f.comments, comment{s, number + 1})
			return append(parts, part{s, remark, f.flow}), nil
		case c == '"' || c == '\'':
			if n = quoted(s[1:], c); n < 0 {
				f.quote = c
				return append(parts, part{strings.TrimRight(s, " \t"), ongoing, f.flow}), nil
			}
			n++
		case c == '{' || c == '[':
			kind = open
			f.flow++
		case (c == '}' || c == ']') && f.flow > 0:
			kind = shut
			f.flow--
		case c == ',' && f.flow > 0:
			kind = comma
		case c == ':' && len(parts) > 0 && (len(s) == 1 || strings.IndexByte(" \t", s[1]) >= 0 || f.flow > 0):
			kind = colon
		case c == '?' && (len(s) == 1 || s[1] == ' '):
			return nil, fmt.Errorf("line %d: keys that begin with ? are not formatted", number+1)
		case c == '&' || c == '!' || c == '*':
			if n = strings.IndexAny(s, " \t"); n < 0 {
				n = len(s)
			}
			if m := strings.IndexAny(s[:n], ",[]{}"); m > 0 && f.flow > 0 {
				n = m
			}
		default:
			if n = plain(s, f.flow); n == 0 {
				return nil, fmt.Errorf("line %d: %.20q is not understood", number+1, s)
			}
		}
		parts = append(parts, part{s[:n], kind, f.flow})
		s = s[n:]
	}
}

// opensScalar reports whether a line ends with the indicator of a literal or folded scalar.
func opensScalar(parts []part) bool {
	for i := len(parts) - 1; i >= 0; i-- {
		if p := parts[i]; p.kind != remark {
			return p.kind == word && p.flow == 0 && (p.text[0] == '|' || p.text[0] == '>') && strings.Trim(p.text[1:], "+-0123456789") == "" &&
				(i == 0 || parts[i-1].kind == colon || parts[i-1].kind == word)
		}
	}
	return false
}

// join writes parts with the white space of the layout between them.
func join(parts []part) string {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 && spaced(parts[i-1], p) {
			b.WriteByte(' ')
		}
		b.WriteString(p.text)
	}
	return b.String()
}

// spaced reports whether there is a space between two parts.
func spaced(a, b part) bool {
	switch {
	case b.kind == remark:
		return true
	case b.kind == comma || b.kind == colon:
		// An alias, or a tag without a value, would take the character into its name.
		return a.kind == word && strings.IndexByte("*&!", a.text[0]) >= 0
	case a.kind == open && b.kind == shut:
		return false
	case a.kind == open:
		return a.text == "{"
	case b.kind == shut:
		return b.text == "}"
	}
	return true
}

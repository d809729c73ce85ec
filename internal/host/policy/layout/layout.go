// Package layout brings rules.yaml into one layout, as gofmt does for Go: two spaces for
// each level, one after a colon or a comma, lists inside what they belong to, at most one
// empty line. It changes white space between the parts of a document and nothing else:
// no line is broken or joined, no comment, word or quote is changed, nothing is put into
// another order.
//
//	layout.go  lines and their indentation
//	scan.go    the parts of a line
//	verify.go  that nothing but the layout has changed
//
// The result is read again and compared with what was given: what cannot be brought into
// this layout without a change of meaning is an error.
package layout

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
)

// step is how far a level is indented.
const step = 2

// maxRounds is how often a document is gone through.
const maxRounds = 4

// maxDepth is how many levels a document may have.
const maxDepth = 64

// Format returns a policy in the canonical layout. The document must be YAML, and need be
// no valid policy.
func Format(src []byte) ([]byte, error) {
	if len(src) > policy.MaxBytes {
		return nil, fmt.Errorf("the file has %d bytes; at most %d are read", len(src), policy.MaxBytes)
	}
	text := strings.TrimPrefix(string(src), "\ufeff")
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	if i := strings.IndexAny(text, "\u0085\u2028\u2029"); i >= 0 {
		// Breaks of a line by YAML 1.1, and none by 1.2.
		return nil, fmt.Errorf("line %d: %q may break a line, or not; write what is meant", 1+strings.Count(text[:i], "\n"), []rune(text[i:])[0])
	}
	before, err := parse([]byte(text))
	if err != nil {
		return nil, inWords(src, err)
	}
	var comments []comment
	out := []byte(text)
	for round := 0; ; round++ {
		f := &formatter{lines: strings.Split(string(out), "\n")}
		if err := f.run(); err != nil {
			return nil, err
		}
		if round == 0 {
			comments = f.comments
		}
		next := []byte(strings.Join(f.finish(), "\n") + "\n")
		if bytes.Equal(next, out) {
			break
		}
		// Text of several lines may look like entries of a list, until it stands where it
		// belongs.
		if out = next; round == maxRounds {
			return nil, errors.New("the layout does not come to rest; put text of several lines into quotes")
		}
	}
	after, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("the layout cannot be changed without changing what is said: %w", err)
	}
	if at := different(before, after); at != nil {
		return nil, fmt.Errorf("line %d: the layout cannot be changed here without changing what is said", at.Line)
	}
	if line := lostComment(comments, out); line != 0 {
		return nil, fmt.Errorf("line %d: the layout cannot be changed without losing this comment", line)
	}
	return out, nil
}

// A level is a block of a document: the column where its entries began, and where they do.
type level struct {
	old, new int
	list     bool
}

// A line is a line of the result.
type line struct {
	text    string
	indent  int
	old     int  // its indentation as it was
	comment bool // there is nothing else
	blank   bool
	kept    bool // belongs to a scalar of several lines: nothing is changed
}

type formatter struct {
	lines    []string
	out      []line
	levels   []level
	comments []comment
	flow     int  // open brackets
	quote    byte // of an open quoted scalar
	first    int  // indentation of the entry that a continuation belongs to
}

// A comment is one of the document, with its line.
type comment struct {
	text string
	line int
}

// run takes line after line.
func (f *formatter) run() error {
	for i := 0; i < len(f.lines); i++ {
		l := f.lines[i]
		trimmed := strings.TrimLeft(l, " \t")
		switch {
		case f.quote != 0:
			parts, err := f.scan(l, i)
			if err != nil {
				return err
			}
			// White space at both ends of such a line is none of the text.
			f.out = append(f.out, line{text: strings.TrimLeft(join(parts), " \t"), indent: f.first + step, blank: strings.TrimSpace(l) == "", kept: true})
		case trimmed == "":
			f.out = append(f.out, line{blank: true})
		case trimmed[0] == '#':
			f.comments = append(f.comments, comment{strings.TrimRight(trimmed, " \t"), i + 1})
			f.out = append(f.out, line{text: strings.TrimRight(trimmed, " \t"), old: len(l) - len(trimmed), comment: true})
		case f.flow > 0:
			parts, err := f.scan(trimmed, i)
			if err != nil {
				return err
			}
			indent := f.first + step
			if strings.ContainsRune("}]", rune(trimmed[0])) {
				indent = f.first
			}
			f.out = append(f.out, line{text: join(parts), indent: indent, old: len(l) - len(trimmed)})
		case len(trimmed) == len(l) && (strings.HasPrefix(l, "---") || strings.HasPrefix(l, "...") || l[0] == '%'):
			f.levels = nil
			f.out = append(f.out, line{text: strings.TrimRight(l, " \t")})
		default:
			n, err := f.block(l, len(l)-len(trimmed), i)
			if err != nil {
				return err
			}
			i += n
		}
	}
	return nil
}

// enter returns where an entry that was at a column belongs, and makes it the innermost
// level.
func (f *formatter) enter(old int, list bool) (int, error) {
	for len(f.levels) > 0 {
		top := f.levels[len(f.levels)-1]
		if top.old > old || top.old == old && top.list && !list {
			f.levels = f.levels[:len(f.levels)-1]
			continue
		}
		break
	}
	at := 0
	if n := len(f.levels); n > 0 {
		top := f.levels[n-1]
		if top.old == old && top.list == list {
			return top.new, nil
		}
		at = top.new + step
	}
	if len(f.levels) >= maxDepth {
		return 0, fmt.Errorf("more than %d levels", maxDepth)
	}
	f.levels = append(f.levels, level{old, at, list})
	return at, nil
}

// block takes a line of a block, and returns how many lines after it belong to a literal
// or folded scalar that begins in it.
func (f *formatter) block(l string, col, number int) (more int, err error) {
	rest, dashes := l[col:], ""
	indent := -1
	for isDash(rest) {
		at, err := f.enter(col, true)
		if err != nil {
			return 0, fmt.Errorf("line %d: %w", number+1, err)
		}
		if indent < 0 {
			indent = at
		}
		after := strings.TrimLeft(rest[1:], " \t")
		if after == "" || after[0] == '#' {
			rest, dashes = after, dashes+"-"
			col++
			break
		}
		dashes += "- "
		col += len(rest) - len(after)
		rest = after
	}
	key := rest != "" && isKey(rest)
	if key {
		at, err := f.enter(col, false)
		if err != nil {
			return 0, fmt.Errorf("line %d: %w", number+1, err)
		}
		if indent < 0 {
			indent = at
		}
		f.first = at
	} else if indent >= 0 {
		f.first = indent
	} else { // a scalar that goes on, or one by itself
		indent = 0
		if len(f.levels) > 0 {
			indent = f.levels[len(f.levels)-1].new + step
		}
		f.first = max(indent-step, 0)
	}
	parts, err := f.scan(rest, number)
	if err != nil {
		return 0, err
	}
	text := join(parts)
	if strings.HasPrefix(text, "#") && dashes != "" {
		dashes += " "
	}
	f.out = append(f.out, line{text: dashes + text, indent: indent, old: len(l) - len(strings.TrimLeft(l, " \t"))})
	if !opensScalar(parts) {
		return 0, nil
	}
	// The lines of the scalar move with what it belongs to.
	parent := -1
	if n := len(f.levels); n > 0 {
		parent = f.levels[n-1].old
	}
	least := -1
	for j := number + 1; j < len(f.lines); j++ {
		t := strings.TrimLeft(f.lines[j], " ")
		if strings.TrimSpace(t) != "" && len(f.lines[j])-len(t) <= parent {
			break
		}
		if n := len(f.lines[j]) - len(t); t != "" && (least < 0 || n < least) {
			least = n
		}
		more++
	}
	for more > 0 && strings.TrimSpace(f.lines[number+more]) == "" {
		more--
	}
	shift := f.first + step - max(least, 0)
	for _, s := range f.lines[number+1 : number+1+more] {
		if t := strings.TrimLeft(s, " "); t != "" {
			f.out = append(f.out, line{text: t, indent: max(len(s)-len(t)+shift, 0), kept: true})
		} else {
			f.out = append(f.out, line{blank: true, kept: true})
		}
	}
	return more, nil
}

// finish indents comments and writes all lines.
func (f *formatter) finish() (all []string) {
	next := make([]int, len(f.out)) // the next line that is no comment, -1 for none
	at := -1
	for i := len(f.out) - 1; i >= 0; i-- {
		next[i] = at
		if l := &f.out[i]; !l.comment && !l.blank {
			at = i
		}
	}
	before := -1
	for i := range f.out {
		l := &f.out[i]
		switch {
		case l.blank && !l.kept:
			if len(all) > 0 && all[len(all)-1] != "" {
				all = append(all, "")
			}
			continue
		case l.blank:
			all = append(all, "")
			continue
		case l.comment:
			// A comment is about what follows, unless it stands deeper: then it ends what
			// came before.
			l.indent = 0
			n := next[i]
			switch {
			case n >= 0 && (before < 0 || l.old <= f.out[n].old || f.out[n].indent >= f.out[before].indent):
				l.indent = f.out[n].indent
			case before >= 0 && l.old > 0:
				l.indent = f.out[before].indent
			}
		default:
			before = i
		}
		all = append(all, strings.Repeat(" ", l.indent)+l.text)
	}
	for len(all) > 0 && all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

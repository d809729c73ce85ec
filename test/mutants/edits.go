package main

import (
	"sort"
	"strings"
)

// edits are insertions and replacements in a text. They are made in the order
// in which a tree is walked, parents first: of prefixes at one place the
// parent's comes first, of suffixes the child's.
type edits struct {
	before, after map[int][]string
	replaced      []replacement
}

type replacement struct {
	from, to int
	text     string
}

// wrap puts text before and after the bytes from and to.
func (e *edits) wrap(from, to int, before, after string) {
	if e.before == nil {
		e.before, e.after = map[int][]string{}, map[int][]string{}
	}
	e.before[from] = append(e.before[from], before)
	e.after[to] = append(e.after[to], after)
}

// replace puts text in place of the bytes from and to, which no other edit
// touches.
func (e *edits) replace(from, to int, text string) {
	e.replaced = append(e.replaced, replacement{from, to, text})
}

// apply returns the changed text.
func (e *edits) apply(src []byte) string {
	at := map[int]replacement{}
	var places []int
	seen := map[int]bool{}
	note := func(i int) {
		if !seen[i] {
			seen[i] = true
			places = append(places, i)
		}
	}
	for i := range e.before {
		note(i)
	}
	for i := range e.after {
		note(i)
	}
	for _, r := range e.replaced {
		at[r.from] = r
		note(r.from)
	}
	sort.Ints(places)
	var b strings.Builder
	done := 0
	for _, i := range places {
		b.Write(src[done:i])
		done = i
		for k := len(e.after[i]) - 1; k >= 0; k-- {
			b.WriteString(e.after[i][k])
		}
		for _, s := range e.before[i] {
			b.WriteString(s)
		}
		if r, ok := at[i]; ok {
			b.WriteString(r.text)
			done = r.to
		}
	}
	b.Write(src[done:])
	return b.String()
}

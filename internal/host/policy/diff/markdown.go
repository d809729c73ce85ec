package diff

import (
	"fmt"
	"io"
	"strings"

	"github.com/thurward/thurward/internal/shared/printable"
)

// WriteMarkdown prints the changes as a comment on a change under review, at most as
// many of them as most (negative: all). Values of the policies stand in code spans, so
// that nothing in them is markup.
func (d *Diff) WriteMarkdown(w io.Writer, most int) {
	if d.Same() {
		printable.Fprintf(w, "**No difference in traffic** between %s and %s.\n", code(d.Old), code(d.New))
		return
	}
	count := [...]int{Opens: 0, Closes: 0, Other: 0}
	for i := range d.Traffic {
		count[d.Traffic[i].Effect]++
	}
	printable.Fprintf(w, "**%s to %s**: %d more permissive, %d less permissive, %d as permissive; %d beside traffic.\n",
		code(d.Old), code(d.New), count[Opens], count[Closes], count[Other], len(d.Other))
	for i := range d.Traffic {
		if i == most {
			printable.Fprintf(w, "\nand %d more changes of traffic\n", len(d.Traffic)-i)
			break
		}
		t := &d.Traffic[i]
		if i == 0 || d.Traffic[i-1].Effect != t.Effect {
			printable.Fprintf(w, "\n### %s\n", t.Effect.Title())
		}
		printable.Fprintf(w, "\n%s → %s\n\n", code(t.From.String()), code(t.To.String()))
		for j := range t.Packets {
			printable.Fprintf(w, "- %s\n", code(t.Packets[j].String()))
		}
		if n := t.Sets - len(t.Packets); n > 0 {
			printable.Fprintf(w, "- and %d more sets of packets\n", n)
		}
		printable.Fprintf(w, "\nfor example %s\n", code(t.Example.String()))
	}
	if !d.Complete {
		printable.Fprintf(w, "\n**There is more**: so many sets of packets differ that the search was stopped.\n")
	}
	if len(d.Other) > 0 {
		printable.Fprintf(w, "\n### Beside traffic\n\n| what | before | after |\n| --- | --- | --- |\n")
	}
	for _, o := range d.Other {
		printable.Fprintf(w, "| %s | %s | %s |\n", Cell(o.What), Cell(o.Old), Cell(o.New))
	}
}

// code returns a text as a code span (CommonMark section 6.1), which holds backticks
// between longer fences.
func code(s string) string {
	s = printable.String(s, maxCode)
	fence := "`"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") || s == "" {
		return fmt.Sprintf("%s %s %s", fence, s, fence)
	}
	return fence + s + fence
}

// maxCode is the longest text of a code span, in bytes.
const maxCode = 1000

// Cell returns a text as a code span for a table, in which a bar ends a cell even within code.
func Cell(s string) string {
	if s == "" {
		return ""
	}
	return strings.ReplaceAll(code(s), "|", "\\|")
}

package matrix

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/thurward/thurward/internal/host/policy/diff"
	"github.com/thurward/thurward/internal/shared/printable"
)

// Bounds of what is shown of a matrix that is not asked for in full.
const (
	MostServices = 60 // of one side
	MostSources  = 24
)

// title is the heading of a side.
func (s *Side) title() string {
	if s.From == "lan" {
		return "From the LAN"
	}
	return "From the WAN"
}

// words returns a cell's text.
func (c *Cell) words() string {
	if c == nil {
		return "–"
	}
	return c.Label
}

// names returns the names of a service as text, "" if it has none.
func (s *Service) names(most int) string {
	if len(s.Names) > most+1 {
		return strings.Join(s.Names[:most], ", ") + fmt.Sprintf(" and %d more", len(s.Names)-most)
	}
	return strings.Join(s.Names, ", ")
}

// title returns a service with its names.
func (s *Service) title(most int) string {
	if len(s.Names) == 0 {
		return s.Label
	}
	return s.Label + " to " + s.names(most)
}

// cut shortens a side to what is shown, and says what was left out.
func (s Side) cut(all bool) (Side, string) {
	n, m := len(s.Services), len(s.Sources)
	if all || n <= MostServices && m <= MostSources {
		return s, ""
	}
	n, m = min(n, MostServices), min(m, MostSources)
	left := fmt.Sprintf("not shown: %d more services, %d more classes of hosts (--all shows them)", len(s.Services)-n, len(s.Sources)-m)
	s.Sources = s.Sources[:m]
	s.Services = slices.Clone(s.Services[:n])
	for i := range s.Services {
		s.Services[i].Cells = slices.DeleteFunc(slices.Clone(s.Services[i].Cells), func(c Cell) bool { return c.Source >= m })
	}
	return s, left
}

// Write prints the matrix as tables no wider than width, where that is possible. Without
// all it leaves out much of a large one, and says so.
func (m *Matrix) Write(w io.Writer, width int, all bool) {
	for i, t := range m.Tables(all) {
		if i > 0 {
			printable.Fprintf(w, "\n")
		}
		printable.Fprintf(w, "%s\n", t.Title)
		if len(t.Rows) == 0 {
			printable.Fprintf(w, "  nothing is reached\n")
			continue
		}
		t.write(w, width)
		if t.Left != "" {
			printable.Fprintf(w, "  %s\n", t.Left)
		}
	}
}

// write prints a table, its columns in as many blocks as are needed.
func (t *Table) write(w io.Writer, width int) {
	const gap = 2
	services := 0
	for i := range t.Rows {
		services = max(services, columns(t.Rows[i].Service))
	}
	widths := make([]int, len(t.Heads))
	for j := range t.Heads {
		widths[j] = columns(t.Heads[j].Label)
		for i := range t.Rows {
			widths[j] = max(widths[j], columns(t.Rows[i].Cells[j].Text))
		}
	}
	for from := 0; from < len(t.Heads); {
		to, used := from, gap+services
		for to < len(t.Heads) && (to == from || used+gap+widths[to] <= width) {
			used += gap + widths[to]
			to++
		}
		line := func(head string, cell func(j int) string) {
			b := strings.Repeat(" ", gap) + pad(head, services)
			for j := from; j < to; j++ {
				b += strings.Repeat(" ", gap) + pad(cell(j), widths[j])
			}
			printable.Fprintf(w, "%s\n", strings.TrimRight(b, " "))
		}
		if from > 0 {
			printable.Fprintf(w, "\n")
		}
		line("", func(j int) string { return t.Heads[j].Label })
		for i := range t.Rows {
			line(t.Rows[i].Service, func(j int) string { return t.Rows[i].Cells[j].Text })
		}
		from = to
	}
}

// columns returns the width of a text as it is printed.
func columns(s string) int { return utf8.RuneCountInString(printable.String(s, maxText)) }

// maxText is the longest text of a cell, in bytes.
const maxText = 400

func pad(s string, n int) string {
	s = printable.String(s, maxText)
	return s + strings.Repeat(" ", max(n-utf8.RuneCountInString(s), 0))
}

// WriteMarkdown prints the matrix as tables of GitHub's Markdown. What the policy says stands
// in code spans.
func (m *Matrix) WriteMarkdown(w io.Writer, all bool) {
	for i, t := range m.Tables(all) {
		if i > 0 {
			printable.Fprintf(w, "\n")
		}
		printable.Fprintf(w, "### %s\n\n", t.Title)
		if len(t.Rows) == 0 {
			printable.Fprintf(w, "nothing is reached\n")
			continue
		}
		row := func(cells []string) { printable.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
		head, rule := []string{""}, []string{"---"}
		for _, h := range t.Heads {
			head, rule = append(head, diff.Cell(h.Label)), append(rule, "---")
		}
		row(head)
		row(rule)
		for _, r := range t.Rows {
			cells := []string{diff.Cell(r.Service)}
			for _, c := range r.Cells {
				cells = append(cells, diff.Cell(c.Text))
			}
			row(cells)
		}
		if t.Left != "" {
			printable.Fprintf(w, "\n%s\n", t.Left)
		}
	}
}

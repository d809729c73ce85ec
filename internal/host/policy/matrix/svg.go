package matrix

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/thurward/thurward/internal/shared/printable"
)

// Measures of the picture, in units of which a letter is about 6.6 wide.
const (
	svgMargin = 28
	svgRow    = 38
	svgFlat   = 24 // a row without words
	svgHead   = 52
	svgDot    = 26 // a cell where there are many sources: a colour only
	svgGap    = 4
	letter    = 6.6
	bold      = 7
	small     = 6
	line      = 30 // letters of a service's name
)

// The styles: no fonts and no files from elsewhere; a viewer's dark mode is followed.
const svgStyle = `
svg{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;background:#fff}
.bg{fill:#fff}.t{fill:#1b2330}.h{font-size:20px;font-weight:600}.s{font-size:15px;font-weight:600}
.m{fill:#667085;font-size:11px}.b{font-weight:600}.z{fill:#f6f7f9}.no{fill:#d5d9e0}
.lan .all{fill:#0f766e}.lan .name{fill:#5fb3a8}.lan .some{fill:#bfe5df}.wan .all{fill:#b45309}.wan .some{fill:#fbdcae}
.c .all+text{fill:#fff}.c .name+text{fill:#05322e}.lan.c .some+text{fill:#0b4f49}.wan.c .some+text{fill:#7a3d05}
.lan .bar{fill:#0f766e}.wan .bar{fill:#b45309}
@media(prefers-color-scheme:dark){svg{background:#10151c}.bg{fill:#10151c}.t{fill:#e6eaf0}.m{fill:#8d97a8}.z{fill:#171e28}.no{fill:#39434f}
.lan .all{fill:#14a08f}.lan .name{fill:#1d6a61}.lan .some{fill:#12413c}.wan .all{fill:#d97a1d}.wan .some{fill:#4a2f10}
.c .all+text{fill:#06120f}.c .name+text{fill:#d5f5f0}.lan.c .some+text{fill:#a8e6dc}.wan.c .some+text{fill:#fbd7a5}}
`

// WriteSVG writes the matrix as a picture: services down, hosts across, the darker the more is
// reached. Where there are many hosts
// the words of a cell are only in its tooltip. What the policy says is text, never markup.
func (m *Matrix) WriteSVG(w io.Writer, all bool) error {
	d := &svg{}
	y := 84
	width := 560
	for i := range m.Sides {
		s, _ := m.Sides[i].cut(all)
		label, _, _ := s.measures()
		d.label = max(d.label, label)
	}
	for i := range m.Sides {
		s, left := m.Sides[i].cut(all)
		var used int
		y, used = d.side(&s, y, left)
		width = max(width, used)
	}
	y += 4
	d.legend(y)
	out := &strings.Builder{}
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Who may reach what">`, width, y+44, width, y+44)
	fmt.Fprintf(out, "<style>%s</style>\n", svgStyle)
	fmt.Fprintf(out, `<rect class="bg" width="%d" height="%d"/>`+"\n", width, y+44)
	fmt.Fprintf(out, `<text class="t h" x="%d" y="38">Who may reach what</text><text class="m" x="%d" y="58">%s</text>`+"\n", svgMargin, svgMargin, escaped(m.File, 90))
	out.WriteString(d.String())
	out.WriteString("</svg>\n")
	_, err := io.WriteString(w, out.String())
	return err
}

type svg struct {
	strings.Builder
	label int // how wide the services' names are, on both sides
}

// escaped returns a text of the policy for XML, cut to so many characters.
func escaped(s string, most int) string {
	r := []rune(printable.String(s, maxText))
	if len(r) > most {
		r = append(r[:max(most-1, 0)], '…')
	}
	var b strings.Builder
	xml.EscapeText(&b, []byte(string(r))) //nolint:errcheck // a Builder does not fail
	return b.String()
}

// text writes a text at a place, cut to a width.
func (d *svg) text(class string, x, y, width int, anchor, s string) {
	wide := letter
	switch {
	case class == "m":
		wide = small
	case strings.HasSuffix(class, "b"):
		wide = bold
	}
	fmt.Fprintf(d, `<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`, class, x, y, anchor, escaped(s, int(float64(width)/wide)))
}

// side draws one side from y on, and returns where it ends.
func (d *svg) side(s *Side, y int, left string) (bottom, width int) {
	fmt.Fprintf(d, `<g class="%s c">`+"\n", s.From)
	fmt.Fprintf(d, `<rect class="bar" x="%d" y="%d" width="4" height="18" rx="2"/>`, svgMargin, y-3)
	d.text("t s", svgMargin+12, y+11, 400, "start", s.title())
	d.WriteString("\n")
	if len(s.Services) == 0 {
		d.text("m", svgMargin+12, y+34, 400, "start", "nothing is reached")
		d.WriteString("</g>\n")
		return y + 62, 0
	}
	_, cell, words := s.measures()
	row, head := svgRow, svgHead
	if !words {
		row, head = svgFlat, 150
	}
	x0 := svgMargin + d.label
	for j := range s.Sources {
		x := x0 + j*cell
		label := s.Sources[j].Label
		if words {
			first, second := twoLines(label, int(float64(cell-svgGap-4)/bold))
			if second == "" {
				first, second = "", first
			}
			d.text("t b", x+(cell-svgGap)/2, y+24, cell, "middle", first)
			d.text("t b", x+(cell-svgGap)/2, y+39, cell, "middle", second)
			continue
		}
		fmt.Fprintf(d, `<text class="t" transform="translate(%d,%d) rotate(-60)">%s</text>`, x+cell/2+2, y+head-8, escaped(label, 24))
	}
	d.WriteString("\n")
	y += head
	for i := range s.Services {
		v := &s.Services[i]
		top := y + i*row
		first, second := v.Label, v.names(1)
		style := "m"
		if second == "" {
			first, second = twoLines(v.Label, line)
			style = "t b"
		}
		switch {
		case second == "":
			d.text("t b", x0-12, top+row/2+3, d.label, "end", first)
		case !words:
			d.text("t b", x0-12, top+row/2+3, d.label, "end", v.title(0))
		default:
			d.text("t b", x0-12, top+15, d.label, "end", first)
			d.text(style, x0-12, top+29, d.label, "end", second)
		}
		for j := range s.Sources {
			d.cell(v, &s.Sources[j], v.Cell(j), x0+j*cell, top, cell-svgGap, row-svgGap, words)
		}
		d.WriteString("\n")
	}
	y += len(s.Services) * row
	if left != "" {
		d.text("m", svgMargin+12, y+16, 800, "start", left)
		y += 20
	}
	d.WriteString("</g>\n")
	width = x0 + len(s.Sources)*cell + svgMargin
	if !words {
		width += 60
	}
	return y + 34, width
}

// measures returns how wide the services' names and the cells are: as what they say needs,
// within bounds. Where there are many sources, cells have no words.
func (s *Side) measures() (label, cell int, words bool) {
	least, most := 156, 230
	switch n := len(s.Sources); {
	case n > 12:
		least, most = svgDot, svgDot
	case n > 5:
		least, most = 118, 160
	}
	words = most > svgDot
	var names, cells float64
	for i := range s.Services {
		v := &s.Services[i]
		switch second := v.names(1); {
		case !words:
			names = max(names, float64(len(v.title(0)))*bold)
		case second != "":
			names = max(names, float64(len(v.Label))*bold, float64(len(second))*small)
		default:
			first, second := twoLines(v.Label, line)
			names = max(names, float64(max(len(first), len(second)))*bold)
		}
		for j := range s.Sources {
			if c := v.Cell(j); c != nil {
				cells = max(cells, float64(shortest(c.Label))*bold)
			}
		}
	}
	for i := range s.Sources {
		cells = max(cells, float64(shortest(s.Sources[i].Label))*bold)
	}
	return min(max(int(names)+26, 130), 340), min(max(int(cells)+12, least), most), words
}

// shortest returns the length of the longer of the two lines into which a text is best divided.
func shortest(s string) int {
	first, second := halves(s)
	return max(len(first), len(second))
}

// cell draws what a class of hosts reaches of a service.
func (d *svg) cell(v *Service, src *Source, c *Cell, x, y, width, h int, words bool) {
	d.WriteString("<g><title>" + escaped(src.Label+": "+v.title(5), maxText) + "\n")
	if c == nil {
		fmt.Fprintf(d, "nothing</title>")
		fmt.Fprintf(d, `<rect class="z" x="%d" y="%d" width="%d" height="%d" rx="6"/><circle class="no" cx="%d" cy="%d" r="2.5"/></g>`, x, y, width, h, x+width/2, y+h/2)
		return
	}
	fmt.Fprintf(d, "%s\nby %s</title>", escaped(c.words(), maxText), escaped(strings.Join(c.Rules, ", "), maxText))
	fmt.Fprintf(d, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="6"/>`, v.kind(c), x, y, width, h)
	if !words {
		d.WriteString("</g>")
		return
	}
	label, second := twoLines(c.Label, int(float64(width-8)/letter))
	if second == "" {
		fmt.Fprintf(d, `<text x="%d" y="%d" text-anchor="middle">%s</text></g>`, x+width/2, y+h/2+4, escaped(label, int(float64(width-8)/letter)))
		return
	}
	fmt.Fprintf(d, `<text text-anchor="middle"><tspan x="%d" y="%d">%s</tspan><tspan x="%d" y="%d">%s</tspan></text></g>`,
		x+width/2, y+h/2-3, escaped(label, int(float64(width-8)/letter)), x+width/2, y+h/2+11, escaped(second, int(float64(width-8)/letter)))
}

// legend says what the colours mean.
func (d *svg) legend(y int) {
	d.WriteString(`<g class="lan">`)
	x := svgMargin
	for _, e := range []struct{ class, text string }{
		{"all", "anywhere"}, {"name", "what has the name"}, {"some", "only what the cell says"}, {"z", "nothing"}} {
		fmt.Fprintf(d, `<rect class="%s" x="%d" y="%d" width="18" height="14" rx="4"/><text class="m" x="%d" y="%d">%s</text>`, e.class, x, y, x+24, y+11, e.text)
		x += 24 + int(letter*float64(len(e.text))) + 22
	}
	fmt.Fprintf(d, "</g>\n")
}

// twoLines divides a text that is longer than a line.
func twoLines(s string, most int) (first, second string) {
	if len(s) <= most {
		return s, ""
	}
	return halves(s)
}

// halves divides a text at the space that makes the longer half as short as it can be.
func halves(s string) (first, second string) {
	first = s
	for i := range len(s) {
		if s[i] == ' ' && max(i, len(s)-i-1) < max(len(first), len(second)) {
			first, second = s[:i], s[i+1:]
		}
	}
	return first, second
}

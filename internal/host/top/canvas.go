package top

import (
	"strings"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"

	"github.com/thurward/thurward/internal/shared/printable"
)

// The styles of text.
const (
	plain = iota
	faint
	strong
	good   // what is accepted, and well
	noted  // what somebody should look at
	denied // what is dropped, and wrong
	title
	selected
	numStyles
)

// styles are in the sixteen colours of the terminal's own palette, so that they fit its
// background. Without colours they differ by weight.
var styles = [numStyles]tcell.Style{
	plain:    tcell.StyleDefault,
	faint:    tcell.StyleDefault.Dim(true),
	strong:   tcell.StyleDefault.Bold(true),
	good:     tcell.StyleDefault.Foreground(color.Green),
	noted:    tcell.StyleDefault.Foreground(color.Olive),
	denied:   tcell.StyleDefault.Foreground(color.Maroon),
	title:    tcell.StyleDefault.Bold(true).Reverse(true),
	selected: tcell.StyleDefault.Reverse(true),
}

// maxText is the longest text that is looked at, in bytes.
const maxText = 2000

// put writes text at a place, no wider than width, and returns how wide it is. What is
// too long ends with an ellipsis.
func (v *View) put(x, y, width, style int, text string) int {
	cols, rows := v.out.Size()
	width = min(width, cols-x)
	if width <= 0 || y < 0 || y >= rows || x < 0 {
		return 0
	}
	rest, at := printable.String(text, maxText), x
	for rest != "" {
		next, w := v.out.Put(at, y, rest, styles[style])
		if next == rest {
			break
		}
		if at += w; at > x+width || at == x+width && next != "" {
			for c := x + width - 1; c < at && c < cols; c++ {
				v.out.Put(c, y, " ", styles[plain])
			}
			v.out.Put(x+width-1, y, "…", styles[style])
			return width
		}
		rest = next
	}
	return at - x
}

// right writes text that ends at a place.
func (v *View) right(end, y, width, style int, text string) {
	n := len([]rune(printable.String(text, maxText)))
	v.put(end-min(n, width), y, width, style, text)
}

// bar draws a share from 0 to 1 in eighths of a character.
func (v *View) bar(x, y, width, style int, share float64) {
	if !(share > 0) {
		share = 0
	}
	eighths := int(min(share, 1)*float64(8*width) + 0.5)
	for i := range width {
		c := "·"
		if n := min(eighths-8*i, 8); n > 0 {
			c = string([]rune("▏▎▍▌▋▊▉█")[n-1])
		}
		s := style
		if c == "·" {
			s = faint
		}
		v.put(x+i, y, 1, s, c)
	}
}

// plot draws values as columns of height lines, the newest to the right, as large as top
// at most.
func (v *View) plot(x, y, width, height, style int, values []float64, top float64) {
	values = values[max(len(values)-width, 0):]
	for i, n := range values {
		share := 0.0
		if top > 0 && n > 0 {
			share = min(n/top, 1)
		}
		eighths := int(share*float64(8*height) + 0.5)
		if n > 0 && eighths == 0 {
			eighths = 1
		}
		for line := range height {
			if k := min(eighths-8*line, 8); k > 0 {
				v.put(x+width-len(values)+i, y+height-1-line, 1, style, string([]rune("▁▂▃▄▅▆▇█")[k-1]))
			}
		}
	}
}

// line draws a rule across the screen with a title.
func (v *View) line(y int, text string) {
	cols, _ := v.out.Size()
	v.put(0, y, cols, faint, strings.Repeat("─", cols))
	v.put(2, y, cols-4, strong, " "+text+" ")
}

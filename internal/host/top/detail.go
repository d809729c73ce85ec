package top

import (
	"fmt"

	"github.com/thurward/thurward/internal/host/dashboard"
)

// pane draws what is known of one rule, host or name from a line on.
func (v *View) pane(f *dashboard.View, y int) {
	cols, rows := v.out.Size()
	v.line(y, v.kind+" "+v.key)
	d, ok := v.model.Detail(f.Name, v.kind, v.key)
	if !ok {
		return
	}
	y++
	if d.Rule != nil {
		last := "not since this receiver began"
		if !d.Rule.LastHit.IsZero() {
			last = since(v.at, d.Rule.LastHit) + " ago"
		}
		v.put(1, y, cols-2, plain, fmt.Sprintf("%s pkt/s   accepted %s   dropped %s   last hit %s",
			rate(f, d.Rule.Rate), whole(d.Rule.Accepts), whole(d.Rule.Drops), last))
		if y++; rows >= 24 && len(d.Hits) > 1 {
			values, top := []float64{}, 0.0
			hits := d.Hits[max(len(d.Hits)-(cols-2), 0):]
			for _, h := range hits {
				values, top = append(values, h.Rate), max(top, h.Rate)
			}
			v.put(1, y, cols-2, faint, fmt.Sprintf("hits per second, highest %s in %s", dashboard.Number(top), since(hits[len(hits)-1].At, hits[0].At)))
			v.plot(1, y+1, cols-2, plotHeight, good, values, top)
			y += plotHeight + 1
		}
	} else if v.kind == dashboard.OfRule {
		v.put(1, y, cols-2, faint, "the firewall counts no such rule")
		y++
	}
	var columns []counts
	for _, c := range []counts{{"RULES", d.Rules}, {"SOURCES", d.Sources}, {"DESTINATIONS", d.To}, {"NAMES", d.Names}, {"VERDICTS", d.Actions}} {
		if len(c.all) > 0 && !(len(c.all) == 1 && c.all[0].Key == v.key) {
			columns = append(columns, c)
		}
	}
	height := min(6, max(rows-y-8, 1))
	if len(columns) > 0 {
		width := (cols - 2) / len(columns)
		used := 0
		for i, c := range columns {
			used = max(used, v.counts(1+i*width, y, width-2, height, c))
		}
		y += used
	}
	v.put(1, y, cols-2, strong, "LAST VERDICTS")
	if len(d.Recent) == 0 {
		v.put(1, y+1, cols-2, faint, "none among the last ones")
	}
	for i := range d.Recent {
		if y+1+i >= rows-1 {
			break
		}
		r := verdictRow(&d.Recent[i], v.at)
		v.put(1, y+1+i, 9, faint, r.cells[0])
		v.put(11, y+1+i, cols-12, r.style, r.cells[1])
	}
}

// counts are the most frequent of something.
type counts struct {
	title string
	all   []dashboard.Count
}

// counts draws a small list, and returns how many lines it has.
func (v *View) counts(x, y, width, height int, c counts) int {
	v.put(x, y, width, strong, c.title)
	n := min(height, len(c.all))
	for i, k := range c.all[:n] {
		v.put(x, y+1+i, width-9, plain, k.Key)
		v.right(x+width, y+1+i, 8, faint, dashboard.Number(float64(k.Count)))
	}
	return n + 1
}

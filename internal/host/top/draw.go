package top

import (
	"fmt"
	"slices"
	"time"

	"github.com/thurward/thurward/internal/host/dashboard"
)

// plotHeight is how many lines a plot has.
const plotHeight = 3

// draw draws everything.
func (v *View) draw() {
	v.out.Clear()
	v.out.HideCursor()
	cols, rows := v.out.Size()
	f, i := v.firewall()
	if f == nil {
		v.put(0, 0, cols, title, pad(" thurward top", cols))
		v.put(2, 2, cols-4, plain, "waiting for a firewall to connect…")
		v.put(0, rows-1, cols, faint, "q quit")
		return
	}
	v.heading(f, i)
	y := v.rates(f, 1)
	if v.help {
		v.helps(y + 1)
	} else if v.kind != "" {
		v.pane(f, y)
	} else {
		v.table(f, y)
	}
	v.foot()
}

// heading draws the line of the firewall.
func (v *View) heading(f *dashboard.View, number int) {
	cols, _ := v.out.Size()
	v.put(0, 0, cols, title, pad("", cols))
	x := 1 + v.put(1, 0, cols/2, title, f.Name)
	state := "  up " + since(v.at, f.Booted)
	if !f.Connected {
		state = "  NOT CONNECTED, last line " + since(v.at, f.LastLine) + " ago"
	}
	v.put(x, 0, cols-x, title, fmt.Sprintf("%s  version %s  policy %.15s", state, or(f.Version), or(f.Policy)))
	right := ""
	if len(v.views) > 1 {
		right = fmt.Sprintf(" %d of %d ", number+1, len(v.views))
	}
	if v.paused {
		right = " PAUSED " + v.at.Format("15:04:05") + right
	}
	v.right(cols, 0, cols/2, title, right)
}

// rates draws plots, interfaces and the fill of tables from a line on, and returns the line
// below. Of a low screen it draws one line only.
func (v *View) rates(f *dashboard.View, y int) int {
	cols, rows := v.out.Size()
	style := plain
	if f.Load >= 0.8 {
		style = denied
	}
	text := "no metrics yet: the firewall sends them when it connects and every 10 seconds"
	switch {
	case f.Snapshot.IsZero():
	case len(f.History) == 0:
		text = "no rates yet: they need two snapshots of metrics, 10 seconds apart"
	default:
		text = fmt.Sprintf("accepted %s/s   dropped %s/s   new flows %s/s   DNS %s/s   processor %.0f %%   metrics %s old",
			dashboard.Number(f.AcceptRate), dashboard.Number(f.DropRate), dashboard.Number(f.Flows.Inserts), dashboard.Number(f.DNS.Rate), 100*f.Load, since(v.at, f.Snapshot))
	}
	v.put(1, y, cols-2, style, text)
	if y++; rows < 20 {
		return y
	}
	half := cols/2 - 2
	v.history(1, y, half, good, "accepted pkt/s", f.History, func(p *dashboard.Point) float64 { return p.Accepts })
	v.history(cols/2+1, y, half, denied, "dropped pkt/s", f.History, func(p *dashboard.Point) float64 { return p.Drops })
	y += plotHeight + 1
	for _, n := range f.Interfaces {
		v.put(1, y, cols-2, plain, fmt.Sprintf("%-4s in %7s pkt/s %7s bit/s   out %7s pkt/s %7s bit/s", n.Name,
			rate(f, n.RxPackets), rate(f, n.RxBits), rate(f, n.TxPackets), rate(f, n.TxBits)))
		y++
	}
	v.gauge(1, y, half, "flows", f.Flows.Entries, f.Flows.Capacity)
	for i, p := range f.NAT[:min(len(f.NAT), 3)] {
		v.gauge(1+(i+1)%2*(cols/2), y+(i+1)/2, half, "ports "+p.Address+" "+p.Proto, p.InUse, p.Size)
	}
	y += 1 + min(len(f.NAT), 3)/2
	if lost := f.Stream.Dropped + float64(f.Stream.Lost+f.Stream.Malformed); lost > 0 {
		v.put(1, y, cols-2, noted, fmt.Sprintf("telemetry: %.0f lines dropped in the firewall, %d reported lost, %d malformed",
			f.Stream.Dropped, f.Stream.Lost, f.Stream.Malformed))
		y++
	}
	return y
}

// history draws a plot of points with its title, its highest value and its length.
func (v *View) history(x, y, width, style int, title string, all []dashboard.Point, of func(*dashboard.Point) float64) {
	values, top := []float64{}, 0.0
	all = all[max(len(all)-width, 0):]
	for i := range all {
		values = append(values, of(&all[i]))
		top = max(top, values[i])
	}
	text := title
	if len(all) > 1 {
		text = fmt.Sprintf("%s, highest %s in %s", title, dashboard.Number(top), since(all[len(all)-1].At, all[0].At))
	}
	v.put(x, y, width, faint, text)
	v.plot(x, y+1, width, plotHeight, style, values, top)
}

// gauge draws how full a table is; size is 0 if it has none.
func (v *View) gauge(x, y, width int, name string, used, size float64) {
	share, style := dashboard.Fill(used, size), good
	switch {
	case share >= 0.95:
		style = denied
	case share >= 0.8:
		style = noted
	}
	w := max(width-45, 5)
	v.put(x, y, 24, plain, name)
	v.bar(x+25, y, w, style, share)
	text := fmt.Sprintf("%3.0f %% of %s", 100*share, whole(size))
	if len(text) > width-26-w { // on a narrow screen the share is what counts
		text = fmt.Sprintf("%3.0f %%", 100*share)
	}
	v.put(x+26+w, y, width-26-w, plain, text)
}

// listHeight is how many rows of the list are on the screen.
func (v *View) listHeight() int {
	_, rows := v.out.Size()
	if rows < 20 {
		return max(rows-6, 1)
	}
	return max(rows-14, 1)
}

// table draws the list from a line on.
func (v *View) table(f *dashboard.View, y int) {
	cols, rows := v.out.Size()
	x := 0
	v.line(y, "")
	for i := range lists {
		style, text := faint, fmt.Sprintf(" %d %s ", i+1, lists[i].title)
		if i == v.tab {
			style = title
		}
		x += 1 + v.put(x+1, y, cols, style, text)
	}
	l, by := &lists[v.tab], v.sorts[v.tab]
	v.rows = v.list(f)
	height := max(rows-y-3, 0)
	v.cursor = max(0, min(v.cursor, len(v.rows)-1))
	v.first = max(0, min(v.first, v.cursor, len(v.rows)-height))
	if v.cursor >= v.first+height {
		v.first = v.cursor - height + 1
	}
	v.cells(y+1, l.columns, strong, false, func(c int) string {
		if c != by.column {
			return l.columns[c].title
		}
		if by.reversed {
			return l.columns[c].title + "▲"
		}
		return l.columns[c].title + "▼"
	})
	if len(v.rows) == 0 {
		text := "nothing yet"
		if v.filter != "" {
			text = "nothing matches"
		}
		v.put(1, y+2, cols, faint, text)
	}
	for i := range min(height, len(v.rows)-v.first) {
		r := &v.rows[v.first+i]
		style := r.style
		if v.first+i == v.cursor {
			style = selected
			v.put(0, y+2+i, cols, selected, pad("", cols))
		}
		v.cells(y+2+i, l.columns, style, r.share >= 0, func(c int) string { return r.cells[c] })
		if r.share >= 0 && cols >= 80 {
			w := barOf(cols)
			v.bar(cols-w-1, y+2+i, w, good, r.share)
		}
	}
}

// barOf returns how wide the bars of lists are on a screen of so many columns.
func barOf(cols int) int {
	if cols < 100 {
		return 8
	}
	return 14
}

// nameWidth is what a narrow screen leaves for the names in a list, at least.
const nameWidth = 14

// fitting returns the columns that leave room for names in so many characters: the first two, and of
// the others those that fit, in their order.
func fitting(columns []column, room int) []column {
	used := 0
	for i, c := range columns {
		if c.width == 0 {
			used += nameWidth
			continue
		}
		if used += max(c.width, -c.width) + 1; used > room && i >= 2 {
			return columns[:i]
		}
	}
	return columns
}

// cells writes a row.
func (v *View) cells(y int, columns []column, style int, bar bool, text func(c int) string) {
	cols, _ := v.out.Size()
	left := cols - 2
	if cols >= 80 && (bar || !slices.ContainsFunc(columns, func(c column) bool { return c.title == "VERDICT" })) {
		left -= barOf(cols) + 1
	}
	columns = fitting(columns, left)
	for _, c := range columns {
		if c.width < 0 {
			left -= -c.width + 1
		} else if c.width > 0 {
			left -= c.width + 1
		}
	}
	x := 1
	for i, c := range columns {
		switch {
		case c.width < 0:
			v.right(x-c.width, y, -c.width, style, text(i))
			x += -c.width + 1
		case c.width > 0:
			v.put(x, y, c.width, style, text(i))
			x += c.width + 1
		default:
			v.put(x, y, max(left, 8), style, text(i))
			x += max(left, 8) + 1
		}
	}
}

// helps lists the keys.
func (v *View) helps(y int) {
	cols, _ := v.out.Size()
	for i, k := range keyHelp {
		v.put(2, y+i, 16, strong, k[0])
		v.put(18, y+i, cols-18, plain, k[1])
	}
}

// foot draws the last line.
func (v *View) foot() {
	cols, rows := v.out.Size()
	text := "q quit  ? keys  1-5 lists  Enter open  s sort  r reverse  / filter  p pause"
	switch {
	case v.typing:
		text = "filter: " + v.filter + "▏"
	case v.kind != "":
		text = "Esc back  h host  n name  q quit"
	case v.filter != "":
		text = "filter: " + v.filter + "   Esc forgets it   " + text
	}
	if len(v.views) > 1 && !v.typing {
		text += "  Tab next firewall"
	}
	v.put(0, rows-1, cols, faint, text)
}

// rate writes a rate, of which there is none before the second snapshot of metrics.
func rate(f *dashboard.View, n float64) string {
	if len(f.History) == 0 {
		return "–"
	}
	return dashboard.Number(n)
}

func pad(s string, n int) string { return fmt.Sprintf("%-*s", n, s) }

func or(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func since(now, t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return short(max(now.Sub(t), 0).Seconds())
}

package top

import (
	"unicode/utf8"

	"github.com/gdamore/tcell/v3"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/shared/printable"
)

// keyHelp says what keys do, a line for each.
var keyHelp = [][2]string{
	{"1 to 5, ← →", "rules, reasons of drops, hosts, names, last verdicts"},
	{"↑ ↓ PgUp PgDn", "move"},
	{"Enter", "a pane for the rule, host or name"},
	{"h, n", "in a pane, and for a verdict: its source, its name"},
	{"s, r", "sort by the next column; reverse"},
	{"/", "filter: what is typed must occur; Enter ends, Esc forgets"},
	{"Tab", "next firewall"},
	{"p, Space", "pause"},
	{"Esc", "back"},
	{"q", "quit"},
}

// maxFilter is the longest filter, in bytes.
const maxFilter = 64

// press handles a key, and reports whether it ends the view.
func (v *View) press(e *tcell.EventKey) (quit bool) {
	if e.Key() == tcell.KeyCtrlC {
		return true
	}
	if v.typing {
		v.typed(e)
		return false
	}
	if v.help {
		v.help = false
		return e.Key() == tcell.KeyRune && e.Str() == "q"
	}
	page := max(v.listHeight(), 1)
	switch e.Key() {
	case tcell.KeyEscape:
		switch {
		case v.kind != "":
			v.kind = ""
		case v.filter != "":
			v.filter = ""
		default:
			return true
		}
	case tcell.KeyEnter:
		v.enter()
	case tcell.KeyTab, tcell.KeyBacktab:
		v.next(e.Key() == tcell.KeyBacktab)
	case tcell.KeyUp:
		v.move(-1)
	case tcell.KeyDown:
		v.move(1)
	case tcell.KeyPgUp:
		v.move(-page)
	case tcell.KeyPgDn:
		v.move(page)
	case tcell.KeyHome:
		v.move(-len(v.rows))
	case tcell.KeyEnd:
		v.move(len(v.rows))
	case tcell.KeyLeft:
		v.show(v.tab + numTabs - 1)
	case tcell.KeyRight:
		v.show(v.tab + 1)
	case tcell.KeyRune:
		return v.rune(e.Str())
	}
	return false
}

func (v *View) rune(s string) (quit bool) {
	switch s {
	case "q":
		return true
	case "?":
		v.help = true
	case "p", " ":
		v.paused = !v.paused
		v.refresh()
	case "1", "2", "3", "4", "5":
		v.show(int(s[0] - '1'))
	case "s":
		v.sorts[v.tab].column = (v.sorts[v.tab].column + 1) % len(lists[v.tab].columns)
	case "r":
		v.sorts[v.tab].reversed = !v.sorts[v.tab].reversed
	case "/":
		v.typing, v.kind = true, ""
	case "h":
		v.about(dashboard.OfHost, func(r *row) string { return r.host })
	case "n":
		v.about(dashboard.OfName, func(r *row) string { return r.name })
	case "j":
		v.move(1)
	case "k":
		v.move(-1)
	}
	return false
}

// typed handles a key of the filter.
func (v *View) typed(e *tcell.EventKey) {
	switch e.Key() {
	case tcell.KeyEnter:
		v.typing = false
	case tcell.KeyEscape:
		v.typing, v.filter = false, ""
	case tcell.KeyBackspace, tcell.KeyBackspace2, tcell.KeyDelete:
		_, n := utf8.DecodeLastRuneInString(v.filter)
		v.filter = v.filter[:len(v.filter)-n]
	case tcell.KeyRune:
		if s := e.Str(); len(v.filter)+len(s) <= maxFilter && printable.String(s, maxFilter) == s {
			v.filter += s
		}
	}
	v.cursor, v.first = 0, 0
}

// show shows a list.
func (v *View) show(tab int) {
	v.tab, v.kind, v.cursor, v.first = tab%numTabs, "", 0, 0
}

// next shows the next firewall, or the one before.
func (v *View) next(back bool) {
	if n := len(v.views); n > 0 {
		_, i := v.firewall()
		step := 1
		if back {
			step = n - 1
		}
		v.chosen = v.views[(i+step)%n].Name
		v.kind, v.cursor, v.first = "", 0, 0
	}
}

func (v *View) move(by int) { v.cursor = max(0, min(v.cursor+by, len(v.rows)-1)) }

// selected returns the row under the cursor, nil if there is none. The list may have changed
// since it was drawn, by the keys before this one.
func (v *View) selected() *row {
	if f, _ := v.firewall(); f != nil {
		v.rows = v.list(f)
	}
	if v.cursor < 0 || v.cursor >= len(v.rows) {
		return nil
	}
	return &v.rows[v.cursor]
}

// enter opens the pane of the selected row.
func (v *View) enter() {
	if r := v.selected(); r != nil && v.kind == "" && r.kind != "" && r.key != "" {
		v.kind, v.key = r.kind, r.key
	}
}

// about opens the pane of something that the selected row, or the newest verdict of the
// pane, is about.
func (v *View) about(kind string, of func(*row) string) {
	if v.kind != "" {
		if f, _ := v.firewall(); f != nil {
			if d, ok := v.model.Detail(f.Name, v.kind, v.key); ok && len(d.Recent) > 0 {
				r := verdictRow(&d.Recent[0], v.at)
				if key := of(&r); key != "" {
					v.kind, v.key = kind, key
				}
			}
		}
		return
	}
	if r := v.selected(); r != nil && of(r) != "" {
		v.kind, v.key = kind, of(r)
	}
}

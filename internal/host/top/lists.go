package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/dashboard"
)

// numTabs is the number of lists.
const numTabs = 5

// A list is a list of the view.
type list struct {
	title   string
	columns []column
	sorted  int // the column by which it is sorted at first
	rows    func(v *View, f *dashboard.View) []row
}

// A column has a width in characters; negative: the number is written to the right. 0 is
// what is left.
type column struct {
	title string
	width int
}

// A row is a row of a list. order has what each column is sorted by, the number first.
type row struct {
	cells     []string
	order     []float64
	share     float64 // of the largest, for the bar; negative: none
	style     int
	kind, key string // of the pane that it opens
	host      string
	name      string
}

// lists are the lists, by number.
var lists = [numTabs]list{
	{"Rules", []column{{"RULE", 0}, {"PKT/S", -8}, {"ACCEPTED", -13}, {"DROPPED", -13}, {"LAST HIT", -9}}, 1, ruleRows},
	{"Drops", []column{{"REASON", 0}, {"PKT/S", -8}, {"TOTAL", -13}}, 1, dropRows},
	{"Hosts", []column{{"DENIED HOST", 0}, {"EVENTS", -10}}, 1, hostRows},
	{"Names", []column{{"DENIED NAME", 0}, {"EVENTS", -10}}, 1, nameRows},
	{"Verdicts", []column{{"TIME", 9}, {"VERDICT", 0}}, 0, verdictRows},
}

func ruleRows(v *View, f *dashboard.View) []row {
	rules, _ := v.model.Rules(f.Name)
	most := 0.0
	for i := range rules {
		most = max(most, rules[i].Rate)
	}
	out := make([]row, 0, len(rules))
	for i := range rules {
		r := &rules[i]
		last, ago := "–", 1e18
		if !r.LastHit.IsZero() {
			ago = max(v.at.Sub(r.LastHit).Seconds(), 0)
			last = short(ago)
		}
		style := plain
		switch {
		case r.Accepts+r.Drops == 0:
			style = faint
		case r.Drops > 0 && r.Accepts == 0:
			style = denied
		}
		out = append(out, row{cells: []string{r.ID, rate(f, r.Rate), whole(r.Accepts), whole(r.Drops), last},
			order: []float64{float64(i), r.Rate, r.Accepts, r.Drops, -ago}, share: dashboard.Fill(r.Rate, most), style: style, kind: dashboard.OfRule, key: r.ID})
	}
	return out
}

func dropRows(_ *View, f *dashboard.View) []row {
	most := 0.0
	for _, r := range f.Drops {
		most = max(most, r.Rate)
	}
	var out []row
	for i, r := range f.Drops {
		out = append(out, row{cells: []string{r.Reason, rate(f, r.Rate), whole(r.Total)},
			order: []float64{float64(i), r.Rate, r.Total}, share: dashboard.Fill(r.Rate, most), style: denied})
	}
	return out
}

func hostRows(_ *View, f *dashboard.View) []row {
	return countRows(f.Sources, dashboard.OfHost)
}

func nameRows(_ *View, f *dashboard.View) []row {
	return countRows(f.Names, dashboard.OfName)
}

func countRows(all []dashboard.Count, kind string) (out []row) {
	for i, c := range all {
		out = append(out, row{cells: []string{c.Key, whole(float64(c.Count))}, order: []float64{float64(i), float64(c.Count)},
			share: dashboard.Fill(float64(c.Count), float64(all[0].Count)), kind: kind, key: c.Key})
	}
	return out
}

func verdictRows(v *View, f *dashboard.View) (out []row) {
	for i := range f.Recent {
		e := &f.Recent[i]
		r := verdictRow(e, v.at)
		// The newest first, and what was denied before what would be. One line about several packets
		// comes a second after the first of them.
		weight := 0.0
		switch {
		case e.Action == "drop":
			weight = 2
		case strings.HasPrefix(e.Action, "would-"):
			weight = 1
		}
		r.order = []float64{-float64(e.At.UnixMicro()), weight}
		out = append(out, r)
	}
	return out
}

func verdictRow(e *dashboard.Verdict, at time.Time) row {
	r := row{cells: []string{e.At.In(at.Location()).Format("15:04:05"), e.Text}, share: -1, kind: dashboard.OfRule, key: e.Rule, host: e.Source, name: e.Name}
	switch {
	case e.Action == "drop":
		r.style = denied
	case strings.HasPrefix(e.Action, "would-"):
		r.style = noted
	}
	return r
}

// list returns the rows of the list that is shown, filtered and sorted.
func (v *View) list(f *dashboard.View) []row {
	l, by := &lists[v.tab], v.sorts[v.tab]
	rows := l.rows(v, f)
	if v.filter != "" {
		want := strings.ToLower(v.filter)
		rows = slices.DeleteFunc(rows, func(r row) bool {
			return !strings.Contains(strings.ToLower(strings.Join(r.cells, " ")), want)
		})
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		c := cmp.Compare(a.order[by.column], b.order[by.column])
		if by.column > 0 {
			c = -c // the largest first
		}
		if by.reversed {
			return -c
		}
		return c
	})
	return rows
}

// whole writes a counter with its thousands apart.
func whole(n float64) string {
	if !(n >= 0 && n < 1e13) {
		return dashboard.Number(n)
	}
	s := fmt.Sprintf("%.0f", n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// short writes a number of seconds in at most four characters.
func short(s float64) string {
	switch {
	case s < 100:
		return fmt.Sprintf("%.0fs", s)
	case s < 6000:
		return fmt.Sprintf("%.0fm", s/60)
	case s < 360000:
		return fmt.Sprintf("%.0fh", s/3600)
	}
	return fmt.Sprintf("%.0fd", min(s/86400, 999))
}

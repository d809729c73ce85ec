package dashboard

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Screen has the options for a view as text.
type Screen struct {
	Color bool // ANSI colours
	Now   time.Time
}

// ANSI attributes.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
	amber = "33"
)

func (sc Screen) paint(attr, s string) string {
	if !sc.Color || attr == "" {
		return s
	}
	return "\x1b[" + attr + "m" + s + "\x1b[0m"
}

// Draw renders a view as lines.
func (sc Screen) Draw(v *View) string {
	d := drawing{sc: sc}
	d.head(v)
	d.tables(v)
	d.add("", "")
	d.counters(v)
	d.add("", "")
	d.recent(v)
	return strings.Join(d.lines, "\n")
}

// A drawing is the lines of a view so far.
type drawing struct {
	sc    Screen
	lines []string
}

func (d *drawing) add(attr, format string, a ...any) {
	d.lines = append(d.lines, d.sc.paint(attr, d.sc.fit(fmt.Sprintf(format, a...))))
}

// head draws the firewall's state and its total rates.
func (d *drawing) head(v *View) {
	now := d.sc.Now
	state, attr := "connected", green
	if !v.Connected {
		state, attr = "NOT CONNECTED, last line "+since(now, v.LastLine)+" ago", red
	}
	d.add(bold+";"+attr, "%s  %s  up %s  version %s  policy %.19s  clock %s",
		v.Name, state, since(now, v.Booted), or(v.Version), or(v.Policy), or(v.Clock))
	switch {
	case v.Snapshot.IsZero():
		d.add(faint, "no metrics yet: the firewall sends them when it connects and every 10 seconds")
	case len(v.History) == 0:
		d.add(faint, "no rates yet: they need two snapshots of metrics, 10 seconds apart")
	default:
		d.add("",
			"accepted %s/s   dropped %s/s   new flows %s/s   verdicts %s/s   processor %.0f %%   (metrics %s old)",
			Number(v.AcceptRate), Number(v.DropRate), Number(v.Flows.Inserts), Number(v.EventRate), 100*v.Load, since(now, v.Snapshot))
	}
	for _, i := range v.Interfaces {
		d.add("", "%-4s in %9s pkt/s %9s bit/s   out %9s pkt/s %9s bit/s",
			i.Name, Number(i.RxPackets), Number(i.RxBits), Number(i.TxPackets), Number(i.TxBits))
	}
	d.add("", "")
}

// tables draws the fill of tables, the DNS proxy and the telemetry.
func (d *drawing) tables(v *View) {
	d.gauge("flows", v.Flows.Entries, v.Flows.Capacity)
	for _, p := range v.NAT {
		d.gauge("ports "+p.Address+" "+p.Proto, p.InUse, p.Size)
	}
	d.gauge("names learned", v.DNS.Bindings, 0)
	d.add("", "DNS %s queries/s, median %s, 99 %% %s%s",
		Number(v.DNS.Rate), seconds(v.DNS.P50), seconds(v.DNS.P99), outcomes(v.DNS.Outcomes))
	attr := ""
	if v.Stream.Dropped+float64(v.Stream.Lost+v.Stream.Malformed) > 0 {
		attr = amber
	}
	d.add(attr, "telemetry: %.0f lines wait, %.0f dropped in the firewall, %d reported lost, %d malformed, %d read",
		v.Stream.Queue, v.Stream.Dropped, v.Stream.Lost, v.Stream.Malformed, v.Stream.Lines)
}

// gauge draws how full a table is; size is 0 if it has none.
func (d *drawing) gauge(name string, used, size float64) {
	if size <= 0 {
		d.add("", "%-24s %10.0f", name, used)
		return
	}
	f, attr := Fill(used, size), ""
	switch {
	case f >= 0.95:
		attr = red
	case f >= 0.8:
		attr = amber
	}
	d.add(attr, "%-24s %10.0f of %-8.0f %s %3.0f %%", name, used, size, bar(f), 100*f)
}

// counters draws rules and reasons of drops side by side.
func (d *drawing) counters(v *View) {
	d.add(bold, "%-28s %8s %12s %12s  %-24s %8s %11s",
		"RULE", "PKT/S", "ACCEPTED", "DROPPED", "DROPPED FOR", "PKT/S", "TOTAL")
	if len(v.Rules)+len(v.Drops) == 0 {
		d.add(faint, "no counters yet")
	}
	for i := range min(max(len(v.Rules), len(v.Drops)), viewRules) {
		left := strings.Repeat(" ", 63)
		if i < len(v.Rules) {
			r := v.Rules[i]
			left = fmt.Sprintf("%-28s %8s %12.0f %12.0f", cut(r.ID, 28), Number(r.Rate), r.Accepts, r.Drops)
		}
		right := ""
		if i < len(v.Drops) {
			r := v.Drops[i]
			right = fmt.Sprintf("  %-24s %8s %11.0f", cut(r.Reason, 24), Number(r.Rate), r.Total)
		}
		d.add("", "%s%s", left, right)
	}
}

// recent draws the last verdicts.
func (d *drawing) recent(v *View) {
	d.add(bold, "LAST VERDICTS")
	if len(v.Recent) == 0 {
		d.add(faint, "none yet")
	}
	for _, r := range v.Recent[:min(len(v.Recent), textVerdicts)] {
		attr := ""
		if r.Action == ecs.Drop {
			attr = red
		}
		d.add(attr, "%s  %s", r.At.In(d.sc.Now.Location()).Format("15:04:05"), r.Text)
	}
}

// textVerdicts is how many verdicts are in the text.
const textVerdicts = 10

// fit makes text safe for the terminal.
func (sc Screen) fit(s string) string { return strings.TrimRight(ecs.Clean(s), " ") }

func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:max(n-1, 0)]) + "…"
}

func or(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// bar draws a fill from 0 to 1 with ten characters.
func bar(f float64) string {
	if !(f > 0) { // also NaN
		f = 0
	}
	n := int(10*min(f, 1) + 0.5)
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", 10-n) + "]"
}

// Number writes a rate or an amount with at most six characters.
func Number(v float64) string {
	if !(v < 1e16) { // too long otherwise; also NaN
		return fmt.Sprintf("%.1g", v)
	}
	for _, u := range []struct {
		f    float64
		unit string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.f {
			return fmt.Sprintf("%.4g%s", v/u.f, u.unit)
		}
	}
	if v >= 10 || v == float64(int64(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func seconds(s float64) string {
	if !(s > 0) {
		return "-"
	}
	if s >= ecs.MaxDuration.Seconds() {
		return "ages"
	}
	return time.Duration(s * 1e9).Round(10 * time.Microsecond).String()
}

func since(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(now.Sub(t), 0)
	if d > time.Minute {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return d.Round(time.Second).String()
}

func outcomes(o []Reason) string {
	var b strings.Builder
	for i, r := range o {
		separator := ", "
		if i == 0 {
			separator = "; "
		}
		fmt.Fprintf(&b, "%s%s %.0f", separator, r.Reason, r.Total)
	}
	return b.String()
}

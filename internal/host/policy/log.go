package policy

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// Reasons returns the reasons for drops, which log names.
func Reasons() (rs []verdict.Reason) {
	for r := verdict.Reason(1); r < verdict.NumReasons; r++ {
		if r != verdict.RuleAccept && r != verdict.DefaultAction {
			rs = append(rs, r)
		}
	}
	return rs
}

// defaultLog leaves out what an ordinary LAN says all day: IPv6, frames of other
// protocols (spanning tree, LLDP), multicast and broadcasts.
func defaultLog() Log {
	return Log{Quiet: []verdict.Reason{verdict.IPv6Unsupported, verdict.EtherTypeUnsupported}, QuietGroups: true}
}

// log reads log: for each reason for a drop whether it causes events.
func (l *loader) log(n *node, path string) {
	fs := []field{{"multicast", func(n *node, path string) {
		if v, ok := l.flag(n, path); ok {
			l.p.Log.QuietGroups = !v
		}
	}}}
	for _, r := range Reasons() {
		fs = append(fs, field{r.String(), func(n *node, path string) {
			v, ok := l.flag(n, path)
			if !ok {
				return
			}
			l.p.Log.Quiet = slices.DeleteFunc(l.p.Log.Quiet, func(q verdict.Reason) bool { return q == r })
			if !v {
				l.p.Log.Quiet = append(l.p.Log.Quiet, r)
			}
		}})
	}
	l.fields(n, path, fs)
	slices.Sort(l.p.Log.Quiet)
}

package ingest

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// ANSI colours.
const (
	dim    = "\x1b[2m"
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	reset  = "\x1b[0m"
)

// A Style says how text is written.
type Style struct {
	Color bool
	Zone  *time.Location // nil: UTC
}

func (s Style) paint(c, t string) string {
	if !s.Color {
		return t
	}
	return c + t + reset
}

// Text renders an event for people, on one line without its end. What comes
// from the network is made printable.
func (s Style) Text(h *Hello, e Event) string {
	at := "--:--:--.---"
	if t := h.When(e); !t.IsZero() {
		z := s.Zone
		if z == nil {
			z = time.UTC
		}
		at = t.In(z).Format("15:04:05.000")
	}
	return s.paint(dim, at) + "  " + s.Verdict(e)
}

// Verdict is Text without the time.
func (s Style) Verdict(e Event) string {
	var b strings.Builder
	switch a := e.Str("event.action"); a {
	case "accept":
		b.WriteString(s.paint(green, "ACCEPT"))
	case "drop":
		b.WriteString(s.paint(red, "DROP  "))
	case "reject":
		b.WriteString(s.paint(red, "REJECT"))
	case "flow-end":
		b.WriteString(s.paint(dim, "END   "))
	case "dns-query":
		return s.paint(cyan, "DNS   ") + s.query(e)
	case "dns-upstream-failed":
		return s.paint(yellow, "TLS   ") + clean("  no connection to upstream "+hostPort(e.Str("destination.ip"), e.Str("destination.port"))+"  "+e.Str("event.reason")+": "+e.Str("error.message"))
	case "lines-lost":
		return s.paint(yellow, "LOST  ") + s.loss(e)
	case "would-accept", "would-drop", "would-reject":
		b.WriteString(s.paint(yellow, "SHADOW"))
	default:
		b.WriteString(clean(fmt.Sprintf("%-6.12s", a)))
	}
	fmt.Fprintf(&b, "  %-7s %-4s  ", clean(e.Str("network.direction")), clean(e.Str("network.transport")))
	b.WriteString(s.endpoints(e))
	b.WriteString("  ")
	b.WriteString(s.why(e))
	if n := late(e); n > 0 {
		fmt.Fprintf(&b, ", its name expired %s ago", time.Duration(n)*time.Second)
	}
	if x := e.Str("network.translated.address"); x != "" {
		b.WriteString(", as " + clean(hostPort(x, e.Str("network.translated.port"))))
	}
	if n := e.Count(); n > 1 {
		fmt.Fprintf(&b, "  × %d", n)
	}
	return b.String()
}

// endpoints renders who speaks to whom.
func (s Style) endpoints(e Event) string {
	src, dst := e.Str("source.ip"), e.Str("destination.ip")
	if src == "" && dst == "" {
		if t := e.Str("firewall.ethertype"); t != "" {
			return "a frame of EtherType " + clean(t)
		}
		return "a packet that could not be read"
	}
	t := hostPort(src, e.Str("source.port")) + " → " + hostPort(dst, e.Str("destination.port"))
	if n := e.Str("destination.domain"); n != "" {
		t += " (" + n + ")"
	}
	if e.Str("network.transport") == "icmp" {
		t += icmp(e)
	}
	return clean(t)
}

// icmp names the common types (RFC 792).
func icmp(e Event) string {
	t := e.Str("firewall.icmp_type")
	if name := map[string]string{"0": "echo reply", "3": "unreachable", "8": "echo", "11": "time exceeded"}[t]; name != "" {
		return " " + name
	}
	if t == "" {
		return ""
	}
	return " type " + t
}

// why renders what decided.
func (s Style) why(e Event) string {
	rule, reason := clean(e.Str("rule.id")), clean(e.Str("event.reason"))
	switch a := e.Str("event.action"); {
	case a == "flow-end":
		return fmt.Sprintf("rule %s, %d packets, %s in %s", rule, e.Amount("network.packets"), Bytes(float64(e.Amount("network.bytes"))), duration(e))
	case strings.HasPrefix(a, "would-"):
		return fmt.Sprintf("rule %s %s", rule, strings.ReplaceAll(clean(a), "-", " "))
	case reason == "rule":
		return "rule " + rule
	case isVerdictReason(reason):
		return rule + " (" + reason + ")"
	default: // a check before or after the filter: no rule had a part in it
		return reason
	}
}

// isVerdictReason reports whether it was a rule, or the lack of one, that
// decided.
func isVerdictReason(r string) bool {
	return r == "explicit_deny" || r == "no_matching_allow_rule" || r == "default_action"
}

func (s Style) query(e Event) string {
	t := fmt.Sprintf("  %s  %s %s", hostPort(e.Str("source.ip"), ""), e.Str("dns.question.name"), e.Str("dns.question.type"))
	if r := e.Str("dns.resolved_ip"); r != "" {
		t += " → " + r
	}
	t += "  " + e.Str("event.reason")
	if c := e.Str("dns.response_code"); c != "" && c != "NOERROR" {
		t += " (" + c + ")"
	}
	if e.Int("event.duration") > 0 {
		t += " in " + duration(e)
	}
	return clean(t)
}

func (s Style) loss(e Event) string {
	where := "in the firewall"
	if e.Str("event.provider") == "tail" {
		where = "on the way here: this reader is too slow"
	}
	return fmt.Sprintf("  %d lines, %d events unread, %s", e.Amount("firewall.lost_lines"), e.Amount("firewall.lost_records"), where)
}

func duration(e Event) string {
	d := e.Duration("event.duration")
	for unit := time.Duration(1); unit < time.Second; unit *= 1000 {
		if d < 1000*unit {
			return d.Round(max(unit/10, 1)).String()
		}
	}
	return d.Round(100 * time.Millisecond).String()
}

// Bytes writes an amount of bytes.
func Bytes(n float64) string {
	for _, u := range []string{"B", "kB", "MB", "GB"} {
		if n < 1000 {
			if u == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, u)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}

func hostPort(ip, port string) string {
	switch {
	case ip == "":
		return "?"
	case port == "" || port == "0":
		return ip
	}
	return net.JoinHostPort(ip, port)
}

// maxText bounds what one field takes of a line.
const maxText = 300

// clean makes text safe for a terminal: no control characters, nothing that is
// invisible or changes the direction of writing, and not without end.
func clean(s string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > maxText {
			return -1
		}
		if !strconv.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}

// Clean makes text from a firewall safe for a terminal.
func Clean(s string) string { return clean(s) }

// Explain returns the command that asks the policy for the same verdict. It is
// empty where the policy alone does not say.
func Explain(e Event) string {
	src, dst, proto := e.Str("source.ip"), e.Str("destination.ip"), e.Str("network.transport")
	from := map[string]string{"egress": "lan", "ingress": "wan"}[e.Str("network.direction")]
	switch e.Str("event.action") {
	case "accept", "drop", "reject", "flow-end", "would-accept", "would-drop", "would-reject":
	default:
		return ""
	}
	if src == "" || dst == "" || from == "" || !explained(e.Str("event.reason"), proto) {
		return ""
	}
	cmd := []string{"thurward", "explain", "--from", from, "--proto", shell(proto),
		"--src", shell(hostPort(src, e.Str("source.port"))), "--dst", shell(hostPort(dst, e.Str("destination.port")))}
	if n := e.Str("destination.domain"); n != "" {
		cmd = append(cmd, "--fqdn", shell(n))
		// With the name it would have been another verdict: the sender did not
		// have it, or not any more.
		switch e.Str("firewall.hint") {
		case "name_expired":
			cmd = append(cmd, "--expired", fmt.Sprintf("%ds", late(e)))
		case "name_resolved_by_other_client":
			cmd = append(cmd, "--by-other")
		}
	}
	if e.Str("firewall.answer") == "true" {
		cmd = append(cmd, "--state", "established")
	}
	return strings.Join(cmd, " ")
}

// late returns for how many seconds a name had expired with which a packet would
// have been accepted, 0 when that was not it.
func late(e Event) int64 {
	if e.Str("firewall.hint") != "name_expired" {
		return 0
	}
	return min(max(e.Int("firewall.name_expired_seconds"), 0), math.MaxUint32)
}

// Remedy returns what would have let a dropped packet through, on one line, or "".
func Remedy(e Event) string {
	n, name := late(e), clean(e.Str("destination.domain"))
	if n == 0 || name == "" {
		return ""
	}
	return fmt.Sprintf("# %s had this address as %s until %s before, and uses it longer than its TTL; dns.ttl_grace, longer by %d, would let it through (docs/dns.md says what that costs)",
		clean(e.Str("source.ip")), name, time.Duration(n)*time.Second, n)
}

// explained reports whether thurward explain can say why a packet of a protocol
// met with this: it is decided by the policy alone, and not by what was before.
func explained(reason, proto string) bool {
	switch reason {
	case "rule", "martian", "hairpin_unsupported", "no_local_service", "untranslated_destination":
		return true
	case "conntrack_invalid": // those that begin no flow, and those that no flow can be of
		return proto != "tcp" && proto != "udp" && proto != "icmp"
	}
	return isVerdictReason(reason)
}

// shell quotes a word for a shell where it has to be.
func shell(s string) string {
	if s != "" && len(s) <= maxText && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:[]/") == "" && !strings.ContainsAny(s, "[]") {
		return s
	}
	return "'" + strings.ReplaceAll(clean(s), "'", `'\''`) + "'"
}

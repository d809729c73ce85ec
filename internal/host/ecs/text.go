package ecs

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/shared/verdict"
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

func (s Style) paint(colour, text string) string {
	if !s.Color {
		return text
	}
	return colour + text + reset
}

// Text writes an event that happened at a time, zero if unknown, on one line
// without its end. Text from the network is made printable.
func (s Style) Text(at time.Time, e Event) string {
	stamp := "--:--:--.---"
	if !at.IsZero() {
		zone := s.Zone
		if zone == nil {
			zone = time.UTC
		}
		stamp = at.In(zone).Format("15:04:05.000")
	}
	return s.paint(dim, stamp) + "  " + s.Verdict(e)
}

// Verdict is Text without the time.
func (s Style) Verdict(e Event) string {
	switch e.Str(EventAction) {
	case Accept:
		return s.paint(green, "ACCEPT") + s.packet(e)
	case Drop:
		return s.paint(red, "DROP  ") + s.packet(e)
	case FlowEnd:
		return s.paint(dim, "END   ") + s.packet(e)
	case WouldAccept, WouldDrop:
		return s.paint(yellow, "SHADOW") + s.packet(e)
	case DNSQuery:
		return s.paint(cyan, "DNS   ") + query(e)
	case UpstreamFailed:
		return s.paint(yellow, "TLS   ") + upstream(e)
	case ClockAdjusted:
		return s.paint(yellow, "CLOCK ") + adjustment(e)
	case PacketsLate:
		return s.paint(yellow, "LATE  ") + late(e)
	case LinesLost:
		return s.paint(yellow, "LOST  ") + loss(e)
	}
	return Clean(fmt.Sprintf("%-6.12s", e.Str(EventAction))) + s.packet(e)
}

// packet writes what was decided about a packet or a flow, and why.
func (s Style) packet(e Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %-7s %-4s  ", Clean(e.Str(NetworkDirection)), Clean(e.Str(NetworkTransport)))
	b.WriteString(endpoints(e))
	b.WriteString("  ")
	b.WriteString(why(e))
	if ago := expired(e); ago > 0 {
		fmt.Fprintf(&b, ", its name expired %s ago", ago)
	}
	if x := e.Str(TranslatedAddress); x != "" {
		b.WriteString(", as " + Clean(hostPort(x, e.Str(TranslatedPort))))
	}
	if n := e.Count(); n > 1 {
		fmt.Fprintf(&b, "  × %d", n)
	}
	return b.String()
}

// endpoints writes source and destination.
func endpoints(e Event) string {
	src, dst := e.Str(SourceIP), e.Str(DestinationIP)
	if src == "" && dst == "" {
		if t := e.Str(EtherType); t != "" {
			return "a frame of EtherType " + Clean(t)
		}
		return "a packet that could not be read"
	}
	t := hostPort(src, e.Str(SourcePort)) + " → " + hostPort(dst, e.Str(DestinationPort))
	if n := e.Str(DestinationDomain); n != "" {
		t += " (" + n + ")"
	}
	if e.Str(NetworkTransport) == "icmp" {
		t += icmp(e)
	}
	return Clean(t)
}

// icmp names the common types (RFC 792).
func icmp(e Event) string {
	switch t := e.Str(ICMPType); t {
	case "":
		return ""
	case "0":
		return " echo reply"
	case "3":
		return " unreachable"
	case "8":
		return " echo"
	case "11":
		return " time exceeded"
	default:
		return " type " + t
	}
}

// why names the rule or the check that decided.
func why(e Event) string {
	rule, reason := Clean(e.Str(RuleID)), Clean(e.Str(EventReason))
	switch action := e.Str(EventAction); {
	case action == FlowEnd:
		return fmt.Sprintf("rule %s, %d packets, %s in %s", rule,
			e.Amount(NetworkPackets), Bytes(float64(e.Amount(NetworkBytes))), duration(e))
	case action == WouldAccept, action == WouldDrop:
		return "rule " + rule + " " + strings.ReplaceAll(action, "-", " ")
	case reason == "rule":
		return "rule " + rule
	case ruleDecided(reason):
		return rule + " (" + reason + ")"
	}
	return reason // a check before or after the rules
}

// ruleDecided reports whether a reason means that a rule decided, or the default
// action because no rule matched.
func ruleDecided(reason string) bool {
	return reason == "explicit_deny" || reason == "no_matching_allow_rule" || reason == "default_action"
}

// query writes a query to the DNS proxy and its outcome.
func query(e Event) string {
	t := fmt.Sprintf("  %s  %s %s", hostPort(e.Str(SourceIP), ""), e.Str(DNSQuestionName), e.Str(DNSQuestionType))
	if r := e.Str(DNSResolvedIP); r != "" {
		t += " → " + r
	}
	t += "  " + e.Str(EventReason)
	if c := e.Str(DNSResponseCode); c != "" && c != "NOERROR" {
		t += " (" + c + ")"
	}
	if e.Int(EventDuration) > 0 {
		t += " in " + duration(e)
	}
	return Clean(t)
}

// upstream writes which server of the DNS proxy could not be reached, and why.
func upstream(e Event) string {
	return Clean("  no connection to upstream " + hostPort(e.Str(DestinationIP), e.Str(DestinationPort)) +
		"  " + e.Str(EventReason) + ": " + e.Str(ErrorMessage))
}

// loss writes how many lines were lost, and where.
func loss(e Event) string {
	where := "in the firewall"
	if e.Str(EventProvider) == "tail" {
		where = "on the way here: this reader is too slow"
	}
	return fmt.Sprintf("  %d lines, %d events unread, %s", e.Amount(LostLines), e.Amount(LostRecords), where)
}

// adjustment writes by how much the clock was corrected.
func adjustment(e Event) string {
	d := time.Duration(e.Int(ClockAdjustment)).Round(time.Millisecond)
	if d < 0 {
		return fmt.Sprintf("  the time of day was fast by %v, corrected", -d)
	}
	return fmt.Sprintf("  the time of day was slow by %v, corrected", d)
}

// late writes how late packets were.
func late(e Event) string {
	return fmt.Sprintf("  %d batches of packets took too long, the longest %s", e.Count(), duration(e))
}

// duration writes EventDuration with about two digits behind the point.
func duration(e Event) string {
	d := e.Duration(EventDuration)
	for unit := time.Duration(1); unit < time.Second; unit *= 1000 {
		if d < 1000*unit {
			return d.Round(max(unit/10, 1)).String()
		}
	}
	return d.Round(100 * time.Millisecond).String()
}

// Bytes writes a number of bytes with a decimal unit.
func Bytes(n float64) string {
	if n < 1000 {
		return fmt.Sprintf("%.0f B", n)
	}
	for _, unit := range []string{"kB", "MB", "GB"} {
		if n /= 1000; n < 1000 {
			return fmt.Sprintf("%.1f %s", n, unit)
		}
	}
	return fmt.Sprintf("%.1f TB", n/1000)
}

// hostPort writes an address, with its port if it has one.
func hostPort(ip, port string) string {
	switch {
	case ip == "":
		return "?"
	case port == "" || port == "0":
		return ip
	}
	return net.JoinHostPort(ip, port)
}

var hintExpired, hintOther = verdict.NameExpired.Name(), verdict.OtherClient.Name()

// expired returns how long ago the name had expired with which a dropped packet
// would have been accepted, 0 if that is not why it was dropped.
func expired(e Event) time.Duration {
	if e.Str(Hint) != hintExpired {
		return 0
	}
	return e.Seconds(NameExpired)
}

// maxText is the number of characters that are shown of one text.
const maxText = 300

// Clean makes text from a firewall safe for a terminal: it replaces control
// characters and those that are invisible or change the direction of writing,
// and cuts text that is too long.
func Clean(s string) string {
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

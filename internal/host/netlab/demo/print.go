package demo

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// ANSI colours, used on a terminal only.
const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	green = "\x1b[32m"
	red   = "\x1b[31m"
	reset = "\x1b[0m"
)

// A Printer writes the narration.
type Printer struct {
	W     io.Writer
	Color bool
}

func (p *Printer) paint(c, s string) string {
	if !p.Color {
		return s
	}
	return c + s + reset
}

func (p *Printer) linef(format string, a ...any) { fmt.Fprintf(p.W, format+"\n", a...) }

// verdict renders an event: what was decided, by which rule, and what the
// packet became.
func (p *Printer) verdict(e vmm.Event) string {
	var b strings.Builder
	switch e.Action {
	case "accept":
		b.WriteString(p.paint(green, "ACCEPT"))
	case "drop":
		b.WriteString(p.paint(red, "DROP  "))
	default:
		b.WriteString(p.paint(dim, e.Action))
	}
	fmt.Fprintf(&b, "  %-7s %-4s  %s → %s", e.Direction, e.Transport, hostPort(e.SrcIP, e.SrcPort), hostPort(e.DstIP, e.DstPort))
	switch {
	case e.Action == "accept" && e.RuleID != "":
		fmt.Fprintf(&b, "  rule %s", e.RuleID)
	case e.Action == "drop":
		fmt.Fprintf(&b, "  %s (%s)", e.RuleID, e.Reason)
	}
	if e.XlatIP != "" {
		fmt.Fprintf(&b, ", as %s", hostPort(e.XlatIP, e.XlatPort))
	}
	return b.String()
}

// Event prints one event with the time of day.
func (p *Printer) Event(at time.Time, e vmm.Event) {
	p.linef("%s  %s", p.paint(dim, at.Format("15:04:05.000")), p.verdict(e))
}

func hostPort(ip string, port uint16) string {
	switch {
	case ip == "":
		return "?"
	case port == 0:
		return ip
	}
	return net.JoinHostPort(ip, strconv.Itoa(int(port)))
}

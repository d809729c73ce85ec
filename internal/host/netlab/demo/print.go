package demo

import (
	"fmt"
	"io"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

// ANSI colours, used on a terminal only.
const (
	bold  = "\x1b[1m"
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

func (p *Printer) style() ecs.Style { return ecs.Style{Color: p.Color, Zone: time.Local} }

// Event prints one event with the time of day.
func (p *Printer) Event(at time.Time, e ecs.Event) { p.linef("%s", p.style().Text(at, e)) }

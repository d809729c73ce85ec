package main

import (
	"os"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/event"
)

// console prints events on the serial port, for people; programs read the stream. The port
// is slow and stops the CPU while it prints, so the number of lines is limited; suppressed
// ones are counted, and the count is printed.
type console struct {
	rings event.Rings
	ctx   *export.Context
	on    bool
	limit export.Limiter
	chunk int
	buf   []byte
}

// The rate of lines, and how many are printed between two turns of the packet loop. On
// software KVM every byte is an exit to the host, 18 ms for a line, during which nothing is
// forwarded.
const (
	consoleRate, consoleBurst, consoleChunk = 100, 500, 8
	slowRate, slowBurst, slowChunk          = 4, 60, 1
)

func newConsole(ctx *export.Context, rings event.Rings, on bool) *console {
	c := &console{ctx: ctx, rings: rings, on: on, limit: export.Limiter{Rate: consoleRate, Burst: consoleBurst}, chunk: consoleChunk}
	if sys.Native() {
		c.limit, c.chunk = export.Limiter{Rate: slowRate, Burst: slowBurst}, slowChunk
	}
	return c
}

const eventPrefix = "thurward: event "

// add renders an event to be printed.
func (c *console) add(r *event.Record, name []byte) {
	if !c.limit.Allow(sys.Nanotime()) {
		return
	}
	c.buf = append(c.buf, eventPrefix...)
	c.buf = export.AppendNamed(c.buf, r, name, c.ctx)
	c.buf = append(c.buf, '\n')
}

// flush prints the added lines and, unless there are more events, the number of suppressed
// ones.
func (c *console) flush(more bool) {
	if !c.on {
		return
	}
	if !more {
		n := len(c.buf)
		c.buf = append(c.buf, eventPrefix...)
		if lost := c.limit.AppendLost(c.buf, c.rings.Lost()); len(lost) > len(c.buf) {
			c.buf = append(lost, '\n')
		} else {
			c.buf = c.buf[:n]
		}
	}
	if len(c.buf) > 0 {
		os.Stdout.Write(c.buf)
		c.buf = c.buf[:0]
	}
}

package main

import (
	"os"
	"runtime"

	"github.com/thurward/thurward/internal/machine"
	"github.com/thurward/thurward/internal/segment"
	"github.com/thurward/thurward/internal/telemetry"
)

// console prints events on the serial port until there is a better way out of
// the machine. The port is slow and stops the CPU while it prints, so that
// lines are few: the rest is counted and the count printed.
type console struct {
	ring   *telemetry.Ring
	ctx    telemetry.Context
	on     bool
	signal chan struct{}
	limit  telemetry.Limiter
	told   [2]bool
	chunk  int
}

// How many lines the port gets, and how many are printed between two chances
// for the packet loop. On software KVM every byte is an exit to the host, 18 ms
// for a line, during which nothing is forwarded.
const (
	consoleRate, consoleBurst, consoleChunk = 100, 500, 8
	slowRate, slowBurst, slowChunk          = 4, 60, 1
)

func newConsole(p *segment.Policy, ring *telemetry.Ring, on bool) *console {
	base, source := machine.WallBase()
	c := &console{ring: ring, on: on, signal: make(chan struct{}, 1),
		ctx:   telemetry.Context{Policy: p, WallBase: base, Clock: source},
		limit: telemetry.Limiter{Rate: consoleRate, Burst: consoleBurst}, chunk: consoleChunk}
	if machine.Native() {
		c.limit, c.chunk = telemetry.Limiter{Rate: slowRate, Burst: slowBurst}, slowChunk
	}
	return c
}

// wake tells the printing goroutine that there may be events.
func (c *console) wake() {
	if c.ring.Len() == 0 {
		return
	}
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// run prints events as they come.
func (c *console) run() {
	var r telemetry.Record
	buf := make([]byte, 0, 16<<10)
	const prefix = "thurward: event "
	for range c.signal {
		for c.ring.Len() > 0 {
			buf = buf[:0]
			for range c.chunk {
				if !c.ring.Get(&r) {
					break
				}
				if !c.on || !c.limit.Allow(machine.Nanotime()) {
					continue
				}
				buf = append(buf, prefix...)
				buf = telemetry.AppendEvent(buf, &r, &c.ctx)
				buf = append(buf, '\n')
			}
			if c.on && c.ring.Len() == 0 {
				n := len(buf)
				buf = append(buf, prefix...)
				if lost := c.limit.AppendLost(buf, c.ring.Lost()); len(lost) > len(buf) {
					buf = append(lost, '\n')
				} else {
					buf = buf[:n]
				}
			}
			if len(buf) > 0 {
				os.Stdout.Write(buf)
				runtime.Gosched() // packets first
			}
		}
	}
}

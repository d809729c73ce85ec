package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/guest/prefetch"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// What a new flow from the LAN needs is prefetched while packets before it are handled: first
// what says which external port it will get, then, where that is known but for what happens in
// between, the place of its answers in the index. Nothing is decided ahead.

// distance is how many packets ahead a port is foretold, farther how many packets ahead what
// that needs is prefetched.
const (
	distance = 2
	farther  = 5
)

// expect is called for packet j of the batch, which begins a flow, before it is handled.
func (e *Engine) expect(in *port, j int) {
	if in.role != ruleset.LAN {
		return
	}
	b := &e.b
	var lines [7]uintptr
	n := 0
	if near := j + distance; b.keys.Unknown(near) {
		if k, g := b.keys.Key(near), b.guessFor(near); e.foretell(g, k) {
			var answer conntrack.Key
			answer.Set(k.Dst, g.Addr, k.DstPort, g.Port, k.Proto)
			lines[0], lines[1] = e.flows.Lines(&answer)
			lines[2] = e.nat.Line(g)
			n = 3
			if e.events != nil {
				lines[3], lines[4], lines[5] = e.recordLines(distance)
				n = 6
			}
		}
	}
	if far := j + farther; b.keys.Unknown(far) {
		k := b.keys.Key(far)
		if slot, ok := e.nat.Aim(b.guessFor(far), uint8(k.Proto), k.Src, k.SrcPort); ok {
			lines[n] = slot
			n++
		}
	}
	prefetch.Write(lines[:n])
}

// foretell finds the port that a flow with key k will get, and reports whether there is one.
func (e *Engine) foretell(g *nat.Guess, k *conntrack.Key) bool {
	if !e.nat.Foretell(g, uint8(k.Proto), k.Src, k.SrcPort) {
		return false
	}
	return g.Port != 0 || e.nat.Draw(g, e.random())
}

// guesses is how many guesses there are at a time, a power of two.
const guesses = 8

// guessFor returns the guess for packet j of the batch. That of another packet may be found
// there, until it is aimed.
func (b *batch) guessFor(j int) *nat.Guess { return &b.guess[uint(j)%guesses] }

// expectEnd prefetches what the end of a flow needs of the translation.
func (e *Engine) expectEnd(r conntrack.Ref) {
	s, k := e.flows.Shared(r), &e.flows.Dir(r).Key
	if slot, own, ok := e.nat.AheadOfGive(s.Pool, uint8(k.Proto), s.Port, k.Src, k.SrcPort); ok {
		l := [2]uintptr{slot, own}
		prefetch.Write(l[:])
	}
}

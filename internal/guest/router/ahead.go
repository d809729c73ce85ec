package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
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
	b := &e.b
	if in.role != ruleset.LAN {
		return
	}
	if far := j + farther; b.keys.Unknown(far) {
		k := b.keys.Key(far)
		if at, own, ok := e.nat.Ahead(uint8(k.Proto), k.Src, k.SrcPort); ok {
			l := [2]uintptr{at, own}
			prefetch.Read(l[:])
		}
	}
	if j += distance; !b.keys.Unknown(j) {
		return
	}
	k := b.keys.Key(j)
	rnd := e.random()
	m, at, ok := e.nat.Foretell(uint8(k.Proto), k.Src, k.SrcPort, rnd)
	if !ok {
		return
	}
	b.rnd[j%len(b.rnd)] = rnd
	var answer conntrack.Key
	answer.Set(k.Dst, m.Addr, k.DstPort, m.Port, k.Proto)
	a, z := e.flows.Lines(&answer)
	l := [3]uintptr{a, z, at}
	prefetch.Write(l[:])
}

// expectEnd prefetches what the end of a flow needs of the translation.
func (e *Engine) expectEnd(r conntrack.Ref) {
	s, k := e.flows.Shared(r), &e.flows.Dir(r).Key
	if slot, own, ok := e.nat.AheadOfGive(s.Pool, uint8(k.Proto), s.Port, k.Src, k.SrcPort); ok {
		l := [2]uintptr{slot, own}
		prefetch.Write(l[:])
	}
}

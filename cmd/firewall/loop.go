package main

import (
	"encoding/hex"
	"errors"
	"math"
	"runtime"

	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	// spin is the number of empty polls before the loop sleeps: an interrupt costs more
	// than polling two rings a few times.
	spin = 200
	// yieldEvery is the number of busy polls between two turns of other goroutines.
	yieldEvery = 64
	// longWait is the longest sleep of the loop in nanoseconds.
	longWait = int64(60e9)
	// kickEvery is the interval of Kick in nanoseconds.
	kickEvery = int64(100e6)
	// cryptoShare is for how many times the duration of a turn of the TLS goroutines
	// packets have priority after it.
	cryptoShare = 3
)

// loop forwards packets. While there are any it polls; otherwise it sleeps until a device
// interrupts or a deadline of the data plane.
func loop(e *router.Engine, p *ports, out *outlet, g *gaps, w *wallClock, dog *watchdog, gen *sys.Generations) {
	native := sys.Native() // no preemption of this loop: see main
	idle, busy := 0, 0
	turn := int64(0) // when TLS next gets a turn although there are packets
	// others lets other goroutines run.
	others := func(now int64) {
		g.doing = yielding
		runtime.Gosched()
		if native {
			sys.Yield()
		}
		turn = after(now)
	}
	g.last = sys.Nanotime()
	for {
		now := sys.Nanotime()
		g.poll(now)
		if now >= dog.next {
			dog.feed(now)
		}
		if g.late.due(now) {
			s, r := g.late.report(now)
			say(s)
			out.ring.Put(&r)
		}
		if gen.Changed() || out.resets.Reset() {
			restored(e, w, out)
			ready(out.ctx.Policy, p, " restored=1")
		}
		if w.due(now) {
			w.step(now)
		}
		if e.Poll(now) > 0 {
			idle, g.found = 0, true
			if busy++; busy%yieldEvery == 0 || out.pressing(now) || now >= turn && e.Host().Working() {
				out.rush.Store(true)
				out.snapshot()
				out.wake()
				others(now)
				p.check(now, e, out)
			}
			continue
		}
		idle++
		if e.Host().Working() && (now >= turn || idle >= spin) { // without packets there is no limit
			others(now)
			continue
		}
		if idle < spin {
			continue
		}
		if out.due(now) {
			out.rush.Store(false)
			out.snapshot()
			out.wake()
			g.doing = yielding
			runtime.Gosched()
			idle = 0
			continue
		}
		if p.lan.Arm() || p.wan.Arm() {
			p.lan.Disarm()
			p.wan.Disarm()
			continue
		}
		deadline := now + longWait
		if d := e.NextDeadline(); d != math.MaxInt64 && d < deadline {
			deadline = d
		}
		deadline = min(deadline, out.next.Load(), w.next, dog.next)
		bits := sys.Wait(deadline)
		g.woke(sys.Nanotime(), deadline)
		p.interrupted(bits, out)
		p.lan.Disarm()
		p.wan.Disarm()
		p.check(g.last, e, out)
		idle = 0
	}
}

// restored handles a restore of the machine's state, which VMGenID, VMClock or the transport
// reset of the vsock device tell: another machine may run with the same state. No packet is
// sent before the generators have another key, nor by a name that has expired meanwhile.
func restored(e *router.Engine, w *wallClock, out *outlet) {
	secret, err := sys.Fresh()
	own, err2 := sys.Fresh()
	if err = errors.Join(err, err2); err != nil { // the kernel ends the machine before
		say("crash: no random numbers after a restore: " + err.Error())
		sys.Reset()
	}
	e.Reseed(secret)
	out.moved(own)
	e.Moved()
	w.restored(sys.Nanotime())
	say("note: the state of this machine was saved or restored: random numbers and connections to upstreams begin anew")
}

// interrupted handles the interrupts of the devices, and a request to end (Ctrl-Alt-Del).
func (p *ports) interrupted(bits uint64, out *outlet) {
	out.interrupted(bits)
	if bits&p.lanBit != 0 {
		p.lan.Ack()
	}
	if bits&p.wanBit != 0 {
		p.wan.Ack()
	}
	if bits&sys.ConfigChanged != 0 {
		p.lan.Changed()
		p.wan.Changed()
	}
	if bits&sys.CtrlAltDel != 0 {
		end(out, "Ctrl-Alt-Del")
	}
	if bits&sys.PowerButton != 0 {
		end(out, "power button")
	}
}

// endLimit is how long sending the remaining telemetry may take when the firewall ends, in
// nanoseconds.
const endLimit = int64(500e6)

// end shuts the firewall down: it forwards no more packets, sends the remaining telemetry
// as far as the reader takes it, and powers the machine off.
func end(out *outlet, why string) {
	for limit := sys.Nanotime() + endLimit; out.due(sys.Nanotime()) && sys.Nanotime() < limit; {
		out.rush.Store(false)
		out.snapshot()
		out.wake()
		runtime.Gosched()
		if sys.Native() {
			sys.Yield()
		}
	}
	say("stopped: " + why)
	sys.PowerOff()
}

// after returns until when packets have priority after a turn of other goroutines from
// began until now.
func after(began int64) int64 {
	end := sys.Nanotime()
	return end + cryptoShare*(end-began)
}

// check polls for interrupts and kicks the devices at intervals, and sets devices up again.
func (p *ports) check(now int64, e *router.Engine, out *outlet) {
	if !p.heard {
		if mac, ok := e.Gateway(); ok {
			p.heard = true
			say("gateway " + formatMAC(mac)) // who replaces a firewall waits for it
		}
	}
	if now >= p.kick {
		p.kick = now + kickEvery
		p.interrupted(sys.Wait(0), out) // a loop that never sleeps would not see them
		p.lan.Kick()
		p.wan.Kick()
	}
	p.renew(now)
}

// bootUS is how long starting took, in microseconds.
var bootUS int

// ready prints the line that reports that the rules are in effect, with more fields: again
// after a restore, since whoever restored the machine has not seen the first.
func ready(p *ruleset.Policy, n *ports, more string) {
	lan, _ := n.lan.MAC()
	wan, _ := n.wan.MAC()
	_, source := sys.WallBase()
	if bootUS == 0 {
		bootUS = int((sys.Nanotime() - sys.EntryTime()) / 1000)
	}
	say("ready version=" + build.Version + " policy=sha256:" + hex.EncodeToString(p.Digest[:]) + " lan=" + formatMAC(lan) + " wan=" + formatMAC(wan) +
		" rules=" + itoa(len(p.Rules)) + " flows=" + itoa(int(p.Settings.MaxFlows)) + " clock=" + source + " boot_us=" + itoa(bootUS) + more)
}

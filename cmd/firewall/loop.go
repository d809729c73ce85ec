package main

import (
	"encoding/hex"
	"math"
	"runtime"

	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
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

// loop forwards packets, of the first worker. While there are any it polls; otherwise it sleeps
// until a device interrupts or a deadline of the data plane.
func loop(t *team, p *ports, out *outlet, w *wallClock, dog *watchdog) {
	one := t.all[0]
	e, g := one.e, &one.gaps
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
		if now >= t.looks {
			t.watch(now)
		}
		if now >= dog.next && !dog.starves(t.still, now) {
			dog.feed(now)
		}
		if g.late.due(now) {
			s, r := g.late.report(now)
			say(s)
			one.events.Put(&r)
		}
		if one.gen.Changed() || out.resets.Reset() {
			t.moves.Add(1)
			restored(e, w, out)
			ready(out.ctx.Policy, p, " restored=1")
		}
		if w.due(now) {
			w.step(now)
		}
		n := e.Poll(now)
		t.tell(one)
		if n > 0 {
			idle, g.found = 0, true
			if busy++; busy%yieldEvery == 0 || out.pressing(now) || now >= turn && e.Host().Working() {
				out.rush.Store(true)
				out.snapshot()
				out.wake()
				others(now)
				p.check(now, t, out)
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
		deadline := now + longWait
		if d := e.NextDeadline(); d != math.MaxInt64 && d < deadline {
			deadline = d
		}
		deadline = min(deadline, out.next.Load(), w.next, dog.next, t.looks)
		if p.arm() || !t.lieDown(one, deadline) {
			p.disarm()
			continue
		}
		bits := one.wait(deadline)
		now = sys.Nanotime()
		t.getUp(one, now)
		g.woke(now, deadline)
		p.interrupted(bits, out)
		p.disarm()
		p.check(now, t, out)
		idle = 0
	}
}

// restored handles a restore of the machine's state, which VMGenID, VMClock or the transport
// reset of the vsock device tell: another machine may run with the same state. No packet is
// sent before the generators have another key, nor by a name that has expired meanwhile.
func restored(e *router.Engine, w *wallClock, out *outlet) {
	reseed(e)
	out.moved(fresh())
	e.Moved()
	w.restored(sys.Nanotime())
	say("note: the state of this machine was saved or restored: random numbers and connections to upstreams begin anew")
}

// reseed keys a worker's generators anew.
func reseed(e *router.Engine) { e.Reseed(fresh()) }

// fresh returns random numbers that another restore of this machine has not.
func fresh() [32]byte {
	b, err := sys.Fresh()
	if err != nil { // the kernel ends the machine before
		say("crash: no random numbers after a restore: " + err.Error())
		sys.Reset()
	}
	return b
}

// interrupted handles the interrupts of the devices, and a request to end (Ctrl-Alt-Del).
func (p *ports) interrupted(bits uint64, out *outlet) {
	out.interrupted(bits)
	p.ack(bits)
	out.team.swept(out.team.all[0], bits)
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
	limit := sys.Nanotime() + endLimit
	out.team.halt(limit)
	for out.due(sys.Nanotime()) && sys.Nanotime() < limit {
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
func (p *ports) check(now int64, t *team, out *outlet) {
	if !p.heard {
		if mac, ok := t.all[0].e.Gateway(); ok {
			p.heard = true
			say("gateway " + formatMAC(mac)) // who replaces a firewall waits for it
		}
	}
	if p.due(now) {
		p.interrupted(t.all[0].wait(0), out)
		p.kick()
	}
	for _, n := range [...]*virtio.Net{p.lan, p.wan} {
		n.News()
	}
	p.renew(now, t)
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
	if n.workers > 1 {
		more = " workers=" + itoa(n.workers) + more
	}
	say("ready version=" + build.Version + " policy=sha256:" + hex.EncodeToString(p.Digest[:]) + " lan=" + formatMAC(lan) + " wan=" + formatMAC(wan) +
		" rules=" + itoa(len(p.Rules)) + " flows=" + itoa(int(p.Settings.MaxFlows)) + " clock=" + source + " boot_us=" + itoa(bootUS) + more)
}

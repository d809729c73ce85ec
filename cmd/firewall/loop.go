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
	// spin is how many empty polls come before the loop sleeps: an interrupt
	// costs more than a few looks at two rings.
	spin = 200
	// yieldEvery is how many busy polls come between two chances for the
	// other goroutines.
	yieldEvery = 64
	// longWait is how long the loop sleeps at most, in nanoseconds.
	longWait = int64(60e9)
	// kickEvery is the time between two looks for devices that stand still.
	kickEvery = int64(100e6)
	// cryptoShare: after a turn of the goroutines that speak TLS, packets have
	// so many times as long as it took.
	cryptoShare = 3
)

// loop forwards packets. While there are any it polls; otherwise it sleeps
// until a device interrupts or the data plane has something to do.
func loop(e *router.Engine, p *ports, out *outlet, g *gaps) {
	native := sys.Native() // then nobody interrupts this loop: see main
	idle, busy := 0, 0
	turn := int64(0) // when TLS is next given the processor although there are packets
	// others gives the other goroutines a turn.
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
		if e.Poll(now) > 0 {
			idle, g.found = 0, true
			if busy++; busy%yieldEvery == 0 || out.pressing(now) || now >= turn && e.Host().Working() {
				out.rush.Store(true)
				out.snapshot()
				out.wake()
				others(now)
				p.check(now, out)
			}
			continue
		}
		idle++
		if e.Host().Working() && (now >= turn || idle >= spin) { // no turn is too many while nothing comes
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
		deadline = min(deadline, out.next.Load())
		bits := sys.Wait(deadline)
		g.woke(sys.Nanotime(), deadline)
		p.interrupted(bits, out)
		p.lan.Disarm()
		p.wan.Disarm()
		p.check(g.last, out)
		idle = 0
	}
}

// interrupted handles the interrupts of the devices, and what somebody wants who
// has the machine's keyboard.
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
}

// endLimit is how long telemetry may take to leave when the firewall ends, in
// nanoseconds.
const endLimit = int64(500e6)

// end ends the firewall in good order: nothing is forwarded any more, what has been
// told leaves as far as somebody takes it, and the machine is powered off.
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

// after returns until when packets come first after a turn of others that began
// at a time and ends now.
func after(began int64) int64 {
	end := sys.Nanotime()
	return end + cryptoShare*(end-began)
}

// check looks after the devices, and for interrupts, from time to time. It says once when one has
// been given up; the other one goes on: its hosts still get answers from the
// firewall.
func (p *ports) check(now int64, out *outlet) {
	if now >= p.kick {
		p.kick = now + kickEvery
		p.interrupted(sys.Wait(0), out) // who never sleeps hears of none otherwise
		p.lan.Kick()
		p.wan.Kick()
	}
	for i, n := range [...]*virtio.Net{p.lan, p.wan} {
		if why := n.Stopped(); why != "" && !p.told[i] {
			p.told[i] = true
			say([...]string{"the lan", "the wan"}[i] + " interface has stopped: " + why)
		}
	}
}

// ready prints the line that says that the rules are live.
func ready(p *ruleset.Policy, n *ports) {
	lan, _ := n.lan.MAC()
	wan, _ := n.wan.MAC()
	_, source := sys.WallBase()
	us := (sys.Nanotime() - sys.EntryTime()) / 1000
	say("ready version=" + version + " policy=sha256:" + hex.EncodeToString(p.Digest[:]) + " lan=" + formatMAC(lan) + " wan=" + formatMAC(wan) +
		" rules=" + itoa(len(p.Rules)) + " flows=" + itoa(int(p.Settings.MaxFlows)) + " clock=" + source + " boot_us=" + itoa(int(us)))
}

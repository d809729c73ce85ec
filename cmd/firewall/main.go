// Command firewall is the program of the image: it connects the devices, the data plane and
// the telemetry, and runs the packet loop.
package main

import (
	"errors"
	"os"
	"runtime/debug"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/stamp"
)

// build is what was built.
var build = stamp.Own()

func main() {
	if sys.Native() {
		sys.Cooperate() // ADR 0004
	}
	args, err := parseArgs(sys.Cmdline())
	if err != nil {
		refuse(err)
	}
	if args.probe {
		// The launcher reports to its user which kind of KVM this is: ADR 0004.
		if sys.Native() {
			say("probe ok software-kvm")
		} else {
			say("probe ok")
		}
		sys.PowerOff()
	}
	refuse(run(args))
}

// run starts everything and forwards packets. It returns only if the firewall cannot start.
func run(args arguments) error {
	// A machine may be saved at any time from now on: what is drawn after this is drawn
	// anew when it is restored.
	restores := sys.WatchGenerations()
	// Nearly everything that is allocated during start-up is permanent: collections would
	// only delay it.
	percent := debug.SetGCPercent(-1)
	policy, err := ruleset.Open(sys.Policy())
	if err != nil {
		return err
	}
	found, err := findPorts(policy, args)
	if err != nil {
		return err
	}
	mtu, err := fits(policy, found[0].MTU(), found[1].MTU(), sys.FreeBytes())
	if err != nil {
		return err
	}
	pool, err := newPool(mtu)
	if err != nil {
		return err
	}
	addLong(pool, memoryNeeded(policy, mtu))
	nics, err := found.open(policy, pool)
	if err != nil {
		return err
	}
	events := event.NewRing(ringSize)
	cfg := router.Config{Policy: policy, Pool: pool, Events: events,
		Ports: []router.PortConfig{nics.config(ruleset.LAN), nics.config(ruleset.WAN)}, Alloc: alloc, ClockSet: clockSet()}
	if err := sys.Random(cfg.Secret[:]); err != nil {
		return errors.New("no random numbers: " + err.Error())
	}
	engine, err := router.New(cfg)
	if err != nil {
		return err
	}
	var secret [32]byte
	if err := sys.Random(secret[:]); err != nil {
		return errors.New("no random numbers: " + err.Error())
	}
	loopGaps, wall := &gaps{}, newWallClock(events, engine.Slept)
	out := newOutlet(policy, engine, events, nics, loopGaps, wall, args, secret)
	go out.run()
	if err := startDoT(policy, engine); err != nil {
		return err
	}
	setMemoryLimit()
	debug.SetGCPercent(percent)
	if err := sys.Seal(); err != nil {
		return err
	}
	engine.Announce()
	ready(policy, nics, "")
	loop(engine, nics, out, loopGaps, wall, newWatchdog(sys.WatchdogRegisters()), &restores)
	return nil
}

// refuse reports why the firewall does not start, and powers the machine off: a restart
// would not help.
func refuse(err error) {
	say("refusing to start: " + err.Error())
	sys.PowerOff()
}

// say writes one line to the console.
func say(s string) { os.Stdout.Write(line(s)) }

// maxSaid is the length of the longest line of the console in bytes: it prints slowly.
const maxSaid = 1000

// line returns s as one line of printable text: parts of it may come from outside, and the
// launcher interprets the beginnings of lines.
func line(s string) []byte {
	return append(printable.Append([]byte("thurward: "), s, maxSaid), '\n')
}

// newPool makes the packet buffers, for packets of at most mtu bytes.
func newPool(mtu int) (*framebuf.Pool, error) {
	n, span := router.Buffers(mtu)
	mem, phys, err := sys.DMA(n*span*framebuf.Size, false)
	if err != nil {
		return nil, errors.New("no memory for packet buffers (give the machine more with --memory)")
	}
	return framebuf.NewPoolOf(mem, phys, span), nil
}

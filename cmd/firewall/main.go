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
	most := mostWorkers(args)
	found, err := findPorts(policy, args, most)
	if err != nil {
		return err
	}
	mtu, err := fits(policy, found[0].MTU(), found[1].MTU(), sys.FreeBytes())
	if err != nil {
		return err
	}
	n := found.workers(most, func(n int) int { return affordable(policy, mtu, n, sys.FreeBytes()) })
	pool, err := newPool(mtu, n)
	if err != nil {
		return err
	}
	addLong(pool, n, memoryNeeded(policy, mtu, n))
	pools := pool.Split(n)
	pairs, err := found.open(policy, pools)
	if err != nil {
		return err
	}
	cfg := router.Config{Policy: policy, Alloc: alloc, ClockSet: clockSet()}
	if err := sys.Random(cfg.Secret[:]); err != nil {
		return errors.New("no random numbers: " + err.Error())
	}
	var rings event.Rings
	var each []router.Worker
	for k, p := range pairs {
		rings = append(rings, event.NewRing(ringSize))
		each = append(each, router.Worker{Pool: pools[k], Events: rings[k],
			Ports: []router.PortConfig{p.config(ruleset.LAN), p.config(ruleset.WAN)}})
	}
	engines, err := router.NewWorkers(cfg, each)
	if err != nil {
		return err
	}
	engine := engines[0]
	var secret [32]byte
	if err := sys.Random(secret[:]); err != nil {
		return errors.New("no random numbers: " + err.Error())
	}
	nics := &ports{pair: pairs[0], workers: n}
	team, wall := newTeam(engines, pairs, rings, restores), newWallClock(rings[0], engine.Slept)
	out := newOutlet(policy, team, rings, nics, wall, args, secret)
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
	team.begin()
	loop(team, nics, out, wall, newWatchdog(sys.WatchdogRegisters()))
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

// newPool makes the packet buffers of all workers, for packets of at most mtu bytes.
func newPool(mtu, workers int) (*framebuf.Pool, error) {
	n, span := router.Buffers(mtu)
	mem, phys, err := sys.DMA(workers*n*span*framebuf.Size, false)
	if err != nil {
		return nil, errors.New("no memory for packet buffers (give the machine more with --memory)")
	}
	return framebuf.NewPoolOf(mem, phys, span), nil
}

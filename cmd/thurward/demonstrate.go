package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/netlab/demo"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/host/vmm"
)

// errShown is the cause with which the machine is ended after the demonstration.
var errShown = errors.New("the demonstration is over")

// demonstrate boots the image in the simulated network, plays the demonstration, and on
// a terminal stays.
func (l *launch) demonstrate(ctx context.Context, h vmm.Hypervisor, cfg vmm.Config, opts vmm.RunOptions, w *netlab.Network) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out := l.out
	stage := &demo.Stage{Network: w, Feed: &demo.Feed{}, Out: demo.Printer{W: out, Color: terminal.Colour(l.out)}}
	var once sync.Once
	ready := make(chan vmm.ReadyInfo, 1)
	started := time.Now()
	var follow gate
	opts.OnLine = func(ln vmm.Line) {
		switch ln.Kind {
		case vmm.Ready:
			again := true
			once.Do(func() { again = false; ready <- vmm.ParseReady(ln) })
			if again {
				fmt.Fprintln(out, ln.Text)
			}
		case vmm.EventLine:
			e, err := ecs.Parse(ln.Rest)
			if err != nil {
				l.say("an event that cannot be read (%v): %s", err, ecs.Clean(ln.Text))
				return
			}
			if !stage.Feed.Add(e) && follow.open() {
				stage.Out.Event(time.Now(), e)
			}
		default:
			fmt.Fprintln(out, ln.Text)
		}
	}
	ended := make(chan error, 1)
	go func() {
		err := vmm.Run(ctx, h, cfg, opts)
		ended <- err
		if err == nil {
			err = errors.New("the machine powered off")
		}
		stop(err) // ends the step in progress
	}()
	select {
	case r := <-ready:
		fmt.Fprintf(out, "thurward %s is up: boot took %s of guest time, %d ms from its start to live rules (%s)\n",
			r.Version, guestTime(r.Boot), time.Since(started).Milliseconds(), name(cfg.KVM))
	case err := <-ended:
		return err
	}
	stage.Topology()
	err := stage.Play(ctx)
	if err == nil {
		nextSteps(out)
	}
	if l.terminal && ctx.Err() == nil {
		fmt.Fprintf(out, "\nThe firewall stays up; its verdicts follow. Ctrl-C ends it.\n\n")
		follow.set()
		go stage.Idle(ctx)
		<-ctx.Done()
	}
	stop(errShown)
	if e := <-ended; err == nil && !errors.Is(e, errShown) {
		return e
	}
	return err
}

func guestTime(d time.Duration) string {
	if d == 0 {
		return "an unknown amount"
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

// nextSteps prints how to put the firewall between real networks.
func nextSteps(out io.Writer) {
	fmt.Fprint(out, `
That was a simulated network. To stand between real ones, make two bridges,
put a network card on each, and join the firewall to them:

  sudo ip link add br-lan type bridge && sudo ip link set br-lan up
  sudo ip link add br-wan type bridge && sudo ip link set br-wan up
  sudo ip link set eth1 master br-lan    # the card towards your machines
  sudo ip link set eth0 master br-wan    # the card towards the internet
  sudo bin/thurward run --lan bridge:br-lan --wan bridge:br-wan

Write your addresses into rules.yaml before, and build: docs/run.md has more.
`)
}

// A gate is a flag that is set once. The zero gate is not set.
type gate struct {
	mu     sync.Mutex
	opened bool
}

func (g *gate) set()       { g.mu.Lock(); g.opened = true; g.mu.Unlock() }
func (g *gate) open() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.opened }

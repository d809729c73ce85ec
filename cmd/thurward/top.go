package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/host/top"
)

func newTopCmd() *cobra.Command {
	var socket string
	var once bool
	wait := onceRates
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the firewall",
		Long: `top shows the present state of the firewall, and what it was since top began, for
two hours at most: rates, flows, port pools, and lists of rules, reasons of drops, denied hosts,
denied names, and the last verdicts, which can be sorted and filtered. Enter opens a
pane for one rule, host or name. It follows the same stream as thurward events.

Rates are between the last two snapshots of the firewall's metrics, which come
every 10 seconds. Keys: 1 to 5 lists, arrows move, Enter open, s sort, r reverse,
/ filter, tab next firewall, p pause, ? all keys, q quit. NO_COLOR is respected.`,
		Example: `  thurward top
  thurward top --once          # the state as text, for scripts`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if wait < 0 {
				return usageError{fmt.Errorf("top: --wait %v is negative", wait)}
			}
			ctx, cancel := untilStopped(cmd.Context(), 0)
			defer cancel()
			out, isFile := terminal.File(cmd.OutOrStdout())
			tty := isFile && isTerminal(out)
			var err error
			if once || !tty {
				err = topOnce(ctx, socket, wait, dashboard.Screen{Color: terminal.Colour(out)}, cmd.OutOrStdout())
			} else {
				var screen tcell.Screen
				if screen, err = tcell.NewScreen(tcell.OptSanitizeContent(true)); err == nil {
					err = topLive(ctx, socket, screen)
				}
			}
			if errors.Is(err, errInterrupted) {
				return nil
			}
			return err
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&once, "once", false, "print the state and end (also if the output is no terminal)")
	cmd.Flags().DurationVar(&wait, "wait", onceRates, "with --once: how long to wait for rates, which need two snapshots of metrics; 0: not at all")
	return cmd
}

// How long topOnce waits.
const (
	onceLimit = 5 * time.Second  // for a firewall's metrics
	onceRates = 12 * time.Second // for those that come next, and so for rates
)

// topOnce prints the state of each firewall, when all have rates, or after wait.
func topOnce(ctx context.Context, socket string, wait time.Duration, sc dashboard.Screen, w io.Writer) error {
	m := dashboard.NewModel()
	ctx, cancel := context.WithTimeoutCause(ctx, max(wait, onceLimit), errEnough)
	defer cancel()
	err := follow(ctx, socket, io.Discard, func(s *ingest.Source, it ingest.Item) error {
		now := time.Now()
		m.Add(s, it, now)
		if it.Kind == ingest.EOFKind && enough(m.Views(now), wait > 0) {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	sc.Now = time.Now()
	views := m.Views(sc.Now)
	if len(views) == 0 {
		return fmt.Errorf("no firewall is connected to the receiver at %s", socket)
	}
	for i := range views {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, sc.Draw(&views[i]))
	}
	return nil
}

// enough reports whether all firewalls that are connected have metrics, or rates.
func enough(vs []dashboard.View, rates bool) bool {
	for i := range vs {
		v := &vs[i]
		if v.Connected && (v.Snapshot.IsZero() || rates && len(v.History) == 0) {
			return false
		}
	}
	return true
}

// topLive runs the full-screen view until the user ends it.
func topLive(ctx context.Context, socket string, out tcell.Screen) error {
	if err := out.Init(); err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	defer out.Fini()
	out.SetTitle("thurward top")
	m := dashboard.NewModel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	go func() {
		err := follow(ctx, socket, io.Discard, func(s *ingest.Source, it ingest.Item) error {
			m.Add(s, it, time.Now())
			return nil
		})
		ended <- err
		stop(err)
	}()
	if top.New(m, out, time.Now).Run(ctx) {
		stop(errInterrupted)
	}
	return <-ended
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/terminal"
)

func newTopCmd() *cobra.Command {
	var socket string
	var once bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the firewall",
		Long: `top shows the present state of the firewall: rules by rate, drops by reason,
flows, port pools, DNS, the telemetry itself, and the last verdicts. It follows
the same stream as thurward events.

Rates are between the last two snapshots of the firewall's metrics, which come
every 10 seconds. Keys: tab next firewall, p pause, q quit.`,
		Example: `  thurward top
  thurward top --once          # one snapshot as text, for scripts`,
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
				err = topLive(ctx, socket, os.Stdin, out)
			}
			if errors.Is(err, errInterrupted) {
				return nil
			}
			return err
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&once, "once", false, "print one snapshot and end (also if the output is no terminal)")
	cmd.Flags().DurationVar(&wait, "wait", 0, "with --once: collect for this long first; rates need two snapshots of metrics, 10 seconds apart")
	return cmd
}

// onceLimit is how long topOnce waits for a firewall's metrics.
const onceLimit = 5 * time.Second

// topOnce prints one snapshot of each firewall.
func topOnce(ctx context.Context, socket string, wait time.Duration, sc dashboard.Screen, w io.Writer) error {
	m := dashboard.NewModel()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, wait+onceLimit, errEnough)
	defer cancel()
	err := follow(ctx, socket, io.Discard, func(s *ingest.Source, it ingest.Item) error {
		now := time.Now()
		m.Add(s, it, now)
		if it.Kind == ingest.EOFKind && now.Sub(began) >= wait {
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

// redrawEvery is how often the live view is drawn.
const redrawEvery = 500 * time.Millisecond

// topLive runs the live view until the user ends it.
func topLive(ctx context.Context, socket string, in, out *os.File) error {
	t := &topModel{model: dashboard.NewModel(), now: time.Now}
	s, err := openScreen(in, out, "thurward top")
	if err != nil {
		return err
	}
	defer s.close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	go func() {
		ended <- follow(ctx, socket, io.Discard, func(s *ingest.Source, it ingest.Item) error {
			t.model.Add(s, it, time.Now())
			return nil
		})
	}()
	clock := time.NewTicker(redrawEvery)
	defer clock.Stop()
	t.refresh()
	for {
		t.width, t.height = s.size()
		s.draw(t.draw())
		select {
		case err := <-ended:
			return err
		case <-clock.C:
			t.refresh()
		case <-s.resized:
		case k := <-s.keys:
			if t.press(k) {
				stop(errInterrupted)
				return <-ended
			}
		}
	}
}

// A topModel is the state of the live view.
type topModel struct {
	model         *dashboard.Model
	now           func() time.Time
	width, height int
	chosen        int
	paused        bool
	views         []dashboard.View
	at            time.Time
}

func (t *topModel) refresh() {
	if !t.paused {
		t.at = t.now()
		t.views = t.model.Views(t.at)
	}
}

// press handles a key, and reports whether it ends the view.
func (t *topModel) press(key string) (quit bool) {
	switch key {
	case "q", "ctrl+c", "esc":
		return true
	case "tab", "right", "down":
		t.chosen++
	case "shift+tab", "left", "up":
		t.chosen += max(len(t.views), 1) - 1
	case "p", " ":
		t.paused = !t.paused
		t.refresh()
	}
	return false
}

func (t *topModel) draw() string {
	if len(t.views) == 0 {
		return "waiting for a firewall to connect…   q quits"
	}
	i := t.chosen % len(t.views)
	sc := dashboard.Screen{Width: t.width, Height: max(t.height-1, 0), Color: true, Now: t.at}
	body := sc.Draw(&t.views[i])
	if t.height > 0 { // keep the last line at the bottom
		body += strings.Repeat("\n", max(t.height-1-strings.Count(body, "\n")-1, 0))
	}
	foot := "q quit  p pause"
	if len(t.views) > 1 {
		foot = fmt.Sprintf("firewall %d of %d  tab next  %s", i+1, len(t.views), foot)
	}
	if t.paused {
		foot = "PAUSED at " + t.at.Format("15:04:05") + "  " + foot
	}
	return body + "\n\x1b[2m" + foot + "\x1b[0m"
}

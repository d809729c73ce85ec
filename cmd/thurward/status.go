package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/service"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newStatusCmd() *cobra.Command {
	var t target
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a firewall runs, and how it is",
		Long: `status shows the current and the previous image of a firewall, since when they are
current, the last change that was taken back, and the machine that runs: its version
and policy, and whether it is healthy: its rules are live, they are those of the current
image, and its last sign of life is less than 10 seconds old.

It exits with 0 if the firewall is healthy, 1 if it is not or does not run, and 2 for a
wrong command line.`,
		Example: `  sudo thurward status --name edge
  sudo thurward status --name edge --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.resolve(cmd); err != nil {
				return err
			}
			st, err := t.status(cmd)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), st)
			} else {
				writeStatus(cmd.OutOrStdout(), st, time.Now())
			}
			if err == nil && !st.Healthy {
				err = exitError(exitInvalid)
			}
			return err
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

// status asks the service, or reads the folder where none runs.
func (t *target) status(cmd *cobra.Command) (*service.Status, error) {
	ctx, cancel := untilStopped(cmd.Context(), 0)
	defer cancel()
	st, err := service.Ask(ctx, t.state)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%s: %w (thurward deploy IMAGE --name %s)", t.name, deploy.ErrNone, t.name)
	}
	if errors.Is(err, service.ErrNoService) {
		var store *deploy.Store
		if store, err = deploy.Open(t.state, false); err != nil {
			return nil, err
		}
		defer store.Close()
		st = &service.Status{State: "down"}
		st.Record, err = store.Record()
	}
	if err != nil {
		return nil, err
	}
	st.Name = t.name
	return st, nil
}

// writeStatus prints a status for people.
func writeStatus(out io.Writer, st *service.Status, now time.Time) {
	health := "healthy"
	if !st.Healthy {
		health = "NOT HEALTHY"
	}
	p := func(format string, a ...any) { printable.Fprintf(out, format+"\n", a...) }
	p("%s: %s, %s", st.Name, st.State, health)
	entry := func(what string, e *deploy.Entry) {
		p("%s", what)
		p("  image    sha256:%s", e.Image)
		p("  policy   %s", e.Policy)
		p("  since    %s (%s)", e.Since.Format(time.RFC3339), ago(now.Sub(e.Since)))
	}
	entry("current", &st.Current)
	if r := st.Running; r != nil {
		p("machine")
		if r.Image != st.Current.Image {
			p("  image    sha256:%s", r.Image)
		}
		p("  version  %s", r.Version)
		if !r.SamePolicy && r.Ready {
			p("  policy   %s", r.Policy)
		}
		p("  since    %s (%s), start %d of this service", r.Since.Format(time.RFC3339), ago(now.Sub(r.Since)), r.Starts)
		p("  rules    %s", map[bool]string{true: "live", false: "not live yet"}[r.Ready])
		p("  gateway  %s", map[bool]string{true: "heard", false: "not heard"}[r.Gateway])
		if r.LastSign != nil {
			p("  signs    the last one %.1f s ago", *r.LastSign)
		}
	}
	if st.Previous != nil {
		entry("previous", st.Previous)
	}
	if f := st.Failed; f != nil {
		p("taken back")
		p("  image    sha256:%s", f.Image)
		p("  at       %s (%s)", f.When.Format(time.RFC3339), ago(now.Sub(f.When)))
		p("  because  %s", f.Why)
	}
}

// ago says how long something was ago, roughly.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

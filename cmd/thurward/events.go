package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/meant"
	"github.com/thurward/thurward/internal/host/peer"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/shared/printable"
)

// eventFlags are the flags of events.
type eventFlags struct {
	socket                              string
	rules, reasons, actions, names, who []string
	hosts                               []string
	json, explain, spans, utc           bool
	limit                               int
}

func newEventsCmd() *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "events [FILE]",
		Short: "Follow the firewall's verdicts",
		Long: `events prints the firewall's verdicts and other events as they occur. It
follows the stream that thurward run or thurward-collector reads from the
firewall, or reads a recording: a file, or - for standard input.

Filters may be given more than once, or with commas; an event must match one
value of each. In rules, reasons, actions and names * matches any text. A value with
! in front must not match: --reason '!martian' shows the others.`,
		Example: `  thurward events --action drop                 # why was this dropped?
  thurward events --host 10.0.0.7 --explain     # and the command that shows why
  thurward events --name '*.example.com' --json | jq .
  thurward events recorded.jsonl --reason conntrack_full`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("events: one file at most (thurward events --help shows what it takes)")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.printer(cmd.OutOrStdout())
			if err != nil {
				return usageError{fmt.Errorf("events: %w", err)}
			}
			ctx, cancel := untilStopped(cmd.Context(), 0)
			defer cancel()
			switch {
			case len(args) == 0:
				err = follow(ctx, f.socket, cmd.ErrOrStderr(), p.add)
			case args[0] == "-":
				err = readEvents(os.Stdin, p.add)
			default:
				var file *os.File
				if file, err = os.Open(args[0]); err == nil {
					err = readEvents(file, p.add)
					file.Close()
				}
			}
			if p.malformed > 0 {
				printable.Fprintf(cmd.ErrOrStderr(), "thurward: %s could not be read\n", counted(p.malformed, "line"))
			}
			if errors.Is(err, errInterrupted) || errors.Is(err, errEnough) {
				return nil
			}
			return err
		},
	}
	fl := cmd.Flags()
	socketFlag(cmd, &f.socket)
	fl.StringSliceVar(&f.rules, "rule", nil, "of these rules, by id")
	fl.StringSliceVar(&f.hosts, "host", nil, "to, from or translated to these addresses or prefixes")
	fl.StringSliceVar(&f.reasons, "reason", nil, "for these reasons, as no_matching_allow_rule")
	fl.StringSliceVar(&f.actions, "action", nil, strings.Join(ecs.Actions(), ", "))
	fl.StringSliceVar(&f.names, "name", nil, "about these names (also: --domain)")
	fl.StringSliceVar(&f.names, "domain", nil, "about these names")
	fl.Lookup("domain").Hidden = true
	completes(cmd, "reason", ecs.Reasons()...)
	completes(cmd, "action", ecs.Actions()...)
	fl.StringSliceVar(&f.who, "firewall", nil, "of these firewalls, by their WAN address, or the name that run gave them")
	fl.BoolVar(&f.json, "json", false, "print the lines as the firewall sent them: JSON with ECS fields")
	fl.BoolVar(&f.explain, "explain", false, "after each verdict, print the command that asks the policy for it")
	fl.BoolVar(&f.spans, "spans", false, "print spans, too (with --json only)")
	fl.BoolVar(&f.utc, "utc", false, "print times in UTC, not this host's zone")
	fl.IntVarP(&f.limit, "limit", "n", 0, "end after this many events (0: no limit)")
	return cmd
}

// socketFlag adds the flag for the socket to follow.
func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", ingest.TailSocket(ingest.DefaultPath()), "the receiver's Unix socket for followers")
}

// printer checks the flags.
func (f *eventFlags) printer(w io.Writer) (*eventPrinter, error) {
	p := &eventPrinter{w: w, flags: f, filter: ingest.Filter{
		Rules: f.rules, Reasons: f.reasons, Actions: f.actions, Names: f.names, From: f.who,
	}}
	for _, h := range f.hosts {
		h, not := strings.CutPrefix(h, "!")
		x, err := ingest.ParseHost(h)
		if err != nil {
			return nil, fmt.Errorf("--host: %w", err)
		}
		if not {
			p.filter.NotHosts = append(p.filter.NotHosts, x)
		} else {
			p.filter.Hosts = append(p.filter.Hosts, x)
		}
	}
	for _, v := range []struct {
		flag   string
		given  []string
		values []string
	}{{"--reason", f.reasons, ecs.Reasons()}, {"--action", f.actions, ecs.Actions()}} {
		for _, g := range v.given {
			if !ingest.MayMatch(g, v.values) {
				remedy := "there are " + strings.Join(v.values, ", ")
				if near := meant.Word(strings.ToLower(strings.TrimPrefix(g, "!")), v.values); near != "" {
					remedy = "did you mean " + near + "? " + remedy
				}
				return nil, fmt.Errorf("%s: no event has %q (%s)", v.flag, g, remedy)
			}
		}
	}
	if f.limit < 0 {
		return nil, fmt.Errorf("--limit %d is negative", f.limit)
	}
	if f.spans && !f.json {
		return nil, errors.New("--spans needs --json: spans have no readable form")
	}
	if f.explain && f.json {
		return nil, errors.New("--explain is for the readable form; with --json the fields are all there")
	}
	p.style = ecs.Style{Color: terminal.Colour(w), Zone: time.Local}
	if f.utc {
		p.style.Zone = time.UTC
	}
	return p, nil
}

// errEnough ends the command when it has printed enough.
var errEnough = errors.New("enough")

// An eventPrinter prints the events that its filter selects.
type eventPrinter struct {
	w         io.Writer
	flags     *eventFlags
	filter    ingest.Filter
	style     ecs.Style
	printed   int
	malformed int
}

// add handles a line of the stream.
func (p *eventPrinter) add(s *ingest.Source, it ingest.Item) error {
	switch it.Kind {
	case ingest.Malformed:
		p.malformed++
		return nil
	case ingest.SpanKind:
		if p.flags.spans {
			_, err := printable.Fprintf(p.w, "%s\n", printable.Line(it.Span.JSON)) // JSON, which the writer escapes
			return err
		}
		return nil
	case ingest.EventKind:
	default:
		return nil
	}
	if !p.filter.Matches(&s.Hello, it.Event) {
		return nil
	}
	text := it.Raw
	if !p.flags.json {
		text = p.style.Text(s.Hello.When(it.Event), it.Event)
	}
	if p.flags.explain {
		if c := ecs.Explain(it.Event); c != "" {
			text += "\n    " + c
		}
		if r := ecs.Remedy(it.Event); r != "" {
			text += "\n    " + r
		}
	}
	if _, err := printable.Fprintf(p.w, "%s\n", printable.Line(text)); err != nil {
		return err
	}
	if p.printed++; p.flags.limit > 0 && p.printed >= p.flags.limit {
		return errEnough
	}
	return nil
}

// consoleEvent precedes an event on the firewall's console, which may have been
// recorded.
const consoleEvent = "thurward: event "

// readEvents reads a recording of a stream or a console.
func readEvents(r io.Reader, add func(*ingest.Source, ingest.Item) error) error {
	f := ingest.NewFollower(r)
	for {
		s, it, err := f.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if it.Kind == ingest.Malformed {
			if e, ok := strings.CutPrefix(it.Raw, consoleEvent); ok {
				it = ingest.Parse(e)
			} else if strings.HasPrefix(it.Raw, "thurward: ") {
				continue // the console's other lines
			}
		}
		if err := add(s, it); err != nil {
			return err
		}
	}
}

// followPause is how long a follower waits before it tries again.
const followPause = 500 * time.Millisecond

// follow reads a receiver's stream until ctx ends. The receiver must run at first; if
// it ends later follow waits until it runs again.
func follow(ctx context.Context, socket string, say io.Writer, add func(*ingest.Source, ingest.Item) error) error {
	for first := true; ; first = false {
		c, err := peer.Users{}.Dial(ctx, socket)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, peer.ErrForeign):
			return fmt.Errorf("%w; if you trust that user, follow the stream as that user (--socket names another place)", err)
		case err != nil && first:
			return fmt.Errorf("nothing serves a stream at %s: %w; thurward run and thurward-collector do while they run (--socket names another place)", socket, err)
		case err == nil:
			stop := context.AfterFunc(ctx, func() { c.Close() })
			err = readFollow(c, add)
			stop()
			c.Close()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				return err
			}
			printable.Fprintf(say, "thurward: the receiver has ended; waiting for it to come back\n")
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readFollow reads one connection to its end.
func readFollow(c net.Conn, add func(*ingest.Source, ingest.Item) error) error {
	f := ingest.NewFollower(c)
	for {
		s, it, err := f.Next()
		if err != nil {
			return nil
		}
		if err := add(s, it); err != nil {
			return err
		}
	}
}

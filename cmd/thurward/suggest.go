package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/suggest"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func newSuggestCmd() *cobra.Command {
	var file string
	var ingress bool
	cmd := &cobra.Command{
		Use:   "suggest EVENTS",
		Short: "Propose rules for packets that were dropped",
		Long: `suggest reads a recorded stream of events (- reads standard input) and proposes
rules for review: for packets that the default action dropped, and for those that
shadow rules would have decided. Packets with the same protocol, port and
destination are one rule. Events of the firewall's console are read as well;
metrics and spans are ignored. It exits with 0 if the events could be read, 1 if
not, and 2 for a wrong command line.

There is no rule for packets that were dropped because their source used an address
for longer than its TTL allows, but the dns.ttl_grace that would let them through.
Nor is there one for packets whose source had not resolved the name itself, but the
source's address.`,
		Example: `  thurward events > events.log          # record for a while, then Ctrl-C
  thurward suggest events.log
  thurward suggest -f examples/egress.yaml - < events.log`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("suggest: want the file of recorded events, or - for standard input")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" && file == "-" {
				return usageError{errors.New("suggest: events and --file cannot both be standard input")}
			}
			p, seg, _, err := openPolicy(cmd, file, false)
			if err != nil {
				return err
			}
			in, source := cmd.InOrStdin(), "standard input"
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in, source = f, args[0]
			}
			obs, bad, err := observations(in)
			if err != nil {
				return fmt.Errorf("%s: %w", source, err)
			}
			if bad > 0 {
				printable.Fprintf(cmd.ErrOrStderr(), "thurward: %s: skipped %s that could not be read\n",
					source, counted(bad, "line"))
			}
			y, err := suggest.Suggest(p, seg, obs, ingress).YAML(source)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(y)
			return err
		},
	}
	policyFlag(cmd, &file, "the policy to extend")
	cmd.Flags().BoolVar(&ingress, "ingress", false, "propose rules for packets from the WAN, too")
	return cmd
}

// maxObserved is how many different observations suggest keeps.
const maxObserved = 100_000

// observations returns the observations in a recorded stream, each with its count, and
// how many lines could not be read.
func observations(r io.Reader) (obs []suggest.Observation, bad int, err error) {
	at := map[suggest.Observation]int{}
	err = readEvents(r, func(_ *ingest.Source, it ingest.Item) error {
		if it.Kind == ingest.Malformed {
			bad++
		}
		if it.Kind != ingest.EventKind {
			return nil
		}
		o, ok := observation(it.Event)
		if !ok {
			return nil
		}
		key := o
		key.Count, key.Time, key.Until = 0, "", ""
		i, ok := at[key]
		switch {
		case ok:
			obs[i].Count = min(obs[i].Count+o.Count, ecs.MaxAmount)
			obs[i].Time, obs[i].Until = min(obs[i].Time, o.Time), max(cmp.Or(obs[i].Until, obs[i].Time), o.Time)
		case len(obs) == maxObserved:
			return fmt.Errorf("more than %d different packets were dropped or tried; cut the file into parts",
				maxObserved)
		default:
			at[key] = len(obs)
			obs = append(obs, o)
		}
		return nil
	})
	return obs, bad, err
}

// maxName is the largest length in bytes of a name (RFC 1035 section 2.3.4), and of a
// time. A longer one is ignored.
const maxName = 253

// observation returns the observation of an event about a packet that no rule matched,
// or that a shadow rule would have decided.
func observation(e ecs.Event) (o suggest.Observation, ok bool) {
	action := e.Str(ecs.EventAction)
	switch {
	case action == ecs.Drop && e.Str(ecs.EventReason) == verdict.NoMatchingAllowRule.String():
	case action == ecs.WouldAccept, action == ecs.WouldDrop:
		o.Shadow, o.Accept = e.Str(ecs.RuleID), action == ecs.WouldAccept
		if o.Shadow == "" {
			return o, false
		}
	default:
		return o, false
	}
	src, dst := e.Source(), e.Destination()
	o.Src, o.Dst = src.Addr(), dst.Addr()
	if !o.Src.Is4() || !o.Dst.Is4() {
		return o, false
	}
	o.FromLAN = e.Str(ecs.NetworkDirection) == "egress"
	o.Domain, o.Time = e.Str(ecs.DestinationDomain), e.Str(ecs.Timestamp)
	switch e.Str(ecs.Hint) {
	case verdict.NameExpired.Name():
		o.Expired = int(e.Seconds(ecs.NameExpired) / time.Second)
	case verdict.OtherClient.Name():
		o.ByOther = true
	}
	o.Count = int(e.Count())
	if len(o.Domain) > maxName {
		o.Domain = ""
	}
	if len(o.Time) > maxName {
		o.Time = ""
	}
	switch e.Str(ecs.NetworkTransport) {
	case policy.TCP.String():
		o.Protocol, o.Port = policy.TCP, int(dst.Port())
		return o, o.Port != 0
	case policy.UDP.String():
		o.Protocol, o.Port = policy.UDP, int(dst.Port())
		return o, o.Port != 0
	case policy.ICMP.String():
		o.Protocol = policy.ICMP
		return o, e.Int(ecs.ICMPType) == 8
	}
	return o, false // rules do not tell other protocols apart
}

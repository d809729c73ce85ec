package replay

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Summary counts what a replay did.
type Summary struct {
	Side       [2]SideSummary
	Any        *AnySummary   // nil: a capture a side
	Span       time.Duration // of virtual time
	Events     int
	LostEvents uint64
	Flows      int // at the end
	Answers    int // of name servers that were paired with the firewall's own queries
	// Drops counts by reason, Rules by rule; the last of Rules is the default
	// action.
	Drops  [verdict.NumReasons]uint64
	Rules  []RuleCount
	policy *ruleset.Policy
	fixed  bool // Options.FixChecksums
}

// SideSummary counts the frames of one side.
type SideSummary struct {
	File   string
	MAC    [6]byte // of the port
	How    string  // it was found
	Frames int     // in the capture
	Sent   int     // by the firewall
	// Frames of the capture that were left out: sent by the firewall, cut by the
	// snap length, longer than a frame, empty.
	Own, Cut, Long, Empty int
	Elsewhere             int    // frames between other hosts, in a capture without their link-layer addresses
	Alien                 int    // frames that are no Ethernet frames
	Unsummed              int    // frames with a checksum that a host left to its network device
	Late                  int    // frames with an earlier time than the frame before, which counts as theirs
	Other                 uint64 // frames for other hosts
	Short                 bool   // the file ends inside a frame
}

// A RuleCount counts the packets that one rule decided.
type RuleCount struct {
	ID               string
	Accepted, Denied uint64
}

func (s *Summary) finish(f *Firewall, p *ruleset.Policy) {
	c := f.Engine().Counters()
	s.Drops = c.DropReasons
	s.LostEvents = f.LostEvents()
	s.Flows = f.Engine().Flows().Len()
	for i := range s.Side {
		s.Side[i].Other = c.OtherHost[i]
	}
	for i := range c.Accepts {
		id := "(default action)"
		if i != int(p.DefaultRule()) {
			id = p.Text(p.Rules[i].ID)
		}
		s.Rules = append(s.Rules, RuleCount{id, c.Accepts[i], c.Drops[i]})
	}
}

// Print writes the summary for people.
func (s *Summary) Print(w io.Writer) {
	if s.Any != nil {
		s.Any.print(w)
	}
	unsummed := 0
	for i := range s.Side {
		p := &s.Side[i]
		if p.File == "" {
			fmt.Fprintf(w, "%s: no capture; %d frames sent\n", Side(i), p.Sent)
			continue
		}
		fmt.Fprintf(w, "%s: %s: %d frames; %d frames sent\n", Side(i), p.File, p.Frames, p.Sent)
		fmt.Fprintf(w, "  firewall's address: %s (%s)\n", net.HardwareAddr(p.MAC[:]), p.How)
		line := func(n int, what string) {
			if n > 0 {
				fmt.Fprintf(w, "  %d %s\n", n, what)
			}
		}
		line(p.Own, "sent by the firewall, left out")
		line(int(p.Other), "for other hosts, ignored")
		line(p.Elsewhere, "between other hosts, ignored")
		line(p.Alien, "that are no Ethernet frames, left out")
		line(p.Cut, "cut by the capture's snap length, left out (capture with -s 0)")
		line(p.Long, "longer than a frame, left out (segmentation offload: ethtool -K DEVICE gro off tso off gso off)")
		line(p.Empty, "empty, left out")
		line(p.Late, "earlier than the frame before, taken as of the same time")
		line(p.Unsummed, "with a checksum that a host left to its network device")
		unsummed += p.Unsummed
		if p.Short {
			fmt.Fprintln(w, "  the file ends inside a frame; the frames before it were taken")
		}
	}
	fmt.Fprintf(w, "time: %v; events: %d; flows at the end: %d\n", s.Span, s.Events, s.Flows)
	if s.Answers > 0 {
		fmt.Fprintf(w, "%d answers of name servers were given to the firewall's own queries\n", s.Answers)
	}
	if s.LostEvents > 0 {
		fmt.Fprintf(w, "%d events were lost\n", s.LostEvents)
	}
	fmt.Fprintln(w, "packets by rule:")
	for _, r := range s.Rules {
		if r.Accepted+r.Denied > 0 {
			fmt.Fprintf(w, "  %-24s accepted %d, denied %d\n", r.ID, r.Accepted, r.Denied)
		}
	}
	fmt.Fprintln(w, "drops by reason:")
	none, malformed := true, s.Drops[verdict.MalformedPacket]
	for i, n := range s.Drops {
		if n > 0 {
			fmt.Fprintf(w, "  %-24s %d\n", verdict.Reason(i), n)
			none = false
		}
	}
	if none {
		fmt.Fprintln(w, "  none")
	}
	if unsummed > 0 && malformed > 0 && !s.fixed {
		fmt.Fprintf(w, "hint: %d frames were captured on the host that sent them, before its network device computed "+
			"their checksums; %d packets were dropped as malformed. Replay with --fix-checksums.\n", unsummed, malformed)
	}
}

// print writes the lines about a capture of all interfaces.
func (a *AnySummary) print(w io.Writer) {
	fmt.Fprintf(w, "all interfaces: %s: %d frames\n", a.File, a.Frames)
	for _, s := range []Side{LAN, WAN} {
		switch {
		case !a.Indexed:
		case a.Index[s] == 0:
			fmt.Fprintf(w, "  no interface received packets of the %s's addresses\n", s)
		default:
			fmt.Fprintf(w, "  interface %d is the %s, by %d packets' addresses\n", a.Index[s], s, a.Votes[s])
		}
	}
	if !a.Indexed {
		fmt.Fprintln(w, "  the capture does not tell interfaces apart (cooked v1): the packets' addresses tell the side")
	}
	if a.Others > 0 {
		fmt.Fprintf(w, "  %d of other interfaces, or of a side that is not clear, left out\n", a.Others)
	}
	if a.Alien > 0 {
		fmt.Fprintf(w, "  %d that are no Ethernet frames, left out\n", a.Alien)
	}
}

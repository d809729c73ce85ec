// Package prove decides the statements of a policy, never and always, for all packets
// that there can be. It cuts the set that a statement is about by the rules, in their
// order, and what is left of each by everything else that the data plane looks at
// (networks, addresses of the firewall, translation), until the firewall does one thing
// with each part; of each part it then asks package explain about one packet.
//
//	prove.go  the search
//	cells.go  the parts
package prove

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Result is what came of a statement.
type Result struct {
	Statement *policy.Statement
	Wrong     string       // why it does not hold, "" when it does
	Flow      *policy.Flow // a flow that it does not hold for, nil where Wrong is about the statement
}

// Bounds on the work for one statement. What would take longer is an error: a
// statement that was not decided does not hold.
const (
	maxParts = 1 << 14 // that the rules cut
	maxCells = 1 << 17 // of all parts
)

// Run decides the statements of a policy. rs is the compiled policy.
func Run(p *policy.Policy, rs *ruleset.Policy) (all []Result) {
	if len(p.Statements) == 0 {
		return nil
	}
	w := &prover{Space: packetset.NewSpace(compile.Patterns(rs)), p: p, rs: rs}
	for i := range rs.Matches {
		m := &rs.Matches[i]
		box, _, ok := packetset.FromMatch(m)
		if !ok || rs.Rules[m.Rule].Mode == ruleset.Shadow {
			continue
		}
		c := cond{Region: packetset.Region{Box: box}, accept: m.Action == ruleset.Accept}
		if m.Name != 0 {
			c.Kinds &= packetset.Named
			c.Names = w.Pattern(compile.Pattern(rs, &rs.Names[m.Name-1]))
		}
		w.conds = append(w.conds, c)
	}
	w.edges = Edges(p)
	for i := range p.Statements {
		all = append(all, w.decide(&p.Statements[i]))
	}
	return all
}

// A cond is one match of a rule.
type cond struct {
	packetset.Region
	accept bool
}

type prover struct {
	*packetset.Space
	p     *policy.Policy
	rs    *ruleset.Policy
	conds []cond
	edges [packetset.NumRanges][]uint32 // where parts are cut
	cells int
}

// decide looks for a flow for which a statement does not hold.
func (w *prover) decide(s *policy.Statement) Result {
	res := Result{Statement: s}
	parts, ok := w.byRules(regions(s))
	if !ok {
		res.Wrong = fmt.Sprintf("was not decided: the rules cut it into more than %d parts (say it of smaller sets)", maxParts)
		return res
	}
	w.cells = 0
	possible := false
	// The parts that may be against it come first: of the others it only matters
	// whether there is any packet.
	slices.SortStableFunc(parts, func(a, b part) int { return against(s, &b) - against(s, &a) })
	for i := range parts {
		if possible && against(s, &parts[i]) == 0 {
			break
		}
		f, wrong, arrives := w.part(s, &parts[i])
		possible = possible || arrives
		if w.cells > maxCells {
			res.Wrong = fmt.Sprintf("was not decided: it has more than %d parts (say it of smaller sets)", maxCells)
			return res
		}
		if f != nil {
			res.Flow, res.Wrong = f, wrong
			return res
		}
	}
	if !possible {
		res.Wrong = "says nothing: no packet of it can arrive (look at from, and at the networks of the interfaces)"
	}
	return res
}

// against returns 1 for a part of which some packet may be against a statement: an
// accepted one, which may still be dropped, is for always.
func against(s *policy.Statement, r *part) int {
	if s.Always || r.accept {
		return 1
	}
	return 0
}

// regions returns the packets that a statement is about.
func regions(s *policy.Statement) (all []packetset.Region) {
	direction := verdict.Ingress
	if s.FromLAN {
		direction = verdict.Egress
	}
	protos := s.Protocols
	if len(protos) == 0 {
		protos = []policy.Protocol{policy.TCP, policy.UDP, policy.ICMP}
	}
	for _, proto := range protos {
		ports := s.Ports
		switch {
		case !proto.HasPorts():
			ports = []policy.PortRange{{}}
		case len(ports) == 0:
			ports = []policy.PortRange{{Lo: 1, Hi: 65535}}
		}
		for _, src := range policy.OrAny(s.Source) {
			for _, dst := range policy.OrAny(s.Destination) {
				for _, q := range ports {
					r := packetset.Region{}
					r.Kinds = 1 << ruleset.KindField(uint8(proto), direction, ruleset.StateNew)
					r.Lo[packetset.Src], r.Hi[packetset.Src] = span(src)
					r.Lo[packetset.Dst], r.Hi[packetset.Dst] = span(dst)
					r.Lo[packetset.Port], r.Hi[packetset.Port] = uint32(q.Lo), uint32(q.Hi)
					all = append(all, r)
				}
			}
		}
	}
	return all
}

// span returns the first and the last address of a network; the zero Prefix has all.
func span(p netip.Prefix) (lo, hi uint32) {
	if !p.IsValid() {
		return 0, ^uint32(0)
	}
	return uint32(policy.Number(p.Masked().Addr())), uint32(policy.Number(policy.Broadcast(p)))
}

// A part is packets that the rules decide alike.
type part struct {
	packetset.Region
	accept bool
}

// byRules cuts regions by the rules. It reports false when there are too many parts.
func (w *prover) byRules(left []packetset.Region) (parts []part, ok bool) {
	for i := range w.conds {
		c := &w.conds[i]
		var rest []packetset.Region
		for j := range left {
			if !w.Meets(&left[j], &c.Region) {
				rest = append(rest, left[j])
				continue
			}
			in, out := w.Cut(left[j], &c.Region)
			parts = append(parts, part{in, c.accept})
			rest = append(rest, out...)
		}
		if left = rest; len(left)+len(parts) > maxParts {
			return nil, false
		}
	}
	for _, r := range left {
		parts = append(parts, part{r, w.p.Defaults.Action == ruleset.Accept})
	}
	return parts, true
}

// part looks in one part for a flow for which a statement does not hold, and says why.
// arrives reports whether one of its packets can arrive.
func (w *prover) part(s *policy.Statement, r *part) (bad *policy.Flow, wrong string, arrives bool) {
	w.each(&r.Region, func(f policy.Flow) bool {
		var best *explain.Outcome
		accepted := false
		ways := explain.Ways(w.p, w.rs, f)
		for i := range ways {
			o := &ways[i]
			accepted = accepted || o.Accept
			if o.Reason != verdict.Martian && (best == nil || o.Accept && !best.Accept || o.Asked && !best.Asked) {
				best = o
			}
		}
		if best == nil {
			return true // from where it comes, or to where it goes, there is no such packet
		}
		arrives = true
		if accepted == s.Always {
			return against(s, r) != 0 // of the others one is enough
		}
		bad, wrong = &f, explain.Describe(w.p, best)
		if s.Always && best.Asked && best.Action == ruleset.Accept {
			wrong = fmt.Sprintf("it is dropped as %v: %s", best.Reason, best.Note)
		}
		return false
	})
	return bad, wrong, arrives
}

// Failures returns the statements that do not hold, as diagnostics.
func Failures(p *policy.Policy, rs []Result) (ds policy.Diagnostics) {
	for _, r := range rs {
		if r.Wrong == "" {
			continue
		}
		s := r.Statement
		msg := fmt.Sprintf("%s %q %s", s.Word(), s.Name, r.Wrong)
		if r.Flow != nil {
			msg = fmt.Sprintf("%s %q does not hold: %v: %s", s.Word(), s.Name, r.Flow, r.Wrong)
		}
		ds = append(ds, policy.Diagnostic{File: p.File, Line: s.Line, Column: s.Column, Path: s.Path, Severity: policy.Error, Code: s.Word() + "-failed", Message: msg})
	}
	return ds
}

// name returns a name that has the patterns that a region says, "" where it has none.
func (w *prover) name(r *packetset.Region) string {
	yes, no := w.NamesOf(r, false)
	best := ""
	for _, y := range yes {
		if best == "" || strings.HasPrefix(best, "*.") {
			best = y // an exact name, where there is one, has its wildcard too
		}
	}
	parent, wild := strings.CutPrefix(best, "*.")
	if !wild {
		return best
	}
	for i := 0; ; i++ {
		if n := fmt.Sprintf("host%d.%s", i, parent); !slices.Contains(no, n) {
			return n
		}
	}
}

func address(v uint32) netip.Addr { return netip.AddrFrom16(packet.Addr(v).To16()).Unmap() }

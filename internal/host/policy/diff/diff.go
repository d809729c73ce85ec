// Package diff compares two policies: which traffic they decide differently, as
// sets of packets, and what else of them differs.
//
//	diff.go   conditions, and what was found in words
//	walk.go   the search
//	other.go  NAT, settings, shadow rules
//	effect.go what becomes more permissive
//	text.go   output for people
//	markdown.go  output for reviews
package diff

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Diff is what two policies decide differently. Its fields are those of diff
// --format json.
type Diff struct {
	Old      string          `json:"old"` // files
	New      string          `json:"new"`
	Traffic  []TrafficChange `json:"traffic"`
	Other    []OtherChange   `json:"other"`    // NAT, settings, shadow rules
	Complete bool            `json:"complete"` // all of Traffic is there
}

// A TrafficChange is all the packets that one decision of the old policy and
// another of the new one apply to.
type TrafficChange struct {
	Effect  Effect                  `json:"effect"`
	From    Decision                `json:"from"`
	To      Decision                `json:"to"`
	Sets    int                     `json:"sets"`    // number of disjoint sets of packets
	Packets []packetset.Description `json:"packets"` // the sets, the largest first
	Example Example                 `json:"example"`
}

// A Decision is what is decided, by which rule.
type Decision struct {
	Action string `json:"action"`
	Rule   string `json:"rule"` // id; default-accept, default-deny or default-reject
	SNI    bool   `json:"sni,omitempty"`
	Place  string `json:"place,omitempty"` // file:line
}

// An Example is one packet of a change, as rules see it: after destination NAT
// and before source NAT.
type Example struct {
	From    string   `json:"from"` // lan or wan
	Proto   string   `json:"proto"`
	State   string   `json:"state"`
	Src     string   `json:"src"`
	Dst     string   `json:"dst"`
	Names   []string `json:"names,omitempty"`
	NoNames []string `json:"not_names,omitempty"`
}

// An OtherChange is one that is not about which rule decides. An empty side
// means that it is not there.
type OtherChange struct {
	What string `json:"what"` // path in the policy
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Same reports whether nothing differs.
func (d *Diff) Same() bool { return len(d.Traffic)+len(d.Other) == 0 }

// Compare returns what two policies decide differently. It is exact: Traffic
// holds every combination of direction, state, protocol, addresses, destination
// port and names for which the verdict or the deciding rule (by id) differs, and
// no other.
//
// Where many rules overlap there are many sets. With limit it stops looking
// after as many and reports it in Complete; with show it describes as many of each
// change. Zero is all.
func Compare(a, b *policy.Policy, limit, show int) (*Diff, error) {
	sa, err := compile.Tables(a)
	if err != nil {
		return nil, err
	}
	sb, err := compile.Tables(b)
	if err != nil {
		return nil, err
	}
	d := &Diff{Old: a.File, New: b.File, Traffic: []TrafficChange{}, Other: otherChanges(a, b), Complete: true}
	c := &comparison{policies: [2]*policy.Policy{a, b}, ids: map[Decision]int{}}
	c.Space = packetset.NewSpace(append(compile.Patterns(sa), compile.Patterns(sb)...))
	var conds [2][]*cond
	var def [2]int
	for i, s := range [...]*ruleset.Policy{sa, sb} {
		conds[i] = c.conds(i, s)
		def[i] = c.decision(c.byDefault(i))
	}
	w := &walker{Space: c.Space, def: def, found: map[[2]int][]packetset.Region{}, limit: limit}
	w.run(conds[0], conds[1])
	d.Complete = !w.full()
	keys := slices.SortedFunc(maps.Keys(w.found), func(x, y [2]int) int { return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1])) })
	for _, k := range keys {
		rs := c.Merge(w.found[k])
		slices.SortFunc(rs, func(x, y packetset.Region) int {
			return cmp.Or(cmp.Compare(c.Weight(&y), c.Weight(&x)), c.Compare(&x, &y))
		})
		t := TrafficChange{From: c.place(0, k[0]), To: c.place(1, k[1]), Sets: len(rs), Example: c.example(&rs[0])}
		t.Effect = effect(&t.From, &t.To)
		for i := range rs {
			if show > 0 && i == show {
				break
			}
			t.Packets = append(t.Packets, c.Describe(&rs[i])...)
		}
		d.Traffic = append(d.Traffic, t)
	}
	slices.SortStableFunc(d.Traffic, func(x, y TrafficChange) int { return cmp.Compare(x.Effect, y.Effect) })
	return d, nil
}

// run compares everything. When few conditions changed, a packet that is decided
// differently matches one of them; only those regions are walked.
func (w *walker) run(a, b []*cond) {
	regions := packetset.Whole()
	if changed := uncommon(a, b); w.def[0] == w.def[1] && len(changed) <= 64 {
		var parts []packetset.Region
		for i, c := range changed {
			left := w.Intersect(regions, &c.Region)
			for _, done := range changed[:i] {
				left = w.Subtract(left, &done.Region)
			}
			parts = append(parts, left...)
		}
		regions = parts
	}
	for _, r := range regions {
		w.walk(r, w.meeting(&r, a), w.meeting(&r, b))
	}
}

// uncommon returns the conditions of two lists that are not in a common
// sequence of both.
func uncommon(a, b []*cond) []*cond {
	at := map[cond][]int{}
	for j, c := range b {
		at[*c] = append(at[*c], j)
	}
	// The longest increasing sequence of places in b, by patience sorting.
	var seq, tails []int // of a; index of a at the end of each length
	to := make([]int, len(a))
	prev := make([]int, len(a))
	for i, c := range a {
		to[i], prev[i] = -1, -1
		js := at[*c]
		if len(js) == 0 {
			continue
		}
		to[i], at[*c] = js[0], js[1:]
		n, _ := slices.BinarySearchFunc(tails, to[i], func(t, v int) int { return cmp.Compare(to[t], v) })
		if n > 0 {
			prev[i] = tails[n-1]
		}
		if n == len(tails) {
			tails = append(tails, i)
		} else {
			tails[n] = i
		}
	}
	if len(tails) > 0 {
		for i := tails[len(tails)-1]; i >= 0; i = prev[i] {
			seq = append(seq, i)
		}
	}
	inA, inB := make([]bool, len(a)), make([]bool, len(b))
	for _, i := range seq {
		inA[i], inB[to[i]] = true, true
	}
	var out []*cond
	for i, c := range a {
		if !inA[i] {
			out = append(out, c)
		}
	}
	for j, c := range b {
		if !inB[j] {
			out = append(out, c)
		}
	}
	return out
}

// A comparison turns what was found into words.
type comparison struct {
	*packetset.Space
	policies  [2]*policy.Policy
	lines     [2]map[string]int // of rules, by id
	ids       map[Decision]int
	decisions []Decision
}

// conds returns a policy's enforced conditions. Those of one rule are put in an
// order of their own, which changes nothing.
func (c *comparison) conds(side int, s *ruleset.Policy) []*cond {
	var all []*cond
	c.lines[side] = map[string]int{}
	last, from := -1, 0
	sorted := func() {
		slices.SortFunc(all[from:], func(x, y *cond) int {
			return cmp.Or(slices.Compare(x.Lo[:], y.Lo[:]), slices.Compare(x.Hi[:], y.Hi[:]), cmp.Compare(x.Kinds, y.Kinds), cmp.Compare(x.Names, y.Names))
		})
		from = len(all)
	}
	to := 0
	for i := range s.Matches {
		m := &s.Matches[i]
		if int(m.Rule) != last {
			sorted()
			last = int(m.Rule)
			r := &c.policies[side].Rules[last]
			c.lines[side][r.ID] = r.Line
			to = c.decision(Decision{Action: r.Action.String(), Rule: r.ID, SNI: r.SNI})
		}
		if s.Rules[m.Rule].Mode == ruleset.Shadow {
			continue
		}
		box, _, ok := packetset.FromMatch(m)
		x := cond{Region: packetset.Region{Box: box}, to: to}
		if x.Kinds &= packetset.Reaching; m.Name != 0 {
			x.Kinds &= packetset.Named
			x.Names = c.Pattern(compile.Pattern(s, &s.Names[m.Name-1]))
		}
		if ok && x.Kinds != 0 {
			all = append(all, c.apart(x)...)
		}
	}
	sorted()
	if c.policies[side].Defaults.Action != ruleset.Reject {
		last := cond{Region: packetset.Region{Box: packetset.All()}, to: c.decision(dropped)}
		last.Kinds = packetset.OtherKinds
		all = append(all, &last)
	}
	return all
}

// dropped is the decision about packets of other protocols that are not rejected,
// whichever rule matches them.
var dropped = Decision{Action: "drop"}

// apart returns a condition as two: for the protocols that the firewall passes,
// and for all others.
func (c *comparison) apart(x cond) (all []*cond) {
	if k := x.Kinds &^ packetset.OtherKinds; k != 0 {
		y := x
		y.Kinds = k
		all = append(all, &y)
	}
	if k := x.Kinds & packetset.OtherKinds; k != 0 {
		y := x
		if y.Kinds = k; c.decisions[x.to].Action != ruleset.Reject.String() {
			y.to = c.decision(dropped)
		}
		all = append(all, &y)
	}
	return all
}

func (c *comparison) decision(d Decision) int {
	i, ok := c.ids[d]
	if !ok {
		i = len(c.decisions)
		c.ids[d] = i
		c.decisions = append(c.decisions, d)
	}
	return i
}

// byDefault returns what a policy's default action decides.
func (c *comparison) byDefault(side int) Decision {
	a := c.policies[side].Defaults.Action
	return Decision{Action: a.String(), Rule: a.DefaultRuleID()}
}

// place returns a decision with its place in one of the policies.
func (c *comparison) place(side, decision int) Decision {
	d, p := c.decisions[decision], c.policies[side]
	if line := c.lines[side][d.Rule]; line != 0 {
		d.Place = fmt.Sprintf("%s:%d", p.File, line)
	}
	return d
}

// example returns a packet of a region, one that could arrive if there is one.
func (c *comparison) example(r *packetset.Region) Example {
	first := c.First(r)
	k := int(first.Kind)
	e := Example{From: "lan", State: "new", Proto: packetset.ClassNames[k%packetset.NumClasses]}
	if k/packetset.NumClasses%2 == 1 {
		e.From = "wan"
	}
	if k/packetset.NumClasses/2 == 1 {
		e.State = "established"
	}
	lan := c.policies[1].LAN().Prefix
	inside := uint32(policy.Number(lan.Masked().Addr()))
	last := inside | uint32(uint64(^uint32(0))>>lan.Bits())
	own := uint32(policy.Number(lan.Addr()))
	pick := func(d int, home bool) string {
		lo, hi := r.Lo[d], r.Hi[d]
		v := lo
		if home {
			for x := max(lo, inside+1); x <= min(hi, last-1); x++ {
				if x != own {
					v = x
					break
				}
			}
		} else {
			for _, x := range [...]uint32{198<<24 | 51<<16 | 100<<8 | 1, 192<<24 | 2<<8 | 1, 203<<24 | 113<<8 | 99, 8<<24 | 8<<16 | 8<<8 | 8} {
				if lo <= x && x <= hi && (x < inside || x > last) {
					v = x
					break
				}
			}
		}
		return netip.AddrFrom16(packet.Addr(v).To16()).Unmap().String()
	}
	e.Src, e.Dst = pick(packetset.Src, e.From == "lan"), pick(packetset.Dst, e.From == "wan")
	if k%packetset.NumClasses == packetset.Other {
		e.Proto = "gre"
	}
	if 1<<k&packetset.Portless == 0 {
		port := r.Lo[packetset.Port]
		for _, x := range [...]uint32{443, 53, 80, 22, 1} {
			if r.Lo[packetset.Port] <= x && x <= r.Hi[packetset.Port] {
				port = x
				break
			}
		}
		e.Dst = fmt.Sprintf("%s:%d", e.Dst, port)
	}
	e.Names, e.NoNames = c.NamesOf(r, false)
	if 1<<k&packetset.Named == 0 {
		e.NoNames = nil
	}
	return e
}

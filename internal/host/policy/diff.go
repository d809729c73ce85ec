package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

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
	From    Decision `json:"from"`
	To      Decision `json:"to"`
	Sets    int      `json:"sets"`    // number of disjoint sets of packets
	Packets []Box    `json:"packets"` // the sets, the largest first
	Example Example  `json:"example"`
}

// A Decision is what is decided, by which rule.
type Decision struct {
	Action string `json:"action"`
	Rule   string `json:"rule"` // id; default-accept, default-deny or default-reject
	SNI    bool   `json:"sni,omitempty"`
	Place  string `json:"place,omitempty"` // file:line
}

// A Box is a set of packets: all combinations of its fields. An address or port
// is a network, a single value, a range, or any.
type Box struct {
	Directions  []string `json:"direction"`
	States      []string `json:"state"`
	Protocols   []string `json:"protocol"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Port        string   `json:"destination_port"`
	Names       []string `json:"names,omitempty"`     // patterns that a name of the destination has
	NotNames    []string `json:"not_names,omitempty"` // and that none has
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
// after as many and says so in Complete; with show it describes as many of each
// change. Zero is all.
func Compare(a, b *Policy, limit, show int) (*Diff, error) {
	sa, err := compileTables(a)
	if err != nil {
		return nil, err
	}
	sb, err := compileTables(b)
	if err != nil {
		return nil, err
	}
	d := &Diff{Old: a.File, New: b.File, Traffic: []TrafficChange{}, Other: otherChanges(a, b), Complete: true}
	c := &comparison{policies: [2]*Policy{a, b}, ids: map[Decision]int{}}
	c.space = commonSpace(sa, sb)
	var conds [2][]*cond
	var def [2]int
	for i, s := range [...]*ruleset.Policy{sa, sb} {
		conds[i] = c.conds(i, s)
		def[i] = c.decision(c.byDefault(i))
	}
	w := &walker{space: c.space, def: def, found: map[[2]int][]region{}, limit: limit}
	w.run(conds[0], conds[1])
	d.Complete = !w.full()
	keys := slices.SortedFunc(maps.Keys(w.found), func(x, y [2]int) int { return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1])) })
	for _, k := range keys {
		rs := c.merge(w.found[k])
		slices.SortFunc(rs, func(x, y region) int {
			return cmp.Or(cmp.Compare(c.packets(&y), c.packets(&x)), compareBut(&x, &y, -1))
		})
		t := TrafficChange{From: c.place(0, k[0]), To: c.place(1, k[1]), Sets: len(rs), Example: c.example(&rs[0])}
		for i := range rs {
			if show > 0 && i == show {
				break
			}
			t.Packets = append(t.Packets, c.boxes(&rs[i])...)
		}
		d.Traffic = append(d.Traffic, t)
	}
	return d, nil
}

// run compares everything. When few conditions changed, a packet that is decided
// differently matches one of them; only those regions are walked.
func (w *walker) run(a, b []*cond) {
	regions := w.whole()
	if changed := uncommon(a, b); w.def[0] == w.def[1] && len(changed) <= 64 {
		var parts []region
		for i, c := range changed {
			for _, r := range regions {
				if !w.meets(&r, c) {
					continue
				}
				in, _ := w.cut(r, c)
				left := []region{in}
				for _, done := range changed[:i] {
					var next []region
					for _, q := range left {
						if !w.meets(&q, done) {
							next = append(next, q)
							continue
						}
						_, out := w.cut(q, done)
						next = append(next, out...)
					}
					left = next
				}
				parts = append(parts, left...)
			}
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
	*space
	policies  [2]*Policy
	lines     [2]map[string]int // of rules, by id
	ids       map[Decision]int
	decisions []Decision
}

// commonSpace returns the space of two policies' names.
func commonSpace(a, b *ruleset.Policy) *space {
	s := &space{sets: make([]nameSet, 1), setOf: map[string]uint32{fmt.Sprint(nameSet{}): 0}}
	for _, p := range [...]*ruleset.Policy{a, b} {
		for i := range p.Names {
			s.names = append(s.names, pattern(p, &p.Names[i]))
		}
	}
	slices.Sort(s.names)
	s.names = slices.Compact(s.names)
	s.implied, s.implying = make([][]int, len(s.names)), make([][]int, len(s.names))
	for i, n := range s.names {
		_, parent, _ := strings.Cut(n, ".")
		if j, ok := slices.BinarySearch(s.names, "*."+parent); ok && i != j {
			s.implied[i] = []int{j}
			s.implying[j] = append(s.implying[j], i)
		}
	}
	return s
}

// conds returns a policy's enforced conditions. Those of one rule are put in an
// order of their own, which changes nothing.
func (c *comparison) conds(side int, s *ruleset.Policy) []*cond {
	var all []*cond
	c.lines[side] = map[string]int{}
	last, from := -1, 0
	sorted := func() {
		slices.SortFunc(all[from:], func(x, y *cond) int {
			return cmp.Or(slices.Compare(x.lo[:], y.lo[:]), slices.Compare(x.hi[:], y.hi[:]), cmp.Compare(x.kinds, y.kinds), cmp.Compare(x.name, y.name))
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
		name := -1
		if m.Name != 0 {
			name, _ = slices.BinarySearch(c.names, pattern(s, &s.Names[m.Name-1]))
		}
		if x, ok := c.cond(m, name); ok {
			x.to = to
			all = append(all, c.apart(x)...)
		}
	}
	sorted()
	if c.policies[side].Defaults.Action != ruleset.Reject {
		last := cond{kinds: otherKinds, hi: [numDims]uint32{^uint32(0), ^uint32(0), 65535}, name: -1, to: c.decision(dropped)}
		all = append(all, &last)
	}
	return all
}

// dropped is what becomes of packets of other protocols that are not rejected,
// whichever rule matches them.
var dropped = Decision{Action: "drop"}

// apart returns a condition as two: for the protocols that the firewall passes,
// and for all others.
func (c *comparison) apart(x cond) (all []*cond) {
	if k := x.kinds &^ otherKinds; k != 0 {
		y := x
		y.kinds = k
		all = append(all, &y)
	}
	if k := x.kinds & otherKinds; k != 0 {
		y := x
		if y.kinds = k; c.decisions[x.to].Action != ruleset.Reject.String() {
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

// boxes returns a region as boxes: one, if its kinds are a product.
func (c *comparison) boxes(r *region) []Box {
	var bs []Box
	have := func(k int) uint16 { return r.kinds >> (k * numProtos) & (1<<numProtos - 1) }
	ways := []string{"egress", "ingress"}
	states := []string{"new", "established"}
	add := func(protos uint16, dirs, sts []string) {
		if protos == 0 {
			return
		}
		b := Box{Directions: dirs, States: sts, Source: addrRange(r.lo[dimSrc], r.hi[dimSrc]), Destination: addrRange(r.lo[dimDst], r.hi[dimDst]), Port: "any"}
		for i, name := range protoNames {
			if protos>>i&1 != 0 {
				b.Protocols = append(b.Protocols, name)
			}
		}
		if r.kinds&portlessKinds == 0 && (r.lo[dimPort] != 0 || r.hi[dimPort] != 65535) {
			b.Port = PortRange{int(r.lo[dimPort]), int(r.hi[dimPort])}.String()
		}
		for i, n := range c.names {
			if c.has(r, i) {
				b.Names = append(b.Names, n)
			}
			// What an absent wildcard excludes need not be said.
			if c.hasNot(r, i) && !slices.ContainsFunc(c.implied[i], func(j int) bool { return c.hasNot(r, j) }) {
				b.NotNames = append(b.NotNames, n)
			}
		}
		bs = append(bs, b)
	}
	// Combinations of direction and state, as bits of k: direction, state.
	p := [4]uint16{have(0), have(1), have(2), have(3)}
	// There are no answers of other protocols, so that nothing is said of them.
	p[2] |= p[0] & (1 << kindOther)
	p[3] |= p[1] & (1 << kindOther)
	if both := p[0] | p[1]; p[2]|p[3] == 1<<kindOther || both == 1<<kindOther {
		p[2], p[3] = p[2]&^(1<<kindOther), p[3]&^(1<<kindOther)
	}
	switch {
	case p[0] == p[1] && p[2] == p[3] && p[0] == p[2]:
		add(p[0], ways, states)
	case p[0] == p[2] && p[1] == p[3]:
		add(p[0], ways[:1], states)
		add(p[1], ways[1:], states)
	case p[0] == p[1] && p[2] == p[3]:
		add(p[0], ways, states[:1])
		add(p[2], ways, states[1:])
	default:
		for k := range 4 {
			add(p[k], ways[k%2:][:1], states[k/2:][:1])
		}
	}
	return bs
}

// protoNames are the protocols of kinds; other is all that the firewall does not
// pass.
var protoNames = [...]string{kindTCP: "tcp", kindUDP: "udp", kindICMP: "icmp", kindOther: "other"}

// addrRange writes a range of addresses.
func addrRange(lo, hi uint32) string {
	addr := func(v uint32) netip.Addr { return netip.AddrFrom16(packet.Addr(v).To16()).Unmap() }
	switch size := hi - lo; {
	case size == ^uint32(0):
		return "any"
	case size == 0:
		return addr(lo).String()
	case size&(size+1) == 0 && lo&size == 0:
		bits := 32
		for n := size; n != 0; n >>= 1 {
			bits--
		}
		return netip.PrefixFrom(addr(lo), bits).String()
	}
	return addr(lo).String() + "-" + addr(hi).String()
}

// example returns a packet of a region, one that could arrive if there is one.
func (c *comparison) example(r *region) Example {
	k := 0
	for r.kinds>>k&1 == 0 {
		k++
	}
	e := Example{From: "lan", State: "new", Proto: protoNames[k%numProtos]}
	if k/numProtos%2 == 1 {
		e.From = "wan"
	}
	if k/numProtos/2 == 1 {
		e.State = "established"
	}
	lan := c.policies[1].side(true).Prefix
	inside := uint32(number(lan.Masked().Addr()))
	last := inside | uint32(uint64(^uint32(0))>>lan.Bits())
	own := uint32(number(lan.Addr()))
	pick := func(d int, home bool) string {
		lo, hi := r.lo[d], r.hi[d]
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
	e.Src, e.Dst = pick(dimSrc, e.From == "lan"), pick(dimDst, e.From == "wan")
	if k%numProtos == kindOther {
		e.Proto = "gre"
	}
	if 1<<k&portlessKinds == 0 {
		port := r.lo[dimPort]
		for _, x := range [...]uint32{443, 53, 80, 22, 1} {
			if r.lo[dimPort] <= x && x <= r.hi[dimPort] {
				port = x
				break
			}
		}
		e.Dst = fmt.Sprintf("%s:%d", e.Dst, port)
	}
	for i, n := range c.names {
		if c.has(r, i) {
			e.Names = append(e.Names, n)
		}
		if c.hasNot(r, i) && 1<<k&namedKinds != 0 {
			e.NoNames = append(e.NoNames, n)
		}
	}
	return e
}

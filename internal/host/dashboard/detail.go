package dashboard

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

// Kinds of what a Detail is about.
const (
	OfRule = "rule" // by id
	OfHost = "host" // address, as source or destination
	OfName = "name" // of a destination, or asked for
)

// A Detail is what is known of one rule, host or name of a firewall: what the metrics
// say, and what its events since this receiver began say. Counts of events are too high by
// what a bounded table cannot tell apart, and never too low for what is frequent.
type Detail struct {
	Kind    string    `json:"kind"`
	Key     string    `json:"key"`
	Rule    *RuleNow  `json:"rule,omitempty"` // of a rule only
	Hits    []Hit     `json:"hits,omitempty"`
	Rules   []Count   `json:"rules"`   // that decided
	Sources []Count   `json:"sources"` // addresses
	To      []Count   `json:"destinations"`
	Names   []Count   `json:"names"`
	Actions []Count   `json:"actions"`
	Recent  []Verdict `json:"recent"` // the newest first
}

// A RuleNow is a rule as its firewall counts it.
type RuleNow struct {
	Rule
	LastHit time.Time `json:"last_hit"` // of a snapshot in which it had counted more; zero: not since this receiver began
}

// A Hit is how often a rule decided, in packets per second.
type Hit struct {
	At   time.Time `json:"at"`
	Rate float64   `json:"rate"`
}

// Bounds of the histories of rules, of one firewall.
const (
	hitRules  = 128 // rules that have one
	hitPoints = 360 // an hour, one each 10 seconds
)

// hits is the history of one rule: a ring.
type hits struct {
	ring []Hit
	next int
}

func (h *hits) add(p Hit) {
	if len(h.ring) < hitPoints {
		h.ring = append(h.ring, p)
		return
	}
	h.ring[h.next] = p
	h.next = (h.next + 1) % hitPoints
}

// list returns the history, the oldest first.
func (h *hits) list() []Hit {
	if h == nil {
		return nil
	}
	return append(slices.Clone(h.ring[h.next:]), h.ring[:h.next]...)
}

// count notes the rates of all rules of a snapshot. What it does not have is forgotten: it
// is of another policy.
func (f *firewall) count(all []Rule, at time.Time) {
	if len(f.hits) == hitRules || len(f.lastHit) > len(all) {
		there := make(map[string]bool, len(all))
		for i := range all {
			there[all[i].ID] = true
		}
		maps.DeleteFunc(f.hits, func(id string, _ *hits) bool { return !there[id] })
		maps.DeleteFunc(f.lastHit, func(id string, _ time.Time) bool { return !there[id] })
	}
	for i := range all {
		r := &all[i]
		h := f.hits[r.ID]
		if h == nil && r.Rate > 0 && len(f.hits) < hitRules {
			h = &hits{}
			f.hits[r.ID] = h
		}
		if h != nil {
			h.add(Hit{at, r.Rate})
		}
		if r.Rate > 0 {
			f.lastHit[r.ID] = at
		}
	}
}

// maxRules is how many rules are shown of one firewall: as many as a policy can have
// without its lists being longer than what a page can show.
const maxRules = 16384

// Rules returns the rules of a firewall in the order in which it counts them, which is that
// of its policy; false if there is no such firewall.
func (m *Model) Rules(firewall string) ([]RuleNow, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.firewalls[firewall]
	if f == nil {
		return nil, false
	}
	var all []Rule
	if f.sum != nil {
		all = f.sum.all
	}
	out := make([]RuleNow, 0, len(all))
	for _, r := range all {
		out = append(out, RuleNow{r, f.lastHit[r.ID]})
	}
	return out, true
}

// Detail returns what is known of one rule, host or name; false if there is no such
// firewall.
func (m *Model) Detail(firewall, kind, key string) (*Detail, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.firewalls[firewall]
	if f == nil {
		return nil, false
	}
	d := &Detail{Kind: kind, Key: key, Recent: []Verdict{}}
	if kind == OfRule {
		d.Hits = f.hits[key].list()
		if f.sum != nil {
			for _, r := range f.sum.all {
				if r.ID == key {
					d.Rule = &RuleNow{r, f.lastHit[key]}
				}
			}
		}
	}
	about := func(t *talk) bool {
		switch kind {
		case OfRule:
			return t.rule == key
		case OfHost:
			return t.source == key || t.destination == key
		}
		return t.name == key
	}
	var rules, sources, to, names, actions tally[string]
	for t, n := range f.talks {
		if about(&t) {
			for _, c := range []struct {
				of  *tally[string]
				key string
			}{{&rules, t.rule}, {&sources, t.source}, {&to, t.destination}, {&names, t.name}, {&actions, t.action}} {
				if c.key != "" {
					c.of.add(c.key, n, topTalks, cmp.Compare)
				}
			}
		}
	}
	d.Rules, d.Sources, d.To, d.Names, d.Actions = rules.top(viewCounts), sources.top(viewCounts), to.top(viewCounts), names.top(viewCounts), actions.top(viewCounts)
	for _, v := range f.newest() {
		if about(&v.talk) {
			d.Recent = append(d.Recent, v)
		}
	}
	return d, true
}

// A talk is between whom and by which rule events were.
type talk struct{ rule, action, source, destination, name string }

// topTalks is how many of them a firewall has counted apart.
const topTalks = 512

// talkOf returns who an event is about, in memory of its own.
func talkOf(e ecs.Event) talk {
	part := func(s string, most int) string { return clone(cutBytes(s, most)) }
	t := talk{rule: part(e.Str(ecs.RuleID), 64), action: part(e.Str(ecs.EventAction), maxAction),
		source: part(e.Str(ecs.SourceIP), 46), destination: part(e.Str(ecs.DestinationIP), 46), name: part(e.Str(ecs.DestinationDomain), maxKey)}
	if t.name == "" {
		t.name = part(e.Str(ecs.DNSQuestionName), maxKey)
	}
	return t
}

func (a talk) compare(b talk) int {
	return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(a.source, b.source), cmp.Compare(a.destination, b.destination),
		cmp.Compare(a.name, b.name), cmp.Compare(a.action, b.action))
}

// newest returns the last verdicts, the newest first.
func (f *firewall) newest() []Verdict {
	all := make([]Verdict, 0, len(f.recent))
	for i := range f.recent {
		all = append(all, f.recent[(f.next+len(f.recent)-1-i)%len(f.recent)])
	}
	return all
}

package dashboard

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// A RuleText is a rule of a policy in words.
type RuleText struct {
	ID      string   `json:"id"`
	Name    string   `json:"name,omitempty"`
	Action  string   `json:"action"`
	Shadow  bool     `json:"shadow,omitempty"`
	Matches []string `json:"matches"`        // the first sets of packets
	More    int      `json:"more,omitempty"` // sets that are left out
}

// A Policy is what the page shows of a policy beside what its firewall counts.
type Policy struct {
	Digest string // as HELLO has it
	Rules  []RuleText
	// Reach returns who may reach what, as tables for the page, or why not. It is called
	// once, and may take seconds. nil: only what an image holds is known.
	Reach func() (any, error)
	// Groups returns the groups of the policy that an address is in; may be nil.
	Groups func(address string) []string
}

// Bounds of what is remembered, and of looking for more.
const (
	maxPolicies = 8                // beyond it the oldest is forgotten
	lookPause   = 10 * time.Second // after a policy that was not found
)

// Policies are the policies that are known, by their digest. It is safe for concurrent
// use; the zero value is empty, and so is nil.
type Policies struct {
	// Look finds a policy that is not known yet; may be nil, and may return nil.
	Look func(digest string) *Policy

	mu     sync.Mutex
	all    []*known
	missed time.Time // when Look last found nothing
}

type known struct {
	Policy
	at    map[string]int // index into Rules, by id
	reach func() []byte  // JSON
}

// Add adds a policy. What knows more of it takes the place of what was there.
func (p *Policies) Add(add Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(add)
}

func (p *Policies) add(add Policy) *known {
	if i := slices.IndexFunc(p.all, func(o *known) bool { return o.Digest == add.Digest }); i >= 0 {
		if p.all[i].Reach != nil && add.Reach == nil {
			return p.all[i]
		}
		p.all = slices.Delete(p.all, i, i+1)
	}
	k := &known{Policy: add, at: map[string]int{}}
	for i := range add.Rules {
		k.at[add.Rules[i].ID] = i
	}
	k.reach = sync.OnceValue(func() []byte { return reachJSON(add.Reach) })
	if p.all = append(p.all, k); len(p.all) > maxPolicies {
		p.all = p.all[1:]
	}
	return k
}

// find returns a policy, nil if it is not known.
func (p *Policies) find(digest string, now time.Time) *known {
	if p == nil || digest == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.all {
		if k.Digest == digest {
			return k
		}
	}
	if since := now.Sub(p.missed); p.Look == nil || since >= 0 && since < lookPause {
		return nil
	}
	if found := p.Look(digest); found != nil {
		return p.add(*found)
	}
	p.missed = now
	return nil
}

// rule returns a rule, nil if it is not known.
func (k *known) rule(id string) *RuleText {
	if k == nil {
		return nil
	}
	if n, ok := k.at[id]; ok {
		return &k.Rules[n]
	}
	return nil
}

// sort brings rules into the order in which they are asked; those that the policy does not have
// come last.
func (k *known) sort(rules []ruleAnswer) {
	if k == nil {
		return
	}
	place := func(id string) int {
		if n, ok := k.at[id]; ok {
			return n
		}
		return len(k.at)
	}
	slices.SortStableFunc(rules, func(a, b ruleAnswer) int { return cmp.Compare(place(a.ID), place(b.ID)) })
}

// A reachAnswer is the page's JSON of who may reach what. Known is whether the policy is.
type reachAnswer struct {
	Known  bool   `json:"known"`
	Why    string `json:"why,omitempty"` // there are no tables
	Tables any    `json:"tables,omitempty"`
}

func reachJSON(reach func() (any, error)) []byte {
	a := reachAnswer{Known: reach != nil}
	if reach != nil {
		tables, err := reach()
		if a.Tables = tables; err != nil {
			a.Why = err.Error()
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		b, _ = json.Marshal(reachAnswer{Known: true, Why: err.Error()})
	}
	return b
}

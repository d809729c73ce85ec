package dashboard

import (
	"slices"
	"sync"
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

// maxPolicies is how many policies are remembered; beyond it the oldest is forgotten.
const maxPolicies = 8

// Policies are the policies whose rules are known, by their digest as HELLO has it. It is
// safe for concurrent use; the zero value is empty, and so is nil.
type Policies struct {
	mu  sync.Mutex
	all []known
}

type known struct {
	digest string
	rules  []RuleText
	at     map[string]int
}

// Add adds a policy.
func (p *Policies) Add(digest string, rules []RuleText) {
	k := known{digest, rules, map[string]int{}}
	for i := range rules {
		k.at[rules[i].ID] = i
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, func(o known) bool { return o.digest == digest })
	if p.all = append(p.all, k); len(p.all) > maxPolicies {
		p.all = p.all[1:]
	}
}

// rule returns a rule of a policy, nil if it is not known.
func (p *Policies) rule(digest, id string) *RuleText {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.all {
		if k := &p.all[i]; k.digest == digest {
			if n, ok := k.at[id]; ok {
				return &k.rules[n]
			}
		}
	}
	return nil
}

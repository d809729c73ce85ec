package dashboard

import (
	"encoding/json"
	"net/http"
	"time"
)

// What the page asks for beside the views. Fields are those of its JSON.
type (
	ruleAnswer struct {
		RuleNow
		Hits []float64 `json:"hits,omitempty"` // per second, of the last ten minutes
		Text *RuleText `json:"text,omitempty"`
	}
	rulesAnswer struct {
		Rules []ruleAnswer `json:"rules"`
	}
	detailAnswer struct {
		*Detail
		Text   *RuleText `json:"text,omitempty"`   // of a rule
		Groups []string  `json:"groups,omitempty"` // of the policy, that a host is in
	}
)

// sparkPoints is how many points of a rule's history are in the list of all.
const sparkPoints = 60

// maxQuery is the longest name or key that is asked for, in bytes.
const maxQuery = 512

// rules answers with all rules of a firewall in their order.
func (m *Model) rules(w http.ResponseWriter, r *http.Request) {
	firewall := r.URL.Query().Get("firewall")
	all, ok := m.Rules(firewall)
	if !ok {
		http.Error(w, "there is no such firewall", http.StatusNotFound)
		return
	}
	m.mu.Lock()
	digest, hits := "", map[string][]float64{}
	if f := m.firewalls[firewall]; f != nil {
		digest = f.policy()
		for id, h := range f.hits {
			l := h.list()
			for _, p := range l[max(len(l)-sparkPoints, 0):] {
				hits[id] = append(hits[id], p.Rate)
			}
		}
	}
	m.mu.Unlock()
	out := rulesAnswer{Rules: make([]ruleAnswer, 0, len(all))}
	policy := m.policies.find(digest, time.Now())
	for _, n := range all {
		out.Rules = append(out.Rules, ruleAnswer{n, hits[n.ID], policy.rule(n.ID)})
	}
	policy.sort(out.Rules)
	answer(w, out)
}

// detail answers with what is known of one rule, host or name.
func (m *Model) detail(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	firewall, kind, key := q.Get("firewall"), q.Get("kind"), q.Get("key")
	if kind != OfRule && kind != OfHost && kind != OfName || len(key) > maxQuery {
		http.Error(w, "kind is rule, host or name, and key of at most 512 bytes", http.StatusBadRequest)
		return
	}
	d, ok := m.Detail(firewall, kind, key)
	if !ok {
		http.Error(w, "there is no such firewall", http.StatusNotFound)
		return
	}
	out := detailAnswer{Detail: d}
	if policy := m.policyOf(firewall); policy != nil {
		switch {
		case kind == OfRule:
			out.Text = policy.rule(key)
		case kind == OfHost && policy.Groups != nil:
			out.Groups = policy.Groups(key)
		}
	}
	answer(w, out)
}

// reach answers with who may reach what by the policy of a firewall.
func (m *Model) reach(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b := reachJSON(nil)
	if policy := m.policyOf(r.URL.Query().Get("firewall")); policy != nil {
		b = policy.reach()
	}
	w.Write(b) //nolint:errcheck // the client has closed the connection
}

// policyOf returns the policy that a firewall says it runs, nil if it is not known.
func (m *Model) policyOf(firewall string) *known {
	m.mu.Lock()
	digest := ""
	if f := m.firewalls[firewall]; f != nil {
		digest = f.policy()
	}
	m.mu.Unlock()
	return m.policies.find(digest, time.Now())
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b) //nolint:errcheck // the client has closed the connection
}

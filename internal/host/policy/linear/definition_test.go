package linear

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/filter/filtertest"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestLinearIsTheDefinition: the linear scan, by which the classifier is tested,
// decides as the policy's words say: the first enforced rule decides, and the
// first shadow rule before it is reported.
func TestLinearIsTheDefinition(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 10))
		p := filtertest.RandomPolicy(r, 40, 3)
		if seed%2 == 0 {
			p = filtertest.Grid(r, 40)
		}
		l := New(p)
		for range 200 {
			q := filtertest.RandomPacket(r, p)
			want := decided(p.Settings.DefaultAction, uint32(len(p.Rules)), filter.NoRule)
			for i := range p.Matches {
				if m := &p.Matches[i]; filtertest.Holds(m, &q) {
					if p.Rules[m.Rule].Mode == ruleset.Enforce {
						want.Action, want.Rule = m.Action, m.Rule
						break
					} else if want.Shadow == filter.NoRule {
						want.Shadow = m.Rule
					}
				}
			}
			if got := l.Decide(&q); got != want {
				t.Fatalf("seed %d, packet %+v: %+v, want %+v", seed, q, got, want)
			}
		}
	}
}

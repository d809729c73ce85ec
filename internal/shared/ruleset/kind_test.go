package ruleset

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestKindField: each class of protocols, direction and state has a value of its own, and
// all other protocols the same.
func TestKindField(t *testing.T) {
	seen := map[uint32]bool{}
	for proto := range 256 {
		class, known := map[int]uint32{6: 0, 17: 1, 1: 2}[proto]
		if !known {
			class = 3
		}
		for d, in := range map[verdict.Direction]uint32{verdict.Egress: 0, verdict.Ingress: 4} {
			for s, old := range map[uint8]uint32{StateNew: 0, StateEstablished: 8} {
				got := KindField(uint8(proto), d, s)
				if got != class|in|old {
					t.Errorf("protocol %d, direction %d, state %d: %d", proto, d, s, got)
				}
				seen[got] = true
			}
		}
	}
	if len(seen) != NumKinds {
		t.Errorf("%d kinds of %d", len(seen), NumKinds)
	}
}

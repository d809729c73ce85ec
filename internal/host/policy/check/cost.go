package check

import (
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Cost is what a policy takes of the machine that it runs on.
type Cost struct {
	Rules   int
	Matches int // combinations of the rules' lists
	Names   int // names and wildcards of rules
	Tables  int // bytes of the compiled policy
	Memory  router.Memory
	MTU     int // of the larger packets that buffers are for, unless devices report more
}

// CostOf returns the cost of a compiled policy.
func CostOf(rs *ruleset.Policy) Cost {
	mtu := router.LargestMTU(rs, 0, 0)
	return Cost{Rules: len(rs.Rules), Matches: len(rs.Matches), Names: len(rs.Names), Tables: len(compile.Encode(rs)),
		Memory: router.MemoryOf(rs, mtu, 1), MTU: mtu}
}

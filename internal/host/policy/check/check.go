// Package check loads a policy and warns of what is allowed in it and probably not
// meant: rules that never decide, answers that no rule lets through, names that
// no host can resolve.
//
//	warnings.go      answers, port forwards, names
//	unreachable.go   rules that never decide
//	untranslated.go  hosts that the WAN reaches by their own addresses
//	translation.go   private sources, and pools that are too small
//	own.go           rules for the firewall's own address
//	cost.go          what a policy takes of the machine
package check

import (
	"github.com/thurward/thurward/internal/host/policy"
)

// Load is policy.Load with warnings.
func Load(file string, src []byte) (*policy.Policy, policy.Diagnostics) {
	p, ds := policy.Load(file, src)
	if p == nil {
		return nil, ds
	}
	c := &checker{Report: policy.Report{File: file}, p: p}
	for _, d := range ds {
		c.Add(d)
	}
	c.warnings()
	return p, c.Diagnostics()
}

// A checker collects the warnings about one policy.
type checker struct {
	policy.Report
	p *policy.Policy
}

// Package policytest compiles policies for tests of other packages.
package policytest

import (
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Compile returns the ruleset of a policy, which must be valid.
func Compile(t testing.TB, src string) *ruleset.Policy {
	t.Helper()
	p, diags := policy.Load("rules.yaml", []byte(src))
	if p == nil {
		t.Fatalf("the policy is not valid: %v\n%s", diags, src)
	}
	s, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

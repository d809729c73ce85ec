// Package policyview makes of a policy what the page shows of it: its rules in words, who
// may reach what, and the groups that an address is in. A firewall says which policy it
// runs by the SHA-256 of rules.yaml; a file with that digest is the policy, wherever it
// comes from.
package policyview

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/matrix"
	"github.com/thurward/thurward/internal/host/policy/ruletext"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Digest returns the digest of a rules.yaml as firewalls report it.
func Digest(src []byte) string {
	sum := sha256.Sum256(src)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ruleSets is how many sets of packets of each rule are shown.
const ruleSets = 4

// OfImage returns what the compiled policy of an image tells: rules, and no more.
func OfImage(rs *ruleset.Policy) dashboard.Policy {
	var all []dashboard.RuleText
	for _, r := range ruletext.Of(rs, ruleSets) {
		all = append(all, dashboard.RuleText{ID: r.ID, Name: r.Name, Action: r.Action, Shadow: r.Shadow, Matches: r.Matches, More: r.More})
	}
	action := rs.Settings.DefaultAction
	all = append(all, dashboard.RuleText{ID: action.DefaultRuleID(), Action: action.String(), Matches: []string{"everything else"}})
	return dashboard.Policy{Digest: "sha256:" + hex.EncodeToString(rs.Digest[:]), Rules: all}
}

// Of returns what a rules.yaml tells. file is its name, beside which it names others.
func Of(file string, src []byte) (dashboard.Policy, error) {
	p, ds := check.Load(file, src)
	if p == nil {
		for _, d := range ds {
			if d.Severity == policy.Error {
				return dashboard.Policy{}, fmt.Errorf("%s is not valid: %s", file, d.Message)
			}
		}
		return dashboard.Policy{}, fmt.Errorf("%s is not valid", file)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		return dashboard.Policy{}, err
	}
	out := OfImage(rs)
	out.Reach = func() (any, error) {
		m, err := matrix.Compute(p, rs)
		if err != nil {
			return nil, err
		}
		return m.Tables(false), nil
	}
	if len(p.AddressGroups) > 0 {
		out.Groups = func(address string) []string { return groups(p, address) }
	}
	return out, nil
}

// groups returns the groups of a policy that an address is in, sorted.
func groups(p *policy.Policy, address string) (in []string) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return nil
	}
	for name, networks := range p.AddressGroups {
		if slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a) }) {
			in = append(in, "$"+name)
		}
	}
	slices.Sort(in)
	return in
}

// Bounds of what is looked at.
const maxFiles = 256

// A Finder finds policies among files by their digest. The files are read at each call, so
// that new ones are found.
type Finder struct {
	Files []string // names, or patterns of filepath.Glob
	Say   func(format string, a ...any)
}

// Check reports a pattern that is none.
func (f *Finder) Check() error {
	for _, p := range f.Files {
		if _, err := filepath.Match(p, ""); err != nil {
			return fmt.Errorf("%q: %w (want files, as /etc/thurward/*.yaml)", p, err)
		}
	}
	return nil
}

// Find returns the policy that has a digest, nil if no file has.
func (f *Finder) Find(digest string) *dashboard.Policy {
	count := 0
	for _, pattern := range f.Files {
		names, _ := filepath.Glob(pattern) // Check has looked at it
		if len(names) == 0 && !strings.ContainsAny(pattern, `*?[\`) {
			f.Say("policies: %s: %v", pattern, os.ErrNotExist)
		}
		for _, name := range names {
			if count++; count > maxFiles {
				f.Say("policies: more than %d files; the others are not read", maxFiles)
				return nil
			}
			src, err := limited.ReadRegular(name, policy.MaxBytes)
			if err != nil {
				f.Say("policies: %v", err)
				continue
			}
			if Digest(src) != digest {
				continue
			}
			p, err := Of(name, src)
			if err != nil {
				f.Say("policies: %v", err)
				return nil
			}
			return &p
		}
	}
	return nil
}

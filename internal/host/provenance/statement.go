// Package provenance says how an image was made: an in-toto statement with SLSA's
// provenance, and a list of what is linked into it (CycloneDX). The same input gives the
// same bytes: no time and no name of a machine is in them.
//
// Sources: in-toto attestation framework, Statement v1; SLSA provenance v1.
package provenance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/thurward/thurward/internal/host/policy/diff"
)

// Types of a statement.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
	BuildType     = "https://github.com/thurward/thurward/blob/main/docs/release.md#image-v1"
	Repository    = "git+https://github.com/thurward/thurward"
	// LocalBuilder is who made an image with the command line, on a machine of which
	// nothing is known.
	LocalBuilder = "https://github.com/thurward/thurward/blob/main/docs/release.md#local-builder"
)

// A Statement says what was made, and how.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Predicate  `json:"predicate"`
}

// A Predicate is SLSA's provenance.
type Predicate struct {
	Definition Definition `json:"buildDefinition"`
	Run        Run        `json:"runDetails"`
}

// A Definition is all that decides what is made.
type Definition struct {
	BuildType    string     `json:"buildType"`
	Parameters   Parameters `json:"externalParameters"`
	Dependencies []Resource `json:"resolvedDependencies"`
}

// Parameters are what a user gave.
type Parameters struct {
	Version string `json:"version"`
	Policy  string `json:"policy"`  // name of the policy's file, without folders
	Program string `json:"program"` // which of the two programs
	Cmdline string `json:"append"`  // boot arguments
}

// A Run is one build.
type Run struct {
	Builder    Builder    `json:"builder"`
	Metadata   struct{}   `json:"metadata"`
	Byproducts []Resource `json:"byproducts"`
}

// A Builder is who made it.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version"`
}

// A Resource is something with a digest.
type Resource struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"` // by algorithm: sha256, gitCommit
	Content     []byte            `json:"content,omitempty"`
	MediaType   string            `json:"mediaType,omitempty"`
	Annotations *Annotations      `json:"annotations,omitempty"`
}

// Annotations are what is said of a resource beyond its digest.
type Annotations struct {
	Dirty      bool        `json:"dirty,omitempty"`   // of the source: files were changed
	Version    string      `json:"version,omitempty"` // of the toolchain
	Tests      *Tests      `json:"tests,omitempty"`
	Statements *Statements `json:"statements,omitempty"`
	Changes    *Changes    `json:"changes,omitempty"`
}

// Tests are the policy's own tests.
type Tests struct {
	Passed int      `json:"passed"`
	Failed int      `json:"failed"`
	Names  []string `json:"names"`
}

// Statements are those of the policy, under never and always: what holds for all packets.
type Statements struct {
	Hold   int      `json:"hold"`
	Failed int      `json:"failed"`
	Names  []string `json:"names"` // as "never: name"
}

// Changes are what the image does differently from an earlier one.
type Changes struct {
	Previous string     `json:"previous"` // digest of the earlier image
	Policy   string     `json:"policy"`   // digest of its policy
	Diff     *diff.Diff `json:"diff"`     // as thurward diff --format json prints it
	Text     string     `json:"text"`     // as it prints it for people
}

// Names of resources.
const (
	NameSource     = "source"
	NamePolicy     = "rules.yaml"
	NameSchema     = "rules.schema.json"
	NameKernel     = "kernel.elf"
	NameToolchain  = "toolchain"
	NameSBOM       = "sbom"
	NameTests      = "policy-tests"
	NameStatements = "policy-statements"
	NameChanges    = "changes"
)

// Parse reads a statement, and checks that it is of the form that Make gives.
func Parse(b []byte) (*Statement, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var s Statement
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("not a statement of provenance: %w", err)
	}
	if d.More() {
		return nil, errors.New("not a statement of provenance: something follows it")
	}
	for _, f := range []struct{ what, have, want string }{
		{"type", s.Type, StatementType},
		{"predicate", s.PredicateType, PredicateType},
		{"build", s.Predicate.Definition.BuildType, BuildType},
	} {
		if f.have != f.want {
			return nil, fmt.Errorf("not a statement of how an image was made: its %s is %q, not %q", f.what, f.have, f.want)
		}
	}
	if len(s.Subject) != 1 {
		return nil, fmt.Errorf("is about %d files; want one image", len(s.Subject))
	}
	if c := s.Changes(); c != nil && c.Diff == nil {
		return nil, errors.New("not a statement of how an image was made: its changes are empty")
	}
	return &s, nil
}

// Dependency returns what was used for the build, by its name, or nil.
func (s *Statement) Dependency(name string) *Resource {
	return find(s.Predicate.Definition.Dependencies, name)
}

// Byproduct returns what the build gave beside the image, by its name, or nil.
func (s *Statement) Byproduct(name string) *Resource { return find(s.Predicate.Run.Byproducts, name) }

func find(all []Resource, name string) *Resource {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// SHA256 returns a resource's digest, or "" if there is none.
func (r *Resource) SHA256() string {
	if r == nil {
		return ""
	}
	return r.Digest["sha256"]
}

// Commit returns the commit that was built, as in a stamp, with "-dirty" behind it if
// files had been changed.
func (s *Statement) Commit() string {
	r := s.Dependency(NameSource)
	if r == nil {
		return ""
	}
	c := r.Digest["gitCommit"]
	if r.Annotations != nil && r.Annotations.Dirty {
		c += "-dirty"
	}
	return c
}

// Tests returns the results of the policy's tests, or nil.
func (s *Statement) Tests() *Tests {
	if r := s.Byproduct(NameTests); r != nil && r.Annotations != nil {
		return r.Annotations.Tests
	}
	return nil
}

// Statements returns the results of the policy's statements, or nil.
func (s *Statement) Statements() *Statements {
	if r := s.Byproduct(NameStatements); r != nil && r.Annotations != nil {
		return r.Annotations.Statements
	}
	return nil
}

// Repository returns where the source is from, as "git+https://…", or "".
func (s *Statement) Repository() string {
	if r := s.Dependency(NameSource); r != nil {
		return r.URI
	}
	return ""
}

// Changes returns the difference to an earlier image, or nil if it was not given.
func (s *Statement) Changes() *Changes {
	if r := s.Byproduct(NameChanges); r != nil && r.Annotations != nil {
		return r.Annotations.Changes
	}
	return nil
}

package provenance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/thurward/thurward/internal/host/inspect"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/diff"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
)

// Input is what a statement is made from.
type Input struct {
	Name            string // of the image's file
	Image           []byte
	Kernel, Program []byte
	PolicyFile      string
	Source          []byte // of the policy
	Schema          string // digest of the schema with which it was checked
	Cmdline         string
	Toolchain       Toolchain
	Builder         string // "": LocalBuilder
	BuilderVersion  string // of the command line
	SBOM            []byte
	Repository      string // of the source, as "git+https://…"; "": Repository
	Tests           []explain.TestResult
	Statements      []prove.Result
	Changes         *Changes // nil: none was asked for
}

// A Toolchain is the Go that has compiled the kernel and the program.
type Toolchain struct {
	Version string `json:"version"` // as go1.26.8
	SHA256  string `json:"sha256"`  // of its compiler, assembler, linker and go command: see kernelbuild
}

// Make returns the statement about an image. Version and commit are those that the
// program in the image tells.
func Make(in Input) ([]byte, error) {
	r, err := inspect.Image(in.Image)
	if err != nil {
		return nil, err
	}
	builder := in.Builder
	if builder == "" {
		builder = LocalBuilder
	}
	source := Resource{Name: NameSource, URI: in.Repository}
	if source.URI == "" {
		source.URI = Repository
	}
	if r.Commit != "" {
		hash, dirty := strings.CutSuffix(r.Commit, "-dirty")
		source.Digest = map[string]string{"gitCommit": hash}
		if dirty {
			source.Annotations = &Annotations{Dirty: true}
		}
	}
	tests := &Tests{Names: []string{}}
	for _, t := range in.Tests {
		if t.Wrong == "" {
			tests.Passed++
		} else {
			tests.Failed++
		}
		tests.Names = append(tests.Names, t.Test.Name)
	}
	statements := &Statements{Names: []string{}}
	for _, t := range in.Statements {
		if t.Wrong == "" {
			statements.Hold++
		} else {
			statements.Failed++
		}
		statements.Names = append(statements.Names, t.Statement.Word()+": "+t.Statement.Name)
	}
	s := Statement{
		Type: StatementType, PredicateType: PredicateType,
		Subject: []Resource{{Name: in.Name, Digest: sum(in.Image)}},
		Predicate: Predicate{
			Definition: Definition{
				BuildType:  BuildType,
				Parameters: Parameters{Version: r.Version, Policy: filepath.Base(in.PolicyFile), Program: r.Program, Cmdline: in.Cmdline},
				Dependencies: []Resource{
					source,
					{Name: NamePolicy, Digest: sum(in.Source), Content: in.Source, MediaType: "application/yaml"},
					{Name: NameSchema, Digest: map[string]string{"sha256": in.Schema}},
					{Name: NameKernel, Digest: sum(in.Kernel)},
					{Name: r.Program, Digest: sum(in.Program)},
					{Name: NameToolchain, Digest: map[string]string{"sha256": in.Toolchain.SHA256}, Annotations: &Annotations{Version: in.Toolchain.Version}},
				},
			},
			Run: Run{
				Builder: Builder{ID: builder, Version: map[string]string{"thurward": in.BuilderVersion}},
				Byproducts: []Resource{
					{Name: NameSBOM, Digest: sum(in.SBOM), MediaType: "application/vnd.cyclonedx+json"},
					{Name: NameTests, Annotations: &Annotations{Tests: tests}},
					{Name: NameStatements, Annotations: &Annotations{Statements: statements}},
				},
			},
		},
	}
	if in.Changes != nil {
		b := &s.Predicate.Run.Byproducts
		*b = append(*b, Resource{Name: NameChanges, Annotations: &Annotations{Changes: in.Changes}})
	}
	out, err := json.MarshalIndent(s, "", "  ")
	return append(out, '\n'), err
}

// Compare returns what policy next does differently from the one of an earlier image,
// and the earlier policy's source, by the earlier image and its statement. The statement
// need not be signed: the source that is in it must have the digest that is in the image.
func Compare(earlier, statement []byte, next *policy.Policy, load func(name string, src []byte) (*policy.Policy, error)) (*Changes, error) {
	r, err := inspect.Image(earlier)
	if err != nil {
		return nil, err
	}
	s, err := Parse(statement)
	if err != nil {
		return nil, err
	}
	src := s.Dependency(NamePolicy)
	if src == nil || src.Content == nil {
		return nil, fmt.Errorf("its provenance does not have the policy")
	}
	if have := sum(src.Content)["sha256"]; have != r.Policy {
		return nil, fmt.Errorf("its provenance is of another image: it has the policy sha256:%s, and the image sha256:%s", have, r.Policy)
	}
	old, err := load(s.Predicate.Definition.Parameters.Policy, src.Content)
	if err != nil {
		return nil, err
	}
	d, err := diff.Compare(old, next, 0, 0)
	if err != nil {
		return nil, err
	}
	d.Old, d.New = "sha256:"+r.Policy, "sha256:"+hex.EncodeToString(next.Digest[:])
	var text bytes.Buffer
	d.Write(&text, -1)
	return &Changes{Previous: r.Digest, Policy: r.Policy, Diff: d, Text: text.String()}, nil
}

func sum(b []byte) map[string]string {
	s := sha256.Sum256(b)
	return map[string]string{"sha256": hex.EncodeToString(s[:])}
}

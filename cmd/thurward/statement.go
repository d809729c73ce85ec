package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/parts"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/stamp"
	"github.com/thurward/thurward/schemas"
	"github.com/thurward/thurward/test/deps"
)

// statementFlags are those of build that say what is written beside the image.
type statementFlags struct {
	want              bool
	previous, builder string
	source            string
}

func (f *statementFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.BoolVar(&f.want, "provenance", false, "also write how it was made ("+verify.StatementSuffix+") and what is in it ("+verify.SBOMSuffix+")")
	fl.StringVar(&f.previous, "previous", "", "an earlier image; the provenance says what the new one does differently")
	fl.StringVar(&f.builder, "builder", "", "the id of the builder in the provenance, a URI (default: a machine of which nothing is known)")
	fl.StringVar(&f.source, "source", provenance.Repository, "the repository of thurward's source in the provenance, a URI")
}

// statementInput is what was built, and from what.
type statementInput struct {
	out        string
	image      []byte
	parts      image.Input
	policyFile string
	source     []byte
	policy     *policy.Policy
	tests      []explain.TestResult
	proofs     []prove.Result
}

// write writes the statement and the list beside the image.
func (f *statementFlags) write(cmd *cobra.Command, in *statementInput) error {
	if !f.want && f.previous == "" {
		return nil
	}
	tools, err := parts.ReadToolchain()
	if err != nil {
		return err
	}
	p, err := ruleset.Open(in.parts.Policy)
	if err != nil {
		return err
	}
	build := stamp.Own()
	name := filepath.Base(in.out)
	sbom, err := provenance.SBOM(name, build.Version, in.parts.Program, deps.Kernel(), deps.Firewall(image.ProgramFor(p) == image.DoT))
	if err != nil {
		return err
	}
	input := provenance.Input{
		Name: name, Image: in.image, Kernel: in.parts.Kernel, Program: in.parts.Program,
		PolicyFile: in.policyFile, Source: in.source, Schema: schemas.Digest(), Cmdline: in.parts.Cmdline,
		Toolchain: provenance.Toolchain(tools), Builder: f.builder, BuilderVersion: build.Version,
		SBOM: sbom, Tests: in.tests, Statements: in.proofs, Repository: f.source,
	}
	if f.previous != "" {
		if input.Changes, err = f.changes(in); err != nil {
			return fmt.Errorf("--previous %s: %w", f.previous, err)
		}
		input.Changes.Diff.Write(cmd.OutOrStdout(), diffChanges)
	}
	statement, err := provenance.Make(input)
	if err != nil {
		return err
	}
	if err := writeFile(in.out+verify.SBOMSuffix, sbom); err != nil {
		return err
	}
	if err := writeFile(in.out+verify.StatementSuffix, statement); err != nil {
		return err
	}
	printable.Fprintf(cmd.OutOrStdout(), "%s: how it was made, to be signed\n%s: what is in it\n",
		in.out+verify.StatementSuffix, in.out+verify.SBOMSuffix)
	return nil
}

// changes compares the policy with that of the earlier image.
func (f *statementFlags) changes(in *statementInput) (*provenance.Changes, error) {
	earlier, err := limited.ReadFile(f.previous, maxImage)
	if err != nil {
		return nil, err
	}
	statement, err := limited.ReadFile(f.previous+verify.StatementSuffix, maxImage)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (it has the policy of the image: thurward build --provenance writes it)", err)
	}
	if err != nil {
		return nil, err
	}
	return provenance.Compare(earlier, statement, in.policy, func(name string, src []byte) (*policy.Policy, error) {
		// Certificates that it names lie beside the policy, not beside the image.
		p, diags := check.Load(filepath.Join(filepath.Dir(in.policyFile), filepath.Base(name)), src)
		if p == nil {
			return nil, fmt.Errorf("its policy is not valid any more: %v", diags)
		}
		return p, nil
	})
}

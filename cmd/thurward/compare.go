package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/diff"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/host/policyview"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
)

// compare shows what an image changes, and returns its rules.yaml, nil if that is not known.
// signed is what was verified of the image, nil if nothing was.
func (t *target) compare(cmd *cobra.Command, store *deploy.Store, rec deploy.Record, path string, img *vmm.Image, signed *verify.Report) ([]byte, error) {
	out := cmd.OutOrStdout()
	digest := digestOf(img.Policy)
	switch rec.Current.Policy {
	case "":
		printable.Fprintf(out, "%s has no image yet; policy %s\n", t.name, digest)
	case digest:
		printable.Fprintf(out, "the same policy as the current image's, %s\n", digest)
	default:
		printable.Fprintf(out, "policy %s, in place of %s\n", digest, rec.Current.Policy)
	}
	if signed != nil {
		showSigned(out, signed, rec.Current.Image)
	}
	file, src, err := t.rules(path, digest, signed)
	if err != nil {
		return nil, err
	}
	if src == nil {
		printable.Fprintf(out, "what changes cannot be shown: the image has no provenance beside it (or name its rules.yaml with -f)\n")
		return nil, nil
	}
	new, err := t.hold(cmd, file, src)
	if err != nil || new == nil || rec.Current.Policy == "" || rec.Current.Policy == digest {
		return src, err
	}
	old, err := currentPolicy(store, &rec.Current)
	if err != nil {
		printable.Fprintf(out, "what changes cannot be shown: the current image's policy: %v\n", err)
		return src, nil
	}
	d, err := diff.Compare(old, new, diffSearch, diffSets)
	if err != nil {
		return nil, err
	}
	d.Write(out, diffChanges)
	return src, nil
}

// showSigned shows what was signed about how an image was made, and with which other one it
// was compared: whoever signed may have seen other changes than those that come now.
func showSigned(out io.Writer, r *verify.Report, current string) {
	for _, c := range r.Checks {
		switch c.Name {
		case verify.CheckSource, verify.CheckBuilder, verify.CheckTests, verify.CheckStatements:
			printable.Fprintf(out, "  %-12s %s\n", c.Name, c.Detail)
		}
	}
	c := r.Provenance.Changes()
	switch {
	case c == nil:
	case c.Previous == current:
		printable.Fprintf(out, "  %-12s who signed has seen those to the current image\n", "changes")
	default:
		printable.Fprintf(out, "  %-12s who signed has seen those to the image sha256:%.12s…, which is NOT the current one\n", "changes", c.Previous)
	}
}

// rules returns the rules.yaml of an image whose policy has a digest, with the file that it is
// from: the one of -f, otherwise what the image's provenance has. By its digest it is the
// right one, whoever has written it down. It is nil if there is none.
func (t *target) rules(path, digest string, signed *verify.Report) (file string, src []byte, err error) {
	is := func(src []byte) (string, bool) {
		have := policyview.Digest(src)
		return have, have == digest
	}
	if t.policy != "" {
		if _, src, err = readPolicy(t.policy); err != nil {
			return "", nil, err
		}
		if have, ok := is(src); !ok {
			return "", nil, fmt.Errorf("%s is not the policy that the image was built from: it has %s, the image's has %s", t.policy, have, digest)
		}
		return t.policy, src, nil
	}
	file = path + verify.StatementSuffix
	var s *provenance.Statement
	if signed != nil {
		file, s = path+verify.AttestationSuffix, signed.Provenance
	} else {
		b, err := limited.ReadRegular(file, maxSignature)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil, nil
		}
		if err == nil {
			s, err = provenance.Parse(b)
		}
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	policy := s.Dependency(provenance.NamePolicy)
	if policy == nil || policy.Content == nil {
		return "", nil, nil
	}
	if have, ok := is(policy.Content); !ok {
		return "", nil, fmt.Errorf("%s: has the policy %s, the image's has %s", file, have, digest)
	}
	return file, policy.Content, nil
}

// hold runs the tests of a policy, and decides its statements. The policy is nil if this
// thurward does not take the one that the provenance has: a file that it names is not here,
// or it is of another version. The image has been built from it all the same.
func (t *target) hold(cmd *cobra.Command, file string, src []byte) (*policy.Policy, error) {
	out := cmd.OutOrStdout()
	p, ds := check.Load(file, src)
	if p == nil && t.policy == "" {
		printable.Fprintf(out, "what changes cannot be shown: %s: %v\n", file, firstError(ds))
		return nil, nil
	}
	failed := func(what string, ds policy.Diagnostics) error {
		if err := showText(cmd.ErrOrStderr(), file, src, ds); err != nil {
			return err
		}
		return errors.New(what)
	}
	if p == nil {
		return nil, failed(file+" is not valid", ds)
	}
	seg, err := compile.Compile(p)
	if err != nil {
		return nil, err
	}
	if ds := explain.Failures(p, explain.RunTests(p, seg)); len(ds) > 0 {
		return nil, failed(fmt.Sprintf("%d of the policy's %s failed", len(ds), counted(len(p.Tests), "test")), ds)
	}
	if ds := prove.Failures(p, prove.Run(p, seg)); len(ds) > 0 {
		return nil, failed(fmt.Sprintf("%d of the policy's %s do not hold", len(ds), counted(len(p.Statements), "statement")), ds)
	}
	printable.Fprintf(out, "%s\n", summary(file, p, 0))
	return p, nil
}

// currentPolicy returns the policy of the current image, if it was kept.
func currentPolicy(store *deploy.Store, e *deploy.Entry) (*policy.Policy, error) {
	src, err := store.Policy(e)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it was deployed without its rules.yaml (-f)")
	}
	if err != nil {
		return nil, err
	}
	p, ds := check.Load("current", src)
	if p == nil {
		return nil, firstError(ds)
	}
	return p, nil
}

// firstError returns why a policy is not valid.
func firstError(ds policy.Diagnostics) error {
	for _, d := range ds {
		if d.Severity == policy.Error {
			return errors.New(d.Message) // a file of certificates is not there, for one
		}
	}
	return errors.New("it is not valid")
}

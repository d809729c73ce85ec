package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/diff"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
)

// compare shows what an image changes, and returns its rules.yaml, nil if that is not known.
func (t *target) compare(cmd *cobra.Command, store *deploy.Store, rec deploy.Record, img *vmm.Image) ([]byte, error) {
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
	if t.policy == "" {
		return nil, nil
	}
	new, src, err := t.rules(cmd, digest)
	if err != nil || rec.Current.Policy == "" || rec.Current.Policy == digest {
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

// rules reads the rules.yaml of an image whose policy has a digest, and runs its tests.
func (t *target) rules(cmd *cobra.Command, digest string) (*policy.Policy, []byte, error) {
	p, seg, src, err := openPolicy(cmd, t.policy, false)
	if err != nil {
		return nil, nil, err
	}
	if sum := sha256.Sum256(src); "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, nil, fmt.Errorf("%s is not the policy that the image was built from: it has sha256:%x, the image's has %s", t.policy, sum, digest)
	}
	if failed := explain.Failures(p, explain.RunTests(p, seg)); len(failed) > 0 {
		if err := showText(cmd.ErrOrStderr(), t.policy, src, failed); err != nil {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("%d of the policy's %s failed", len(failed), counted(len(p.Tests), "test"))
	}
	printable.Fprintf(cmd.OutOrStdout(), "%s: ok: %s\n", t.policy, counted(len(p.Tests), "test"))
	return p, src, nil
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
		for _, d := range ds {
			if d.Severity == policy.Error {
				return nil, errors.New(d.Message) // a file of certificates is not there, for one
			}
		}
		return nil, errors.New("it is not valid")
	}
	return p, nil
}

package main

import (
	"fmt"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policyview"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/vmm"
)

// tell has the page show the policy of an image: its rules, which the image has, and who
// may reach what, for which rules.yaml is needed. That is the file of -f, which must be
// the image's, or one of those that may be there by themselves.
func (l *launch) tell(img *vmm.Image) error {
	if img.Policy == nil || l.reader == readerNone || l.page == "" {
		return nil
	}
	digest := digestOf(img.Policy)
	file, src := l.policyFile, []byte(nil)
	if file != "" {
		var err error
		if _, src, err = readPolicy(file); err != nil {
			return err
		}
		if have := policyview.Digest(src); have != digest {
			return fmt.Errorf("%s is not the policy that the image was built from: it has %s, the image's has %s", file, have, digest)
		}
	} else {
		file, src = policyBeside(img.Path, digest)
	}
	l.policies.Add(policyview.OfImage(img.Policy))
	if src == nil {
		return nil
	}
	// A policy of ten thousand rules takes half a second, for which no firewall waits.
	go func() {
		p, err := policyview.Of(file, src)
		if err != nil {
			l.say("the page does not show who may reach what: %v", err)
			return
		}
		l.policies.Add(p)
	}()
	return nil
}

// policyBeside looks for the rules.yaml with a digest: what the image's provenance has, what a
// folder of deployed images keeps, and the file that build takes if none is named. It returns nil if there
// is none; that what is there is another one is usual.
func policyBeside(image, digest string) (file string, src []byte) {
	if b, err := limited.ReadRegular(image+verify.StatementSuffix, maxSignature); err == nil {
		if s, err := provenance.Parse(b); err == nil {
			if d := s.Dependency(provenance.NamePolicy); d != nil && policyview.Digest(d.Content) == digest {
				return image + verify.StatementSuffix, d.Content
			}
		}
	}
	for _, file := range []string{image + ".yaml", defaultPolicy} {
		if b, err := limited.ReadRegular(file, policy.MaxBytes); err == nil && policyview.Digest(b) == digest {
			return file, b
		}
	}
	return "", nil
}

// defaultPolicy is the policy's file where none is named.
const defaultPolicy = "rules.yaml"

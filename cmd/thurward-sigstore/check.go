//go:build sigstore

package main

import (
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// checkFile verifies a bundle by the trusted root in a file.
func checkFile(raw []byte, rootFile string, digest []byte, identity, issuer string) (refused, failed error) {
	trusted, err := root.NewTrustedRootFromPath(rootFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rootFile, err)
	}
	return check(raw, trusted, digest, identity, issuer), nil
}

// check verifies a bundle: the certificate is of the identity, was given by an authority
// that the trusted root names, and was valid when a log or a time stamp saw the
// signature; the signature is of the digest, or of a statement about it.
func check(raw []byte, trusted root.TrustedMaterial, digest []byte, identity, issuer string) error {
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return fmt.Errorf("not a Sigstore bundle: %w", err)
	}
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	if len(trusted.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	v, err := verify.NewVerifier(trusted, options...)
	if err != nil {
		return err
	}
	who, err := verify.NewShortCertificateIdentity(issuer, "", identity, "")
	if err != nil {
		return err
	}
	_, err = v.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", digest), verify.WithCertificateIdentity(who)))
	return err
}

package verify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/thurward/thurward/internal/host/sigstore"
)

// Checker is the program that verifies certificates and what logs say of them, with
// Sigstore's own client (ADR 0035). It lies beside this program, or in the PATH.
const Checker = "thurward-sigstore"

// certified is the owner of a certificate that Sigstore's authority has given.
type certified struct {
	program string
	o       Options
}

func newCertified(o Options) (signer, error) {
	if o.TrustedRoot == "" {
		return nil, errors.New("certificates are verified by a trusted root, which must be given (cosign trusted-root create, or the release's trusted_root.json)")
	}
	program, err := findChecker()
	if err != nil {
		return nil, err
	}
	return certified{program, o}, nil
}

func findChecker() (string, error) {
	if exe, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(exe), Checker); exec.Command(p).Path != "" {
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
				return p, nil
			}
		}
	}
	p, err := exec.LookPath(Checker)
	if err != nil {
		return "", fmt.Errorf("%s is not there, which verifies certificates: %w (make %s builds it; or demand a key)", Checker, err, Checker)
	}
	return p, nil
}

func (c certified) Name() string { return c.o.Identity + " by " + c.o.Issuer }

func (c certified) VerifyDigest(b *sigstore.Bundle, raw []byte, digest [32]byte) error {
	if b.Message == nil {
		return errors.New("is an attestation, not a signature of a file (cosign sign-blob makes one)")
	}
	return c.check(b, raw, digest)
}

func (c certified) VerifyStatement(b *sigstore.Bundle, raw []byte, digest [32]byte) ([]byte, error) {
	if b.Envelope == nil {
		return nil, errors.New("is a file's signature, not an attestation (cosign attest-blob makes one)")
	}
	if b.Envelope.PayloadType != sigstore.StatementType {
		return nil, fmt.Errorf("what is signed is %q, not %s", b.Envelope.PayloadType, sigstore.StatementType)
	}
	return b.Envelope.Payload, c.check(b, raw, digest)
}

// check has the bundle verified, which it gives to the checker's standard input.
func (c certified) check(b *sigstore.Bundle, raw []byte, digest [32]byte) error {
	if b.Keyed() {
		return errors.New("is signed with a key, not with a certificate (give the key)")
	}
	cmd := exec.Command(c.program, "--trusted-root", c.o.TrustedRoot, "--digest", hex.EncodeToString(digest[:]),
		"--certificate-identity", c.o.Identity, "--certificate-oidc-issuer", c.o.Issuer)
	cmd.Stdin = bytes.NewReader(raw)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return errors.New(strings.TrimSpace(stderr.String()))
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", c.program, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

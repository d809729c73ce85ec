package sigstore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// A Key verifies signatures: ECDSA on P-256 with SHA-256, which cosign's own keys are.
type Key struct {
	key  *ecdsa.PublicKey
	hint string
}

// ParseKey reads a public key in PEM, as cosign generate-key-pair writes it to
// cosign.pub.
func ParseKey(b []byte) (*Key, error) {
	block, rest := pem.Decode(b)
	switch {
	case block == nil:
		return nil, errors.New("not a public key in PEM (want cosign.pub, as cosign generate-key-pair writes it)")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("is a %q, not a PUBLIC KEY (want cosign.pub, as cosign generate-key-pair writes it)", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("has more than one key")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("not a public key: %w", err)
	}
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("is no ECDSA key on the curve P-256 (cosign generate-key-pair makes one)")
	}
	sum := sha256.Sum256(block.Bytes)
	return &Key{k, base64.StdEncoding.EncodeToString(sum[:])}, nil
}

// Fingerprint names the key: the base64 of the SHA-256 of its DER form.
func (k *Key) Fingerprint() string { return k.hint }

// errWrong is what a signature that does not hold gives: of a forged signature no more is
// known than that.
var errWrong = errors.New("the signature does not hold: something signed was changed, or the signature was")

// named refuses a bundle that is not of this key. It spares the question whether the key
// or the signature is wrong; that the hint is right proves nothing.
func (k *Key) named(b *Bundle) error {
	if !b.Keyed() {
		return errors.New("is signed with a certificate, not with a key (want --certificate-identity and --certificate-oidc-issuer in place of a key)")
	}
	if h := b.Material.PublicKey.Hint; h != "" && h != k.hint {
		return fmt.Errorf("is signed with another key: it names %s, and the key given is %s", h, k.hint)
	}
	return nil
}

// VerifyDigest verifies the signature of a file with this SHA-256.
func (k *Key) VerifyDigest(b *Bundle, digest [32]byte) error {
	if b.Message == nil {
		return errors.New("is an attestation, not a signature of a file (cosign sign-blob makes one)")
	}
	if err := k.named(b); err != nil {
		return err
	}
	if d := &b.Message.Digest; d.Algorithm != "SHA2_256" {
		return fmt.Errorf("its digest is %q, not SHA2_256", d.Algorithm)
	} else if !bytes.Equal(d.Digest, digest[:]) {
		return fmt.Errorf("is of another file: of sha256:%x, and this is sha256:%x", d.Digest, digest)
	}
	if !ecdsa.VerifyASN1(k.key, digest[:], b.Message.Signature) {
		return errWrong
	}
	return nil
}

// VerifyStatement verifies a signed in-toto statement, and returns it.
func (k *Key) VerifyStatement(b *Bundle) ([]byte, error) {
	if b.Envelope == nil {
		return nil, errors.New("is a file's signature, not an attestation (cosign attest-blob makes one)")
	}
	if err := k.named(b); err != nil {
		return nil, err
	}
	e := b.Envelope
	if e.PayloadType != StatementType {
		return nil, fmt.Errorf("what is signed is %q, not %s", e.PayloadType, StatementType)
	}
	if len(e.Signatures) != 1 {
		return nil, fmt.Errorf("has %d signatures; want one", len(e.Signatures))
	}
	digest := sha256.Sum256(PAE(e.PayloadType, e.Payload))
	if !ecdsa.VerifyASN1(k.key, digest[:], e.Signatures[0].Sig) {
		return nil, errWrong
	}
	return e.Payload, nil
}

// PAE returns what a DSSE signature is of: type and text with their lengths.
func PAE(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

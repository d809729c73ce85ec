package verify

import (
	"errors"
	"fmt"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/sigstore"
)

// newSigner returns who must have signed.
func newSigner(o Options) (signer, error) {
	switch {
	case o.Key != "":
		b, err := limited.ReadFile(o.Key, maxKey)
		if err != nil {
			return nil, err
		}
		k, err := sigstore.ParseKey(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Key, err)
		}
		return keyed{k}, nil
	case o.Identity == "" || o.Issuer == "":
		return nil, errors.New("it must be said who is to have signed: a key, or a certificate's identity and issuer")
	}
	return newCertified(o)
}

// keyed is the owner of a key.
type keyed struct{ key *sigstore.Key }

func (k keyed) Name() string { return "key " + k.key.Fingerprint() }

func (k keyed) VerifyDigest(b *sigstore.Bundle, _ []byte, digest [32]byte) error {
	return k.key.VerifyDigest(b, digest)
}

func (k keyed) VerifyStatement(b *sigstore.Bundle, _ []byte, _ [32]byte) ([]byte, error) {
	return k.key.VerifyStatement(b)
}

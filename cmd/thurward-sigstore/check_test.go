//go:build sigstore

package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/thurward/thurward/test/release/authority"
)

const (
	identity = "https://github.com/thurward/thurward/.github/workflows/release.yml@refs/tags/v1.2.0"
	issuer   = "https://token.actions.githubusercontent.com"
)

// TestCertificates: what the certificate's owner has signed while it was valid passes;
// another identity, issuer, authority or file does not, nor what was signed when the
// certificate had expired.
func TestCertificates(t *testing.T) {
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	other, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	file := []byte("an image")
	sum := sha256.Sum256(file)
	statement, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1", "predicate": map[string]any{},
		"subject": []any{map[string]any{"name": "fw.img", "digest": map[string]string{"sha256": fmt.Sprintf("%x", sum)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	valid, expired := time.Now().Add(5*time.Minute), time.Now().Add(48*time.Hour)
	signed := func(a *authority.Authority, id, iss string, at time.Time) []byte {
		b, err := a.File(id, iss, file, at)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	attested := func(a *authority.Authority, id, iss string, at time.Time) []byte {
		b, err := a.Statement(id, iss, statement, at)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for kind, sign := range map[string]func(*authority.Authority, string, string, time.Time) []byte{"file": signed, "statement": attested} {
		good := sign(a, identity, issuer, valid)
		if err := check(good, a.Trusted, sum[:], identity, issuer); err != nil {
			t.Errorf("%s: the good one: %v", kind, err)
		}
		wrong := sha256.Sum256([]byte("another image"))
		for name, c := range map[string]struct {
			bundle []byte
			digest []byte
			want   string
		}{
			"another identity":    {sign(a, "mallory@example.com", issuer, valid), sum[:], "no matching CertificateIdentity"},
			"another issuer":      {sign(a, identity, "https://example.com", valid), sum[:], "no matching CertificateIdentity"},
			"expired certificate": {sign(a, identity, issuer, expired), sum[:], "integrated time outside certificate validity"},
			"another authority":   {sign(other, identity, issuer, valid), sum[:], ""},
			"another file":        {good, wrong[:], "digest"},
			"cut":                 {good[:len(good)-9], sum[:], "not a Sigstore bundle"},
			"empty":               {nil, sum[:], "not a Sigstore bundle"},
		} {
			err := check(c.bundle, a.Trusted, c.digest, identity, issuer)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %s: %v, want %q", kind, name, err, c.want)
			}
		}
		// Beside these the bundle has several proofs of when it was signed, of which one
		// that holds is enough.
		for what, field := range map[string]func(b *protobundle.Bundle) []byte{
			"certificate": func(b *protobundle.Bundle) []byte { return b.VerificationMaterial.GetCertificate().RawBytes },
			"log entry":   func(b *protobundle.Bundle) []byte { return b.VerificationMaterial.TlogEntries[0].CanonicalizedBody },
			"signature": func(b *protobundle.Bundle) []byte {
				if m := b.GetMessageSignature(); m != nil {
					return m.Signature
				}
				return b.GetDsseEnvelope().Signatures[0].Sig
			},
			"what is signed": func(b *protobundle.Bundle) []byte {
				if m := b.GetMessageSignature(); m != nil {
					return m.MessageDigest.Digest
				}
				return b.GetDsseEnvelope().Payload
			},
		} {
			for i := 0; ; i += 5 {
				var b protobundle.Bundle
				if err := protojson.Unmarshal(good, &b); err != nil {
					t.Fatal(err)
				}
				if i >= len(field(&b)) {
					break
				}
				field(&b)[i] ^= 1 << (i % 8)
				changed, err := protojson.Marshal(&b)
				if err != nil {
					t.Fatal(err)
				}
				if check(changed, a.Trusted, sum[:], identity, issuer) == nil {
					t.Errorf("%s: byte %d of the %s may be changed", kind, i, what)
				}
			}
		}
	}
}

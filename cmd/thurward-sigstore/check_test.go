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
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	identity = "https://github.com/thurward/thurward/.github/workflows/release.yml@refs/tags/v1.2.0"
	issuer   = "https://token.actions.githubusercontent.com"
)

// authority is a Sigstore of this test's own: authority, log and time stamps.
type authority struct {
	*ca.VirtualSigstore
	trusted root.TrustedMaterial
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, v.FulcioCertificateAuthorities(), nil, v.TimestampingAuthorities(), v.RekorLogs())
	if err != nil {
		t.Fatal(err)
	}
	return authority{v, tr}
}

// bundle writes what was signed in the form of cosign's bundles.
func (a authority) bundle(t *testing.T, e *ca.TestEntity, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	vc, _ := e.VerificationContent()
	content, _ := e.SignatureContent()
	entries, _ := e.TlogEntries()
	stamps, _ := e.Timestamps()
	m := &protobundle.VerificationMaterial{
		Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: vc.Certificate().Raw}},
		TimestampVerificationData: &protobundle.TimestampVerificationData{},
	}
	for _, s := range stamps {
		m.TimestampVerificationData.Rfc3161Timestamps = append(m.TimestampVerificationData.Rfc3161Timestamps,
			&protocommon.RFC3161SignedTimestamp{SignedTimestamp: s})
	}
	for _, entry := range entries {
		le := entry.TransparencyLogEntry()
		if le.InclusionProof == nil {
			p, err := a.GetInclusionProof(le.CanonicalizedBody)
			if err != nil {
				t.Fatal(err)
			}
			le.InclusionProof = proof(t, p.RootHash, p.Hashes, *p.LogIndex, *p.TreeSize, *p.Checkpoint)
		}
		if le.KindVersion == nil {
			var kind struct{ Kind, APIVersion string }
			if err := json.Unmarshal(le.CanonicalizedBody, &kind); err != nil {
				t.Fatal(err)
			}
			le.KindVersion = &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion}
		}
		m.TlogEntries = append(m.TlogEntries, le)
	}
	b := &protobundle.Bundle{MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", VerificationMaterial: m}
	if s := content.MessageSignatureContent(); s != nil {
		b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: s.Digest()}, Signature: s.Signature()}}
	} else {
		raw := content.EnvelopeContent().RawEnvelope()
		payload, err := raw.DecodeB64Payload()
		if err != nil {
			t.Fatal(err)
		}
		b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{Payload: payload, PayloadType: raw.PayloadType,
			Signatures: []*protodsse.Signature{{Sig: content.Signature()}}}}
	}
	out, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func proof(t *testing.T, rootHash *string, hashes []string, index, size int64, checkpoint string) *protorekor.InclusionProof {
	t.Helper()
	decode := func(s string) []byte {
		var b []byte
		if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	p := &protorekor.InclusionProof{LogIndex: index, TreeSize: size, RootHash: decode(*rootHash), Checkpoint: &protorekor.Checkpoint{Envelope: checkpoint}}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, decode(h))
	}
	return p
}

// TestCertificates: what the certificate's owner has signed while it was valid passes;
// another identity, issuer, authority or file does not, nor what was signed when the
// certificate had expired.
func TestCertificates(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
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
	signed := func(a authority, id, iss string, at time.Time) []byte {
		e, err := a.SignAtTime(id, iss, file, at)
		return a.bundle(t, e, err)
	}
	attested := func(a authority, id, iss string, at time.Time) []byte {
		e, err := a.AttestAtTime(id, iss, statement, at, true)
		return a.bundle(t, e, err)
	}
	for kind, sign := range map[string]func(authority, string, string, time.Time) []byte{"file": signed, "statement": attested} {
		good := sign(a, identity, issuer, valid)
		if err := check(good, a.trusted, sum[:], identity, issuer); err != nil {
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
			err := check(c.bundle, a.trusted, c.digest, identity, issuer)
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
				if check(changed, a.trusted, sum[:], identity, issuer) == nil {
					t.Errorf("%s: byte %d of the %s may be changed", kind, i, what)
				}
			}
		}
	}
}

//go:build sigstore

// Package authority signs for tests as the owner of a certificate does, with a Sigstore of
// its own: certificates, log and time stamps are sigstore-go's virtual ones.
package authority

import (
	"encoding/hex"
	"encoding/json"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"
)

// An Authority is a Sigstore of a test's own: authority, log and time stamps.
type Authority struct {
	*ca.VirtualSigstore
	Trusted *root.TrustedRoot
}

// New makes one.
func New() (*Authority, error) {
	v, err := ca.NewVirtualSigstore()
	if err != nil {
		return nil, err
	}
	logs := v.RekorLogs()
	for id, l := range logs { // it has the hexadecimal digits, which a root that is written and read takes for the id
		if l.ID, err = hex.DecodeString(id); err != nil {
			return nil, err
		}
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, v.FulcioCertificateAuthorities(), nil, v.TimestampingAuthorities(), logs)
	return &Authority{v, tr}, err
}

// File returns the bundle of a file that the owner of a certificate has signed at a time, for
// which alone the certificate is valid.
func (a *Authority) File(identity, issuer string, file []byte, at time.Time) ([]byte, error) {
	e, err := a.SignAtTime(identity, issuer, file, at)
	if err != nil {
		return nil, err
	}
	return a.bundle(e)
}

// Statement returns the bundle of a statement.
func (a *Authority) Statement(identity, issuer string, statement []byte, at time.Time) ([]byte, error) {
	e, err := a.AttestAtTime(identity, issuer, statement, at, true)
	if err != nil {
		return nil, err
	}
	return a.bundle(e)
}

// Change changes a bundle.
func Change(raw []byte, change func(b *protobundle.Bundle)) ([]byte, error) {
	var b protobundle.Bundle
	if err := protojson.Unmarshal(raw, &b); err != nil {
		return nil, err
	}
	change(&b)
	return protojson.Marshal(&b)
}

// bundle writes what was signed in the form of cosign's bundles.
func (a *Authority) bundle(e *ca.TestEntity) ([]byte, error) {
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
				return nil, err
			}
			if le.InclusionProof, err = proof(p.RootHash, p.Hashes, *p.LogIndex, *p.TreeSize, *p.Checkpoint); err != nil {
				return nil, err
			}
		}
		if le.KindVersion == nil {
			var kind struct{ Kind, APIVersion string }
			if err := json.Unmarshal(le.CanonicalizedBody, &kind); err != nil {
				return nil, err
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
			return nil, err
		}
		b.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{Payload: payload, PayloadType: raw.PayloadType,
			Signatures: []*protodsse.Signature{{Sig: content.Signature()}}}}
	}
	return protojson.Marshal(b)
}

func proof(rootHash *string, hashes []string, index, size int64, checkpoint string) (*protorekor.InclusionProof, error) {
	p := &protorekor.InclusionProof{LogIndex: index, TreeSize: size, Checkpoint: &protorekor.Checkpoint{Envelope: checkpoint}}
	var err error
	if p.RootHash, err = hex.DecodeString(*rootHash); err != nil {
		return nil, err
	}
	for _, h := range hashes {
		b, err := hex.DecodeString(h)
		if err != nil {
			return nil, err
		}
		p.Hashes = append(p.Hashes, b)
	}
	return p, nil
}

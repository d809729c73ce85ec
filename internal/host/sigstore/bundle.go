// Package sigstore reads Sigstore's bundles, which cosign writes, and verifies those
// that a key has signed. It needs no network and nothing beyond Go's standard library:
// who only checks against a key that he has does not link Sigstore's clients, whose
// certificates and logs are for who has none (ADR 0035).
//
// Sources: sigstore/protobuf-specs, sigstore_bundle.proto (v0.3); DSSE v1.0.2.
package sigstore

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// MediaType is that of the bundles that are read.
const MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// StatementType is the type of a DSSE payload that is an in-toto statement.
const StatementType = "application/vnd.in-toto+json"

// MaxBundle is the largest size of a bundle, in bytes: a statement with a policy and the
// difference to another is in it.
const MaxBundle = 64 << 20

// A Bundle is a signature with what is needed to verify it. Either Message or Envelope
// is set. Bytes are in base64 in the file.
type Bundle struct {
	MediaType string    `json:"mediaType"`
	Material  Material  `json:"verificationMaterial"`
	Message   *Message  `json:"messageSignature,omitempty"`
	Envelope  *Envelope `json:"dsseEnvelope,omitempty"`
}

// Material names the key, or has the certificate. What is from logs and time stamps is
// for who verifies certificates, and is passed over here.
type Material struct {
	PublicKey   *KeyHint        `json:"publicKey,omitempty"`
	Certificate json.RawMessage `json:"certificate,omitempty"`
	Chain       json.RawMessage `json:"x509CertificateChain,omitempty"`
	Log         json.RawMessage `json:"tlogEntries,omitempty"`
	Timestamps  json.RawMessage `json:"timestampVerificationData,omitempty"`
}

// A KeyHint names a key.
type KeyHint struct {
	Hint string `json:"hint"` // base64 of the SHA-256 of the key's DER form, by cosign
}

// A Message is the signature of a file.
type Message struct {
	Digest struct {
		Algorithm string `json:"algorithm"` // SHA2_256
		Digest    Bytes  `json:"digest"`
	} `json:"messageDigest"`
	Signature Bytes `json:"signature"`
}

// An Envelope is a signed text with its type (DSSE).
type Envelope struct {
	Payload     Bytes  `json:"payload"`
	PayloadType string `json:"payloadType"`
	Signatures  []struct {
		Sig   Bytes  `json:"sig"`
		KeyID string `json:"keyid,omitempty"`
	} `json:"signatures"`
}

// Parse reads a bundle. Whatever it does not know is an error: it might matter.
func Parse(b []byte) (*Bundle, error) {
	if err := exact(b); err != nil {
		return nil, fmt.Errorf("not a Sigstore bundle: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var out Bundle
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("not a Sigstore bundle: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a Sigstore bundle: something follows it")
	}
	switch {
	case out.MediaType != MediaType:
		return nil, fmt.Errorf("not a Sigstore bundle of version 0.3: its type is %q (want %s; cosign 3 writes it)", out.MediaType, MediaType)
	case (out.Message == nil) == (out.Envelope == nil):
		return nil, errors.New("not a Sigstore bundle: it wants either a message's signature or an envelope")
	}
	return &out, nil
}

// Bytes are written in base64, and read in the one way in which they are written.
type Bytes []byte

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	if bytes.ContainsAny(text, "\r\n") {
		return errors.New("base64 with line breaks")
	}
	out, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	*b = out
	return err
}

// names are those of all fields that are read.
var names = []string{"mediaType", "verificationMaterial", "messageSignature", "dsseEnvelope", "publicKey", "certificate",
	"x509CertificateChain", "tlogEntries", "timestampVerificationData", "hint", "messageDigest", "algorithm", "digest",
	"signature", "payload", "payloadType", "signatures", "sig", "keyid"}

// raw are the fields that are not read but handed on, to a client that reads names exactly. In
// them the same names may stand in another letter case: a log's entry has keyId.
var raw = []string{"certificate", "x509CertificateChain", "tlogEntries", "timestampVerificationData"}

// exact refuses what Go's decoder reads and others do not, or otherwise: a name in other
// letter case, or twice in one object. Two readers of one bundle must not see two.
func exact(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	type object struct {
		seen map[string]bool // nil: an array
		key  bool            // the next string is a name
	}
	var open []object
	within := 0 // how many values are open where one that is not read begins; 0: it is read
	for {
		t, err := d.Token()
		if err != nil {
			return err
		}
		top := len(open) - 1
		switch v := t.(type) {
		case json.Delim:
			if v == '}' || v == ']' {
				open = open[:top]
				if len(open) == 0 {
					return nil
				}
				continue
			}
			if top >= 0 {
				open[top].key = open[top].seen != nil
			}
			if v == '{' {
				open = append(open, object{map[string]bool{}, true})
			} else {
				open = append(open, object{})
			}
			continue
		case string:
			if top >= 0 && open[top].key {
				fold := strings.ToLower(v)
				if open[top].seen[fold] {
					return fmt.Errorf("%q is there twice", v)
				}
				open[top].seen[fold] = true
				if len(open) <= within {
					within = 0 // that value is over
				}
				if within == 0 {
					for _, n := range names {
						if strings.EqualFold(n, v) && n != v {
							return fmt.Errorf("%q is %q in other letter case", v, n)
						}
					}
					if slices.Contains(raw, v) {
						within = len(open)
					}
				}
				open[top].key = false
				continue
			}
		}
		if top < 0 {
			return errors.New("not an object")
		}
		open[top].key = open[top].seen != nil
	}
}

// Keyed reports whether a key has signed, rather than a certificate's owner.
func (b *Bundle) Keyed() bool {
	return b.Material.PublicKey != nil && b.Material.Certificate == nil && b.Material.Chain == nil
}

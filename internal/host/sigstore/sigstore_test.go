package sigstore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
)

// cosigns is a bundle that cosign 3.1.3 has written, with the key and the file.
const (
	cosigns = `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"%s"}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"%s"},"signature":"%s"}}`
)

// TestParseRefuses: whatever two readers could understand differently.
func TestParseRefuses(t *testing.T) {
	good := fmt.Sprintf(cosigns, "aGludA==", "AAAA", "AAAA")
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"a field that is not known":   {`{"mediaType"`, `{"more":1,"mediaType"`, `unknown field "more"`},
		"a field twice":               {`"signature":`, `"signature":"BBBB","signature":`, `"signature" is there twice`},
		"a field in other case":       {`"signature":`, `"Signature":`, `"Signature" is "signature" in other letter case`},
		"base64 with a line break":    {`"signature":"AAAA"`, `"signature":"AA\nAA"`, "line breaks"},
		"base64 with bits to spare":   {`"signature":"AAAA"`, `"signature":"AAB="`, "illegal base64"},
		"another version":             {`v0.3`, `v0.2`, "not a Sigstore bundle of version 0.3"},
		"both kinds":                  {`"messageSignature"`, `"dsseEnvelope":{"payload":"","payloadType":"","signatures":[]},"messageSignature"`, "wants either"},
		"neither kind":                {`,"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AAAA"},"signature":"AAAA"}`, "", "wants either"},
		"something behind it":         {`"signature":"AAAA"}}`, `"signature":"AAAA"}} {}`, "something follows it"},
		"no object":                   {good, `"x"`, "not an object"},
		"an end that is not the last": {good, `{"mediaType":"x"`, "EOF"},
	} {
		b := strings.Replace(good, c.from, c.to, 1)
		if _, err := Parse([]byte(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestLogEntries: what a log says has names of its own, as keyId, which is keyid elsewhere.
// It ends where it ends, and has no name twice.
func TestLogEntries(t *testing.T) {
	good := strings.Replace(fmt.Sprintf(cosigns, "aGludA==", "AAAA", "AAAA"), `"publicKey":{"hint":"aGludA=="}`,
		`"certificate":{"rawBytes":"AAAA"},"tlogEntries":[{"logId":{"keyId":"AAAA"}},{"Signature":{"KEYID":[{"keyid":1}]}}]`, 1)
	b, err := Parse([]byte(good))
	if err != nil || b.Keyed() {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"a name twice in it":    {`"keyId":"AAAA"`, `"keyId":"AAAA","keyid":"AAAA"`, `"keyid" is there twice`},
		"a name behind it":      {`"signature":"AAAA"`, `"signaturE":"AAAA"`, `"signaturE" is "signature" in other letter case`},
		"a name beside it":      {`"tlogEntries"`, `"Hint":"x","tlogEntries"`, `"Hint" is "hint" in other letter case`},
		"a name right after it": {`]},"messageSignature"`, `],"publickey":{"hint":""}},"messageSignature"`, `"publickey" is "publicKey" in other letter case`},
		"itself":                {`"tlogEntries"`, `"tlogentries"`, `"tlogentries" is "tlogEntries" in other letter case`},
	} {
		bad := strings.Replace(good, c.from, c.to, 1)
		if _, err := Parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestParseKey: keys that cosign does not make are refused, with the remedy.
func TestParseKey(t *testing.T) {
	encode := func(kind string, key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if _, err := ParseKey(encode("PUBLIC KEY", &p256.PublicKey)); err != nil {
		t.Fatal(err)
	}
	for want, b := range map[string][]byte{
		"not a public key in PEM":   []byte("ssh-ed25519 AAAA"),
		`is a "CERTIFICATE"`:        encode("CERTIFICATE", &p256.PublicKey),
		"no ECDSA key on the curve": encode("PUBLIC KEY", &p384.PublicKey),
		"has more than one key":     append(encode("PUBLIC KEY", &p256.PublicKey), encode("PUBLIC KEY", &p256.PublicKey)...),
		"not a public key: asn1":    pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}),
	} {
		if _, err := ParseKey(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// FuzzParse: whatever a bundle is, reading and verifying it ends, and none but the one
// that was signed is taken.
func FuzzParse(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	k, err := ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		f.Fatal(err)
	}
	digest := sha256.Sum256([]byte("an image"))
	b64 := base64.StdEncoding.EncodeToString
	f.Add([]byte(fmt.Sprintf(cosigns, k.Fingerprint(), b64(digest[:]), b64([]byte("no signature")))))
	f.Add([]byte(`{"mediaType":"` + MediaType + `","verificationMaterial":{"publicKey":{"hint":""}},"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := Parse(raw)
		if err != nil {
			return
		}
		if k.VerifyDigest(b, digest) == nil {
			t.Errorf("is taken: %s", raw)
		}
		if _, err := k.VerifyStatement(b); err == nil {
			t.Errorf("is taken: %s", raw)
		}
		if out, err := json.Marshal(b); err != nil {
			t.Errorf("cannot be written: %v", err)
		} else if _, err := Parse(out); err != nil {
			t.Errorf("%s is written as %s: %v", raw, out, err)
		}
	})
}

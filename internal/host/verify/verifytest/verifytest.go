// Package verifytest signs images for tests, as cosign does with a key.
package verifytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/inspect"
	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/sigstore"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/shared/stamp"
)

// Rules is a policy with a test and a statement, for images that are signed.
const Rules = `interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny }
rules:
  - { id: web, action: accept, direction: egress, destination_port: 443, protocol: tcp }
  - { id: back, action: accept, direction: ingress, state: established }
tests:
  - { name: "web", from: lan, proto: tcp, src: 10.0.0.2, dst: "198.51.100.80:443", expect: accept }
never:
  - { name: "telnet", from: lan, destination_port: 23 }
`

// A Signer has a key pair of its own.
type Signer struct {
	Public string // file of the public key, PEM
	key    *ecdsa.PrivateKey
	hint   string
}

// NewSigner makes a key pair.
func NewSigner(t testing.TB) *Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	public, err := sigstore.ParseKey(b)
	if err != nil {
		t.Fatal(err)
	}
	s := &Signer{Public: filepath.Join(t.TempDir(), "cosign.pub"), key: key, hint: public.Fingerprint()}
	write(t, s.Public, b)
	return s
}

// File returns a bundle with the signature of a file's content.
func (s *Signer) File(t testing.TB, content []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(content)
	m := &sigstore.Message{Signature: s.sign(t, digest)}
	m.Digest.Algorithm, m.Digest.Digest = "SHA2_256", digest[:]
	return s.bundle(t, sigstore.Bundle{Message: m})
}

// Statement returns a bundle with a signed statement.
func (s *Signer) Statement(t testing.TB, statement []byte) []byte {
	t.Helper()
	e := &sigstore.Envelope{Payload: statement, PayloadType: sigstore.StatementType}
	e.Signatures = append(e.Signatures, struct {
		Sig   sigstore.Bytes `json:"sig"`
		KeyID string         `json:"keyid,omitempty"`
	}{Sig: s.sign(t, sha256.Sum256(sigstore.PAE(e.PayloadType, statement)))})
	return s.bundle(t, sigstore.Bundle{Envelope: e})
}

func (s *Signer) sign(t testing.TB, digest [32]byte) []byte {
	t.Helper()
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func (s *Signer) bundle(t testing.TB, b sigstore.Bundle) []byte {
	t.Helper()
	b.MediaType = sigstore.MediaType
	b.Material.PublicKey = &sigstore.KeyHint{Hint: s.hint}
	out, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Sign signs an image and the statement that is beside it.
func (s *Signer) Sign(t testing.TB, path string) {
	t.Helper()
	write(t, path+verify.SignatureSuffix, s.File(t, read(t, path)))
	write(t, path+verify.AttestationSuffix, s.Statement(t, read(t, path+verify.StatementSuffix)))
}

// Build makes an image of a policy, with its statement and the list of what is in it. It
// compiles the parts, once for each build.
func Build(t testing.TB, path string, policy []byte, b stamp.Build) {
	t.Helper()
	kernel, program := parts(t, b)
	p, diags := check.Load("rules.yaml", policy)
	if p == nil {
		t.Fatal(diags)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Link(image.Input{Kernel: kernel, Program: program, Policy: compile.Encode(rs)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := inspect.Image(img)
	if err != nil {
		t.Fatal(err)
	}
	sbom, err := provenance.SBOM(filepath.Base(path), b.Version, program, nil, r.Packages)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := kernelbuild.ThisToolchain()
	if err != nil {
		t.Fatal(err)
	}
	statement, err := provenance.Make(provenance.Input{
		Name: filepath.Base(path), Image: img, Kernel: kernel, Program: program, PolicyFile: "rules.yaml", Source: policy,
		Schema: b.Schema, Toolchain: provenance.Toolchain(tools), BuilderVersion: b.Version, SBOM: sbom,
		Tests: explain.RunTests(p, rs), Statements: prove.Run(p, rs),
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, img)
	write(t, path+verify.StatementSuffix, statement)
	write(t, path+verify.SBOMSuffix, sbom)
}

var compiled = struct {
	sync.Mutex
	kernel  []byte
	program map[stamp.Build][]byte
}{program: map[stamp.Build][]byte{}}

// parts compiles the kernel and the program.
func parts(t testing.TB, b stamp.Build) (kernel, program []byte) {
	t.Helper()
	c := &compiled
	c.Lock()
	defer c.Unlock()
	dir := t.TempDir()
	if c.kernel == nil {
		k := filepath.Join(dir, "kernel.elf")
		if err := kernelbuild.Kernel(k); err != nil {
			t.Fatal(err)
		}
		c.kernel = read(t, k)
	}
	if c.program[b] == nil {
		p := filepath.Join(dir, "firewall.elf")
		if err := kernelbuild.Program(p, "", b); err != nil {
			t.Fatal(err)
		}
		c.program[b] = read(t, p)
	}
	return c.kernel, c.program[b]
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

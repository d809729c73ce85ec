package verify_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/inspect"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/sigstore"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/shared/stamp"
	"github.com/thurward/thurward/schemas"
)

const suffixImage = "" // the image itself, among the files

var all = []string{suffixImage, verify.SignatureSuffix, verify.StatementSuffix, verify.AttestationSuffix, verify.SBOMSuffix}

func build(version string) stamp.Build {
	return stamp.Build{Version: version, Commit: strings.Repeat("c0", 20), Schema: schemas.Digest()}
}

// A release is an image with the files beside it.
type release map[string][]byte

func load(t *testing.T, path string) release {
	t.Helper()
	r := release{}
	for _, s := range all {
		b, err := os.ReadFile(path + s)
		if err != nil {
			t.Fatal(err)
		}
		r[s] = b
	}
	return r
}

// make builds and signs an image.
func makeRelease(t *testing.T, s *verifytest.Signer, policy, version string) release {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fw.img")
	verifytest.Build(t, path, []byte(policy), build(version))
	s.Sign(t, path)
	return load(t, path)
}

// makeReleaseOf builds and signs an image with another stamp.
func makeReleaseOf(t *testing.T, s *verifytest.Signer, b stamp.Build) release {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fw.img")
	verifytest.Build(t, path, []byte(verifytest.Rules), b)
	s.Sign(t, path)
	return load(t, path)
}

// store writes a release and returns the image's path.
func (r release) store(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fw.img")
	for suffix, b := range r {
		if b == nil {
			continue
		}
		if err := os.WriteFile(path+suffix, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// flipped returns a copy with one bit changed.
func flipped(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 1 << (at % 8)
	return c
}

// letter returns a text with one bit of its first letter changed.
func letter(s string) string { return string(s[0]^1) + s[1:] }

// TestTamperTable: one bit changed anywhere in an image or in what is beside it, another
// key, another policy, an older image: each is refused, by the check whose matter it is
// and with a message of its own. Before each the untouched image passes.
func TestTamperTable(t *testing.T) {
	s, other := verifytest.NewSigner(t), verifytest.NewSigner(t)
	good := makeRelease(t, s, verifytest.Rules, "1.2.0")
	old := makeRelease(t, s, verifytest.Rules, "1.1.9")
	looser := makeRelease(t, s, strings.Replace(verifytest.Rules, "443, protocol: tcp", "[443, 80], protocol: tcp", 1), "1.2.0")
	demand := verify.Options{Key: s.Public, NotOlderThan: "1.2.0", Source: "github.com/thurward/thurward"}
	dirty := makeReleaseOf(t, s, stamp.Build{Version: "1.2.0", Commit: strings.Repeat("c0", 20) + "-dirty", Schema: schemas.Digest()})
	unknown := makeReleaseOf(t, s, stamp.Build{Version: "1.2.0", Schema: schemas.Digest()})

	type attack struct {
		name   string
		change func(r release)
		o      verify.Options
		check  string
		want   string
	}
	one := func(name, suffix string, change func(b []byte) []byte, check, want string) attack {
		return attack{name, func(r release) { r[suffix] = change(r[suffix]) }, demand, check, want}
	}
	// field changes a field of a bundle.
	field := func(name, suffix string, change func(b *sigstore.Bundle), check, want string) attack {
		return one(name, suffix, func(raw []byte) []byte {
			b, err := sigstore.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			change(b)
			out, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}, check, want)
	}
	gone := func(name, suffix, check, want string) attack {
		return one(name, suffix, func([]byte) []byte { return nil }, check, want)
	}
	// signed changes the statement and signs it again, as a builder who errs or lies.
	signed := func(name string, change func(s *provenance.Statement), check, want string) attack {
		return one(name, verify.AttestationSuffix, func([]byte) []byte {
			st, err := provenance.Parse(good[verify.StatementSuffix])
			if err != nil {
				t.Fatal(err)
			}
			change(st)
			b, err := json.Marshal(st)
			if err != nil {
				t.Fatal(err)
			}
			return s.Statement(t, b)
		}, check, want)
	}
	const a, sig, prov, sbom = verify.AttestationSuffix, verify.SignatureSuffix, verify.CheckProvenance, verify.CheckSBOM
	zero := map[string]string{"sha256": strings.Repeat("0", 64)}
	table := []attack{
		field("bundle: media type", sig, func(b *sigstore.Bundle) { b.MediaType = letter(b.MediaType) }, verify.CheckSignature, "not a Sigstore bundle of version 0.3: its type is"),
		field("bundle: key", sig, func(b *sigstore.Bundle) { b.Material.PublicKey.Hint = letter(b.Material.PublicKey.Hint) }, verify.CheckSignature, "is signed with another key: it names"),
		field("bundle: digest", sig, func(b *sigstore.Bundle) { b.Message.Digest.Digest[7] ^= 4 }, verify.CheckSignature, "is of another file: of sha256:"),
		field("bundle: algorithm", sig, func(b *sigstore.Bundle) { b.Message.Digest.Algorithm = letter(b.Message.Digest.Algorithm) }, verify.CheckSignature, "not SHA2_256"),
		field("bundle: signature", sig, func(b *sigstore.Bundle) { b.Message.Signature[20] ^= 1 }, verify.CheckSignature, "the signature does not hold"),
		field("bundle: with a certificate, too", sig, func(b *sigstore.Bundle) { b.Material.Certificate = []byte(`{}`) }, verify.CheckSignature, "is signed with a certificate, not with a key"),
		one("bundle: cut", sig, func(b []byte) []byte { return b[:len(b)-20] }, verify.CheckSignature, "not a Sigstore bundle: unexpected EOF"),
		one("bundle: of the provenance", sig, func([]byte) []byte { return good[a] }, verify.CheckSignature, "is an attestation, not a signature of a file"),
		gone("bundle: gone", sig, verify.CheckSignature, "the image is not signed"),
		one("bundle: by another key", sig, func([]byte) []byte { return other.File(t, good[suffixImage]) }, verify.CheckSignature, "is signed with another key"),
		one("bundle: by another key that is named as the right one", sig, func(b []byte) []byte {
			return renamed(t, other.File(t, good[suffixImage]), b)
		}, verify.CheckSignature, "the signature does not hold"),

		field("provenance: statement", a, func(b *sigstore.Bundle) { b.Envelope.Payload[99] ^= 1 }, prov, "the signature does not hold"),
		field("provenance: type", a, func(b *sigstore.Bundle) { b.Envelope.PayloadType = letter(b.Envelope.PayloadType) }, prov, "what is signed is"),
		field("provenance: signature", a, func(b *sigstore.Bundle) { b.Envelope.Signatures[0].Sig[20] ^= 1 }, prov, "the signature does not hold"),
		field("provenance: key", a, func(b *sigstore.Bundle) { b.Material.PublicKey.Hint = letter(b.Material.PublicKey.Hint) }, prov, "is signed with another key"),
		field("provenance: two signatures", a, func(b *sigstore.Bundle) {
			b.Envelope.Signatures = append(b.Envelope.Signatures, b.Envelope.Signatures[0])
		}, prov, "has 2 signatures; want one"),
		gone("provenance: gone", a, prov, "its provenance is not signed"),
		one("provenance: of a file", a, func([]byte) []byte { return good[sig] }, prov, "is a file's signature, not an attestation"),
		one("provenance: of another image", a, func([]byte) []byte { return old[a] }, prov, "is about another image: sha256:"),
		one("provenance: by another key", a, func([]byte) []byte { return other.Statement(t, good[verify.StatementSuffix]) }, prov, "is signed with another key"),
		one("provenance: something else is signed", a, func([]byte) []byte { return s.Statement(t, []byte(`{"_type":"x"}`)) }, prov, `its type is "x"`),
		signed("provenance: another type of build", func(s *provenance.Statement) { s.Predicate.Definition.BuildType = "x" }, prov, `its build is "x"`),
		signed("provenance: two images", func(s *provenance.Statement) { s.Subject = append(s.Subject, s.Subject[0]) }, prov, "is about 2 files"),

		signed("signed: another version", func(s *provenance.Statement) { s.Predicate.Definition.Parameters.Version = "9.0.0" }, verify.CheckImage, `its version is "1.2.0", and the provenance says "9.0.0"`),
		signed("signed: another commit", func(s *provenance.Statement) { s.Dependency("source").Digest["gitCommit"] = "d0" }, verify.CheckImage, `its commit is "c0c0`),
		signed("signed: another schema", func(s *provenance.Statement) { s.Dependency("rules.schema.json").Digest = zero }, verify.CheckImage, "its schema is"),
		signed("signed: another toolchain", func(s *provenance.Statement) { s.Dependency("toolchain").Annotations.Version = "go1.0" }, verify.CheckImage, `and the provenance says "go1.0"`),
		signed("signed: another program", func(s *provenance.Statement) { s.Predicate.Definition.Parameters.Program = "x.elf" }, verify.CheckImage, "its program is"),
		signed("signed: other boot arguments", func(s *provenance.Statement) { s.Predicate.Definition.Parameters.Cmdline = "x" }, verify.CheckImage, "its boot arguments is"),
		signed("signed: another policy", func(s *provenance.Statement) { s.Dependency("rules.yaml").Digest = zero }, verify.CheckPolicy, "and the provenance says sha256:0000"),
		signed("signed: no dependencies", func(s *provenance.Statement) { s.Predicate.Definition.Dependencies = nil }, verify.CheckImage, `its commit is "c0c0`),
		signed("signed: a test failed", func(s *provenance.Statement) { s.Tests().Failed = 1 }, verify.CheckTests, "1 of 2 failed"),
		signed("signed: no tests", func(s *provenance.Statement) { s.Byproduct("policy-tests").Annotations = nil }, verify.CheckTests, "does not say how they went"),
		signed("signed: a statement does not hold", func(s *provenance.Statement) { s.Statements().Failed = 1 }, verify.CheckStatements, "1 of 2 do not hold"),
		signed("signed: no statements", func(s *provenance.Statement) { s.Byproduct("policy-statements").Annotations = nil }, verify.CheckStatements, "does not say whether what the policy states"),
		signed("signed: changes that say nothing", func(s *provenance.Statement) {
			s.Predicate.Run.Byproducts = append(s.Predicate.Run.Byproducts, provenance.Resource{Name: "changes", Annotations: &provenance.Annotations{Changes: &provenance.Changes{}}})
		}, prov, "its changes are empty"),
		signed("signed: no list", func(s *provenance.Statement) { s.Predicate.Run.Byproducts = s.Predicate.Run.Byproducts[1:] }, sbom, "and the provenance says sha256:"),

		one("SBOM: one bit", verify.SBOMSuffix, func(b []byte) []byte { return flipped(b, len(b)/2) }, sbom, "and the provenance says sha256:"),
		gone("SBOM: gone", verify.SBOMSuffix, sbom, "there is no "),
		{"SBOM: leaves a package out", func(r release) {
			r[verify.SBOMSuffix] = bytes.Replace(r[verify.SBOMSuffix], []byte(`"name": "encoding/binary"`), []byte(`"name": "encoding/binarz"`), 1)
			st, _ := provenance.Parse(r[verify.StatementSuffix])
			sum := sha256.Sum256(r[verify.SBOMSuffix])
			st.Byproduct("sbom").Digest["sha256"] = hex.EncodeToString(sum[:])
			b, _ := json.Marshal(st)
			r[a] = s.Statement(t, b)
		}, demand, sbom, "the image has code of encoding/binary, which"},

		{"wrong key", func(release) {}, verify.Options{Key: other.Public}, verify.CheckSignature, "is signed with another key"},
		{"swapped policy, unsigned", func(r release) { r[suffixImage] = looser[suffixImage] }, demand, verify.CheckSignature, "is of another file"},
		{"swapped policy with its signature", func(r release) { r[suffixImage], r[sig] = looser[suffixImage], looser[sig] }, demand, prov, "is about another image"},
		{"swapped policy, wholly signed", func(r release) { maps.Copy(r, looser) }, verify.Options{Key: s.Public, Policy: "sha256:" + digest(verifytest.Rules)}, verify.CheckPolicy, "want sha256:" + digest(verifytest.Rules)},
		{"older image", func(r release) { maps.Copy(r, old) }, demand, verify.CheckVersion, "1.1.9 is older than 1.2.0, which is the oldest that may be booted"},
		{"another repository", func(release) {}, verify.Options{Key: s.Public, Source: "github.com/mallory/thurward"}, verify.CheckSource, "was built from git+https://github.com/thurward/thurward; want github.com/mallory/thurward"},
		{"another commit of the repository", func(release) {}, verify.Options{Key: s.Public, Source: "github.com/thurward/thurward@" + strings.Repeat("d0", 20)}, verify.CheckSource, "want d0d0"},
		{"no commit of the repository", func(r release) { maps.Copy(r, dirty) }, verify.Options{Key: s.Public, Source: "github.com/thurward/thurward"}, verify.CheckSource, "was built from files that are not those of commit c0c0"},
		{"an unknown commit", func(r release) { maps.Copy(r, unknown) }, verify.Options{Key: s.Public, Source: "github.com/thurward/thurward"}, verify.CheckSource, "is not known"},
		{"another builder", func(release) {}, verify.Options{Key: s.Public, Builder: "https://example.com/builder"}, verify.CheckBuilder, "want https://example.com/builder"},
	}
	r, err := inspect.Image(good[suffixImage])
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range r.Layout {
		table = append(table, one(fmt.Sprintf("image: %s (part %d)", p.Name, i), suffixImage, func(b []byte) []byte {
			return flipped(b, int(p.Offset+p.Size/2))
		}, verify.CheckSignature, "is of another file: of sha256:"+r.Digest))
	}
	for _, a := range table {
		t.Run(a.name, func(t *testing.T) {
			if _, err := verify.Verify(good.store(t), demand); err != nil {
				t.Fatalf("the good one: %v", err)
			}
			bad := maps.Clone(good)
			a.change(bad)
			report, err := verify.Verify(bad.store(t), a.o)
			var refusal *verify.Refusal
			if !errors.As(err, &refusal) || report != nil {
				t.Fatalf("not refused: %v", err)
			}
			if refusal.Check != a.check || !strings.Contains(err.Error(), a.want) {
				t.Errorf("refused by %q: %v\nwant %q: %s", refusal.Check, err, a.check, a.want)
			}
		})
	}
	if len(table) < 60 {
		t.Errorf("%d attacks", len(table))
	}
}

func digest(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }

// renamed gives a bundle the key's name of another one.
func renamed(t *testing.T, b, from []byte) []byte {
	t.Helper()
	have, err := sigstore.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	of, err := sigstore.Parse(from)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(b, []byte(have.Material.PublicKey.Hint), []byte(of.Material.PublicKey.Hint), 1)
}

// TestEveryBit: no bit of a bundle can be changed, in whatever part of it.
func TestEveryBit(t *testing.T) {
	s := verifytest.NewSigner(t)
	pub, err := os.ReadFile(s.Public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sigstore.ParseKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	content, statement := []byte("an image"), []byte(`{"_type":"a statement"}`)
	digest := sha256.Sum256(content)
	holds := map[bool]func(b []byte) error{
		false: func(raw []byte) error {
			b, err := sigstore.Parse(raw)
			if err != nil {
				return err
			}
			return key.VerifyDigest(b, digest)
		},
		true: func(raw []byte) error {
			b, err := sigstore.Parse(raw)
			if err != nil {
				return err
			}
			got, err := key.VerifyStatement(b)
			if err == nil && !bytes.Equal(got, statement) {
				t.Errorf("returns %q", got)
			}
			return err
		},
	}
	for attested, bundle := range map[bool][]byte{false: s.File(t, content), true: s.Statement(t, statement)} {
		if err := holds[attested](bundle); err != nil {
			t.Fatal(err)
		}
		for i := range 8 * len(bundle) {
			b := bytes.Clone(bundle)
			b[i/8] ^= 1 << (i % 8)
			if holds[attested](b) == nil {
				t.Errorf("bit %d of byte %d may be changed: %q becomes %q in %s", i%8, i/8, bundle[i/8], b[i/8], bundle)
			}
		}
	}
}

// TestVerifiedBytes: what is verified is what is returned, and says what the image does.
func TestVerifiedBytes(t *testing.T) {
	s := verifytest.NewSigner(t)
	good := makeRelease(t, s, verifytest.Rules, "1.2.0")
	r, err := verify.Verify(good.store(t), verify.Options{Key: s.Public})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Bytes, good[suffixImage]) {
		t.Error("other bytes are returned")
	}
	if r.Image.Version != "1.2.0" || r.Image.Policy != digest(verifytest.Rules) || !slices.Equal(r.Image.Rules, []string{"web", "back"}) {
		t.Errorf("%+v", r.Image)
	}
	if len(r.Checks) != 10 {
		t.Errorf("%d checks: %+v", len(r.Checks), r.Checks)
	}
}

// TestOptions: what is demanded must be said, and make sense.
func TestOptions(t *testing.T) {
	s := verifytest.NewSigner(t)
	path := makeRelease(t, s, verifytest.Rules, "1.2.0").store(t)
	for want, o := range map[string]verify.Options{
		"it must be said who is to have signed": {},
		"not both":                              {Key: s.Public, Identity: "a", Issuer: "b"},
		"which must be given":                   {Identity: "a", Issuer: "b"},
		`"latest" is not a version`:             {Key: s.Public, NotOlderThan: "latest"},
		"is not a repository":                   {Key: s.Public, Source: "git@github.com:thurward/thurward"},
		"is not the name of a commit":           {Key: s.Public, Source: "github.com/thurward/thurward@v1.2.0"},
		"not a public key in PEM":               {Key: path + verify.StatementSuffix},
		"no such file":                          {Key: path + ".none"},
	} {
		_, err := verify.Verify(path, o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
		var r *verify.Refusal
		if errors.As(err, &r) {
			t.Errorf("%+v: is taken for a fault of the image: %v", o, err)
		}
	}
}

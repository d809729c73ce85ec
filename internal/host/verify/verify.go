// Package verify decides whether an image may be booted: who has signed it, how it was
// made, and whether what it has in it is what was signed. It reads files beside the
// image and needs no network.
package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/thurward/thurward/internal/host/inspect"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/sigstore"
)

// Files beside an image, by what follows its name.
const (
	SignatureSuffix   = ".sigstore.json"            // the image's signature, by cosign sign-blob
	StatementSuffix   = ".provenance.json"          // how it was made, to be read and signed
	AttestationSuffix = ".provenance.sigstore.json" // the same, signed, by cosign attest-blob
	SBOMSuffix        = ".sbom.json"                // what is linked into it
)

// Largest sizes of files, in bytes.
const (
	maxImage = 128 << 20
	maxSBOM  = 16 << 20
	maxKey   = 64 << 10
)

// Options say what is demanded. Either Key is set, or Identity and Issuer.
type Options struct {
	Key string // file of the public key, PEM

	Identity, Issuer string // of the certificate, exactly
	TrustedRoot      string // file of Sigstore's trusted root

	NotOlderThan string // version, as 1.2.0; "": any
	Policy       string // digest of rules.yaml that it must have; "": any
	Builder      string // id of the builder; "": any
	// Source is the repository that it must have been built from, with "@" and the commit
	// behind it if that is demanded, too; "": any. It is read with and without "git+https://".
	Source string
}

// Demands reports whether anybody must have signed.
func (o *Options) Demands() bool { return o.Key != "" || o.Identity != "" || o.Issuer != "" }

// Check returns an error where it is not clear who must have signed, or what else is demanded
// can only be known of an image that somebody has. key names the flag of the key.
func (o *Options) Check(key string) error {
	switch {
	case o.Key != "" && (o.Identity != "" || o.Issuer != ""):
		return fmt.Errorf("either %s or a certificate's identity, not both", key)
	case o.Key == "" && (o.Identity == "") != (o.Issuer == ""):
		return errors.New("want --certificate-identity and --certificate-oidc-issuer, both")
	case !o.Demands() && (o.NotOlderThan != "" || o.TrustedRoot != "" || o.Source != "" || o.Builder != "" || o.Policy != ""):
		return fmt.Errorf("who must have signed is not said (want %s, or --certificate-identity and --certificate-oidc-issuer), and nothing is known of an image that is not verified", key)
	case o.NotOlderThan != "" && !semver.IsValid("v"+o.NotOlderThan):
		return fmt.Errorf("%q is not a version (want one as 1.2.0)", o.NotOlderThan)
	}
	return checkSource(o.Source)
}

// A Report is what was found out about an image that may be booted.
type Report struct {
	Path       string                `json:"path"`
	Signer     string                `json:"signer"` // the key's fingerprint, or identity and issuer
	Builder    string                `json:"builder"`
	Image      *inspect.Report       `json:"image"`
	Provenance *provenance.Statement `json:"provenance"`
	Checks     []Check               `json:"checks"`

	// Bytes is the image itself, as it was verified: its file may change after that.
	Bytes []byte `json:"-"`
}

// A Check is one thing that holds.
type Check struct {
	Name   string `json:"name"`
	Detail string `json:"detail"`
}

// A Refusal is why an image must not be booted.
type Refusal struct {
	Path  string
	Check string // the check that failed, as in Report.Checks
	Err   error
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s: %v", r.Path, r.Check, r.Err) }

// Unwrap returns the reason.
func (r *Refusal) Unwrap() error { return r.Err }

// Names of the checks.
const (
	CheckSignature  = "signature"
	CheckProvenance = "provenance"
	CheckImage      = "image"
	CheckPolicy     = "policy"
	CheckTests      = "policy tests"
	CheckStatements = "statements"
	CheckSource     = "source"
	CheckSBOM       = "SBOM"
	CheckVersion    = "version"
	CheckBuilder    = "builder"
)

// A signer verifies bundles: by a key, or by a certificate.
type signer interface {
	VerifyDigest(bundle *sigstore.Bundle, raw []byte, digest [32]byte) error
	VerifyStatement(bundle *sigstore.Bundle, raw []byte, digest [32]byte) ([]byte, error)
	Name() string
}

// Verify verifies the image in a file. An error that is a Refusal says that the image
// must not be booted; any other, that this could not be found out, and it must not
// either.
func Verify(path string, o Options) (*Report, error) {
	if err := o.Check("a key"); err != nil {
		return nil, err
	}
	who, err := newSigner(o)
	if err != nil {
		return nil, err
	}
	v := &verification{path: path, o: o, who: who, r: &Report{Path: path, Signer: who.Name()}}
	if v.r.Bytes, err = limited.ReadRegular(path, maxImage); err != nil {
		return nil, err
	}
	v.digest = sha256.Sum256(v.r.Bytes)
	for _, step := range []struct {
		name  string
		check func() (string, error)
	}{
		{CheckSignature, v.signature}, {CheckProvenance, v.provenance}, {CheckImage, v.image},
		{CheckVersion, v.version}, {CheckSource, v.source}, {CheckBuilder, v.builder}, {CheckPolicy, v.policy},
		{CheckTests, v.tests}, {CheckStatements, v.statements}, {CheckSBOM, v.sbom},
	} {
		detail, err := step.check()
		if err != nil {
			return nil, &Refusal{path, step.name, err}
		}
		v.r.Checks = append(v.r.Checks, Check{step.name, detail})
	}
	return v.r, nil
}

type verification struct {
	path   string
	o      Options
	who    signer
	digest [32]byte
	r      *Report
}

// beside reads a file beside the image.
func (v *verification) beside(suffix string, limit int64, remedy string) ([]byte, error) {
	b, err := limited.ReadRegular(v.path+suffix, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s (%s)", v.path+suffix, remedy)
	}
	return b, err
}

func (v *verification) bundle(suffix, remedy string) (*sigstore.Bundle, []byte, error) {
	raw, err := v.beside(suffix, sigstore.MaxBundle, remedy)
	if err != nil {
		return nil, nil, err
	}
	b, err := sigstore.Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", v.path+suffix, err)
	}
	return b, raw, nil
}

func (v *verification) signature() (string, error) {
	b, raw, err := v.bundle(SignatureSuffix, "the image is not signed: cosign sign-blob --bundle makes it")
	if err != nil {
		return "", err
	}
	if err := v.who.VerifyDigest(b, raw, v.digest); err != nil {
		return "", fmt.Errorf("%s: %w", v.path+SignatureSuffix, err)
	}
	return fmt.Sprintf("sha256:%x, signed by %s", v.digest, v.who.Name()), nil
}

func (v *verification) provenance() (string, error) {
	b, raw, err := v.bundle(AttestationSuffix, "its provenance is not signed: cosign attest-blob --bundle makes it")
	if err != nil {
		return "", err
	}
	payload, err := v.who.VerifyStatement(b, raw, v.digest)
	if err != nil {
		return "", fmt.Errorf("%s: %w", v.path+AttestationSuffix, err)
	}
	s, err := provenance.Parse(payload)
	if err != nil {
		return "", fmt.Errorf("%s: %w", v.path+AttestationSuffix, err)
	}
	if have, want := s.Subject[0].SHA256(), hex.EncodeToString(v.digest[:]); have != want {
		return "", fmt.Errorf("%s: is about another image: sha256:%s, and this is sha256:%s", v.path+AttestationSuffix, have, want)
	}
	v.r.Provenance = s
	return fmt.Sprintf("made from commit %s by %s, with %s", orUnknown(s.Commit()), s.Predicate.Run.Builder.ID, toolchain(s)), nil
}

// image compares what the image tells with what was signed about it.
func (v *verification) image() (string, error) {
	r, err := inspect.Image(v.r.Bytes)
	if err != nil {
		return "", err
	}
	v.r.Image = r
	s := v.r.Provenance
	p := &s.Predicate.Definition.Parameters
	for _, f := range []struct{ what, image, signed string }{
		{"version", r.Version, p.Version},
		{"commit", r.Commit, s.Commit()},
		{"program", r.Program, p.Program},
		{"boot arguments", r.Cmdline, p.Cmdline},
		{"schema", r.Schema, s.Dependency(provenance.NameSchema).SHA256()},
		{"toolchain", r.Toolchain, toolchain(s)},
	} {
		if f.image != f.signed {
			return "", fmt.Errorf("its %s is %q, and the provenance says %q", f.what, f.image, f.signed)
		}
	}
	return fmt.Sprintf("version %s, commit %s, %s", r.Version, orUnknown(r.Commit), r.Toolchain), nil
}

func (v *verification) version() (string, error) {
	have, floor := v.r.Image.Version, v.o.NotOlderThan
	switch {
	case floor == "":
		return have + ", no other was demanded", nil
	case !semver.IsValid("v" + have):
		return "", fmt.Errorf("%q is not a version that can be compared, and one not older than %s is demanded", have, floor)
	case semver.Compare("v"+have, "v"+floor) < 0:
		return "", fmt.Errorf("%s is older than %s, which is the oldest that may be booted", have, floor)
	}
	return fmt.Sprintf("%s, not older than %s", have, floor), nil
}

func (v *verification) builder() (string, error) {
	v.r.Builder = v.r.Provenance.Predicate.Run.Builder.ID
	if v.o.Builder != "" && v.r.Builder != v.o.Builder {
		return "", fmt.Errorf("was made by %s; want %s", v.r.Builder, v.o.Builder)
	}
	return v.r.Builder, nil
}

func (v *verification) policy() (string, error) {
	have, signed := v.r.Image.Policy, v.r.Provenance.Dependency(provenance.NamePolicy).SHA256()
	if have != signed {
		return "", fmt.Errorf("the image has sha256:%s, and the provenance says sha256:%s", have, signed)
	}
	if want := strings.TrimPrefix(v.o.Policy, "sha256:"); want != "" && have != want {
		return "", fmt.Errorf("the image has sha256:%s; want sha256:%s", have, want)
	}
	return fmt.Sprintf("sha256:%s, %d rules", have, len(v.r.Image.Rules)), nil
}

func (v *verification) tests() (string, error) {
	t := v.r.Provenance.Tests()
	switch {
	case t == nil:
		return "", errors.New("the provenance does not say how they went")
	case t.Failed > 0:
		return "", fmt.Errorf("%d of %d failed", t.Failed, t.Failed+t.Passed)
	}
	return fmt.Sprintf("%d passed", t.Passed), nil
}

func (v *verification) statements() (string, error) {
	t := v.r.Provenance.Statements()
	switch {
	case t == nil:
		return "", errors.New("the provenance does not say whether what the policy states (never, always) holds")
	case t.Failed > 0:
		return "", fmt.Errorf("%d of %d do not hold", t.Failed, t.Failed+t.Hold)
	}
	return fmt.Sprintf("%d hold", t.Hold), nil
}

// source compares the repository and the commit. What was built from files that no commit
// has is from no repository.
func (v *verification) source() (string, error) {
	have, commit := v.r.Provenance.Repository(), v.r.Provenance.Commit()
	if v.o.Source == "" {
		return have + ", no other was demanded", nil
	}
	want, wantCommit, _ := strings.Cut(v.o.Source, "@")
	switch {
	case plainSource(have) != plainSource(want):
		return "", fmt.Errorf("was built from %s; want %s", orUnknown(have), want)
	case commit == "":
		return "", errors.New("the commit that was built is not known")
	case strings.HasSuffix(commit, "-dirty"):
		return "", fmt.Errorf("was built from files that are not those of commit %s", strings.TrimSuffix(commit, "-dirty"))
	case wantCommit != "" && commit != wantCommit:
		return "", fmt.Errorf("was built from commit %s; want %s", commit, wantCommit)
	}
	return fmt.Sprintf("%s, commit %s", have, commit), nil
}

var commitForm = regexp.MustCompile(`^[0-9a-f]{40}$`)

// checkSource returns an error for what no statement's source could be.
func checkSource(s string) error {
	repository, commit, given := strings.Cut(s, "@")
	if s != "" && !strings.Contains(repository, "/") {
		return fmt.Errorf("%q is not a repository (want one as github.com/thurward/thurward)", s)
	}
	if given && !commitForm.MatchString(commit) {
		return fmt.Errorf("%q is not the name of a commit (want its 40 hexadecimal digits)", commit)
	}
	return nil
}

// plainSource returns a repository's name without what says how it is fetched.
func plainSource(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "git+"), "https://")
	return strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git")
}

func (v *verification) sbom() (string, error) {
	b, err := v.beside(SBOMSuffix, maxSBOM, "thurward build --provenance writes it")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	have, signed := hex.EncodeToString(sum[:]), v.r.Provenance.Byproduct(provenance.NameSBOM).SHA256()
	if have != signed {
		return "", fmt.Errorf("%s: is sha256:%s, and the provenance says sha256:%s", v.path+SBOMSuffix, have, signed)
	}
	listed, err := provenance.Packages(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", v.path+SBOMSuffix, err)
	}
	if len(v.r.Image.Packages) == 0 {
		return "", errors.New("which packages the image has cannot be read from it")
	}
	i := slices.IndexFunc(v.r.Image.Packages, func(p string) bool { return !listed[p] })
	if i >= 0 {
		return "", fmt.Errorf("the image has code of %s, which %s does not list", v.r.Image.Packages[i], v.path+SBOMSuffix)
	}
	return fmt.Sprintf("%d packages; the image has code of %d, all of them listed", len(listed), len(v.r.Image.Packages)), nil
}

func toolchain(s *provenance.Statement) string {
	if r := s.Dependency(provenance.NameToolchain); r != nil && r.Annotations != nil {
		return r.Annotations.Version
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

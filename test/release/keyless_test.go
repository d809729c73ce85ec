package release

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/shared/stamp"
	"github.com/thurward/thurward/schemas"
)

// TestKeyless: images that a certificate's owner has signed, end to end: thurward verify,
// deploy and run, with the real thurward-sigstore, take the good one; another identity,
// another issuer, another authority, an expired certificate, and a bundle that no log or no
// time stamp vouches for are refused by each of them. The real cosign says the same.
func TestKeyless(t *testing.T) {
	if !*withCosign {
		t.Skip("cosign and Sigstore's client take minutes to compile: make test-release runs this")
	}
	const identity, issuer = "https://github.com/thurward/thurward/.github/workflows/release.yml@refs/tags/v1.2.0", "https://token.actions.githubusercontent.com"
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, args := range [][]string{
		{"-modfile=tools/go.mod", "-tags", "sigstore", "-o", at("thurward-sigstore"), "./cmd/thurward-sigstore"},
		{"-modfile=tools/go.mod", "-tags", "sigstore", "-o", at("bundles"), "./test/release/authority/bundles"},
		{"-o", at("thurward"), "./cmd/thurward"},
	} {
		cmd := exec.Command("go", append([]string{"build"}, args...)...)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build %v: %v\n%s", args, err, out)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	cosign := buildCosign(t)
	run := func(program string, args ...string) (bool, string) {
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
		out, err := cmd.CombinedOutput()
		return err == nil, string(out)
	}
	copyTo := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	policy, err := os.ReadFile("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	img := at("fw.img")
	verifytest.Build(t, img, policy, stamp.Build{Version: "1.2.0", Commit: strings.Repeat("0d", 20), Schema: schemas.Digest()})
	if ok, out := run(at("bundles"), dir, img, img+verify.StatementSuffix, identity, issuer); !ok {
		t.Fatal(out)
	}
	const none = ""
	for _, c := range []struct {
		file, statement string // what is wrong with them
		who, from       string // are demanded
		want            string // none: they are good
	}{
		{"good", "good", identity, issuer, none},
		{"good", "good", "mallory@example.com", issuer, "signature: "},
		{"good", "good", identity, "https://example.com", "signature: "},
		{"identity", "good", identity, issuer, "signature: "},
		{"good", "identity", identity, issuer, "provenance: "},
		{"issuer", "good", identity, issuer, "signature: "},
		{"good", "issuer", identity, issuer, "provenance: "},
		{"expired", "good", identity, issuer, "signature: "},
		{"good", "expired", identity, issuer, "provenance: "},
		{"authority", "good", identity, issuer, "signature: "},
		{"good", "authority", identity, issuer, "provenance: "},
		{"log", "good", identity, issuer, "signature: "},
		{"good", "log", identity, issuer, "provenance: "},
		{"time", "good", identity, issuer, "signature: "},
		{"good", "time", identity, issuer, "provenance: "},
	} {
		name := c.file + " and " + c.statement
		copyTo(at(c.file+".file"), img+verify.SignatureSuffix)
		copyTo(at(c.statement+".statement"), img+verify.AttestationSuffix)
		demand := []string{"--certificate-identity", c.who, "--certificate-oidc-issuer", c.from, "--trusted-root", at("trusted_root.json")}
		for _, args := range [][]string{
			{"verify", img}, {"deploy", img, "--name", "edge", "--state", at("edge")},
			{"run", "--image", img, "--print-config", "--accel", "tcg", "--lan", "user", "--wan", "user"},
		} {
			if ok, out := run(at("thurward"), append(args, demand...)...); ok != (c.want == none) || !strings.Contains(out, c.want) {
				t.Errorf("%s: thurward %s: %v, want %q\n%s", name, args[0], ok, c.want, out)
			}
		}
		// The authority has no log of certificates, and no times of entries that cosign takes: those
		// are of its time stamps.
		demand = append(demand, "--insecure-ignore-sct", "--use-signed-timestamps")
		first, out := run(cosign, append([]string{"verify-blob", "--bundle", img + verify.SignatureSuffix, img}, demand...)...)
		second, more := run(cosign, append([]string{"verify-blob-attestation", "--bundle", img + verify.AttestationSuffix, "--type", "slsaprovenance1", img}, demand...)...)
		if (first && second) != (c.want == none) {
			t.Errorf("%s: cosign: %v and %v, want %q\n%s\n%s", name, first, second, c.want, out, more)
		}
	}
	// What is signed with a key is not by a certificate's owner.
	before, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	verifytest.NewSigner(t).Sign(t, img)
	_, err = verify.Verify(img, verify.Options{Identity: identity, Issuer: issuer, TrustedRoot: at("trusted_root.json")})
	var refusal *verify.Refusal
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), "is signed with a key, not with a certificate") {
		t.Errorf("by a key: %v", err)
	}
	if after, err := os.ReadFile(img); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the image has changed: %v", err)
	}
}

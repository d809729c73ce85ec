package release

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/shared/stamp"
)

var withCosign = flag.Bool("cosign", false, "sign and verify with the real cosign, which is compiled for it")

// TestCosign: what docs/release.md says, with the real cosign: what it signs verifies, and
// what it refuses is refused by thurward verify, too; what the tests' own signer signs is
// what cosign takes.
func TestCosign(t *testing.T) {
	if !*withCosign {
		t.Skip("cosign takes minutes to compile: make test-release runs this")
	}
	cosign := buildCosign(t)
	dir := t.TempDir()
	run := func(args ...string) error {
		cmd := exec.Command(cosign, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "COSIGN_PASSWORD=", "HOME="+dir)
		out, err := cmd.CombinedOutput()
		t.Logf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
		return err
	}
	must := func(args ...string) {
		t.Helper()
		if err := run(args...); err != nil {
			t.Fatal(err)
		}
	}
	policy, err := os.ReadFile("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(dir, "fw.img")
	verifytest.Build(t, img, policy, stamp.Build{Version: "1.2.0", Commit: strings.Repeat("0d", 20)})
	must("generate-key-pair")
	must("signing-config", "create", "--out", "none.json")
	must("sign-blob", "--yes", "--key", "cosign.key", "--signing-config", "none.json", "--bundle", "fw.img.sigstore.json", "fw.img")
	must("attest-blob", "--yes", "--key", "cosign.key", "--signing-config", "none.json",
		"--statement", "fw.img.provenance.json", "--bundle", "fw.img.provenance.sigstore.json")
	blob := []string{"verify-blob", "--key", "cosign.pub", "--bundle", "fw.img.sigstore.json", "--insecure-ignore-tlog", "fw.img"}
	attestation := []string{"verify-blob-attestation", "--key", "cosign.pub", "--bundle", "fw.img.provenance.sigstore.json",
		"--insecure-ignore-tlog", "--type", "slsaprovenance1", "fw.img"}
	ours := func() error {
		_, err := verify.Verify(img, verify.Options{Key: filepath.Join(dir, "cosign.pub")})
		return err
	}
	must(blob...)
	must(attestation...)
	if err := ours(); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"fw.img", "fw.img.sigstore.json", "fw.img.provenance.sigstore.json"} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := len(good) / 2
		if i := bytes.Index(good, []byte(`"sig":"`)); i >= 0 {
			at = i + 30
		} else if i := bytes.Index(good, []byte(`"signature":"`)); i >= 0 {
			at = i + 40
		}
		bad := bytes.Clone(good)
		bad[at] ^= 1
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if run(blob...) == nil && run(attestation...) == nil {
			t.Errorf("cosign takes a changed %s", name)
		}
		if ours() == nil {
			t.Errorf("thurward verify takes a changed %s", name)
		}
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	s := verifytest.NewSigner(t)
	s.Sign(t, img)
	must(append([]string{"verify-blob", "--key", s.Public}, blob[3:]...)...)
	must(append([]string{"verify-blob-attestation", "--key", s.Public}, attestation[3:]...)...)
	if ours() == nil {
		t.Error("the first key verifies what the second has signed")
	}
}

// buildCosign returns the path of cosign, which go has compiled from tools/go.mod.
func buildCosign(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "tool", "-modfile=tools/go.mod", "-n", "cosign")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cosign cannot be compiled: %v", err)
	}
	return strings.TrimSpace(string(out))
}

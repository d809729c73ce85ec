package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/stamp"
	"github.com/thurward/thurward/schemas"
)

// signedImage builds an image of the repository's policy and signs it.
func signedImage(t *testing.T, s *verifytest.Signer) string {
	t.Helper()
	policy, err := os.ReadFile("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fw.img")
	verifytest.Build(t, path, policy, stamp.Build{Version: "1.2.0", Commit: strings.Repeat("0a", 20), Schema: schemas.Digest()})
	s.Sign(t, path)
	return path
}

// TestS50_RequireSignature: the launcher boots an image that the key's owner has signed,
// and refuses one with a changed bit, one signed by somebody else, and an older one. It
// says what is wrong.
func TestS50_RequireSignature(t *testing.T) {
	t.Parallel()
	s, other := verifytest.NewSigner(t), verifytest.NewSigner(t)
	good := signedImage(t, s)
	changed := signedImage(t, s)
	b, err := os.ReadFile(changed)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(changed, b, 0o644); err != nil {
		t.Fatal(err)
	}
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, image string
		args        []string
		code        int
		says        []string
	}{
		{"good", good, []string{"--require-signature", s.Public, "--not-older-than", "1.2.0"}, 0,
			[]string{"version 1.2.0, commit 0a0a", "signed by key ", "booting " + good}},
		{"a changed bit", changed, []string{"--require-signature", s.Public}, 1,
			[]string{"refusing to boot: " + changed + ": signature: ", "is of another file: of sha256:"}},
		{"another key", good, []string{"--require-signature", other.Public}, 1,
			[]string{"refusing to boot: ", "is signed with another key"}},
		{"older", good, []string{"--require-signature", s.Public, "--not-older-than", "1.2.1"}, 1,
			[]string{"refusing to boot: ", "1.2.0 is older than 1.2.1"}},
		{"not signed at all", testImage(t), []string{"--require-signature", s.Public}, 1,
			[]string{"refusing to boot: ", "the image is not signed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			cmd := exec.CommandContext(soon(t), bin, append([]string{"run", "--accel", "tcg", "--image", c.image}, c.args...)...)
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			var out, errOut bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errOut
			if code := exitCode(t, cmd.Run()); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(errOut.String(), want) {
					t.Errorf("does not say %q", want)
				}
			}
			if booted := strings.Contains(out.String(), "is up: boot took "); booted != (c.code == 0) {
				t.Errorf("booted: %v", booted)
			}
			if left, _ := filepath.Glob(filepath.Join(tmp, "thurward-image-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if t.Failed() {
				t.Logf("output:\n%s\nerrors:\n%s", &out, &errOut)
			}
		})
	}
}

// TestS51_ProvenanceIsWhatRuns: the signed provenance names the commit and the digests of
// the policy and of the schema, and the running image reports the same.
func TestS51_ProvenanceIsWhatRuns(t *testing.T) {
	t.Parallel()
	s := verifytest.NewSigner(t)
	image := signedImage(t, s)
	r, err := verify.Verify(image, verify.Options{Key: s.Public})
	if err != nil {
		t.Fatal(err)
	}
	st := r.Provenance
	want := fmt.Sprintf(`thurward_build_info{version=%q,git_sha=%q,schema_sha="sha256:%s",rules_sha="sha256:%s"}`,
		st.Predicate.Definition.Parameters.Version, st.Commit(),
		st.Dependency(provenance.NameSchema).SHA256(), st.Dependency(provenance.NamePolicy).SHA256())
	_, receiver := watched(t, false, func(c *vmm.Config) { c.Image = image })
	if m := receiver.fresh(); m[want] != 1 {
		for k := range m {
			if strings.HasPrefix(k, "thurward_build_info") {
				t.Errorf("it reports %s", k)
			}
		}
		t.Errorf("want %s", want)
	}
}

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// TestDeployNeedsSignature: with --require-signature an image is deployed only if its owner
// has signed it; and the service boots it only while that can be verified of what is in the
// folder.
func TestDeployNeedsSignature(t *testing.T) {
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	s, other := verifytest.NewSigner(t), verifytest.NewSigner(t)
	signed, dir := signedImage(t, s), t.TempDir()
	state := filepath.Join(dir, "edge")
	unsigned := deployImage(t, dir, "unsigned", "203.0.113.1")
	run := func(code int, want string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(soon(t), bin, args...).CombinedOutput()
		if got := exitCode(t, err); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", args, got, code, want, out)
		}
	}
	deploy := func(code int, want, image, key string) {
		t.Helper()
		run(code, want, "deploy", image, "--name", "edge", "--state", state, "--require-signature", key)
	}
	serve := func(code int, want string) {
		t.Helper()
		run(code, want, "run", "--state", state, "--lan", "user", "--wan", "user", "--accel", "tcg", "--vsock", "none", "--require-signature", s.Public, "--timeout", "15s")
	}
	deploy(1, "refusing to deploy", unsigned, s.Public)
	deploy(1, "refusing to deploy", signed, other.Public)
	deploy(0, "signed by", signed, s.Public)
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	serve(1, "thurward: ready version=") // until the time limit
	kept, err := filepath.Glob(filepath.Join(state, "images", "*"+verify.SignatureSuffix))
	if err != nil || len(kept) == 0 {
		t.Fatalf("%v, %v", kept, err)
	}
	for _, k := range kept {
		if err := os.Remove(k); err != nil {
			t.Fatal(err)
		}
	}
	serve(1, "refusing to boot")
	run(0, "is current", "deploy", unsigned, "--name", "edge", "--state", state)
	serve(1, "refusing to boot")
}

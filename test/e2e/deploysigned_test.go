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
	t.Parallel()
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	s, other := verifytest.NewSigner(t), verifytest.NewSigner(t)
	signed, dir := signedImage(t, s), t.TempDir()
	state := filepath.Join(dir, "edge")
	unsigned := deployImage(t, dir, "unsigned", "203.0.113.1")
	env := os.Environ()
	run := func(code int, want string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(soon(t), bin, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if got := exitCode(t, err); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", args, got, code, want, out)
		}
	}
	deploy := func(code int, want, image, key string) {
		t.Helper()
		run(code, want, "deploy", image, "--name", "edge", "--state", state, "--require-signature", key)
	}
	// A QEMU that writes down which images it gets: none that does not verify, not even to
	// try KVM with it.
	booted := filepath.Join(dir, "booted")
	if q, err := exec.LookPath("qemu-system-x86_64"); err == nil {
		path := filepath.Join(dir, "bin")
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\ncase \"$*\" in *-kernel*) echo \"$*\" >>" + booted + ";; esac\nexec " + q + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(path, "qemu-system-x86_64"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"))
	}
	serve := func(code int, want string) {
		t.Helper()
		os.Remove(booted)
		defer func() {
			if _, err := os.Stat(booted); (err == nil) != strings.Contains(want, "ready") {
				t.Errorf("an image was given to QEMU: %v, want %q", err == nil, want)
			}
		}()
		run(code, want, "run", "--state", state, "--lan", "user", "--wan", "user", "--no-sandbox", "--vsock", "none", "--require-signature", s.Public, "--timeout", "15s")
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

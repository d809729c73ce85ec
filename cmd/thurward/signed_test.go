package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/sigstore"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/stamp"
	"github.com/thurward/thurward/schemas"
)

// TestSignedFlags: what contradicts itself, or demands something of an image that nobody
// verifies, is a wrong command line, and nothing is booted or deployed.
func TestSignedFlags(t *testing.T) {
	const id, iss = "--certificate-identity=a", "--certificate-oidc-issuer=b"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{id}, "both"},
		{[]string{iss}, "both"},
		{[]string{"--require-signature=k", id, iss}, "not both"},
		{[]string{"--not-older-than=1.0.0"}, "who must have signed is not said"},
		{[]string{"--trusted-root=r"}, "who must have signed is not said"},
		{[]string{"--require-source=github.com/a/b"}, "who must have signed is not said"},
		{[]string{"--require-signature=k", "--not-older-than=newest"}, "is not a version"},
		{[]string{"--require-signature=k", "--require-source=a"}, "is not a repository"},
	} {
		for _, cmd := range [][]string{{"run", "--lan=user", "--wan=user"}, {"deploy", "x.img", "--name=edge", "--state=" + t.TempDir()}} {
			if code, _, errs := capture(t, append(cmd, c.args...)...); code != exitUsage || !strings.Contains(errs, c.want) {
				t.Errorf("%s %v: exit %d, %s", cmd[0], c.args, code, errs)
			}
		}
	}
	const fc = "--vmm=firecracker"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{fc, "--from-snapshot=s", "--require-signature=k"}, "a snapshot is not signed"},
		{[]string{fc, "--from-snapshot=s", id, iss}, "a snapshot is not signed"},
		{[]string{fc, "--from-snapshot=s", "--state=edge"}, "are of one image"},
		{[]string{fc, "--snapshot=s", "--state=edge"}, "are of one image"},
		{[]string{fc, "--from-snapshot=s", "--state=edge", "--require-signature=k"}, "a snapshot is not signed"},
		{[]string{"--print-config", "--state=edge"}, "is for --image"},
	} {
		if code, _, errs := capture(t, append([]string{"run", "--lan=user", "--wan=user"}, c.args...)...); code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("run %v: exit %d, %s", c.args, code, errs)
		}
	}
}

// aSigned is an image of a policy with what is beside it.
func aSigned(t *testing.T, s *verifytest.Signer, policy string, change func(s *provenance.Statement)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fw.img")
	verifytest.Build(t, path, []byte(policy), stamp.Build{Version: "1.2.0", Commit: strings.Repeat("0c", 20), Schema: schemas.Digest()})
	if change != nil {
		st, err := provenance.Parse(readFile(t, path+verify.StatementSuffix))
		if err != nil {
			t.Fatal(err)
		}
		change(st)
		b, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+verify.StatementSuffix, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.Sign(t, path)
	return path
}

// changesFrom adds the difference to an earlier image to a statement.
func changesFrom(t *testing.T, earlier, policy string) func(s *provenance.Statement) {
	return func(s *provenance.Statement) {
		next, ds := check.Load("rules.yaml", []byte(policy))
		if next == nil {
			t.Fatal(ds)
		}
		c, err := provenance.Compare(readFile(t, earlier), readFile(t, earlier+verify.StatementSuffix), next, load)
		if err != nil {
			t.Fatal(err)
		}
		s.Predicate.Run.Byproducts = append(s.Predicate.Run.Byproducts, provenance.Resource{Name: provenance.NameChanges, Annotations: &provenance.Annotations{Changes: c}})
	}
}

func load(name string, src []byte) (*policy.Policy, error) {
	p, ds := check.Load(name, src)
	if p == nil {
		return nil, errors.New(ds[0].Message)
	}
	return p, nil
}

// TestDeployFromProvenance: deploy shows what an image changes out of its provenance, says
// whether who signed has seen just that, and refuses what is not about the image.
func TestDeployFromProvenance(t *testing.T) {
	s := verifytest.NewSigner(t)
	opened := strings.Replace(verifytest.Rules, "destination_port: 443", "destination_port: [443, 80]", 1)
	first := aSigned(t, s, verifytest.Rules, nil)
	second := aSigned(t, s, opened, changesFrom(t, first, opened))
	third := aSigned(t, s, verifytest.Rules, changesFrom(t, first, verifytest.Rules))
	state := filepath.Join(t.TempDir(), "edge")
	deploy := func(code int, image string, args []string, wants ...string) {
		t.Helper()
		args = append([]string{"deploy", image, "--name", "edge", "--state", state}, args...)
		got, out, errs := capture(t, args...)
		for _, want := range wants {
			if got != code || !strings.Contains(out+errs, want) {
				t.Errorf("%v: exit %d, want %d and %q:\n%s%s", args, got, code, want, out, errs)
			}
		}
	}
	signed := []string{"--require-signature", s.Public, "--require-source", "github.com/thurward/thurward"}
	deploy(0, first, signed, "statements   1 hold", "policy tests 1 passed", "fw.img.provenance.sigstore.json: ok: 1 test and 1 statement", "commit 0c0c")
	deploy(0, second, append(signed, "--dry-run"), "who signed has seen those to the current image", "More permissive", "tcp", "80")
	deploy(0, second, signed, "More permissive")
	deploy(0, third, signed, "which is NOT the current one", "Less permissive")
	deploy(0, second, nil, "More permissive", "fw.img.provenance.json: ok: 1 test and 1 statement") // unsigned: by the digest in the image

	// Without, or with another policy in it.
	alone := filepath.Join(t.TempDir(), "alone.img")
	copyTo := func(from, to string) {
		if err := os.WriteFile(to, readFile(t, from), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	copyTo(first, alone)
	deploy(0, alone, []string{"--dry-run"}, "what changes cannot be shown: the image has no provenance beside it")
	copyTo(second+verify.StatementSuffix, alone+verify.StatementSuffix)
	deploy(1, alone, nil, "alone.img.provenance.json: has the policy sha256:")
	if err := os.WriteFile(alone+verify.StatementSuffix, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	deploy(1, alone, nil, "not a statement of how an image was made")

	// The bundles of another image, and one that is too long to be read.
	for _, suffix := range []string{verify.SignatureSuffix, verify.AttestationSuffix, verify.SBOMSuffix} {
		copyTo(first+suffix, alone+suffix)
	}
	copyTo(first+verify.StatementSuffix, alone+verify.StatementSuffix)
	deploy(0, alone, append(signed, "--dry-run"), "signed by")
	copyTo(second+verify.SignatureSuffix, alone+verify.SignatureSuffix)
	deploy(1, alone, signed, "refusing to deploy", "is of another file")
	copyTo(first+verify.SignatureSuffix, alone+verify.SignatureSuffix)
	copyTo(second+verify.AttestationSuffix, alone+verify.AttestationSuffix)
	deploy(1, alone, signed, "refusing to deploy", "is about another image")
	if err := os.Truncate(alone+verify.AttestationSuffix, sigstore.MaxBundle+1); err != nil {
		t.Fatal(err)
	}
	deploy(1, alone, signed, "refusing to deploy", "too long: at most 64 MiB are read")
	if err := os.Truncate(alone+verify.SignatureSuffix, sigstore.MaxBundle+1); err != nil {
		t.Fatal(err)
	}
	deploy(1, alone, signed, "refusing to deploy", "too long: at most 64 MiB are read")
	if code, out, errs := capture(t, "status", "--name", "edge", "--state", state, "--json"); !strings.Contains(out, sum(t, second)) {
		t.Errorf("the current image is another one: %d %s%s", code, out, errs)
	}
}

// TestDeployKeepsWhatItIs: what lies beside an image is read by root and kept for the service.
// A link to a secret, or a pipe in which nobody writes, is not; what is there is not waited
// for, and the image is deployed all the same, unless a signature is demanded.
func TestDeployKeepsWhatItIs(t *testing.T) {
	s := verifytest.NewSigner(t)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("root:secret:1::\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := aSigned(t, s, verifytest.Rules, nil)
	state := func(name string) string { return filepath.Join(dir, name) }
	kept := func(name string) (n int) {
		files, err := filepath.Glob(filepath.Join(state(name), "images", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if bytes.Contains(readFile(t, f), []byte("root:secret:1::")) {
				t.Errorf("%s has the secret", f)
			}
		}
		return len(files)
	}
	deploy := func(name string, args ...string) (int, string) {
		code, out, errs := capture(t, append([]string{"deploy", good, "--name", "edge", "--state", state(name)}, args...)...)
		return code, out + errs
	}
	if code, out := deploy("good"); code != 0 || kept("good") != 6 { // with the image and its policy
		t.Fatalf("%d files: %s", kept("good"), out)
	}
	for _, suffix := range []string{verify.SignatureSuffix, verify.AttestationSuffix, verify.SBOMSuffix} {
		for what, make := range map[string]func(path string) error{
			"link": func(path string) error { return os.Symlink(secret, path) },
			"pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		} {
			was := readFile(t, good+suffix)
			if err := os.Remove(good + suffix); err != nil {
				t.Fatal(err)
			}
			if err := make(good + suffix); err != nil {
				t.Fatal(err)
			}
			name := what + suffix
			if code, out := deploy(name); code != 0 || kept(name) != 5 || !strings.Contains(out, suffix+" is not kept with the image") {
				t.Errorf("%s: exit %d, %d files: %s", name, code, kept(name), out)
			}
			if code, out := deploy(name+".signed", "--require-signature", s.Public); code != 1 || !strings.Contains(out, "refusing to deploy") {
				t.Errorf("%s, a signature is demanded: exit %d: %s", name, code, out)
			}
			if err := os.Remove(good + suffix); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(good+suffix, was, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	_, out, _ := capture(t, "inspect", path)
	_, digest, _ := strings.Cut(out, "sha256:")
	return digest[:64]
}

// TestHostileText: nothing that a statement, a policy or an image says controls the terminal
// of who reads it, or adds lines.
func TestHostileText(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;x\x07\r\nverified\u202e\u0085\xff"
	s := verifytest.NewSigner(t)
	first := aSigned(t, s, verifytest.Rules, nil)
	path := aSigned(t, s, strings.Replace(verifytest.Rules, `"telnet"`, `"telnet\e[2J"`, 1), func(st *provenance.Statement) {
		st.Predicate.Run.Builder.ID = evil
		st.Dependency(provenance.NameSource).URI = evil
		st.Tests().Names = []string{evil}
		st.Statements().Names = []string{evil}
		changesFrom(t, first, strings.Replace(verifytest.Rules, "443", "[443, 80]", 1))(st)
		c := st.Changes()
		c.Previous, c.Text = evil, evil
		c.Diff.Old, c.Diff.New = evil, evil
		for i := range c.Diff.Traffic {
			d := &c.Diff.Traffic[i]
			d.From.Rule, d.To.Action, d.Example.Src = evil, evil, evil
		}
	})
	state := filepath.Join(t.TempDir(), "edge")
	for _, args := range [][]string{
		{"verify", "--key", s.Public, "--changes", path},
		{"verify", "--key", s.Public, "--source", "a/b", path},
		{"verify", "--key", s.Public, "--builder", "x", path},
		{"deploy", path, "--name", "edge", "--state", state, "--require-signature", s.Public},
		{"deploy", path, "--name", "edge", "--state", state, "--require-signature", s.Public, "--require-source", "a/b"},
		{"inspect", "--all", path},
		{"inspect", evil},
	} {
		code, out, errs := capture(t, args...)
		for _, r := range out + errs {
			if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
				t.Errorf("%q: exit %d: prints %q in %q", args, code, r, out+errs)
				break
			}
		}
		if !utf8.ValidString(out + errs) {
			t.Errorf("%q: is no text: %q", args, out+errs)
		}
		if strings.Contains(out+errs, "\nverified") {
			t.Errorf("%q: adds a line: %q", args, out+errs)
		}
		if args[0] != "inspect" && !strings.Contains(out+errs, `\x1b[2J`) {
			t.Errorf("%q: what is hostile is not in %q", args, out+errs)
		}
	}
}

// A recorder is a hypervisor that only looks at the image.
type recorder struct {
	vmm.Hypervisor
	image []byte
}

var errRecorded = errors.New("recorded")

func (r *recorder) Start(c vmm.Config, _ func(vmm.Line)) (*vmm.Machine, error) {
	var err error
	if r.image, err = os.ReadFile(c.Image); err != nil {
		return nil, err
	}
	return nil, errRecorded
}

// TestServiceBootsWhatWasVerified: a file of the folder that is replaced between the check and
// the start is not booted. The copy is in the service's own folder, and is removed.
func TestServiceBootsWhatWasVerified(t *testing.T) {
	s := verifytest.NewSigner(t)
	path := aSigned(t, s, verifytest.Rules, nil)
	good := readFile(t, path)
	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run+":/nowhere")
	user, err := vmm.ParseSpec("user")
	if err != nil {
		t.Fatal(err)
	}
	l := &launch{signed: &verify.Options{Key: s.Public}, vmm: "qemu", lan: user, wan: user, memoryMB: 64, errOut: &bytes.Buffer{}}
	for _, signed := range []bool{true, false} {
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
		if !signed {
			l.signed = nil
		}
		if _, err := l.plan(path, good); err != nil {
			t.Fatal(err)
		}
		other := bytes.Replace(good, []byte("telnet"), []byte("telnot"), 1)
		if err := os.WriteFile(path, append(other, 'x'), 0o644); err != nil {
			t.Fatal(err)
		}
		r := &recorder{Hypervisor: &vmm.QEMU{}}
		if _, err := l.start(r, false, vmm.RunOptions{Say: l.say}, path, good, vmm.NewGate(true)); !errors.Is(err, errRecorded) {
			t.Fatal(err)
		}
		if is := bytes.Equal(r.image, good); is != signed {
			t.Errorf("a signature is demanded: %v; what was verified is booted: %v", signed, is)
		}
		if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/verify/verifytest"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/stamp"
	"github.com/thurward/thurward/schemas"
	"github.com/thurward/thurward/test/deps"
)

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestProvenance: build writes the same statement and list each time; the list is the one
// that somebody has looked at; the statement has the tests, and the difference to an
// earlier image.
func TestProvenance(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := kernelbuild.Kernel(at("kernel.elf")); err != nil {
		t.Fatal(err)
	}
	b := stamp.Build{Version: "1.2.0", Commit: strings.Repeat("0b", 20) + "-dirty", Schema: schemas.Digest()}
	if err := kernelbuild.Program(at("firewall.elf"), "", b); err != nil {
		t.Fatal(err)
	}
	src := readFile(t, "../../rules.yaml")
	wider := bytes.Replace(src, []byte("destination_port: 53"), []byte("destination_port: [53, 853]"), 1)
	if bytes.Equal(src, wider) {
		t.Fatal("rules.yaml has no rule for port 53")
	}
	src = append(src, "\nnever:\n  - { name: telnet, from: lan, destination_port: 23 }\n"...)
	wider = append(wider, "\nnever:\n  - { name: telnet, from: lan, destination_port: 23 }\n"...)
	for name, b := range map[string][]byte{"a/rules.yaml": src, "b/rules.yaml": src, "wider/rules.yaml": wider} {
		os.MkdirAll(filepath.Dir(at(name)), 0o755)
		if err := os.WriteFile(at(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := func(folder string, args ...string) error {
		root := newRootCmd()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append([]string{"build", "--program", at("firewall.elf"), "--kernel", at("kernel.elf"),
			"-f", at(folder + "/rules.yaml"), "-o", at(folder + "/fw.img"), "--provenance"}, args...))
		err := root.Execute()
		t.Logf("%s", &out)
		return err
	}
	for _, folder := range []string{"a", "b"} {
		if err := build(folder); err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", verify.StatementSuffix, verify.SBOMSuffix} {
		if a, b := readFile(t, at("a/fw.img"+suffix)), readFile(t, at("b/fw.img"+suffix)); !bytes.Equal(a, b) {
			t.Errorf("fw.img%s is another one the second time", suffix)
		}
	}
	listed, err := provenance.Packages(readFile(t, at("a/fw.img"+verify.SBOMSuffix)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, p := range slices.Concat(deps.Kernel(), deps.Firewall(false)) {
		want[p] = true
		if !listed[p] {
			t.Errorf("the list leaves %s out", p)
		}
	}
	for p := range listed {
		if !want[p] {
			t.Errorf("the list has %s, which nobody has looked at", p)
		}
	}
	s, err := provenance.Parse(readFile(t, at("a/fw.img"+verify.StatementSuffix)))
	if err != nil {
		t.Fatal(err)
	}
	if tests := s.Tests(); tests == nil || tests.Passed < 3 || tests.Failed != 0 || len(tests.Names) != tests.Passed {
		t.Errorf("tests: %+v", tests)
	}
	if st := s.Statements(); st == nil || st.Hold != 1 || st.Failed != 0 || !slices.Equal(st.Names, []string{"never: telnet"}) {
		t.Errorf("statements: %+v", st)
	}
	if s.Repository() != provenance.Repository {
		t.Errorf("from %q", s.Repository())
	}
	if s.Commit() != b.Commit || s.Changes() != nil {
		t.Errorf("commit %s, changes %v", s.Commit(), s.Changes())
	}

	if err := build("wider", "--previous", at("a/fw.img"), "--source", "git+https://example.com/fork"); err != nil {
		t.Fatal(err)
	}
	s, err = provenance.Parse(readFile(t, at("wider/fw.img"+verify.StatementSuffix)))
	if err != nil {
		t.Fatal(err)
	}
	if s.Repository() != "git+https://example.com/fork" {
		t.Errorf("from %q", s.Repository())
	}
	c := s.Changes()
	if c == nil || len(c.Diff.Traffic) == 0 || !c.Diff.Complete || !strings.Contains(c.Text, "853") {
		t.Fatalf("changes: %+v", c)
	}
	var diffed bytes.Buffer
	root := newRootCmd()
	root.SetOut(&diffed)
	root.SetArgs([]string{"diff", "--format", "json", at("a/rules.yaml"), at("wider/rules.yaml")})
	var differs exitError
	if err := root.Execute(); !errors.As(err, &differs) {
		t.Fatal(err)
	}
	alone := json.NewDecoder(&diffed)
	var d struct{ Traffic json.RawMessage }
	if err := alone.Decode(&d); err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, d.Traffic); err != nil {
		t.Fatal(err)
	}
	if got, _ := json.Marshal(c.Diff.Traffic); !bytes.Equal(got, compact.Bytes()) {
		t.Errorf("the statement says\n%s\nand diff\n%s", got, &compact)
	}

	// A statement that is not the earlier image's has another policy in it.
	if err := os.Rename(at("wider/fw.img"+verify.StatementSuffix), at("a/fw.img"+verify.StatementSuffix)); err != nil {
		t.Fatal(err)
	}
	if err := build("b", "--previous", at("a/fw.img")); err == nil || !strings.Contains(err.Error(), "its provenance is of another image") {
		t.Errorf("with another image's statement: %v", err)
	}
}

// TestBootsWhatWasVerified: what is booted, and booted again, are the bytes that were
// verified, also if the file is replaced meanwhile. The copy is this user's, and is gone
// at the end.
func TestBootsWhatWasVerified(t *testing.T) {
	s := verifytest.NewSigner(t)
	path := filepath.Join(t.TempDir(), "fw.img")
	verifytest.Build(t, path, readFile(t, "../../rules.yaml"), stamp.Build{Version: "1.2.0", Schema: schemas.Digest()})
	s.Sign(t, path)
	good := readFile(t, path)
	l := &launch{image: path, signed: &verify.Options{Key: s.Public}, errOut: &bytes.Buffer{}}
	img, done, err := l.openImage()
	if err != nil {
		t.Fatal(err)
	}
	if img.Path != path || img.Policy == nil {
		t.Errorf("%+v", img)
	}
	if err := os.WriteFile(path, []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b := readFile(t, l.image); !bytes.Equal(b, good) {
		t.Errorf("%s would be booted, with other bytes", l.image)
	}
	if st, err := os.Stat(filepath.Dir(l.image)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the copy's folder: %v, %v", st.Mode(), err)
	}
	if _, err := vmm.OpenImage(l.image); err != nil {
		t.Error(err)
	}
	done()
	if _, err := os.Stat(l.image); err == nil {
		t.Error("the copy is left")
	}
	l = &launch{image: path, signed: l.signed, errOut: &bytes.Buffer{}}
	if _, _, err := l.openImage(); err == nil || !strings.Contains(err.Error(), "refusing to boot: ") {
		t.Errorf("the replaced one: %v", err)
	}
}

// Package install tests the Debian package. What a person does with it is install.sh's.
package install

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// tree is a copy of what the package is made of, with parts that stand in for programs.
func tree(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"packaging", "schemas", "examples", "scripts", "tools"} {
		if out, err := exec.Command("cp", "-r", "../../"+dir, root).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	build := filepath.Join(root, "build")
	if err := os.MkdirAll(build, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"man", "completions"} {
		if err := os.MkdirAll(filepath.Join(build, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"thurward", "kernel.elf", "firewall.elf", "firewall-dot.elf", "toolchain.json", "man/thurward.1",
		"completions/thurward.bash", "completions/_thurward", "completions/thurward.fish"} {
		if err := os.WriteFile(filepath.Join(build, part), []byte("stands for "+part+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// pack makes a package in a tree.
func pack(t *testing.T, root string, env ...string) []byte {
	t.Helper()
	cmd := exec.Command(filepath.Join(root, "scripts/deb.sh"), "v1.2.3", "amd64", "build", "build/x.deb")
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(root, "build/x.deb"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPackageIsReproducible: neither where it is made, nor by whose umask, in which zone or
// language, changes a byte of the package; a part that changes does.
func TestPackageIsReproducible(t *testing.T) {
	nfpm := filepath.Join(t.TempDir(), "nfpm")
	make := exec.Command("go", "build", "-C", "../../tools/nfpm", "-trimpath", "-o", nfpm, "github.com/goreleaser/nfpm/v2/cmd/nfpm")
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Setenv("NFPM", nfpm)
	a, b := t.TempDir(), filepath.Join(t.TempDir(), "a/deeper/path with spaces")
	tree(t, a)
	first := pack(t, a)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	if err := os.MkdirAll(b, 0o755); err != nil {
		t.Fatal(err)
	}
	tree(t, b)
	if err := os.Chmod(filepath.Join(b, "packaging/systemd/thurward@.service"), 0o777); err != nil {
		t.Fatal(err)
	}
	second := pack(t, b, "TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8", "USER=other", "HOME="+os.Getenv("HOME"))
	if !bytes.Equal(first, second) {
		t.Errorf("packages of %d and %d bytes differ", len(first), len(second))
	}
	if err := os.WriteFile(filepath.Join(b, "build/kernel.elf"), []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, pack(t, b)) {
		t.Error("another kernel gives the same package")
	}
}

// TestLibvirtSchema: libvirt's schema takes the example's domain, and refuses a wrong one.
func TestLibvirtSchema(t *testing.T) {
	validate, err := exec.LookPath("virt-xml-validate")
	if err != nil {
		t.Skip("virt-xml-validate is not installed (Debian: libvirt-clients)")
	}
	if _, err := exec.LookPath("xmllint"); err != nil {
		t.Skip("virt-xml-validate needs xmllint (Debian: libxml2-utils)")
	}
	const example = "../../examples/libvirt/thurward.xml"
	if out, err := exec.Command(validate, example).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	b, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.xml")
	if err := os.WriteFile(bad, bytes.ReplaceAll(b, []byte("vcpu>"), []byte("vcpus>")), 0o600); err != nil {
		t.Fatal(err)
	}
	if exec.Command(validate, bad).Run() == nil {
		t.Error("a wrong domain is taken")
	}
}

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
)

// virsh runs a command of libvirt's, which must succeed.
func virsh(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("virsh", append([]string{"-c", "qemu:///system"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %v: %v: %s", args, err, out)
	}
}

// TestLibvirt: the example's domain boots by libvirt, here under TCG, forwards, and
// stops at Ctrl-Alt-Del, and at the power button, which is what virsh shutdown presses.
func TestLibvirt(t *testing.T) {
	if out, err := exec.Command("virsh", "-c", "qemu:///system", "list").CombinedOutput(); err != nil {
		t.Skipf("no libvirtd answers here: %v: %s", err, bytes.TrimSpace(out))
	}
	if os.Geteuid() != 0 {
		t.Skip("only root may make TAP devices")
	}
	w, err := netlab.New(netlab.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	b, err := os.ReadFile("../../examples/libvirt/thurward.xml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	console := filepath.Join(dir, "console")
	xml := string(b)
	change := func(old, with string) {
		if !strings.Contains(xml, old) {
			t.Fatalf("no %q in the example", old)
		}
		xml = strings.ReplaceAll(xml, old, with)
	}
	for dev, sw := range map[string]*netlab.Switch{"tap-lan": w.LANSwitch, "tap-wan": w.WANSwitch} {
		tap, err := vmm.NewTap(vmm.Spec{Kind: vmm.Demo}, vmm.Network{Serve: sw.ServeVM})
		if err != nil {
			t.Fatal(err)
		}
		name, drop, err := tap(0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(drop)
		change("'"+dev+"'", "'"+name+"'")
	}
	change("<domain type='kvm'>", "<domain type='qemu'>")
	change("<name>thurward</name>", "<name>thurward-test</name>")
	// libvirt's QEMU is a user of its own, who cannot read what only the test's may.
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	img, err := os.ReadFile(testImage(t))
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "thurward.img")
	if err := os.WriteFile(image, img, 0o644); err != nil {
		t.Fatal(err)
	}
	change("/var/lib/thurward/thurward.img", image)
	change("/var/log/libvirt/qemu/thurward.console", console)
	domain := filepath.Join(dir, "domain.xml")
	if err := os.WriteFile(domain, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "create", domain)
	t.Cleanup(func() { exec.Command("virsh", "-c", "qemu:///system", "destroy", "thurward-test").Run() }) //nolint:errcheck // it has ended, as it should
	says := func(word string) {
		t.Helper()
		for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if b, err := os.ReadFile(console); err == nil && bytes.Contains(b, []byte(word)) {
				return
			}
		}
		b, _ := os.ReadFile(console) //nolint:errcheck // then there is none
		t.Fatalf("no %q on the console:\n%s", word, b)
	}
	says("thurward: ready ")
	traffic(t, &lab{Network: w, t: t})
	virsh(t, "send-key", "thurward-test", "KEY_LEFTCTRL", "KEY_LEFTALT", "KEY_DELETE")
	says("thurward: stopped: Ctrl-Alt-Del")
	gone := func() {
		t.Helper()
		for end := time.Now().Add(limit); exec.Command("virsh", "-c", "qemu:///system", "domid", "thurward-test").Run() == nil; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the domain stays after it has stopped")
			}
		}
	}
	gone()
	if err := os.Remove(console); err != nil {
		t.Fatal(err)
	}
	virsh(t, "create", domain)
	says("thurward: ready ")
	virsh(t, "shutdown", "thurward-test")
	says("thurward: stopped: power button")
	gone()
}

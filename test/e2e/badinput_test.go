package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// refusal runs a machine that must not start, and returns why it did not and
// how many IPv4 frames it sent.
func refusal(t *testing.T, kvm bool, configure func(*vmm.Config)) string {
	t.Helper()
	l := newLab(t, kvm, configure)
	var refused *vmm.RefusedError
	select {
	case err := <-l.ended:
		if !errors.As(err, &refused) {
			t.Fatalf("%v; want a refusal", err)
		}
	case <-l.ready:
		t.Fatal("it started")
	case <-soon(t).Done():
		t.Fatalf("neither started nor refused within %v", limit)
	}
	return refused.Reason
}

// altered writes a changed copy of the image.
func altered(t *testing.T, change func([]byte) []byte) string {
	t.Helper()
	b, err := os.ReadFile(testImage(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "altered.img")
	if err := os.WriteFile(path, change(b), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTruncatedImageIsRefused(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 30, 1000, 1 << 20} {
		path := altered(t, func(b []byte) []byte { return b[:keep] })
		if _, err := vmm.OpenImage(path); err == nil || !strings.Contains(err.Error(), "build it anew") {
			t.Errorf("%d bytes: %v", keep, err)
		}
	}
	// Every byte is needed.
	path := altered(t, func(b []byte) []byte { return b[:len(b)-1] })
	if _, err := vmm.OpenImage(path); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("one byte short: %v", err)
	}
}

// TestCorruptedPolicyIsRefused: one changed bit of the policy keeps the
// firewall from starting.
func TestCorruptedPolicyIsRefused(t *testing.T) {
	t.Parallel()
	for name, offset := range map[string]int{"header": 60, "tables": ruleset.HeaderSize + 33} {
		path := altered(t, func(b []byte) []byte {
			i := bytes.LastIndex(b, []byte(ruleset.Magic))
			b[i+offset] ^= 0x10
			return b
		})
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, kvm bool) {
				why := refusal(t, kvm, func(c *vmm.Config) { c.Image = path })
				if !strings.Contains(why, "ruleset: digest mismatch") {
					t.Errorf("%q", why)
				}
			})
		})
	}
}

func TestNICs(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		why := refusal(t, kvm, func(c *vmm.Config) { c.NICs = nil })
		if !strings.Contains(why, "no network device") {
			t.Errorf("without NIC: %q", why)
		}
		why = refusal(t, kvm, func(c *vmm.Config) { c.NICs = c.NICs[:1] })
		if !strings.Contains(why, "wan") {
			t.Errorf("with a LAN only: %q", why)
		}
		why = refusal(t, kvm, func(c *vmm.Config) { c.NICs = c.NICs[1:] })
		if !strings.Contains(why, "lan") {
			t.Errorf("with a WAN only: %q", why)
		}
		why = refusal(t, kvm, func(c *vmm.Config) {
			c.Append = "thurward.wan=52:54:00:74:68:99"
		})
		if !strings.Contains(why, "52:54:00:74:68:99") || !strings.Contains(why, vmm.DefaultMAC(vmm.WAN)) {
			t.Errorf("with another WAN: %q", why)
		}
		l := newLab(t, kvm, func(c *vmm.Config) {
			third := vmm.NIC{Role: vmm.None, MAC: "52:54:00:74:68:03", Backend: vmm.Unplugged}
			c.NICs = append([]vmm.NIC{third}, c.NICs...) // in front: slots decide nothing
		})
		l.awaitReady()
		if b, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Errorf("with a third NIC: %q, %v", b, err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if !strings.Contains(strings.Join(l.lines, "\n"), "note: 1 network device(s) are not used") {
			t.Errorf("nothing is said about the third NIC:\n%s", strings.Join(l.lines, "\n"))
		}
	})
}

func TestTooLittleMemory(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		for _, mb := range []int{4, 8, 12, 16} {
			why := refusal(t, kvm, func(c *vmm.Config) { c.MemoryMB = mb })
			if !strings.Contains(why, "memory") {
				t.Errorf("%d MB: %q", mb, why)
			}
		}
	})
}

// TestSmallestMachine: the sample policy's flow table and all else fit into what
// SPECIFICATION.md says.
func TestSmallestMachine(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := newLab(t, kvm, func(c *vmm.Config) { c.MemoryMB = 44 + processors() - 1 }) // each has stacks
		l.awaitReady()
		if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongBootArgument(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		why := refusal(t, kvm, func(c *vmm.Config) { c.Append = "thurward.rules=none" })
		if !strings.Contains(why, "thurward.rules=none: unknown") {
			t.Errorf("%q", why)
		}
	})
}

package e2e

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
)

// TestOffloads: over TAP devices large TCP segments pass whole, and what arrives is what
// was sent; with thurward.offload=none none is taken, and the same arrives.
func TestOffloads(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		h := newHosts(t)
		dir := t.TempDir()
		body := make([]byte, 5_000_000)
		if _, err := netlab.Pattern().Read(body); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "f"), body, 0o644); err != nil {
			t.Fatal(err)
		}
		server := exec.Command("ip", "netns", "exec", h.wan, "python3", "-u", "-m", "http.server", "--directory", dir, "80")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			server.Process.Kill() //nolint:errcheck // it may have ended
			server.Wait()         //nolint:errcheck // killed
		}()
		for _, args := range []string{"", "thurward.offload=none"} {
			l, r := watched(t, kvm, func(c *vmm.Config) {
				c.Append = args
				for i, s := range []vmm.Spec{{Kind: vmm.Tap, Arg: h.tap}, {Kind: vmm.Bridge, Arg: h.brW}} {
					b, err := vmm.NewBackend(s, vmm.Network{})
					if err != nil {
						t.Skip(err)
					}
					c.NICs[i].Backend = b
				}
			})
			out := filepath.Join(dir, "got")
			if s, err := h.in(bounded(t, time.Minute), h.lan, "curl", "-sS", "--retry", "9", "--retry-connrefused", "--max-time", "50", "-o", out, "http://198.51.100.80/f"); err != nil {
				t.Fatalf("%q: curl: %v: %s", args, err, s)
			}
			got, err := os.ReadFile(out)
			if err != nil || sha256.Sum256(got) != sha256.Sum256(body) {
				t.Errorf("%q: %d bytes of %d arrived, or others (%v)", args, len(got), len(body), err)
			}
			m := r.fresh()
			whole, sent := m["thurward_large_forwarded_total"], m[`thurward_interface_transmit_packets_total{interface="lan"}`]
			if (whole > 0) != (args == "") || sent < uint64(len(body)/1448) {
				t.Errorf("%q: %d large frames passed whole, %d packets were sent to the LAN: %v", args, whole, sent, m)
			}
			l.cancel()
			select {
			case <-l.ended:
			case <-time.After(limit):
				t.Fatal("the machine does not end")
			}
		}
	})
}

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
)

// hosts are two network namespaces with real Linux hosts, joined to the image
// by TAP devices:
//
//	[lan 10.0.0.2] ─ brL ─ TAP ─ image ─ TAP ─ brW ─ [wan 203.0.113.1]
//
// Each namespace hangs on a bridge of ours by a veth pair, and the machine on
// the same bridge by a TAP device: on the LAN one that was made before, on
// the WAN one that the launcher makes.
type hosts struct {
	t        *testing.T
	lan, wan string // namespaces
	brL, brW string // bridges
	tap      string // on brL
	anchor   string // a file: what a validator trusts, where the upstream has a signed zone
}

var ownNames atomic.Int32

// ownName is a short name that no other test of this machine has, for the names of
// namespaces and devices: at most 7 letters.
func ownName() string {
	n := ownNames.Add(1) - 1
	return fmt.Sprintf("%d%c%c", os.Getpid()%100000, 'a'+n/26%26, 'a'+n%26)
}

// newHosts makes the namespaces and bridges, or skips with the reason.
func newHosts(t *testing.T) *hosts {
	t.Helper()
	for _, p := range []string{"ip", "curl", "ping", "python3"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (apt-get install iproute2 curl iputils-ping python3)", p)
		}
	}
	id := ownName()
	h := &hosts{t: t, lan: "thwl" + id, wan: "thww" + id, brL: "thwbl" + id, brW: "thwbw" + id, tap: "thwt" + id}
	if out, err := exec.Command("ip", "netns", "add", h.lan).CombinedOutput(); err != nil {
		t.Skipf("network namespaces may not be made here: %s", bytes.TrimSpace(out))
	}
	t.Cleanup(func() {
		for _, a := range []string{"link del thwvl" + id, "link del thwvw" + id, "netns del " + h.lan, "netns del " + h.wan, "link del " + h.brL, "link del " + h.brW, "link del " + h.tap} {
			exec.Command("ip", strings.Fields(a)...).Run() //nolint:errcheck // some may not be there
		}
	})
	h.ip("netns add " + h.wan)
	for _, s := range []struct{ ns, br, veth, addr, via string }{
		{h.lan, h.brL, "thwvl" + id, "10.0.0.2/24", "10.0.0.1"}, {h.wan, h.brW, "thwvw" + id, "203.0.113.1/24", ""}} {
		h.ip("link add " + s.br + " type bridge")
		h.ip("link set " + s.br + " up")
		h.ip("link add " + s.veth + " type veth peer name eth0 netns " + s.ns)
		h.ip("link set " + s.veth + " master " + s.br + " up")
		h.ip("-n " + s.ns + " addr add " + s.addr + " dev eth0")
		h.ip("-n " + s.ns + " link set lo up")
		h.ip("-n " + s.ns + " link set eth0 up")
		if s.via != "" {
			h.ip("-n " + s.ns + " route add default via " + s.via)
		}
	}
	h.addTap()
	h.ip("-n " + h.wan + " addr add 198.51.100.80/32 dev lo")
	return h
}

// addTap makes the TAP device on brL, with as many queues as machines here have processors.
func (h *hosts) addTap() {
	mode := " mode tap"
	if processors() > 1 {
		mode += " multi_queue"
	}
	h.ip("tuntap add dev " + h.tap + mode)
	h.ip("link set " + h.tap + " master " + h.brL + " up")
}

func (h *hosts) ip(args string) {
	h.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		h.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// in runs a command in a namespace.
func (h *hosts) in(ctx context.Context, ns string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns}, args...)...).CombinedOutput()
	return string(out), err
}

// TestRealHosts: curl and ping of real Linux hosts go through the image.
func TestRealHosts(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		h := newHosts(t)
		dir := t.TempDir()
		body := make([]byte, 3_000_000)
		if _, err := netlab.Pattern().Read(body); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "f"), body, 0o644); err != nil {
			t.Fatal(err)
		}
		server := exec.Command("ip", "netns", "exec", h.wan, "python3", "-u", "-m", "http.server", "--directory", dir, "80")
		var log bytes.Buffer
		server.Stderr = &log // one line for each request, read once the server has ended
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		ended := false
		end := func() {
			if !ended {
				ended = true
				server.Process.Kill() //nolint:errcheck // it may have ended
				server.Wait()         //nolint:errcheck // killed
			}
		}
		defer end()

		l := newLab(t, kvm, func(c *vmm.Config) {
			for i, s := range []vmm.Spec{{Kind: vmm.Tap, Arg: h.tap}, {Kind: vmm.Bridge, Arg: h.brW}} {
				b, err := vmm.NewBackend(s, vmm.Network{})
				if err != nil {
					t.Skip(err)
				}
				c.NICs[i].Backend = b
			}
		})
		l.awaitReady()

		url := "http://198.51.100.80/f"
		out := filepath.Join(dir, "got")
		if s, err := h.in(bounded(t, 3*limit), h.lan, "curl", "-sS", "--retry", "5", "--retry-connrefused", "--max-time", "60", "-o", out, url); err != nil {
			t.Fatalf("curl: %v: %s", err, s)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := sha256.Sum256(got), sha256.Sum256(body); a != b {
			t.Errorf("%d bytes, sha256 %s; want %d, %s", len(got), hex.EncodeToString(a[:]), len(body), hex.EncodeToString(b[:]))
		}
		if s, err := h.in(soon(t), h.lan, "ping", "-c", "3", "-i", "0.2", "-w", "15", "198.51.100.80"); err != nil || !answered(s) {
			t.Errorf("ping: %v: %s", err, s)
		}
		if s, err := h.in(soon(t), h.lan, "curl", "-sS", "--max-time", "1", "http://198.51.100.80:25/"); err == nil || !strings.Contains(s, "timed out") {
			t.Errorf("curl to a port that no rule allows: %v: %s", err, s)
		}
		if s, err := h.in(soon(t), h.wan, "ping", "-c", "1", "-W", "1", "10.0.0.2"); err == nil {
			t.Errorf("ping from the WAN: %s", s)
		}
		end()
		if !strings.Contains(log.String(), "203.0.113.10 - - [") || strings.Contains(log.String(), "10.0.0.2 - -") {
			t.Errorf("the server saw:\n%s", log.String())
		}
	})
}

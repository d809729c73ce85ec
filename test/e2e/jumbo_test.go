package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// setMTU makes the LAN's or the WAN's side of the hosts, all but the bridge's port that the
// launcher makes, one with this MTU.
func (h *hosts) setMTU(ns string, mtu string) {
	h.t.Helper()
	br, veth, tap := h.brW, strings.Replace(h.wan, "thww", "thwvw", 1), ""
	if ns == h.lan {
		br, veth, tap = h.brL, strings.Replace(h.lan, "thwl", "thwvl", 1), h.tap
	}
	h.ip("-n " + ns + " link set eth0 mtu " + mtu)
	h.ip("link set " + veth + " mtu " + mtu)
	if tap != "" {
		h.ip("link set " + tap + " mtu " + mtu)
	}
	h.ip("link set " + br + " mtu " + mtu)
}

// jumbo boots the image between real hosts whose networks have these MTUs. The machine's devices
// report them, unless said: then only the policy says so.
func jumbo(t *testing.T, kvm bool, lan, wan string, said bool) (*hosts, *lab) {
	t.Helper()
	h := newHosts(t)
	h.setMTU(h.lan, lan)
	h.setMTU(h.wan, wan)
	l := newLab(t, kvm, func(c *vmm.Config) {
		c.Image = linked(t, func(p *ruleset.Policy) {
			allow(p, packet.ICMP)
			allow(p, packet.UDP)
			allow(p, packet.TCP)
			if said {
				p.Interfaces[0].MTU, p.Interfaces[1].MTU = 9000, 9000
			}
		})
		for i, s := range []vmm.Spec{{Kind: vmm.Tap, Arg: h.tap}, {Kind: vmm.Bridge, Arg: h.brW}} {
			b, err := vmm.NewBackend(s, vmm.Network{})
			if err != nil {
				t.Skip(err)
			}
			c.NICs[i].Backend = b
			if said {
				c.NICs[i].Backend = silentAboutMTU(b)
			}
		}
	})
	l.awaitReady()
	return h, l
}

// silentAboutMTU is a back end on which the machine's device reports no MTU, as with hypervisors
// that have none.
func silentAboutMTU(b vmm.Backend) vmm.Backend {
	return func(id string, v vmm.Version, fd int) (vmm.Attachment, error) {
		at, err := b(id, v, fd)
		return vmm.Attachment{Args: at.Args, Files: at.Files, Ended: at.Ended}, err
	}
}

// TestJumboFrames: pings of 8,972 bytes with DF pass between real hosts in both directions, and TCP
// uses segments of 8,948 bytes, whether the devices say the MTU or the policy.
func TestJumboFrames(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		for _, said := range []bool{false, true} {
			t.Run(map[bool]string{false: "device", true: "policy"}[said], func(t *testing.T) {
				h, _ := jumbo(t, kvm, "9000", "9000", said)
				h.pings(t, "198.51.100.80", "8972", true)
				h.pings(t, "198.51.100.80", "8973", false)
				if got := h.segments(t); got != "8948" {
					t.Errorf("the MSS of a connection is %s", got)
				}
			})
		}
	})
}

// TestJumboLAN: from a LAN of 9,000 bytes to a WAN of 1,500 a ping with DF is answered with ICMP 3/4
// and 1,500, so that the host knows the path's MTU; without DF it passes in fragments; TCP uses
// segments that fit.
func TestJumboLAN(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		h, _ := jumbo(t, kvm, "9000", "1500", false)
		out, err := h.in(soon(t), h.lan, "ping", "-M", "do", "-c", "3", "-i", "0.3", "-W", "5", "-s", "8972", "198.51.100.80")
		if err == nil || !strings.Contains(out, "From 10.0.0.1") || !strings.Contains(out, "mtu = 1500") && !strings.Contains(out, "mtu=1500") {
			t.Errorf("ping with DF: %v: %s", err, out)
		}
		if out, err := h.in(soon(t), h.lan, "ip", "route", "get", "198.51.100.80"); err != nil || !strings.Contains(out, "mtu 1500") {
			t.Errorf("the host knows: %v: %s", err, out)
		}
		h.in(soon(t), h.lan, "ip", "route", "flush", "cache") //nolint:errcheck // it may know nothing
		h.pings(t, "198.51.100.80", "1472", true)
		if got := h.segments(t); got != "1448" {
			t.Errorf("the MSS of a connection is %s", got)
		}
	})
}

// pings sends pings with DF and this many bytes, and wants three answers, or none. Until the
// deadline it goes on: by itself ping waits only twice as long for the last answer as for
// those before.
func (h *hosts) pings(t *testing.T, to, size string, want bool) {
	t.Helper()
	h.in(soon(t), h.lan, "ping", "-c", "3", "-i", "0.3", "-w", "15", to) //nolint:errcheck // the neighbours are known then
	out, err := h.in(soon(t), h.lan, "ping", "-M", "do", "-c", "3", "-i", "0.3", "-w", map[bool]string{true: "15", false: "2"}[want], "-s", size, to)
	if (err == nil) != want || want != answered(out) {
		t.Errorf("ping of %s bytes: %v: %s", size, err, out)
	}
}

// answered reports whether ping, which was told to wait for three answers, has them: it may
// have sent more pings meanwhile, and several answers come at once.
func answered(out string) bool {
	return regexp.MustCompile(` ([3-9]|\d\d) received,`).MatchString(out)
}

// segments fetches 3 MB through the image, compares them, and returns the size of the segments in
// which the server sent them.
func (h *hosts) segments(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const program = `
import hashlib, socket, sys
mode, host = sys.argv[1:]
data = bytes(range(251)) * 12000
if mode == "serve":
    s = socket.create_server((host, 8080))
    print("up", flush=True)
    c, _ = s.accept()
    c.recv(1)
    c.sendall(data)
    print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG), flush=True)
    c.close()
else:
    c = socket.create_connection((host, 8080), 60)
    c.sendall(b"x")
    got = b""
    while (b := c.recv(1 << 16)):
        got += b
    print(hashlib.sha256(got).digest() == hashlib.sha256(data).digest())
`
	file := filepath.Join(dir, "segments.py")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(bounded(t, 3*limit), "ip", "netns", "exec", h.wan, "python3", file, "serve", "198.51.100.80")
	pipe, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait() //nolint:errcheck // it ends with its context
	if l, err := out.ReadString('\n'); l != "up\n" {
		t.Fatalf("the server said %q: %v", l, err)
	}
	if got, err := h.in(bounded(t, 2*limit), h.lan, "python3", file, "fetch", "198.51.100.80"); err != nil || strings.TrimSpace(got) != "True" {
		t.Errorf("3 MB by TCP: %v: %s", err, got)
	}
	l, _ := out.ReadString('\n')
	return strings.TrimSpace(l)
}

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// names is the policy of the tests with names, as an operator writes it.
const names = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults:
  default_action: deny
  upstream_dns: 198.51.100.53
  dns_qps_per_client: %d
` + nameRules

// nameRules lets hosts of the LAN ask the firewall, and go to two names.
const nameRules = `nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/24, masquerade: true }
rules:
  - { id: allow-dns, action: accept, direction: egress, source: 10.0.0.0/24, destination: 10.0.0.1, destination_port: 53, protocol: [udp, tcp] }
  - { id: allow-www, action: accept, direction: egress, source: 10.0.0.0/24, destination_port: 80, destination_fqdn: [www.example.test, "*.pages.test"], protocol: tcp }
  - { id: allow-established, action: accept, direction: ingress, state: established }
`

// A dnsHosts is two namespaces with a name server and a web server behind the
// WAN, and the image between.
type dnsHosts struct {
	*hosts
	*lab
}

// newDNSHosts starts the image with the policy of these tests between real
// hosts.
func newDNSHosts(t *testing.T, kvm bool, qps int) *dnsHosts {
	t.Helper()
	return newDNSHostsWith(t, kvm, fmt.Sprintf(names, qps), dnsmasq)
}

func newDNSHostsWith(t *testing.T, kvm bool, policy string, up upstream, configure ...func(*vmm.Config)) *dnsHosts {
	t.Helper()
	have(t, "dig", "bind9-dnsutils")
	have(t, up.program, up.install)
	h := newHosts(t)
	h.ip("-n " + h.wan + " addr add 198.51.100.53/32 dev lo")
	h.ip("-n " + h.wan + " addr add 198.51.100.81/32 dev lo")
	up.start(t, h)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("the page"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.start(t, h.wan, "python3", "-u", "-m", "http.server", "--directory", dir, "80")
	h.serves(t, "curl", "-sS", "http://198.51.100.80/f")
	h.serves(t, append([]string{"dig", "@198.51.100.53", "+tries=1", "+timeout=1", "www.example.test"}, up.dig...)...)
	etc := filepath.Join("/etc/netns", h.lan)
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(etc) })
	if err := os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("nameserver 10.0.0.1\noptions timeout:8 attempts:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(t.TempDir(), "thurward.img")
	if err := link(img, policytest.Compile(t, policy)); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, kvm, func(c *vmm.Config) {
		c.Image = img
		for i, s := range []vmm.Spec{{Kind: vmm.Tap, Arg: h.tap}, {Kind: vmm.Bridge, Arg: h.brW}} {
			b, err := vmm.NewBackend(s, vmm.Network{})
			if err != nil {
				t.Skip(err)
			}
			c.NICs[i].Backend = b
		}
		for _, f := range configure {
			f(c)
		}
	})
	l.awaitReady()
	return &dnsHosts{h, l}
}

// start runs a server in a namespace until the test is over.
func (h *hosts) start(t *testing.T, ns, program string, args ...string) {
	t.Helper()
	c := exec.Command("ip", append([]string{"netns", "exec", ns, program}, args...)...)
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill() //nolint:errcheck // it may have ended
		c.Wait()         //nolint:errcheck // killed
		if t.Failed() {
			t.Logf("%s: %s", program, log.String())
		}
	})
}

// serves waits until a server behind the WAN answers there.
func (h *hosts) serves(t *testing.T, command ...string) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		out, err := h.in(soon(t), h.wan, command...)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
}

// dig asks the firewall; the test fails when it gets no response.
func (h *dnsHosts) dig(args ...string) string {
	h.lab.t.Helper()
	out, err := h.in(soon(h.lab.t), h.hosts.lan, append([]string{"dig", "@10.0.0.1", "+tries=2", "+timeout=8"}, args...)...)
	if err != nil {
		h.lab.t.Fatalf("dig %v: %v: %s", args, err, out)
	}
	return out
}

func (h *dnsHosts) curl(url string, seconds int) (string, error) {
	return h.in(soon(h.lab.t), h.hosts.lan, "curl", "-sS", "--max-time", fmt.Sprint(seconds), url)
}

// TestS24_NamesOnTheImage: dig and curl of a Linux host, dnsmasq and unbound as
// upstreams, the image between (also S25, S30).
func TestS24_NamesOnTheImage(t *testing.T) {
	t.Parallel()
	for _, up := range []upstream{dnsmasq, unbound} {
		t.Run(up.name, func(t *testing.T) { namesOnTheImage(t, up) })
	}
}

func namesOnTheImage(t *testing.T, up upstream) {
	each(t, func(t *testing.T, kvm bool) {
		h := newDNSHostsWith(t, kvm, fmt.Sprintf(names, 1000), up)
		// S25: an address that nobody has resolved.
		if out, err := h.curl("http://198.51.100.80/f", 1); err == nil {
			t.Fatalf("reached without its name: %s", out)
		}
		// S24: by name.
		if out, err := h.curl("http://www.example.test/f", 12); err != nil || out != "the page" {
			t.Fatalf("by name: %v: %s", err, out)
		}
		e := h.event(match{Action: "dns-query", Reason: "answered", SrcIP: "10.0.0.2", DstIP: "10.0.0.1"})
		if e.Str(ecs.DNSQuestionName) != "www.example.test" {
			t.Errorf("event %v", e)
		}
		e = h.event(match{Action: "accept", RuleID: "allow-www"})
		if e.Str(ecs.DestinationDomain) != "www.example.test" {
			t.Errorf("event %v", e)
		}
		if out, err := h.curl("http://other.test/f", 1); err == nil {
			t.Fatalf("a name that no rule has: %s", out)
		}
		// An alias; its address has a life of two seconds.
		if out, err := h.curl("http://a.pages.test/f", 12); err != nil || out != "the page" {
			t.Fatalf("by alias: %v: %s", err, out)
		}
		// S30: answers that do not fit, by every way.
		count := func(out string) int { return strings.Count(out, "\tIN\tA\t") }
		if out := h.dig("+bufsize=4096", "+notcp", "+ignore", "big.test"); count(out) != 85 || strings.Contains(out, " tc") {
			t.Errorf("%d addresses over UDP, want 85:\n%s", count(out), out)
		}
		if out := h.dig("+bufsize=600", "+ignore", "big.test"); count(out) != 0 || !strings.Contains(out, " tc") {
			t.Errorf("a buffer of 600: %d addresses:\n%s", count(out), out)
		}
		if out := h.dig("+noedns", "+ignore", "big.test"); !strings.Contains(out, " tc") || strings.Contains(out, "OPT PSEUDOSECTION") {
			t.Errorf("without EDNS:\n%s", out)
		}
		if out := h.dig("huge.test"); count(out) != 400 || !strings.Contains(out, "(TCP)") && !strings.Contains(out, "retrying in TCP") && !strings.Contains(out, "Truncated") {
			t.Errorf("%d addresses, want 400 over TCP:\n%s", count(out), out)
		}
		if out := h.dig("+tcp", "www.example.test"); count(out) != 1 {
			t.Errorf("over TCP:\n%s", out)
		}
		if out := h.dig("+tcp", "+keepopen", "www.example.test", "other.test", "huge.test"); count(out) != 402 {
			t.Errorf("three over one connection: %d addresses", count(out))
		}
		// What EDNS says.
		if out := h.dig("+dnssec", "+subnet=10.20.30.0/24", "+nsid", "+cookie", "www.example.test"); !strings.Contains(out, "flags: do; udp: 1232") || strings.Contains(out, "CLIENT-SUBNET") || count(out) != 1 {
			t.Errorf("EDNS:\n%s", out)
		}
		if out := h.dig("nothing.test"); !strings.Contains(out, "NXDOMAIN") {
			t.Errorf("a name that is not there:\n%s", out)
		}
		if out := h.dig("+opcode=UPDATE", "www.example.test"); !strings.Contains(out, "NOTIMP") {
			t.Errorf("an update:\n%s", out)
		}
		if out := h.dig("+edns=1", "+noednsnegotiation", "www.example.test"); !strings.Contains(out, "BADVERS") {
			t.Errorf("EDNS version 1:\n%s", out)
		}
		if out := h.dig("AXFR", "test."); !strings.Contains(out, "Transfer failed") {
			t.Errorf("a zone transfer:\n%s", out)
		}
		if out := h.dig("+notcp", "CH", "TXT", "version.bind"); !strings.Contains(out, "status: ") {
			t.Errorf("class CH:\n%s", out)
		}
		if h.anchor != "" {
			h.validates()
		}
	})
}

// validates has a validator on the LAN check what comes through the firewall.
func (h *dnsHosts) validates() {
	t := h.lab.t
	t.Helper()
	delv := func(args ...string) string {
		out, _ := h.in(soon(t), h.hosts.lan, append([]string{"delv", "@10.0.0.1", "-a", h.anchor}, args...)...)
		return out
	}
	if out := h.dig("+nsid", "www.example.test"); !strings.Contains(out, "unbound") {
		t.Errorf("the upstream's NSID:\n%s", out)
	}
	if out := h.dig("svc.example.test", "HTTPS"); !strings.Contains(out, "198.51.100.81") {
		t.Errorf("a service binding:\n%s", out)
	}
	if out := delv("+root=signed.example", "www.signed.example"); !strings.Contains(out, "; fully validated") || !strings.Contains(out, "198.51.100.80") {
		t.Errorf("a signed address:\n%s", out)
	}
	if out := delv("+root=signed.example", "nothing.signed.example"); !strings.Contains(out, "negative response, fully validated") {
		t.Errorf("a signed denial:\n%s", out)
	}
	_, wrong := signedZone(t) // another key
	if err := os.WriteFile(h.anchor, []byte(wrong), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := delv("+root=signed.example", "www.signed.example"); strings.Contains(out, "; fully validated") {
		t.Errorf("validated by another key:\n%s", out)
	}
}

// TestS32_RateLimitOnTheImage: beyond its rate a client gets SERVFAIL.
func TestS32_RateLimitOnTheImage(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		h := newDNSHosts(t, kvm, 20)
		const script = `
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
def q(i, n): return bytes([0, i, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + bytes([len(n)]) + n + b"\x04test\x00\x00\x01\x00\x01"
s.sendto(q(0, b"warm"), ("10.0.0.1", 53)); s.recv(2000); time.sleep(1.5)
for i in range(1, 101): s.sendto(q(i, b"nothing"), ("10.0.0.1", 53))
r = [s.recv(2000)[3] & 15 for _ in range(100)]
print(r.count(3), r.count(2))
`
		out, err := h.in(soon(t), h.hosts.lan, "python3", "-c", script)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var passed, limited int
		fmt.Sscan(out, &passed, &limited)
		// Within a second 20 pass; a slow machine may need a few seconds.
		if passed < 20 || passed > 80 || passed+limited != 100 {
			t.Errorf("%d passed, %d were limited; want 20 of 100 in each second", passed, limited)
		}
		h.event(match{Action: "dns-query", Reason: "rate_limited"})
	})
}

// TestUpstreamDownOnTheImage: without an upstream a client gets SERVFAIL within
// a bounded time.
func TestUpstreamDownOnTheImage(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		h := newDNSHosts(t, kvm, 1000)
		h.ip("-n " + h.hosts.wan + " addr del 198.51.100.53/32 dev lo")
		out, err := h.in(bounded(t, time.Minute), h.hosts.lan, "dig", "@10.0.0.1", "+tries=1", "+timeout=50", "www.example.test")
		if err != nil || !strings.Contains(out, "SERVFAIL") {
			t.Fatalf("%v:\n%s", err, out)
		}
		// In the guest's time: a busy host stretches it.
		e := h.event(match{Action: "dns-query", Reason: "timeout"})
		took := e.Duration(ecs.EventDuration)
		if took < 4*time.Second || took > 6*time.Second {
			t.Errorf("after %v: %v", took, e)
		}
		h.ip("-n " + h.hosts.wan + " addr add 198.51.100.53/32 dev lo")
		if out := h.dig("www.example.test"); !strings.Contains(out, "198.51.100.80") {
			t.Errorf("not back at once:\n%s", out)
		}
	})
}

// TestUpstreamUnreachableOnTheImage: a Linux host without a name server says so
// by ICMP, and the next upstream is asked before the first one's time is over.
func TestUpstreamUnreachableOnTheImage(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		policy := strings.Replace(fmt.Sprintf(names, 1000), "upstream_dns: 198.51.100.53", "upstream_dns: [198.51.100.81, 198.51.100.53]", 1)
		h := newDNSHostsWith(t, kvm, policy, dnsmasq)
		if out := h.dig("www.example.test"); !strings.Contains(out, "198.51.100.80") {
			t.Fatalf("no answer:\n%s", out)
		}
		e := h.event(match{Action: "dns-query", Reason: "answered"})
		if took := e.Duration(ecs.EventDuration); took <= 0 || took > 1200*time.Millisecond {
			t.Errorf("after %v: %v", took, e)
		}
	})
}

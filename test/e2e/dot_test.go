package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

// overTLS is the policy of the test with DNS over TLS: the first upstream's
// certificate would have to be signed by an authority that Mozilla trusts.
const overTLS = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults:
  default_action: deny
  dns_qps_per_client: 10000
dns:
  upstreams:
    - { address: 198.51.100.81, tls: dns.example }
    - { address: 198.51.100.53, tls: dns.example, ca: %s }
` + nameRules

// certificates writes an authority's certificate, and a server's for a name that
// it has signed, with its key, and returns the names of the files.
func certificates(t *testing.T, names ...string) (ca string, servers [][2]string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, typ string, der []byte) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o644); err != nil {
			t.Fatal(err)
		}
		return f
	}
	make := func(c, by *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			by, signer = c, key
		}
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "authority of the test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, rootKey := make(root, nil, nil)
	ca = write("ca.pem", "CERTIFICATE", der)
	for i, n := range names {
		der, key := make(&x509.Certificate{DNSNames: []string{n}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, root, rootKey)
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, [2]string{write(fmt.Sprintf("%d.pem", i), "CERTIFICATE", der), write(fmt.Sprintf("%d.key", i), "PRIVATE KEY", private)})
	}
	return ca, servers
}

// A tlsServer is unbound with a certificate, which the test stops and starts.
type tlsServer struct{ stop func() }

func (s *tlsServer) run(t *testing.T, h *hosts, cert [2]string) {
	t.Helper()
	file := unboundFile(t, h, fmt.Sprintf("interface: 198.51.100.53@853\n  interface: 198.51.100.81@853\n  tls-port: 853\n  tls-service-pem: %q\n  tls-service-key: %q", cert[0], cert[1]))
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, "ip", "netns", "exec", h.wan, "unbound", "-d", "-c", file)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = sync.OnceFunc(func() {
		cancel()
		c.Wait() //nolint:errcheck // killed
	})
	t.Cleanup(s.stop)
	h.serves(t, "dig", "@198.51.100.53", "+tls", "+tries=1", "+timeout=1", "www.example.test")
}

// TestDoTOnTheImage: unbound as an upstream that is asked over TLS, by the image
// with crypto/tls in it. A wrong certificate is refused and told; the right one
// is taken without a restart; nothing is ever asked in the clear.
func TestDoTOnTheImage(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		ca, certs := certificates(t, "other.example", "dns.example")
		server := &tlsServer{}
		up := upstream{name: "unbound", program: "unbound", install: "unbound", dig: []string{"+tls"}, start: func(t *testing.T, h *hosts) { server.run(t, h, certs[0]) }}
		h := newDNSHostsWith(t, kvm, fmt.Sprintf(overTLS, ca), up)
		clear := func() (n string) {
			out, err := h.in(soon(t), h.hosts.wan, "cat", "/proc/net/snmp")
			if err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(out) {
				if f := strings.Fields(l); f[0] == "Udp:" && len(f) > 2 {
					n = f[2] // NoPorts, on the second such line
				}
			}
			return n
		}
		before := clear()
		digs := func(args ...string) (string, time.Duration) {
			began := time.Now()
			return h.dig(args...), time.Since(began)
		}
		if out, took := digs("www.example.test"); !strings.Contains(out, "SERVFAIL") || took > 8*time.Second {
			t.Fatalf("with a certificate for another name, after %v:\n%s", took, out)
		}
		// On a busy host the first handshakes may be given up before a certificate is looked at.
		refused := func(up string) ecs.Event {
			want := match{Action: "dns-upstream-failed", Reason: "verify", DstIP: up, DstPort: 853}
			for end := time.Now().Add(2 * limit); h.count(want) == 0 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if out, _ := digs("www.example.test"); !strings.Contains(out, "SERVFAIL") {
					t.Fatalf("with a certificate for another name:\n%s", out)
				}
			}
			return h.event(want)
		}
		e := refused("198.51.100.53")
		if !strings.Contains(e.Str(ecs.ErrorMessage), "certificate is valid for other.example, not dns.example") {
			t.Errorf("event %v", e)
		}
		e = refused("198.51.100.81")
		if !strings.Contains(e.Str(ecs.ErrorMessage), "signed by unknown authority") && !strings.Contains(e.Str(ecs.ErrorMessage), "not dns.example") {
			t.Errorf("event %v", e)
		}
		h.says("its certificate for dns.example is refused: x509: ")

		server.stop()
		server.run(t, h.hosts, certs[1])
		for end := time.Now().Add(40 * time.Second); ; {
			if out, _ := digs("www.example.test"); strings.Contains(out, "198.51.100.80") {
				break
			} else if time.Now().After(end) {
				t.Fatalf("the right certificate is not taken:\n%s", out)
			}
		}
		h.event(match{Action: "dns-query", Reason: "answered"})
		if out, err := h.curl("http://www.example.test/f", 12); err != nil || out != "the page" {
			t.Fatalf("by name: %v: %s", err, out)
		}
		if out, _ := digs("+tcp", "huge.test"); strings.Count(out, "\tIN\tA\t") != 400 {
			t.Errorf("an answer of 400 addresses:\n%s", out)
		}
		if out, took := digs("big.test"); strings.Count(out, "\tIN\tA\t") != 85 {
			t.Errorf("an answer of 85 addresses:\n%s", out)
		} else {
			t.Logf("85 addresses over an open connection: %v", took.Round(time.Millisecond))
		}
		server.stop() // the connection ends, and no new one comes about
		if out, took := digs("a.pages.test"); !strings.Contains(out, "SERVFAIL") || took > 8*time.Second {
			t.Fatalf("without a server, after %v:\n%s", took, out)
		}
		h.event(match{Action: "dns-upstream-failed", Reason: "closed", DstIP: "198.51.100.53", DstPort: 853})
		server.run(t, h.hosts, certs[1])
		for end := time.Now().Add(40 * time.Second); ; {
			if out, _ := digs("a.pages.test"); strings.Contains(out, "198.51.100.80") {
				break
			} else if time.Now().After(end) {
				t.Fatalf("it does not come back:\n%s", out)
			}
		}
		h.askAtOnce(t, 30)

		if after := clear(); after != before {
			t.Errorf("%s datagrams came to no port before, %s after: something was asked in the clear", before, after)
		}
	})
}

// askAtOnce asks n questions at once, which share a connection. Each is answered, or told
// as failed within the time that the firewall gives it; then it is asked again, since a
// busy host is slow, one after the other, and has its answer in the end. None is lost.
//
// Each has a source port of its own: dig sets SO_REUSEPORT, so that Linux may give two of
// 30 the same one (in 1 of 65 such sets), and then both answers to one of them.
func (h *dnsHosts) askAtOnce(t *testing.T, n int) {
	var all sync.WaitGroup
	var again sync.Mutex
	for i := range n {
		all.Go(func() {
			end := time.Now().Add(limit)
			for try := 0; ; try++ {
				if try == 1 {
					again.Lock()
					defer again.Unlock()
					end = time.Now().Add(limit) // its turn
				}
				out, err := h.in(bounded(t, limit), h.hosts.lan, "dig", "@10.0.0.1", "-b", fmt.Sprintf("10.0.0.2#%d", 20000+i),
					"+tries=1", "+timeout=15", fmt.Sprintf("n%d.example.test", i))
				if err == nil && strings.Contains(out, "NXDOMAIN") {
					return
				}
				if err != nil || !strings.Contains(out, "SERVFAIL") || time.Now().After(end) || t.Failed() {
					t.Errorf("query %d, asked %d times: %v: %s", i, try+1, err, out)
					return
				}
			}
		})
	}
	all.Wait()
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	for _, e := range h.events {
		// In the guest's time: 5 s, and what a busy host takes from it.
		if took := e.Duration(ecs.EventDuration); e.Str(ecs.EventAction) == "dns-query" && took > 8*time.Second {
			t.Errorf("a query was answered after %v: %v", took, e)
		}
	}
}

// says waits for a line of the console.
func (l *lab) says(text string) {
	l.t.Helper()
	late := time.After(limit)
	for {
		l.mu.Lock()
		for _, s := range l.lines {
			if strings.Contains(s, text) {
				l.mu.Unlock()
				return
			}
		}
		change := l.change
		l.mu.Unlock()
		select {
		case <-change:
		case <-late:
			l.t.Fatalf("the console does not say %q within %v", text, limit)
		}
	}
}

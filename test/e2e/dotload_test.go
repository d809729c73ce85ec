package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// TestDoTLoad measures DNS through the proxy to an upstream over TLS, beside one
// whose certificate is refused again and again, and how long packets had to wait
// for handshakes.
func TestDoTLoad(t *testing.T) {
	eachAlone(t, func(t *testing.T, kvm bool) {
		have(t, "dnsperf", "dnsperf")
		ca, certs := certificates(t, "dns.example")
		server := &tlsServer{}
		up := upstream{name: "unbound", program: "unbound", install: "unbound", dig: []string{"+tls"}, start: func(t *testing.T, h *hosts) { server.run(t, h, certs[0]) }}
		policy := strings.Replace(fmt.Sprintf(overTLS, ca), "dns_qps_per_client: 10000", "dns_qps_per_client: 1000000", 1)
		r := newReceiver(t)
		r.listen()
		h := newDNSHostsWith(t, kvm, policy, up, func(c *vmm.Config) {
			c.Append, c.Vsock = "thurward.events=none", vmm.Vsock{Path: r.path}
		})
		r.fresh() // what booting took is not meant
		r.mu.Lock()
		r.saw = func(series string, v float64) {
			if strings.HasPrefix(series, "thurward_packet_loop_gap_longest_seconds") && v > 1e-3 {
				t.Logf("  %s %.1f ms", series, v*1e3)
			}
		}
		r.mu.Unlock()
		began := time.Now()
		h.dig("www.example.test")
		t.Logf("the first answer, with the handshake: %v (dig's own start in it)", time.Since(began).Round(time.Millisecond))
		r.fresh()
		queries := filepath.Join(t.TempDir(), "queries")
		if err := os.WriteFile(queries, []byte("www.example.test A\nother.test A\na.pages.test A\nnothing.test A\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"-v"}, {"-v", "-Q", "2000"}} {
			load := h.dnsperf(h.hosts.lan, "10.0.0.1", queries, args...)
			t.Logf("%v: %v", args, load)
			if load.done < 0.95*load.sent {
				t.Errorf("%v: %v", args, load)
			}
		}
		m := r.fresh()
		for _, k := range []string{"thurward_dns_upstream_tls_total", "thurward_dns_upstream_tls_connections_total", "thurward_dns_upstream_tls_open", "thurward_dns_upstream_tls_unsent_total", "thurward_dns_upstream_retries_total"} {
			t.Logf("%s %d", k, m[k])
		}
		t.Logf("rejected: %d", m[`thurward_dns_answers_rejected_total{reason="mismatch"}`])
	})
}

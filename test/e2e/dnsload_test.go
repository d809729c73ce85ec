package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// A dnsLoad is what one run of dnsperf has measured.
type dnsLoad struct {
	sent, done, rate float64
	latency          []time.Duration // of each answer, in order
}

func (l *dnsLoad) String() string {
	s := fmt.Sprintf("%.0f of %.0f answered, %.0f a second", l.done, l.sent, l.rate)
	if n := len(l.latency); n > 0 {
		at := func(permille int) time.Duration {
			return l.latency[min(n*permille/1000, n-1)].Round(10 * time.Microsecond)
		}
		s += fmt.Sprintf("; p50 %v, p99 %v, p99.9 %v, worst %v", at(500), at(990), at(999), l.latency[n-1])
	}
	return s
}

// dnsperf loads a server from a namespace.
func (h *dnsHosts) dnsperf(ns, server, queries string, args ...string) *dnsLoad {
	t := h.lab.t
	t.Helper()
	args = append([]string{"dnsperf", "-s", server, "-d", queries, "-l", fmt.Sprint(dnsFor.Seconds()), "-c", "4", "-q", "64", "-t", "15"}, args...)
	out, err := h.in(bounded(t, time.Minute), ns, args...)
	if err != nil {
		t.Fatalf("%v: %v: %.2000s", args, err, out)
	}
	l := &dnsLoad{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		switch {
		case len(f) == 5 && f[0] == ">": // with -v: the response code, the question, seconds
			if s, err := strconv.ParseFloat(f[4], 64); err == nil {
				l.latency = append(l.latency, time.Duration(s*1e9))
			}
		case strings.Contains(line, "Queries sent:"):
			l.sent, _ = strconv.ParseFloat(f[2], 64)
		case strings.Contains(line, "Queries completed:"):
			l.done, _ = strconv.ParseFloat(f[2], 64)
		case strings.Contains(line, "Queries per second:"):
			l.rate, _ = strconv.ParseFloat(f[3], 64)
		}
	}
	slices.Sort(l.latency)
	if l.done < 20 || slices.Contains(args, "-v") && float64(len(l.latency)) < l.done {
		t.Fatalf("%v: %v, %d latencies: what does dnsperf say? %.2000s", args, l, len(l.latency), out)
	}
	return l
}

var dnsFor = flag.Duration("dnsload", 2*time.Second, "how long TestDNSLoad and TestDoTLoad ask; in whole seconds")

// TestDNSLoad: many queries at once are answered; the figures are in the log.
// With -dnsload two controls run beside: the same upstream without the image,
// which is what it and the load generator can do, and the same upstream through
// the image without its proxy, which adds the TAPs, the virtual machine and
// forwarding.
func TestDNSLoad(t *testing.T) {
	if _, err := exec.LookPath("dnsperf"); err != nil {
		t.Skip("dnsperf is not installed (apt-get install dnsperf)")
	}
	controls := false
	flag.Visit(func(f *flag.Flag) { controls = controls || f.Name == "dnsload" })
	eachAlone(t, func(t *testing.T, kvm bool) {
		policy := strings.Replace(fmt.Sprintf(names, 1_000_000), "rules:\n", "rules:\n"+
			"  - { id: allow-upstream, action: accept, direction: egress, source: 10.0.0.0/24, destination: 198.51.100.53, destination_port: 53, protocol: [udp, tcp] }\n", 1)
		// Events go by vsock to whoever reads them, as they do for users; the
		// console of the other tests is slow.
		r := newReceiver(t)
		r.listen()
		h := newDNSHostsWith(t, kvm, policy, dnsmasq, func(c *vmm.Config) {
			c.Append, c.Vsock = "thurward.events=none", vmm.Vsock{Path: r.path}
		})
		queries := filepath.Join(t.TempDir(), "queries")
		if err := os.WriteFile(queries, []byte("www.example.test A\nother.test A\na.pages.test A\nnothing.test A\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		h.dig("www.example.test") // neighbours are known
		for _, c := range []struct {
			name string
			args []string
		}{
			{"UDP, as fast as it goes", nil},
			{"TCP, as fast as it goes", []string{"-m", "tcp"}},
			{"UDP, 2000 a second", []string{"-Q", "2000"}},
			{"TCP, 2000 a second", []string{"-m", "tcp", "-Q", "2000"}},
		} {
			load, _ := os.ReadFile("/proc/loadavg")
			t.Logf("%s (load of the machine %s):", c.name, strings.Join(strings.Fields(string(load))[:3], " "))
			proxied := h.dnsperf(h.hosts.lan, "10.0.0.1", queries, append([]string{"-v"}, c.args...)...)
			t.Logf("  through the proxy:        %v", proxied)
			if proxied.done < 0.95*proxied.sent {
				t.Errorf("%s: %v", c.name, proxied)
			}
			if slices.Contains(c.args, "tcp") || !controls {
				continue // dnsmasq serves each connection with a process, and is no control
			}
			t.Logf("  through the image alone:  %v", h.dnsperf(h.hosts.lan, "198.51.100.53", queries, append([]string{"-v"}, c.args...)...))
			t.Logf("  without the image:        %v", h.dnsperf(h.hosts.wan, "198.51.100.53", queries, append([]string{"-v"}, c.args...)...))
		}
	})
}

package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

var iperfFor = flag.Duration("iperf", 0, "how long TestIperf measures each kind of traffic; 0: not at all")

// TestIperf measures TCP and UDP between two Linux hosts through the image,
// over TAP devices, and beside it the same hosts on one bridge without it. The
// figures are for people; what fails is a path that carries nothing.
func TestIperf(t *testing.T) {
	if *iperfFor == 0 {
		t.Skip("a measurement: go test ./test/e2e -run TestIperf -iperf=5s -v")
	}
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Skip("iperf3 is not installed (apt-get install iperf3)")
	}
	h := newHosts(t)
	server := exec.Command("ip", "netns", "exec", h.wan, "iperf3", "-s", "-p", "80")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill() //nolint:errcheck // it may have ended
		server.Wait()         //nolint:errcheck // killed
	}()

	eachAlone(t, func(t *testing.T, kvm bool) {
		l := newLab(t, kvm, func(c *vmm.Config) {
			c.Image = linked(t, func(p *ruleset.Policy) { p.Matches[0].Proto = 0 }) // UDP to the server's port too
			c.Append = "thurward.events=none"
			for i, s := range []vmm.Spec{{Kind: vmm.Tap, Arg: h.tap}, {Kind: vmm.Bridge, Arg: h.brW}} {
				b, err := vmm.NewBackend(s, vmm.Network{})
				if err != nil {
					t.Skip(err)
				}
				c.NICs[i].Backend = b
			}
		})
		l.awaitReady()
		h.measure(t, "through the image")
	})

	// The control: the LAN host reaches the server over one bridge.
	t.Run("bridge", func(t *testing.T) {
		veth := "thwx" + h.lan[4:]
		h.ip("link add " + veth + " type veth peer name eth1 netns " + h.lan)
		h.ip("link set " + veth + " master " + h.brW + " up")
		h.ip("-n " + h.lan + " addr add 203.0.113.9/24 dev eth1")
		h.ip("-n " + h.lan + " link set eth1 up")
		h.measure(t, "without it")
	})
}

// measure runs iperf3 in all its kinds and prints what it carried.
func (h *hosts) measure(t *testing.T, where string) {
	t.Helper()
	for _, k := range []struct {
		name string
		args string
	}{{"TCP, one stream", ""}, {"TCP, 8 streams", "-P 8"}, {"TCP, from the server", "-R"}, {"UDP, 1400 bytes", "-u -b 0 -l 1400"}, {"UDP, 64 bytes", "-u -b 0 -l 18"}} {
		ctx, cancel := context.WithTimeout(t.Context(), *iperfFor+20*time.Second)
		args := append([]string{"iperf3", "-c", "203.0.113.1", "-p", "80", "-J", "-t", fmt.Sprint(iperfFor.Seconds())}, strings.Fields(k.args)...)
		out, err := h.in(ctx, h.lan, args...)
		cancel()
		if err != nil {
			t.Errorf("%s: %v: %s", k.name, err, out)
			continue
		}
		var r struct {
			Error string
			End   struct {
				Received struct {
					Bits float64 `json:"bits_per_second"`
				} `json:"sum_received"`
				Sum struct {
					Bits    float64 `json:"bits_per_second"`
					Packets float64
					Seconds float64
					Lost    float64 `json:"lost_packets"`
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Errorf("%s: %v", k.name, err)
			continue
		}
		if r.Error != "" {
			t.Errorf("%s: %s", k.name, r.Error)
			continue
		}
		if r.End.Sum.Packets > 0 {
			got := (r.End.Sum.Packets - r.End.Sum.Lost) / r.End.Sum.Seconds
			if got <= 0 {
				t.Errorf("%s: nothing arrived", k.name)
			}
			t.Logf("%-22s %s: %.0f of %.0f packets/s arrived", k.name, where, got, r.End.Sum.Packets/r.End.Sum.Seconds)
			continue
		}
		if r.End.Received.Bits <= 0 {
			t.Errorf("%s: nothing arrived", k.name)
		}
		t.Logf("%-22s %s: %.2f Gbit/s", k.name, where, r.End.Received.Bits/1e9)
	}
}

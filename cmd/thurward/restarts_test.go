package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// TestRestartsAreCounted: each restart is reported by a line and counted by its reason, and all reasons
// are there from the start.
func TestRestartsAreCounted(t *testing.T) {
	var out bytes.Buffer
	l := &launch{errOut: &out}
	told := l.options().Told
	for range 2 {
		told(vmm.End{Reason: vmm.ReasonHang, Text: "the firewall hangs; starting it again in 2s"})
	}
	if n := strings.Count(out.String(), "thurward: the firewall hangs; starting it again in 2s\n"); n != 2 {
		t.Errorf("%d lines in %q", n, out.String())
	}
	var b strings.Builder
	l.restarts.WriteMetrics(&b)
	for _, want := range []string{"# TYPE thurward_launcher_restarts_total counter\n", "thurward_launcher_restarts_total{reason=\"hang\"} 2\n", "{reason=\"crash\"} 0\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "{reason="); n != len(vmm.Reasons) {
		t.Errorf("%d reasons", n)
	}
}

// TestRestartsAreExposed: the metric is on the page's /metrics, before a firewall has connected.
func TestRestartsAreExposed(t *testing.T) {
	dir := t.TempDir()
	var r restarts
	r.add(vmm.ReasonReset)
	st := &dashboard.Receiver{Guest: "unix:" + filepath.Join(dir, "v_9000"), Page: "unix:" + filepath.Join(dir, "page"), More: r.WriteMetrics}
	guesttest.Receive(t, st)
	c := guesttest.OverUnix(filepath.Join(dir, "page"))
	res, err := c.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(b), "thurward_launcher_restarts_total{reason=\"reset\"} 1\n") {
		t.Errorf("%v\n%s", err, b)
	}
}

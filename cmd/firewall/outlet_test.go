package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/thurward/thurward/internal/telemetry"
	"github.com/thurward/thurward/internal/virtio"
)

// TestMetricsAreListed: users find every metric of the devices in the
// documentation.
func TestMetricsAreListed(t *testing.T) {
	doc, err := os.ReadFile("../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	fs := append(vsockMetrics(&virtio.Vsock{}), (&ports{}).metrics()...)
	fs = append(fs, (&gaps{}).metrics()...)
	fs = append(fs, uptime(), telemetry.Const("thurward_build_info", "x", ""), telemetry.Const("thurward_clock_info", "x", ""))
	for _, f := range fs {
		if !bytes.Contains(doc, []byte("`"+f.Name+"`")) || f.Help == "" {
			t.Errorf("docs/telemetry.md does not list %s", f.Name)
		}
	}
}

package main

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/event"
)

// TestTelemetryMemory: what telemetry takes is what SPECIFICATION.md and
// docs/telemetry.md say.
func TestTelemetryMemory(t *testing.T) {
	n := event.RingBytes(ringSize) + export.StreamBytes + virtio.VsockBytes
	t.Logf("%d bytes", n)
	if n < 2_350_000 || n > 2_450_000 {
		t.Errorf("telemetry takes %d bytes, documents say 2.4 MB", n)
	}
	if event.RecordSize != 160 {
		t.Errorf("a record has %d bytes, documents say 160", event.RecordSize)
	}
}

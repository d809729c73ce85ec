package main

import (
	"bytes"
	"math"
	"os"
	"testing"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/host/ingest"
)

// TestMetricsAreListed: users find every metric of the devices in the
// documentation.
func TestMetricsAreListed(t *testing.T) {
	doc, err := os.ReadFile("../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	fs := append(vsockMetrics(&virtio.Vsock{}), (&ports{}).metrics()...)
	fs = append(fs, (&worker{e: &router.Engine{}, nics: &pair{}}).own(2)...)
	fs = append(fs, (&team{}).count(), uptime(), starved(), processors(true), processors(false), export.Const("thurward_build_info", "x", ""), export.Const("thurward_clock_info", "x", ""))
	for _, f := range fs {
		if !bytes.Contains(doc, []byte("`"+f.Name+"`")) || f.Help == "" {
			t.Errorf("docs/telemetry.md does not list %s", f.Name)
		}
		known(t, f)
	}
}

// known checks that readers of the stream keep a metric: they know its name,
// its type and its labels.
func known(t *testing.T, f export.Family) {
	t.Helper()
	m := ingest.NamedMetric(f.Name)
	if m == nil || string(m.Type) != f.Type.String() {
		t.Errorf("readers do not know %s, a %v: add it to internal/host/ingest/schema.go", f.Name, f.Type)
		return
	}
	if f.Type == export.Histogram || f.Name == "thurward_build_info" || f.Name == "thurward_clock_info" {
		return
	}
	line := "# METRIC " + f.Name
	if f.Labels != nil {
		line += "{" + string(f.Labels(nil, 0)) + "}"
	}
	if it := ingest.Parse(line + " 1"); it.Kind != ingest.SampleKind {
		t.Errorf("readers do not take %s: %v", line, it.Err)
	}
}

// TestNextStep: a device that has missed a notification is looked at, whatever the stream waits for.
func TestNextStep(t *testing.T) {
	o := &outlet{stream: export.NewStream(export.StreamConfig{}), look: 5e9}
	if n := o.nextStep(); n != math.MaxInt64 {
		t.Errorf("without a device a step is due at %d", n)
	}
	o.vsock = &virtio.Vsock{}
	if n := o.nextStep(); n != o.look {
		t.Errorf("the next step is due at %d, the device is looked at at %d", n, o.look)
	}
}

// TestAtOnce: while there are packets, what is to be sent waits for a turn with lines, without
// steps that do nothing; events are taken out of the ring, which fills; and a snapshot that is
// wanted is the packet loop's to take.
func TestAtOnce(t *testing.T) {
	for _, x := range []struct{ more, wanted, lines, events, want bool }{
		{more: true, want: false},
		{more: true, lines: true, want: true},
		{more: true, events: true, want: true},
		{more: true, wanted: true, lines: true, events: true, want: false},
		{lines: true, want: false},
		{events: true, want: false},
	} {
		if got := atOnce(x.more, x.wanted, x.lines, x.events); got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}

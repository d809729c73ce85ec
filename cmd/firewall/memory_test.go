package main

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
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

// TestFits: buffers are as long as policy and devices want and memory holds; what only a device
// wants is left out where memory does not hold it, what the policy wants refused.
func TestFits(t *testing.T) {
	p := func(mtu uint16) *ruleset.Policy {
		return &ruleset.Policy{Interfaces: []ruleset.Interface{{Role: ruleset.LAN, MTU: mtu}, {Role: ruleset.WAN}}, Settings: ruleset.Settings{MaxFlows: 4096}}
	}
	usual := memoryNeeded(p(0), 1500, 1)
	jumbo := memoryNeeded(p(0), 9000, 1)
	if d := jumbo - usual; d != 1536*5*1984-2048*1984 {
		t.Errorf("long buffers take %d bytes more", d)
	}
	for _, c := range []struct {
		policy   uint16
		lan, wan int
		free     uint64
		mtu      int
		err      string
	}{
		{0, 0, 0, usual, 1500, ""},
		{0, 0, 0, usual - 1, 0, "4096 flows and its buffers for packets of 1500 bytes"},
		{0, 9000, 0, jumbo, 9000, ""},
		{0, 0, 9000, jumbo, 9000, ""},
		{0, 9000, 0, jumbo - 1, 1500, ""},
		{0, 9000, 9000, usual, 1500, ""},
		{0, 9000, 0, usual - 1, 0, "lower defaults.max_flows)"},
		{9000, 0, 0, jumbo, 9000, ""},
		{9000, 0, 0, jumbo - 1, 0, "lower defaults.max_flows or the interfaces' mtu)"},
		{9000, 1500, 1500, usual, 1500, ""},
	} {
		mtu, err := fits(p(c.policy), c.lan, c.wan, c.free)
		if c.err == "" && (err != nil || mtu != c.mtu) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%+v: %d, %v", c, mtu, err)
		}
	}
}

// TestNarrow: what an operator may expect and does not get is said.
func TestNarrow(t *testing.T) {
	for _, c := range []struct {
		said, device, room int
		want               string
	}{
		{0, 0, 1958, ""}, {0, 1500, 1958, ""}, {0, 1958, 1958, ""}, {0, 9000, 9894, ""}, {0, 9216, 9894, ""},
		{0, 9000, 1958, "packets of 9000 bytes, the firewall 1958"}, {0, 9300, 9894, "packets of 9300 bytes, the firewall 9216"},
		{1500, 9000, 1958, ""}, {9000, 0, 9894, ""}, {9000, 9000, 9894, ""},
		{9000, 1500, 1958, "its mtu is 9000, and its network carries packets of 1500 bytes"},
	} {
		if got := narrow(c.said, c.device, c.room); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

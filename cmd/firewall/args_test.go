package main

import (
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	a, err := parseArgs("reboot=k thurward.lan=02:00:00:00:00:0A virtio_mmio.device=4K@0xc0001000:5 thurward.wan=02:00:00:00:00:02 thurward.events=console thurward.probe=1")
	if err != nil || !a.hasLAN || a.lan != [6]byte{2, 0, 0, 0, 0, 10} || a.wan[5] != 2 || !a.events || !a.probe {
		t.Fatalf("%+v, %v", a, err)
	}
	if a, err := parseArgs("thurward.events=console thurward.events=none"); err != nil || a.events {
		t.Fatalf("a later argument does not win: %+v, %v", a, err)
	}
	if a, err := parseArgs("thurward.vsock_port=4294967294"); err != nil || a.vsockPort != 1<<32-2 {
		t.Fatalf("%+v, %v", a, err)
	}
	if a, err := parseArgs("thurward.workers=auto thurward.workers=4"); err != nil || a.workers != 4 {
		t.Fatalf("%+v, %v", a, err)
	}
	if a, err := parseArgs("thurward.workers=4 thurward.workers=auto"); err != nil || a.workers != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	if a, err := parseArgs(""); err != nil || a.vsockPort != telemetryPort {
		t.Fatalf("%+v, %v", a, err)
	}
	for arg, want := range map[string]string{
		"thurward.vsock_port=0":          "not a vsock port",
		"thurward.vsock_port=":           "not a vsock port",
		"thurward.vsock_port=4294967295": "not a vsock port",
		"thurward.vsock_port=4294967296": "not a vsock port",
		"thurward.lan=1:2:3":             "not a hardware address",
		"thurward.lan=01:00:5e:00:00:01": "not a hardware address", // a group
		"thurward.wan=00:00:00:00:00:00": "not a hardware address",
		"thurward.wan=02:00:00:00:00:0g": "not a hardware address",
		"thurward.events=vsock":          "want console or none",
		"thurward.workers=3":             "want auto, 1, 2, 4 or 8",
		"thurward.workers=":              "want auto, 1, 2, 4 or 8",
		"thurward.rules=off":             "unknown",
	} {
		if _, err := parseArgs(arg); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), arg) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add("thurward.lan=02:00:00:00:00:01")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseArgs(s)
		if err == nil && a.hasLAN {
			if m, ok := parseMAC(formatMAC(a.lan)); !ok || m != a.lan {
				t.Fatalf("%x does not survive", a.lan)
			}
		}
	})
}

package vmm

import (
	"strings"
	"testing"
)

func TestParseSpec(t *testing.T) {
	for in, want := range map[string]Spec{
		"demo":              {Kind: Demo},
		"user":              {Kind: User},
		"tap:tap-lan":       {Tap, "tap-lan"},
		"bridge:br0":        {Bridge, "br0"},
		"unix:/run/a:b":     {Unix, "/run/a:b"},
		"vhost-user:v.sock": {VhostUser, "v.sock"},
	} {
		got, err := ParseSpec(in)
		if err != nil || got != want || got.String() != in {
			t.Errorf("%s: %+v (%v), %v", in, got, got, err)
		}
	}
	for in, want := range map[string]string{
		"":                                 "not a kind of network (want demo, user, tap:NAME",
		"Demo":                             "not a kind",
		"demo:x":                           "takes no argument",
		"user:":                            "takes no argument",
		"tap":                              "needs an argument",
		"tap:":                             "needs an argument",
		"tap:a,script=/bin/sh":             "not an interface name",
		"bridge:../x":                      "not an interface name",
		"tap:sixteen-letters-":             "not an interface name",
		"unix:" + strings.Repeat("x", 108): "at most 107",
	} {
		if got, err := ParseSpec(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	v, err := parseVersion("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright")
	if err != nil || v != (Version{7, 2}) {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := parseVersion("QEMU"); err == nil {
		t.Error("no error for a version that is not there")
	}
	if !v.AtLeast(7, 2) || !v.AtLeast(6, 9) || v.AtLeast(7, 3) || v.AtLeast(8, 0) {
		t.Error("AtLeast")
	}
}

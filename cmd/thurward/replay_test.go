package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	exampleLAN = "../../internal/host/replay/testdata/lan.pcap"
	exampleWAN = "../../internal/host/replay/testdata/wan.pcap"
)

// TestReplayCommand: the command's output, files and exit codes.
func TestReplayCommand(t *testing.T) {
	dir := t.TempDir()
	l, w, ev := filepath.Join(dir, "l"), filepath.Join(dir, "w"), filepath.Join(dir, "e")
	args := []string{"replay", "--policy", "../../rules.yaml", "--lan", exampleLAN, "--wan", exampleWAN}
	code, out, errs := capture(t, append(args, "--out-lan", l, "--out-wan", w, "--events", ev)...)
	if code != 0 || errs != "" || !strings.Contains(out, "allow-dns                accepted 2") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	for _, f := range []string{l, w} {
		if st, err := os.Stat(f); err != nil || st.Size() <= 24 {
			t.Errorf("%s: %v: no frames", f, err)
		}
	}
	events, err := os.ReadFile(ev)
	if err != nil || bytes.Count(events, []byte("\n")) != 3 {
		t.Errorf("%v: %s", err, events)
	}
	code, out, errs = capture(t, append(args, "--events", "-")...)
	if code != 0 || out != string(events) || !strings.Contains(errs, "drops by reason") {
		t.Errorf("--events -: exit %d\n%s%s", code, out, errs)
	}
	mine, linked := filepath.Join(dir, "mine.pcap"), filepath.Join(dir, "linked")
	whole, err := os.ReadFile(exampleLAN)
	if err == nil {
		err = os.WriteFile(mine, whole, 0o600)
	}
	if err == nil {
		err = os.Symlink(mine, linked)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--lan", exampleLAN, "--policy", "/nowhere"}, 1, "name the policy with --policy"},
		{[]string{"--lan", exampleLAN, "--policy", write(t, "rules.yaml", bad)}, 1, "nothing was replayed"},
		{[]string{"--lan", "/nowhere/x.pcap"}, 1, "/nowhere/x.pcap"},
		{[]string{"--lan", "replay.go"}, 1, "want pcap or pcapng"},
		{nil, 2, "want --lan FILE"},
		{[]string{"--lan", exampleLAN, "--lan-mac", "01:00:5e:00:00:01"}, 2, "not the address of a host"},
		{[]string{"--lan", exampleLAN, "--neighbours", "some"}, 2, "want all or seen"},
		{[]string{"--lan", exampleLAN, "--drain", "-1s"}, 2, "want 0 to 744h"},
		{[]string{"--lan", exampleLAN, "--max-bytes", "0"}, 2, "at least 1"},
		{[]string{"--lan", mine, "--out-lan", filepath.Join(dir, ".", "mine.pcap")}, 2, "--out-lan and --lan are the same file"},
		{[]string{"--lan", mine, "--events", linked}, 2, "--events and --lan are the same file"},
		{[]string{"--lan", mine, "--out-lan", filepath.Join(dir, "new"), "--out-wan", filepath.Join(dir, "new")}, 2, "--out-wan and --out-lan are the same file"},
		{[]string{"--lan", mine, "--out-lan", os.DevNull, "--out-wan", os.DevNull}, 0, ""},
	} {
		code, _, errs := capture(t, append([]string{"replay", "--policy", "../../rules.yaml"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit %d, %s; want %d, %q", c.args, code, errs, c.code, c.want)
		}
	}
	if b, err := os.ReadFile(mine); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("a capture that was read is now of %d bytes (%v)", len(b), err)
	}
}

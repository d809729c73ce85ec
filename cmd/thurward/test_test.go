package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const tested = `interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny }
rules:
  - { id: web, action: accept, direction: egress, destination_port: 443, protocol: tcp }
  - { id: back, action: accept, direction: ingress, state: established }
tests:
  - { name: "web", from: lan, proto: tcp, src: 10.0.0.2, dst: "198.51.100.80:443", expect: accept }
`

const failing = tested + `  - { name: "mail", from: lan, proto: tcp, src: 10.0.0.2, dst: "198.51.100.80:25", expect: accept }
`

// TestBuildRefusesFailingTests: no image is made of a policy that does not do
// what its tests say, and the failure says what it does instead and why.
func TestBuildRefusesFailingTests(t *testing.T) {
	file := write(t, "rules.yaml", failing)
	image := filepath.Join(t.TempDir(), "x.img")
	part := write(t, "part", "no program: the tests fail before it is looked at")
	code, out, errs := capture(t, "build", "-f", file, "-o", image, "--program", part, "--kernel", part)
	for _, want := range []string{file + ":10:7: tests[1]: test \"mail\" fails", "want accept, but no rule matches, and the default action denies it", `rule "web" (line 6) does not match: destination_port is 443, the packet has 25`, "1 of the policy's 2 tests failed; no image was made"} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in\n%s", want, errs)
		}
	}
	if code != 1 || out != "" {
		t.Errorf("exit %d, %s", code, out)
	}
	if _, err := os.Stat(image); err == nil {
		t.Error("an image was made")
	}
	// With the tests met, the parts are what is wrong.
	code, _, errs = capture(t, "build", "-f", write(t, "rules.yaml", tested), "-o", image, "--program", part, "--kernel", part)
	if code != 1 || strings.Contains(errs, "test") && strings.Contains(errs, "fail") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestTestCommand(t *testing.T) {
	good, bad := write(t, "rules.yaml", tested), write(t, "rules.yaml", failing)
	for _, c := range []struct {
		args   []string
		code   int
		stdout string
	}{
		{[]string{"-f", good}, 0, "ok: 1 test"},
		{[]string{"-f", good, "-v"}, 0, `:9:7: ok: web: rule "web" (line 6) accepts it`},
		{[]string{"-f", bad}, 1, "1 of 2 tests failed"},
		{[]string{"-f", write(t, "rules.yaml", strings.Split(tested, "tests:")[0])}, 0, "no tests"},
		{[]string{"-f", bad, "--format", "sarif"}, 1, `"ruleId": "test-failed"`},
		{[]string{"-f", bad, "--format", "xml"}, 2, ""},
		{[]string{"-f", write(t, "rules.yaml", "rules: []\n")}, 1, ""},
		{[]string{"now"}, 2, ""},
	} {
		code, out, errs := capture(t, append([]string{"test"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.stdout) || code == 2 && errs == "" {
			t.Errorf("%v: exit %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
	}
	_, out, _ := capture(t, "test", "-f", bad, "--format", "json")
	var ds []struct{ Code, Message, Path string }
	if err := json.Unmarshal([]byte(out), &ds); err != nil || len(ds) != 1 || ds[0].Path != "tests[1]" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCheckPrintsTheCost: a flow takes what the table says, a pool what its
// ports do.
func TestCheckPrintsTheCost(t *testing.T) {
	_, out, _ := capture(t, "check", "-f", "../../rules.yaml")
	for _, want := range []string{"ok: 4 rules", "5 combinations of conditions", "MB for 65536 flows", "for the external ports", "5, which thurward test runs"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// capture runs the command line and returns its exit code and output.
func capture(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	read := func(f **os.File) func() string {
		old := *f
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		*f = w
		ch := make(chan string)
		go func() { b, _ := io.ReadAll(r); ch <- string(b) }()
		return func() string { w.Close(); *f = old; return <-ch }
	}
	out, errs := read(&os.Stdout), read(&os.Stderr)
	code = run(args)
	return code, out(), errs()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

const bad = "interfaces: {}\ndefaults: { default_action: deny }\nrules:\n  - { id: a, action: alow }\n"

func TestExitCodes(t *testing.T) {
	invalid := write(t, "rules.yaml", bad)
	overTLS := write(t, "rules.yaml", "interfaces:\n  lan0: { address: 10.0.0.1/24 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\n"+
		"defaults: { default_action: deny }\ndns: { upstreams: [ { address: 1.1.1.1, tls: one.one.one.one } ] }\nrules: []\n")
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"check", "-f", "../../rules.yaml"}, 0, "ok: 4 rules", ""},
		{[]string{"check", "-f", invalid}, 1, `rules[0].action: unknown value "alow"`, ""},
		{[]string{"check", "-f", "/nowhere/rules.yaml"}, 1, "", "name the policy with -f"},
		{[]string{"check", "--format", "xml", "-f", invalid}, 2, "", "want text, json or sarif"},
		{[]string{"check", "--colour"}, 2, "", "unknown flag"},
		{[]string{"check", "rules.yaml"}, 2, "", "unexpected argument"},
		{[]string{"chekc"}, 2, "", "unknown command"},
		{[]string{"build", "-f", invalid, "-o", "/nowhere/x"}, 1, "", "no image was made"},
		{[]string{"build", "-f", "../../rules.yaml", "--program", "/nowhere/p"}, 1, "", "make build makes it"},
		{[]string{"build", "-f", "../../rules.yaml", "--which-program"}, 0, "firewall.elf\n", ""},
		{[]string{"build", "-f", overTLS, "--which-program"}, 0, "firewall-dot.elf\n", ""},
		{[]string{"build", "-f", overTLS, "--program", "/nowhere/firewall-dot.elf"}, 1, "", "make build makes it"},
		{[]string{"--help"}, 0, "thurward check", ""},
		{[]string{"build", "--help"}, 0, "byte for byte", ""},
		{[]string{"--version"}, 0, "thurward version", ""},
	} {
		code, out, errs := capture(t, c.args...)
		if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(errs, c.stderr) {
			t.Errorf("%v: exit %d, want %d\nstdout: %s\nstderr: %s", c.args, code, c.code, out, errs)
		}
		if strings.Contains(out+errs, "\x1b[") {
			t.Errorf("%v: colour without a terminal", c.args)
		}
	}
}

func TestCheckFormats(t *testing.T) {
	invalid := write(t, "rules.yaml", bad)
	_, out, _ := capture(t, "check", "-f", invalid, "--format", "json")
	var ds []struct{ File, Path, Message, Code, Severity string }
	if err := json.Unmarshal([]byte(out), &ds); err != nil || len(ds) < 3 || ds[len(ds)-1].Path != "rules[0].action" {
		t.Errorf("%v: %s", err, out)
	}
	_, out, _ = capture(t, "check", "-f", "../../rules.yaml", "--format", "json")
	if strings.TrimSpace(out) != "[]" {
		t.Errorf("a valid policy gives %s", out)
	}
	_, out, _ = capture(t, "check", "-f", invalid, "--format", "sarif")
	var s struct {
		Version string
		Runs    []struct {
			Results []struct {
				RuleID    string `json:"ruleId"`
				Locations []struct {
					PhysicalLocation struct{ Region struct{ StartLine int } }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Version != "2.1.0" || len(s.Runs) != 1 || len(s.Runs[0].Results) != len(ds) || s.Runs[0].Results[0].Locations[0].PhysicalLocation.Region.StartLine != 1 {
		t.Errorf("%v: %s", err, out)
	}
}

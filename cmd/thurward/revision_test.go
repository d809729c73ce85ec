package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inRepository changes to a new git repository with two commits of site/rules.yaml, of
// which the second, and the file at hand, accept more.
func inRepository(t *testing.T) (more string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	more = strings.Replace(office, "[example.com, ", "[example.com, www.example.org, ", 1)
	if more == office {
		t.Fatal("the policy is the same")
	}
	put := func(text string) {
		t.Helper()
		if err := os.MkdirAll("site", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("site", "rules.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run("init", "-q", "-b", "main")
	put(office)
	run("add", ".")
	run("commit", "-q", "-m", "One")
	put(more)
	run("commit", "-q", "-a", "-m", "Two")
	return more
}

// TestDiffOfRevisions: policies of commits are compared with files and with each other;
// what git is asked for cannot be an option, or lie elsewhere.
func TestDiffOfRevisions(t *testing.T) {
	inRepository(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"HEAD", "-f", "site/rules.yaml"}, 0, "HEAD:site/rules.yaml and site/rules.yaml do the same"},
		{[]string{"HEAD~1", "-f", "site/rules.yaml"}, 4, "More permissive:\n\ndeny by default-deny -> accept by by-name (site/rules.yaml:"},
		{[]string{"HEAD~1:site/rules.yaml", "main:site/rules.yaml"}, 4, "-> accept by by-name (main:site/rules.yaml:"},
		{[]string{"main:site/rules.yaml", "HEAD~1:site/rules.yaml"}, 3, "Less permissive:"},
		{[]string{"HEAD:rules.yaml", "site/rules.yaml"}, 1, "is neither a file nor, in git, a policy of a commit"},
		{[]string{"nowhere", "site/rules.yaml"}, 1, `there is no commit "nowhere"`},
		{[]string{"--", "--help:site/rules.yaml", "site/rules.yaml"}, 1, `there is no commit "--help"`},
		{[]string{"--", "--output=x:site/rules.yaml", "site/rules.yaml"}, 1, "there is no commit"},
		{[]string{"HEAD:/etc/passwd", "site/rules.yaml"}, 1, "not relative"},
		{[]string{"HEAD:../../etc/passwd", "site/rules.yaml"}, 1, "neither a file nor"},
		{[]string{"HEAD:site", "site/rules.yaml"}, 1, "neither a file nor"},
		{[]string{":x", "site/rules.yaml"}, 1, "want REV or REV:FILE"},
		{[]string{"HEAD~1", "-f", "site/rules.yaml", "--format", "markdown"}, 4, "### More permissive"},
		{[]string{"HEAD~1", "-f", "site/rules.yaml", "--format", "sarif"}, 4, `"ruleId": "diff-opens"`},
	} {
		code, out, errs := capture(t, append([]string{"diff"}, c.args...)...)
		if code != c.code || !strings.Contains(out+errs, c.want) {
			t.Errorf("%v: exit %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, out, errs)
		}
	}
	if _, err := os.Stat("x"); err == nil {
		t.Error("git was given an option")
	}
}

// TestPolicyReview runs what the action for reviews runs.
func TestPolicyReview(t *testing.T) {
	script, err := filepath.Abs("../../scripts/policy-review.sh")
	if err != nil {
		t.Fatal(err)
	}
	more := inRepository(t)
	path := asProgram(t)
	review := func(opens string, args ...string) (int, string) {
		t.Helper()
		c := exec.Command(script, args...)
		c.Env = append(os.Environ(), "PATH="+path, "OPENS="+opens)
		out, _ := c.CombinedOutput()
		md, _ := os.ReadFile("policy-review/review.markdown")
		return c.ProcessState.ExitCode(), string(out) + string(md)
	}
	failing := more + "never:\n  - { name: \"nothing\", from: lan }\n"
	if err := os.WriteFile("failing.yaml", []byte(failing), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("bad.yaml", []byte("interfaces: {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const reach = "<details><summary>Who may reach what</summary>\n\n### From the LAN\n\n|"
	for _, c := range []struct {
		opens string
		args  []string
		code  int
		want  string
	}{
		{"report", []string{"HEAD~1", "site/rules.yaml"}, 0, "### More permissive"},
		{"fail", []string{"HEAD~1", "site/rules.yaml"}, 4, "### More permissive"},
		{"fail", []string{"HEAD", "site/rules.yaml"}, 0, "**No difference in traffic**"},
		{"fail", []string{"", "site/rules.yaml"}, 0, "## site_rules.yaml"},
		{"fail", []string{"", "site/rules.yaml"}, 0, reach},
		{"fail", []string{"HEAD", "site/rules.yaml"}, 0, reach},
		{"fail", []string{"HEAD", "failing.yaml"}, 1, reach},
		{"fail", []string{"HEAD", "failing.yaml", "site/rules.yaml"}, 1, "Tests of the policy **fail**"},
		{"fail", []string{"HEAD", "bad.yaml", "site/rules.yaml"}, 1, "The policy is **not valid**"},
		{"fail", []string{"HEAD", "failing.yaml"}, 1, "The policy is new"},
		{"perhaps", []string{"HEAD", "site/rules.yaml"}, 2, "want report or fail"},
		{"report", []string{"HEAD"}, 2, "usage:"},
	} {
		if code, out := review(c.opens, c.args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s %q: exit %d, want %d with %q\n%s", c.opens, c.args, code, c.code, c.want, out)
		}
	}
	for _, f := range []string{"site_rules.yaml.sarif", "site_rules.yaml.junit.xml", "site_rules.yaml.svg"} {
		if b, err := os.ReadFile(filepath.Join("policy-review", f)); err != nil || len(b) < 100 {
			t.Errorf("%s: %d bytes, %v", f, len(b), err)
		}
	}
}

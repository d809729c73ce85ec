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
		{[]string{"HEAD:/etc/passwd", "site/rules.yaml"}, 1, "/etc/passwd in "},
		{[]string{"HEAD:../../etc/passwd", "site/rules.yaml"}, 1, "neither a file nor"},
		{[]string{"HEAD:site", "site/rules.yaml"}, 1, "neither a file nor"},
		{[]string{":x", "site/rules.yaml"}, 1, "want REV or REV:FILE"},
		{[]string{"HEAD:site/rules.yaml"}, 0, "HEAD:site/rules.yaml and site/rules.yaml do the same"},
		{[]string{"HEAD~1:site/rules.yaml"}, 4, "HEAD~1:site/rules.yaml"},
		{[]string{"HEAD", "-f", filepath.Join(mustGetwd(t), "site/rules.yaml")}, 0, "do the same"},
		{[]string{"-", "-"}, 2, "cannot be standard input"},
		{[]string{"HEAD:nowhere.yaml", "site/rules.yaml"}, 1, "there is no nowhere.yaml in "},
		{[]string{"HEAD:site", "site/rules.yaml"}, 1, "site is no file in "},
		{[]string{"a...b:site/rules.yaml"}, 1, `there is no commit "a"`},
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

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// gitDo runs git as inRepository does.
func gitDo(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// TestDiffOfHistories: a branch is compared with where it left main, also with a detached head;
// a policy that was renamed with what it was; one that was not valid is said to be so; a
// repository without a working tree has policies, too, and a clone that lacks commits is said to.
func TestDiffOfHistories(t *testing.T) {
	more := inRepository(t)
	top := mustGetwd(t)
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(code int, want string, args ...string) {
		t.Helper()
		got, out, errs := capture(t, append([]string{"diff"}, args...)...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Errorf("%v: exit %d, want %d with %q\n%s%s", args, got, code, want, out, errs)
		}
	}
	// The branch changes nothing; main, meanwhile, accepts more.
	gitDo(t, "checkout", "-q", "-b", "change", "HEAD~1")
	gitDo(t, "commit", "-q", "--allow-empty", "-m", "Three")
	expect(3, "Less permissive", "main", "-f", "site/rules.yaml")
	expect(0, "do the same", "main...", "-f", "site/rules.yaml")
	expect(0, "do the same", "main...:site/rules.yaml")
	put("site/rules.yaml", more)
	expect(4, "More permissive", "main...:site/rules.yaml")
	expect(0, "do the same", "main:site/rules.yaml")
	gitDo(t, "commit", "-q", "-a", "-m", "Four")
	gitDo(t, "checkout", "-q", "--detach")
	expect(4, "More permissive", "main...:site/rules.yaml")
	expect(4, "More permissive", "HEAD~1...HEAD:site/rules.yaml")
	gitDo(t, "checkout", "-q", "--orphan", "other")
	gitDo(t, "commit", "-q", "-m", "Five")
	expect(1, "main... have no merge base", "main...:site/rules.yaml")
	gitDo(t, "checkout", "-q", "change")

	// Renamed, to another folder.
	gitDo(t, "mv", "site/rules.yaml", "edge.yaml")
	gitDo(t, "commit", "-q", "-m", "Six")
	expect(0, "change~1:site/rules.yaml and edge.yaml do the same", "change~1", "-f", "edge.yaml")
	expect(4, "HEAD~2:site/rules.yaml", "HEAD~2", "-f", "edge.yaml", "--format", "markdown")
	expect(1, "it was site/rules.yaml there: change~1:site/rules.yaml", "change~1:edge.yaml")
	if err := os.MkdirAll("site", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir("site")
	expect(0, "change~1:rules.yaml and ../edge.yaml do the same", "change~1", "-f", "../edge.yaml")
	expect(1, "there is no edge.yaml in ", "HEAD:edge.yaml", "../edge.yaml")
	t.Chdir(top)

	put("broken.yaml", "rules: [\n")
	gitDo(t, "add", "broken.yaml")
	gitDo(t, "commit", "-q", "-m", "Seven")
	put("broken.yaml", more)
	expect(1, "HEAD:broken.yaml:2:1: not valid YAML", "HEAD:broken.yaml")
	expect(1, "HEAD:broken.yaml is not valid", "HEAD:broken.yaml")

	bare, shallow := t.TempDir(), t.TempDir()
	gitDo(t, "clone", "-q", "--bare", top, bare)
	gitDo(t, "clone", "-q", "--depth", "1", "file://"+top, shallow)
	t.Chdir(bare)
	expect(4, "More permissive", "main~1:site/rules.yaml", "main:site/rules.yaml")
	expect(0, "do the same", "main:site/rules.yaml", "change:edge.yaml")
	t.Chdir(shallow)
	expect(1, "the clone is shallow", "origin/main:site/rules.yaml", "edge.yaml")
	t.Chdir(t.TempDir())
	put("edge.yaml", more)
	expect(1, "this folder is in no git repository", "HEAD:edge.yaml")
}

// TestReviewNeedsHistory: what cannot be compared is not passed as if nothing had changed, and
// a policy that was not valid can be repaired; what was renamed is no new policy.
func TestReviewNeedsHistory(t *testing.T) {
	script, err := filepath.Abs("../../scripts/policy-review.sh")
	if err != nil {
		t.Fatal(err)
	}
	more := inRepository(t)
	top := mustGetwd(t)
	path := asProgram(t)
	expect := func(opens string, code int, want string, args ...string) {
		t.Helper()
		c := exec.Command(script, args...)
		c.Env = append(os.Environ(), "PATH="+path, "OPENS="+opens)
		out, _ := c.CombinedOutput()
		md, _ := os.ReadFile("policy-review/review.markdown")
		if got := c.ProcessState.ExitCode(); got != code || !strings.Contains(string(out)+string(md), want) {
			t.Errorf("%s %v: exit %d, want %d with %q\n%s%s", opens, args, got, code, want, out, md)
		}
	}
	if err := os.WriteFile("broken.yaml", []byte("rules: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gitDo(t, "add", "broken.yaml")
	gitDo(t, "mv", "site/rules.yaml", "site/edge.yaml")
	gitDo(t, "commit", "-q", "-m", "Three")
	if err := os.WriteFile("broken.yaml", []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("report", 0, "The policy **was not valid** before", "HEAD", "broken.yaml")
	expect("fail", 4, "The policy **was not valid** before", "HEAD", "broken.yaml")
	expect("fail", 4, "### More permissive", "HEAD~2", "site/edge.yaml")
	expect("fail", 0, "**No difference in traffic**", "HEAD~1", "site/edge.yaml")
	expect("report", 2, "does not have the commit \"nowhere\"", "nowhere", "site/edge.yaml")
	expect("report", 2, "The change **cannot be compared**", "--help", "site/edge.yaml")
	base, err := exec.Command("git", "rev-parse", "HEAD~1").Output()
	if err != nil {
		t.Fatal(err)
	}
	shallow := t.TempDir()
	gitDo(t, "clone", "-q", "--depth", "1", "file://"+top, shallow)
	t.Chdir(shallow)
	expect("report", 2, "fetch-depth: 0", strings.TrimSpace(string(base)), "site/edge.yaml")
	expect("fail", 2, "fetch-depth: 0", strings.TrimSpace(string(base)), "site/edge.yaml")
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

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// asProgram returns a PATH on which this test's binary is thurward.
func asProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "thurward")); err != nil {
		t.Fatal(err)
	}
	return bin + ":" + os.Getenv("PATH")
}

// TestAction runs the step of the action as a runner does: inputs with their defaults in its
// environment, by sh -e, and looks at the job's summary and the exit code.
func TestAction(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Inputs map[string]struct{ Default string }
		Runs   struct {
			Using string
			Steps []struct {
				Shell, Run string
				Env        map[string]string
			}
		}
	}
	dir := filepath.Join(root, ".github/actions/policy-review")
	b, err := os.ReadFile(filepath.Join(dir, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &action); err != nil {
		t.Fatal(err)
	}
	if action.Runs.Using != "composite" || len(action.Runs.Steps) != 1 || action.Runs.Steps[0].Shell != "sh" {
		t.Fatalf("%+v", action.Runs)
	}
	step := action.Runs.Steps[0]
	inRepository(t)
	path := asProgram(t)
	summary := filepath.Join(t.TempDir(), "summary")
	expression := regexp.MustCompile(`\$\{\{ *([a-z_.]+) *\}\}`)
	for _, c := range []struct {
		with map[string]string
		code int
		want string
	}{
		{map[string]string{"files": "site/rules.yaml", "base": "HEAD~1"}, 0, "### More permissive"},
		{map[string]string{"files": "site/rules.yaml", "base": "HEAD~1", "opens": "fail"}, 4, "### More permissive"},
		{map[string]string{"files": "site/rules.yaml"}, 0, "### More permissive"}, // the pull request's base
		{map[string]string{"files": "site/rules.yaml", "base": "HEAD", "opens": "fail"}, 0, "**No difference in traffic**"},
		{map[string]string{"files": "site/*.yaml", "base": "HEAD"}, 1, "The policy is **not valid**"}, // names, not patterns
		{map[string]string{"files": "$(touch evil)", "base": "HEAD"}, 1, "The policy is **not valid**"},
	} {
		value := func(text string) string {
			return expression.ReplaceAllStringFunc(text, func(m string) string {
				switch name := expression.FindStringSubmatch(m)[1]; name {
				case "github.action_path":
					return dir
				case "github.event.pull_request.base.sha":
					return "HEAD~1"
				default:
					in, ok := strings.CutPrefix(name, "inputs.")
					input, known := action.Inputs[in]
					if !ok || !known {
						t.Fatalf("the action asks for %s", name)
					}
					if v, given := c.with[in]; given {
						return v
					}
					return strings.ReplaceAll(input.Default, "${{ github.event.pull_request.base.sha }}", "HEAD~1")
				}
			})
		}
		os.Remove(summary)
		cmd := exec.Command("sh", "-e", "-c", step.Run)
		cmd.Env = append(os.Environ(), "PATH="+path, "GITHUB_STEP_SUMMARY="+summary)
		for k, v := range step.Env {
			cmd.Env = append(cmd.Env, k+"="+value(v))
		}
		out, _ := cmd.CombinedOutput()
		md, _ := os.ReadFile(summary)
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(md), c.want) {
			t.Errorf("%v: exit %d, want %d with %q\n%s%s", c.with, code, c.code, c.want, out, md)
		}
	}
	if _, err := os.Stat("evil"); err == nil {
		t.Error("a name was run as a command")
	}
}

// TestHooks runs each hook of pre-commit as it does: its entry, with names of files behind it.
func TestHooks(t *testing.T) {
	b, err := os.ReadFile("../../.pre-commit-hooks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var hooks []struct {
		ID, Entry, Language, Files string
	}
	if err := yaml.Unmarshal(b, &hooks); err != nil {
		t.Fatal(err)
	}
	good := inRepository(t)
	path := asProgram(t)
	file := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(entry string, files ...string) int {
		cmd := exec.Command("sh", "-c", entry+` "$@"`, "hook")
		cmd.Args = append(cmd.Args, files...)
		cmd.Env = append(os.Environ(), "PATH="+path)
		cmd.CombinedOutput() //nolint:errcheck // the exit code says it
		return cmd.ProcessState.ExitCode()
	}
	if len(hooks) != 3 {
		t.Errorf("%d hooks", len(hooks))
	}
	for _, h := range hooks {
		file("good.yaml", good)
		bad := map[string]string{"thurward-check": "rules: [", "thurward-test": good + "never: [{ name: nothing, from: lan }]\n", "thurward-fmt": "a: [\n"}[h.ID]
		file("bad.yaml", bad)
		if code := run(h.Entry, "good.yaml"); code != 0 || h.Language != "system" {
			t.Errorf("%s: exit %d for a good policy, language %s", h.ID, code, h.Language)
		}
		if code := run(h.Entry, "bad.yaml"); code == 0 || bad == "" {
			t.Errorf("%s: a bad policy passes", h.ID)
		}
		// A commit changes several, of which pre-commit puts as many as it can behind the entry.
		file("other.yaml", good)
		if code := run(h.Entry, "good.yaml", "other.yaml"); code != 0 {
			t.Errorf("%s: exit %d for two files", h.ID, code)
		}
		for _, files := range [][]string{{"good.yaml", "bad.yaml"}, {"bad.yaml", "good.yaml"}} {
			if code := run(h.Entry, files...); code == 0 {
				t.Errorf("%s: a bad policy passes beside a good one", h.ID)
			}
			file("bad.yaml", bad) // fmt has written it
		}
		names := regexp.MustCompile(h.Files)
		for name, want := range map[string]bool{"rules.yaml": true, "site/rules.yml": true, "other.yaml": false, "myrules.yaml": false} {
			if names.MatchString(name) != want {
				t.Errorf("%s: takes %s: %v", h.ID, name, !want)
			}
		}
	}
}

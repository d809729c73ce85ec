package formats

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
)

var own = regexp.MustCompile(`^validation failed: \[|\s*runs\.0\.(tool\.driver\.)?language: Does not match pattern [^\n]*\n|\s*runs\.0\.newlineSequences: Array must have at least 1 items\n|\]$`)

// valid decides by the schema of SARIF 2.1.0, with fields that it does not have refused.
func valid(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(new(sarif.Report)); err != nil {
		return err
	}
	r, err := sarif.FromBytes(b)
	if err != nil {
		return err
	}
	// What the library itself puts in for fields that are left out is not valid.
	if err = r.Validate(); err == nil || own.ReplaceAllString(err.Error(), "") == "" {
		return nil
	}
	return err
}

// TestSARIF: what check and diff print is SARIF by its schema, for policies with and without
// problems, and also where a file's name has characters that no URI has.
func TestSARIF(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "thurward")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", bin, "./cmd/thurward").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	good, err := os.ReadFile("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"rules.yaml": string(good), "bad.yaml": "rules: [{ id: a, action: maybe }]\nfoo: 1\n", "a b%c#d.yaml": "rules: [\n",
		"other.yaml": strings.Replace(string(good), "[80, 443]", "[80, 443, 8443]", 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var one []byte
	for _, c := range []struct {
		args    string
		code    int
		results bool
	}{
		{"check rules.yaml", 0, false}, {"check rules.yaml bad.yaml", 1, true}, {"check a b%c#d.yaml", 1, true}, {"check " + filepath.Join(dir, "bad.yaml"), 1, true},
		{"diff rules.yaml other.yaml", 4, true}, {"diff other.yaml rules.yaml", 3, true}, {"diff rules.yaml rules.yaml", 0, false},
	} {
		args := strings.Fields(c.args)
		if strings.Contains(c.args, "#") {
			args = []string{"check", "a b%c#d.yaml"}
		}
		cmd := exec.Command(bin, append(args, "--format", "sarif")...)
		cmd.Dir = dir
		b, err := cmd.Output()
		if e, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || e.ExitCode() != c.code) || err == nil && c.code != 0 {
			t.Errorf("%s: %v, want exit code %d", c.args, err, c.code)
		}
		if err := valid(b); err != nil {
			t.Errorf("%s: %v\n%s", c.args, err, b)
		}
		if bytes.Contains(b, []byte(`"ruleId"`)) != c.results {
			t.Errorf("%s: results: %v\n%s", c.args, !c.results, b)
		}
		if c.code == 4 {
			one = b
		}
	}
	for what, c := range map[string][2]string{
		"an unknown level":      {`"level": "warning"`, `"level": "bad"`},
		"a line before all":     {`"startLine": `, `"startLine": -`},
		"a field of our own":    {`"ruleId"`, `"ruleIds"`},
		"another version":       {`"version": "2.1.0"`, `"version": "2.0"`},
		"a driver with no name": {`"name": "thurward"`, `"fullName": "thurward"`},
	} {
		bad := bytes.Replace(one, []byte(c[0]), []byte(c[1]), 1)
		if bytes.Equal(bad, one) {
			t.Errorf("%s: there is no %s\n%s", what, c[0], one)
		} else if valid(bad) == nil {
			t.Errorf("%s: nobody notices", what)
		}
	}
}

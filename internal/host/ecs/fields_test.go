package ecs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// literals calls f for each string literal in the Go files of a folder, without
// its tests.
func literals(t *testing.T, pattern string, f func(string)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				s, err := strconv.Unquote(l.Value)
				if err != nil {
					t.Fatal(err)
				}
				f(s)
			}
			return true
		})
	}
}

// TestActionsAndReasons: what is said to be every action is every constant of EventAction, and
// every reason of the firewall's recorded events is among the reasons.
func TestActionsAndReasons(t *testing.T) {
	src, err := os.ReadFile("fields.go")
	if err != nil {
		t.Fatal(err)
	}
	_, consts, ok := strings.Cut(string(src), "// The values of EventAction.")
	if n := strings.Count(consts, " = \""); !ok || n != len(Actions()) {
		t.Errorf("%d constants, %d actions", n, len(Actions()))
	}
	golden, err := os.ReadFile("../../guest/export/testdata/events.golden")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, m := range regexp.MustCompile(`"event\.reason":"([^"]*)"`).FindAllStringSubmatch(string(golden), -1) {
		seen++
		if !slices.Contains(Reasons(), m[1]) {
			t.Errorf("the firewall writes the reason %s, which is not listed", m[1])
		}
	}
	if seen < 8 || slices.Contains(Reasons(), "invalid") {
		t.Errorf("%d reasons seen; listed are %v", seen, Reasons())
	}
}

// TestFieldsOfExport: every field that the firewall writes has a constant here,
// and every constant is written by the firewall, or by the hub on the host. The
// same holds for the actions.
func TestFieldsOfExport(t *testing.T) {
	field := regexp.MustCompile(`"(@timestamp|[a-z][a-z_]*(?:\.[a-z_]+)+)":`)
	action := regexp.MustCompile(`"event\.action":"([a-z-]+)"`)
	written := map[string]string{}
	collect := func(from string) func(string) {
		return func(s string) {
			for _, re := range []*regexp.Regexp{field, action} {
				for _, m := range re.FindAllStringSubmatch(s, -1) {
					written[m[1]] = from
				}
			}
		}
	}
	literals(t, "../../guest/export/*.go", collect("guest/export"))
	literals(t, "../ingest/hub.go", collect("ingest/hub.go"))
	literals(t, "../../shared/verdict/action.go", func(s string) {
		if strings.HasPrefix(s, "would-") {
			written[s] = "shared/verdict"
		}
	})
	known := map[string]bool{}
	literals(t, "fields.go", func(s string) { known[s] = true })
	for name, from := range written {
		if !known[name] {
			t.Errorf("%s writes %s, which fields.go does not have", from, name)
		}
	}
	for name := range known {
		if written[name] == "" {
			t.Errorf("fields.go has %s, which nothing writes", name)
		}
	}
	if len(written) < 70 {
		t.Errorf("only %d fields and actions are seen", len(written))
	}
}

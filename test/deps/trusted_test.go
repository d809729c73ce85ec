package deps

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// codeLines counts lines of Go and assembly that are neither empty nor a comment,
// in a file, or in the files of a folder and those below it that are linked.
func codeLines(t *testing.T, path string) (n int) {
	t.Helper()
	err := filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, "_test.go") || strings.Contains(p, "rulesettest") ||
			filepath.Ext(p) != ".go" && filepath.Ext(p) != ".s" {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, l := range strings.Split(string(b), "\n") {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "//") {
				n++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTrustedBaseLines: the security model says how many lines the trusted base
// has, to within a tenth.
func TestTrustedBaseLines(t *testing.T) {
	page, err := os.ReadFile("../../docs/architecture/08-security-model.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z/_.0-9]+)` \\| [0-3and ]+ \\| (\\d+) \\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) != 7 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		said, _ := strconv.Atoi(r[2])
		have := codeLines(t, filepath.Join("../..", r[1]))
		t.Logf("%-32s %6d", r[1], have)
		if have*10 < said*9 || have*10 > said*11 {
			t.Errorf("%s has %d lines, the page says %d", r[1], have, said)
		}
	}
}

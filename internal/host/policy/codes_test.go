package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestCodesHaveHelp: every code of a diagnostic has its help, and no other is there.
func TestCodesHaveHelp(t *testing.T) {
	used := map[string]bool{"always-failed": true, "never-failed": true, "diff-opens": true, "diff-closes": true, "diff-other": true} // made of words
	var files []string
	for _, p := range []string{"*.go", "check/*.go", "explain/*.go", "diff/*.go"} {
		m, _ := filepath.Glob(p)
		files = append(files, m...)
	}
	text := func(e ast.Expr) string {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, _ := strconv.Unquote(l.Value)
			return s
		}
		return ""
	}
	at := map[string]int{"err": 2, "lenient": 2, "Warn": 3, "add": 3} // place of the code among the arguments
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch v := n.(type) {
			case *ast.CallExpr:
				if s, ok := v.Fun.(*ast.SelectorExpr); ok && at[s.Sel.Name] > 0 && len(v.Args) > at[s.Sel.Name] {
					if c := text(v.Args[at[s.Sel.Name]]); c != "" {
						used[c] = true
					}
				}
			case *ast.KeyValueExpr:
				if k, ok := v.Key.(*ast.Ident); ok && k.Name == "Code" {
					if c := text(v.Value); c != "" {
						used[c] = true
					}
				}
			}
			return true
		})
	}
	for c := range used {
		if Help(c) == "" {
			t.Errorf("%s has no help", c)
		}
	}
	for c := range helps {
		if !used[c] {
			t.Errorf("there is help for %s, which nothing reports", c)
		}
	}
	if len(used) < 60 {
		t.Errorf("only %d codes: %v", len(used), used)
	}
}

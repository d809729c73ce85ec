package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPrintingEscapes: commands print with package printable, which escapes text from
// outside. The exceptions print text that was escaped before.
func TestPrintingEscapes(t *testing.T) {
	exceptions := []string{
		"launch.go", "demonstrate.go", // lines of the console, which package vmm has escaped; written by terminal.Writer
		"screen.go", // sequences that draw the screen
		"top.go",    // views, which package dashboard has escaped
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || slices.Contains(exceptions, name) {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := s.X.(*ast.Ident)
			switch {
			case !ok:
			case x.Name == "printable":
				seen++
			case x.Name == "fmt" && (strings.HasPrefix(s.Sel.Name, "Fprint") || strings.HasPrefix(s.Sel.Name, "Print")), x.Name == "io" && s.Sel.Name == "WriteString":
				t.Errorf("%v: %s.%s: use printable.Fprintf", fset.Position(n.Pos()), x.Name, s.Sel.Name)
			}
			return true
		})
	}
	if seen < 20 {
		t.Errorf("only %d uses of package printable are seen", seen)
	}
}

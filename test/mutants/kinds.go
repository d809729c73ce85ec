package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// The kinds of mutants.
const (
	kindBoundary  = "boundary"  // < and <=, > and >= for each other
	kindNegation  = "negation"  // the opposite comparison; a "!" less
	kindOperand   = "operand"   // one side of && or || has no say
	kindCondition = "condition" // an if or a case that is always, or never, taken
	kindAndOr     = "andor"     // && and || for each other
	kindArith     = "arith"     // + and -, * and /, & and |, << and >> for each other
	kindConstant  = "constant"  // one more, one less
	kindReturn    = "return"    // the zero value, or the opposite, is returned; an early return, break or continue is not made
	kindAssign    = "assign"    // an assignment is not made
	kindCall      = "call"      // a call for its effect is not made
)

var allKinds = []string{kindBoundary, kindNegation, kindOperand, kindCondition, kindAndOr, kindArith, kindConstant, kindReturn, kindAssign, kindCall}

func known(kind string) bool { return slices.Contains(allKinds, kind) }

// A mutant is one change.
type mutant struct {
	id   int // from 1
	pkg  *source
	file string // base name
	line int
	fn   string // in which function
	kind string
	what string // the change, "old => new"
	nth  int    // of those with the same key in this function, from 1
}

// key names a mutant as long as the code it concerns does not change.
func (m *mutant) key() string {
	k := fmt.Sprintf("%s %s: %s", m.fn, m.kind, m.what)
	if m.nth > 1 {
		k += fmt.Sprintf(" #%d", m.nth)
	}
	return k
}

// A finder makes the mutants of a file.
type finder struct {
	fset    *token.FileSet
	src     *source
	f       *file
	fn      string
	results *types.Tuple
	all     *[]*mutant
	keys    map[string]int
	imports map[string]string // path to name
}

// find makes the mutants of a package.
func find(fset *token.FileSet, s *source, all *[]*mutant) {
	for _, f := range s.files {
		d := &finder{fset: fset, src: s, f: f, all: all, keys: map[string]int{}, imports: map[string]string{}}
		for _, i := range f.ast.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if i.Name != nil {
				d.imports[path] = i.Name.Name
			} else if o, ok := s.info.Implicits[i].(*types.PkgName); ok {
				d.imports[path] = o.Name()
			}
		}
		for _, decl := range f.ast.Decls {
			fd, ok := decl.(*ast.FuncDecl)
			if !ok || fd.Body == nil {
				continue
			}
			d.fn = fd.Name.Name
			if fd.Recv != nil {
				d.fn = strings.TrimPrefix(d.text(fd.Recv.List[0].Type), "*") + "." + d.fn
			}
			d.results = s.info.Defs[fd.Name].Type().(*types.Signature).Results()
			d.block(fd.Body.List)
		}
	}
}

func (d *finder) off(p token.Pos) int { return d.fset.Position(p).Offset }

func (d *finder) text(n ast.Node) string { return string(d.f.text[d.off(n.Pos()):d.off(n.End())]) }

// skipped reports whether the line is one where a change does not compile.
func (d *finder) skipped(p token.Pos) bool { return d.f.skip[d.fset.Position(p).Line] }

// add notes a mutant and returns its number.
func (d *finder) add(n ast.Node, kind, old, new string) int {
	if d.skipped(n.Pos()) {
		return 0
	}
	m := &mutant{id: len(*d.all) + 1, pkg: d.src, line: d.fset.Position(n.Pos()).Line, fn: d.fn, kind: kind, what: oneLine(old) + " => " + oneLine(new)}
	m.file = d.f.path[strings.LastIndexByte(d.f.path, '/')+1:]
	k := m.key()
	d.keys[k]++
	m.nth = d.keys[k]
	*d.all = append(*d.all, m)
	return m.id
}

// oneLine is code as it is shown.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return s
}

// flat is code on one line, so that the numbers of lines stay.
func flat(s string) string { return strings.ReplaceAll(s, "\n", " ") }

func (d *finder) wrap(n ast.Node, before, after string) {
	if d.skipped(n.Pos()) {
		return
	}
	d.f.edit.wrap(d.off(n.Pos()), d.off(n.End()), before, after)
}

// Types.

func (d *finder) isMap(x ast.Expr) bool {
	t := d.src.info.TypeOf(x)
	if t == nil {
		return false
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

func basic(t types.Type, want types.BasicInfo) bool {
	if t == nil {
		return false
	}
	if _, param := t.(*types.TypeParam); param {
		return false
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&want != 0
}

func isInteger(t types.Type) bool { return basic(t, types.IsInteger) }
func isString(t types.Type) bool  { return basic(t, types.IsString) }
func isBool(t types.Type) bool    { return types.Identical(types.Default(t), types.Typ[types.Bool]) }

// typeName is a type as this file writes it, if it can.
func (d *finder) typeName(t types.Type) (string, bool) {
	ok := true
	if t == nil {
		return "", false
	}
	s := types.TypeString(types.Default(t), func(p *types.Package) string {
		if p == d.src.types {
			return ""
		}
		n, has := d.imports[p.Path()]
		if !has {
			ok = false
		}
		return n
	})
	return s, ok && !strings.Contains(s, "struct{") && !strings.Contains(s, "interface{")
}

package main

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
)

// Statements.

func (d *finder) block(list []ast.Stmt) {
	for _, s := range list {
		d.stmt(s, true)
	}
}

// stmt makes the mutants of a statement. loose: it may be put into a block of
// its own.
func (d *finder) stmt(s ast.Stmt, loose bool) {
	switch s := s.(type) {
	case *ast.BlockStmt:
		d.block(s.List)
	case *ast.IfStmt:
		if s.Init != nil {
			d.stmt(s.Init, false)
		}
		d.condition(s.Cond, true)
		d.ifBody(s)
		if s.Else != nil {
			d.stmt(s.Else, false)
		}
	case *ast.ForStmt:
		if s.Init != nil {
			d.stmt(s.Init, false)
		}
		if s.Cond != nil {
			d.condition(s.Cond, false)
		}
		if s.Post != nil {
			d.stmt(s.Post, false)
		}
		d.block(s.Body.List)
	case *ast.RangeStmt:
		d.expr(s.X)
		d.block(s.Body.List)
	case *ast.SwitchStmt:
		if s.Init != nil {
			d.stmt(s.Init, false)
		}
		if s.Tag != nil {
			d.expr(s.Tag)
		}
		for _, c := range s.Body.List {
			cc := c.(*ast.CaseClause)
			if s.Tag == nil {
				for _, x := range cc.List {
					d.condition(x, true)
				}
			}
			d.block(cc.Body)
		}
	case *ast.TypeSwitchStmt:
		for _, c := range s.Body.List {
			d.block(c.(*ast.CaseClause).Body)
		}
	case *ast.SelectStmt:
		for _, c := range s.Body.List {
			d.block(c.(*ast.CommClause).Body)
		}
	case *ast.LabeledStmt:
		d.stmt(s.Stmt, false)
	case *ast.ReturnStmt:
		d.returned(s)
	case *ast.AssignStmt:
		d.assign(s, loose)
	case *ast.IncDecStmt:
		op, back := "++", "--"
		if s.Tok == token.DEC {
			op, back = back, op
		}
		x := d.text(s.X)
		if loose {
			none, other := d.add(s, kindAssign, x+op, "nothing"), d.add(s, kindArith, x+op, x+back)
			d.wrap(s, fmt.Sprintf("if mutant(%d) {} else if mutant(%d) { %s%s } else { ", none, other, x, back), " }")
		}
		d.operandsOf(s.X)
	case *ast.ExprStmt:
		if c, ok := s.X.(*ast.CallExpr); ok {
			if id, ok := c.Fun.(*ast.Ident); loose && (!ok || id.Name != "panic") {
				n := d.add(s, kindCall, d.text(s), "nothing")
				d.wrap(s, fmt.Sprintf("if !mutant(%d) { ", n), " }")
			}
		}
		d.expr(s.X)
	case *ast.DeclStmt:
		if g, ok := s.Decl.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, sp := range g.Specs {
				for _, v := range sp.(*ast.ValueSpec).Values {
					d.value(v)
				}
			}
		}
	case *ast.SendStmt:
		d.expr(s.Value)
	case *ast.DeferStmt:
		d.expr(s.Call)
	case *ast.GoStmt:
		d.expr(s.Call)
	}
}

// ifBody makes the mutants of an if's body, its early end among them.
func (d *finder) ifBody(s *ast.IfStmt) {
	list := s.Body.List
	if len(list) > 0 && s.Else == nil {
		last := list[len(list)-1]
		drop := false
		switch x := last.(type) {
		case *ast.ReturnStmt:
			drop = true
		case *ast.BranchStmt:
			drop = x.Tok == token.CONTINUE || x.Tok == token.BREAK
		}
		if drop {
			n := d.add(last, kindReturn, d.text(last), "go on")
			d.wrap(last, fmt.Sprintf("if !mutant(%d) { ", n), " }")
		}
	}
	d.block(list)
}

func (d *finder) assign(s *ast.AssignStmt, loose bool) {
	if s.Tok == token.DEFINE {
		for _, r := range s.Rhs {
			d.value(r)
		}
		return
	}
	if loose {
		none := d.add(s, kindAssign, d.text(s), "nothing")
		before := fmt.Sprintf("if mutant(%d) {} else ", none)
		op := token.Token(0)
		if s.Tok != token.ASSIGN {
			op = s.Tok + token.ADD - token.ADD_ASSIGN
		}
		if o, ok := otherOp[op]; ok && !isString(d.src.info.TypeOf(s.Lhs[0])) {
			x, y := d.text(s.Lhs[0]), d.text(s.Rhs[0])
			other := d.add(s, kindArith, d.text(s), fmt.Sprintf("%s %s= %s", x, o, y))
			before += fmt.Sprintf("if mutant(%d) { %s %s= %s } else ", other, x, o, y)
		}
		d.wrap(s, before+"{ ", " }")
	}
	for _, l := range s.Lhs {
		d.operandsOf(l)
	}
	for _, r := range s.Rhs {
		if s.Tok == token.SHL_ASSIGN || s.Tok == token.SHR_ASSIGN {
			d.expr(r)
		} else {
			d.value(r)
		}
	}
}

// operandsOf makes the mutants inside of what is assigned to: indices.
func (d *finder) operandsOf(x ast.Expr) {
	switch x := x.(type) {
	case *ast.IndexExpr:
		d.operandsOf(x.X)
		if !d.isMap(x.X) {
			d.value(x.Index)
		}
	case *ast.SelectorExpr:
		d.operandsOf(x.X)
	case *ast.StarExpr:
		d.operandsOf(x.X)
	case *ast.ParenExpr:
		d.operandsOf(x.X)
	}
}

func (d *finder) returned(s *ast.ReturnStmt) {
	if d.results == nil || len(s.Results) != d.results.Len() {
		for _, r := range s.Results {
			d.expr(r)
		}
		return
	}
	for i, r := range s.Results {
		want := d.results.At(i).Type()
		tv := d.src.info.Types[r]
		old := "return " + d.text(r)
		switch {
		case isBool(want):
			if tv.Value != nil {
				n := d.add(r, kindReturn, old, "return "+fmt.Sprint(!constant.BoolVal(tv.Value)))
				d.wrap(r, "(", fmt.Sprintf(" != mutant(%d))", n))
				continue
			}
			if _, binary := ast.Unparen(r).(*ast.BinaryExpr); !binary {
				n := d.add(r, kindReturn, old, "the opposite")
				d.wrap(r, "((", fmt.Sprintf(") != mutant(%d))", n))
			}
			d.expr(r)
		case tv.IsNil():
		case tv.Value != nil:
			if isInteger(want) {
				d.constant(r)
			}
		default:
			if t, ok := d.typeName(want); ok && !empty(r) {
				n := d.add(r, kindReturn, old, "the zero value")
				d.wrap(r, fmt.Sprintf("mutantZero[%s](%d, ", t, n), ")")
			}
			d.expr(r)
		}
	}
}

// empty reports whether x is a composite literal without elements: of a struct it
// is the zero value already.
func empty(x ast.Expr) bool {
	c, ok := x.(*ast.CompositeLit)
	return ok && len(c.Elts) == 0
}

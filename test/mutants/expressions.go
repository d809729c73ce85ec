package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
)

// Expressions.

// condition makes the mutants of what an if, a for or a case asks. both: it may
// be always true without the function running for ever.
func (d *finder) condition(x ast.Expr, both bool) {
	if d.src.info.Types[x].Value != nil {
		return
	}
	no := d.add(x, kindCondition, d.text(x), "false")
	if both {
		yes := d.add(x, kindCondition, d.text(x), "true")
		d.wrap(x, fmt.Sprintf("(!mutant(%d) && (mutant(%d) || (", no, yes), ")))")
	} else {
		d.wrap(x, fmt.Sprintf("(!mutant(%d) && (", no), "))")
	}
	d.expr(x)
}

// value makes the mutants of an expression whose value is used as it is.
func (d *finder) value(x ast.Expr) {
	if tv := d.src.info.Types[x]; tv.Value != nil {
		if isInteger(tv.Type) {
			d.constant(x)
		} else if isBool(tv.Type) {
			n := d.add(x, kindConstant, d.text(x), "the opposite")
			d.wrap(x, "(", fmt.Sprintf(" != mutant(%d))", n))
		}
		return
	}
	d.expr(x)
}

// constant makes the mutants of a constant: one more, one less.
func (d *finder) constant(x ast.Expr) {
	t, ok := d.typeName(d.src.info.TypeOf(x))
	if !ok {
		return
	}
	more := d.add(x, kindConstant, d.text(x), d.text(x)+" + 1")
	d.add(x, kindConstant, d.text(x), d.text(x)+" - 1")
	d.wrap(x, fmt.Sprintf("mutantConstant[%s](%d, ", t, more), ")")
}

var otherOp = map[token.Token]token.Token{
	token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO, token.QUO: token.MUL, token.REM: token.MUL,
	token.AND: token.OR, token.OR: token.AND, token.XOR: token.AND, token.SHL: token.SHR, token.SHR: token.SHL, token.AND_NOT: token.AND,
}

var helperOf = map[token.Token]string{
	token.ADD: "Add", token.SUB: "Sub", token.MUL: "Mul", token.QUO: "Quo", token.REM: "Rem",
	token.AND: "And", token.OR: "Or", token.XOR: "Xor", token.SHL: "Shl", token.SHR: "Shr", token.AND_NOT: "AndNot",
}

var opposite = map[token.Token]token.Token{
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LSS: token.GEQ, token.GEQ: token.LSS, token.GTR: token.LEQ, token.LEQ: token.GTR,
}

var boundary = map[token.Token]token.Token{token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR}

// expr makes the mutants of an expression and of what it is made of.
func (d *finder) expr(x ast.Expr) {
	if x == nil {
		return
	}
	if tv, ok := d.src.info.Types[x]; ok && (tv.Value != nil || tv.IsType()) {
		return
	}
	switch x := x.(type) {
	case *ast.ParenExpr:
		d.expr(x.X)
	case *ast.UnaryExpr:
		switch x.Op {
		case token.NOT:
			n := d.add(x, kindNegation, d.text(x), d.text(x.X))
			d.wrap(x, "((", fmt.Sprintf(") != mutant(%d))", n))
			d.expr(x.X)
		case token.AND:
			if c, ok := ast.Unparen(x.X).(*ast.CompositeLit); ok {
				d.expr(c)
			} else {
				d.operandsOf(x.X)
			}
		default:
			d.expr(x.X)
		}
	case *ast.BinaryExpr:
		d.binary(x)
	case *ast.CallExpr:
		d.call(x)
	case *ast.IndexExpr:
		if d.src.info.Types[x.Index].IsType() { // a generic function
			return
		}
		d.expr(x.X)
		if !d.isMap(x.X) {
			d.value(x.Index)
		} else {
			d.expr(x.Index)
		}
	case *ast.SliceExpr:
		d.operandsOf(x.X)
		for _, i := range []ast.Expr{x.Low, x.High, x.Max} {
			if i != nil {
				d.value(i)
			}
		}
	case *ast.SelectorExpr:
		d.expr(x.X)
	case *ast.StarExpr:
		d.expr(x.X)
	case *ast.TypeAssertExpr:
		d.expr(x.X)
	case *ast.CompositeLit:
		for _, e := range x.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				e = kv.Value
			}
			d.value(e)
		}
	case *ast.FuncLit:
		fn, results := d.fn, d.results
		d.results = d.src.info.TypeOf(x).(*types.Signature).Results()
		d.block(x.Body.List)
		d.fn, d.results = fn, results
	}
}

func (d *finder) binary(x *ast.BinaryExpr) {
	old := d.text(x)
	l, r := flat(d.text(x.X)), flat(d.text(x.Y))
	pos := d.off(x.OpPos)
	switch x.Op {
	case token.LAND, token.LOR:
		left, right := d.add(x, kindOperand, old, r), d.add(x, kindOperand, old, l)
		other, keep := token.LOR, "mutant(%d) || ("
		if x.Op == token.LOR {
			other, keep = token.LAND, "!mutant(%d) && ("
		}
		swap := d.add(x, kindAndOr, old, fmt.Sprintf("%s %s %s", l, other, r))
		if x.Op == token.LAND {
			d.wrap(x, "((", fmt.Sprintf(") || mutant(%d) && ((%s) || (%s)))", swap, l, r))
		} else {
			d.wrap(x, "((", fmt.Sprintf(") && (!mutant(%d) || ((%s) && (%s))))", swap, l, r))
		}
		d.wrap(x.X, "("+fmt.Sprintf(keep, left), "))")
		d.wrap(x.Y, "("+fmt.Sprintf(keep, right), "))")
		d.expr(x.X)
		d.expr(x.Y)
	case token.EQL, token.NEQ, token.LSS, token.LEQ, token.GTR, token.GEQ:
		n := d.add(x, kindNegation, old, fmt.Sprintf("%s %s %s", l, opposite[x.Op], r))
		before, after := "((", fmt.Sprintf(") != mutant(%d))", n)
		if b, ok := boundary[x.Op]; ok {
			m := d.add(x, kindBoundary, old, fmt.Sprintf("%s %s %s", l, b, r))
			if x.Op == token.LSS || x.Op == token.GTR {
				after = fmt.Sprintf(" || mutant(%d) && (%s) == (%s)", m, l, r) + after
			} else {
				after = fmt.Sprintf(" && !(mutant(%d) && (%s) == (%s))", m, l, r) + after
			}
		}
		d.wrap(x, before, after)
		_, bounded := boundary[x.Op]
		for _, s := range []ast.Expr{x.X, x.Y} {
			if bounded || d.src.info.Types[s].Value == nil {
				d.expr(s) // a constant beside < is the boundary's
			} else {
				d.value(s)
			}
		}
	default:
		h, ok := helperOf[x.Op]
		if !ok || isString(d.src.info.TypeOf(x)) {
			d.expr(x.X)
			d.expr(x.Y)
			return
		}
		n := d.add(x, kindArith, old, fmt.Sprintf("%s %s %s", l, otherOp[x.Op], r))
		t, named := d.typeName(d.src.info.TypeOf(x))
		if named {
			t = "[" + t + "]"
		} else {
			t = ""
		}
		d.wrap(x, fmt.Sprintf("mutant%s%s(%d, ", h, t, n), ")")
		if !d.skipped(x.Pos()) {
			d.f.edit.replace(pos, pos+len(x.Op.String()), ",")
		}
		shift := x.Op == token.SHL || x.Op == token.SHR
		d.value(x.X)
		if shift {
			d.expr(x.Y)
		} else {
			d.value(x.Y)
		}
	}
}

func (d *finder) call(x *ast.CallExpr) {
	if d.src.info.Types[x.Fun].IsType() { // a conversion
		d.expr(x.Args[0])
		return
	}
	if id, ok := ast.Unparen(x.Fun).(*ast.Ident); ok {
		if _, builtin := d.src.info.Uses[id].(*types.Builtin); builtin {
			switch id.Name {
			case "make", "new", "panic", "cap", "len", "clear", "delete", "print", "println", "recover":
				return
			}
		}
	}
	if s, ok := ast.Unparen(x.Fun).(*ast.SelectorExpr); ok {
		if id, ok := s.X.(*ast.Ident); ok && id.Name == "unsafe" {
			return
		}
		d.operandsOf(s.X)
	}
	for _, a := range x.Args {
		d.value(a)
	}
}

package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on a document. They are far above any real policy and keep a hostile
// one from taking the compiler's memory.
const (
	maxBytes = 8 << 20
	maxNodes = 1 << 21 // after aliases have been followed
	maxDepth = 64
)

// A kind of tree node.
type kind int

const (
	null kind = iota
	scalar
	list
	mapping
)

func (k kind) String() string {
	return [...]string{"nothing", "a single value", "a list", "a mapping"}[k]
}

// A node is a YAML value with its place; anchors, aliases and merge keys have
// been followed.
type node struct {
	kind      kind
	text      string // of a scalar, unquoted
	quoted    bool
	integer   bool
	boolean   bool
	items     []*node
	keys      []*node // of a mapping, scalars, beside items
	line, col int
}

// get returns the value of a mapping's key, or nil.
func (n *node) get(key string) *node {
	for i, k := range n.keys {
		if k.text == key {
			return n.items[i]
		}
	}
	return nil
}

// treeBuilder turns a parsed document into a tree.
type treeBuilder struct {
	l       *loader
	anchors map[string]ast.Node
	nodes   int
	over    bool
}

// parseYAML reads the document. It reports false after a syntax error.
func (l *loader) parseYAML(src []byte) (*node, bool) {
	if len(src) > maxBytes {
		l.add(1, 1, "", "too-large", fmt.Sprintf("the file has %d bytes", len(src)), fmt.Sprintf("at most %d are read", maxBytes))
		return nil, false
	}
	f, err := parser.ParseBytes(src, 0)
	if err != nil {
		line, col, msg := 1, 1, err.Error()
		var se *yaml.SyntaxError
		if errors.As(err, &se) {
			msg = se.Message
			if se.Token != nil && se.Token.Position != nil {
				line, col = se.Token.Position.Line, se.Token.Position.Column
			}
		}
		l.add(line, col, "", "syntax", "not valid YAML: "+strings.TrimSpace(msg), "")
		return nil, false
	}
	var docs []ast.Node
	for _, d := range f.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentType {
			docs = append(docs, d.Body)
		}
	}
	switch {
	case len(docs) == 0:
		l.add(1, 1, "", "empty", "the policy is empty", "see rules.yaml in the repository for one to begin with")
		return nil, false
	case len(docs) > 1:
		line, col := place(docs[1])
		l.add(line, col, "", "documents", "a second YAML document", "a policy is one document; remove the line ---")
		return nil, false
	}
	b := &treeBuilder{l: l, anchors: map[string]ast.Node{}}
	n := b.build(docs[0], 0)
	if b.over {
		l.add(1, 1, "", "too-large", "the document grows beyond all bounds through aliases or nesting", fmt.Sprintf("at most %d values and %d levels", maxNodes, maxDepth))
		return nil, false
	}
	return n, true
}

func place(n ast.Node) (line, col int) {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line, t.Position.Column
	}
	return 1, 1
}

func (b *treeBuilder) build(n ast.Node, depth int) *node {
	if n == nil {
		return &node{line: 1, col: 1}
	}
	line, col := place(n)
	r := &node{line: line, col: col}
	b.nodes++
	if b.nodes > maxNodes || depth > maxDepth {
		b.over = true
		return r
	}
	switch v := n.(type) {
	case *ast.AnchorNode:
		name := v.Name.GetToken().Value
		b.anchors[name] = v.Value
		return b.build(v.Value, depth+1)
	case *ast.AliasNode:
		name := v.Value.GetToken().Value
		t, ok := b.anchors[name]
		if !ok {
			b.l.add(line, col, "", "alias", "alias *"+name+" refers to no anchor before it", "write &"+name+" at the value it stands for")
			return r
		}
		c := b.build(t, depth+1)
		c.line, c.col = line, col // problems are shown where the alias stands
		return c
	case *ast.TagNode:
		b.l.add(line, col, "", "tag", "YAML tags have no meaning in a policy", "remove "+v.Start.Value)
		return b.build(v.Value, depth+1)
	case *ast.MappingNode:
		r.kind = mapping
		if len(v.Values) > 0 {
			r.line, r.col = place(v.Values[0].Key)
		}
		// Merge keys last: the mapping's own keys go before, wherever they
		// stand.
		for _, merge := range []bool{false, true} {
			for _, e := range v.Values {
				if (e.Key.Type() == ast.MergeKeyType) == merge {
					b.pair(r, e, depth)
				}
			}
		}
	case *ast.MappingValueNode:
		r.kind = mapping
		r.line, r.col = place(v.Key)
		b.pair(r, v, depth)
	case *ast.SequenceNode:
		r.kind = list
		for _, e := range v.Values {
			r.items = append(r.items, b.build(e, depth+1))
		}
	case *ast.NullNode:
	case *ast.StringNode:
		r.kind, r.text = scalar, v.Value
		r.quoted = v.Token.Type == token.SingleQuoteType || v.Token.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		r.kind, r.text, r.quoted = scalar, v.Value.Value, true
	case *ast.IntegerNode:
		r.kind, r.text, r.integer = scalar, v.Token.Value, true
	case *ast.BoolNode:
		r.kind, r.text, r.boolean = scalar, v.Token.Value, true
	case ast.ScalarNode:
		r.kind, r.text = scalar, v.GetToken().Value
	default:
		b.l.add(line, col, "", "syntax", "unexpected "+n.Type().String(), "")
	}
	return r
}

// pair adds a key and its value to a mapping; a merge key (<<) adds those of
// the mapping it refers to, after the mapping's own.
func (b *treeBuilder) pair(m *node, e *ast.MappingValueNode, depth int) {
	line, col := place(e.Key)
	if e.Key.Type() == ast.MergeKeyType {
		v := b.build(e.Value, depth+1)
		from := []*node{v}
		if v.kind == list {
			from = v.items
		}
		for _, f := range from {
			for i, k := range f.keys {
				if m.get(k.text) == nil {
					m.keys, m.items = append(m.keys, k), append(m.items, f.items[i])
				}
			}
		}
		return
	}
	k := &node{kind: scalar, line: line, col: col, text: e.Key.GetToken().Value}
	if m.get(k.text) != nil {
		b.l.add(line, col, k.text, "duplicate-key", "the key is here twice", "remove one of them")
	}
	v := b.build(e.Value, depth+1)
	if v.kind == null {
		v.line, v.col = line, col
	}
	m.keys, m.items = append(m.keys, k), append(m.items, v)
}

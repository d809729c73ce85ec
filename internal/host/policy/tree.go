package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// Limits on a document. They are far above any real policy and keep a hostile
// one from taking the compiler's memory or time.
const (
	MaxBytes = 8 << 20
	maxNodes = 1 << 21 // as the document reads with aliases and groups followed
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
// been followed. What several aliases stand for is shared, and not changed.
type node struct {
	kind      kind
	text      string // of a scalar, unquoted
	quoted    bool
	integer   bool
	boolean   bool
	items     []*node
	keys      []*node // of a mapping, scalars, beside items
	line, col int
	size      int // number of values in it, itself among them
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
	anchors map[*yaml.Node]*node // whole ones
	over    bool
}

// parseYAML reads the document. It reports false after a syntax error.
func (l *loader) parseYAML(src []byte) (*node, bool) {
	if len(src) > MaxBytes {
		l.add(1, 1, "", "too-large", fmt.Sprintf("the file has %d bytes", len(src)), fmt.Sprintf("at most %d are read", MaxBytes))
		return nil, false
	}
	if !l.readable(src) {
		return nil, false
	}
	in, err := yaml.NewLoader(bytes.NewReader(src), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		l.syntax(err)
		return nil, false
	}
	var doc, second yaml.Node
	switch err := in.Load(&doc); {
	case err == io.EOF || err == nil && len(doc.Content) > 0 && doc.Content[0].ShortTag() == "!!null":
		l.add(1, 1, "", "empty", "the policy is empty", "see rules.yaml in the repository for one to begin with")
		return nil, false
	case err != nil:
		l.syntax(err)
		return nil, false
	}
	switch err := in.Load(&second); {
	case err == io.EOF:
	case err != nil:
		l.syntax(err)
		return nil, false
	default:
		l.add(second.Line, second.Column, "", "documents", "a second YAML document", "a policy is one document; remove the line ---")
		return nil, false
	}
	b := &treeBuilder{l: l, anchors: map[*yaml.Node]*node{}}
	n := b.build(&doc)
	if b.over {
		l.add(1, 1, "", "too-large", "the document grows beyond all bounds through aliases", fmt.Sprintf("at most %d values", maxNodes))
		return nil, false
	}
	return n, true
}

// readable refuses what is no text, with its place.
func (l *loader) readable(src []byte) bool {
	line, col := 1, 1
	for i := 0; i < len(src); {
		r, size := utf8.DecodeRune(src[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			l.add(line, col, "", "encoding", fmt.Sprintf("the byte 0x%02x is not UTF-8", src[i]), "save the file as UTF-8")
			return false
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f, r >= 0xfffe && r <= 0xffff:
			l.add(line, col, "", "encoding", fmt.Sprintf("the control character %U", r), "remove it")
			return false
		case r == '\n':
			line, col = line+1, 1
		case r != '\ufeff' || i > 0:
			col++
		}
		i += size
	}
	return true
}

// syntax reports an error of the YAML parser.
func (l *loader) syntax(err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		l.add(1, 1, "", "syntax", "not valid YAML: "+strings.ReplaceAll(err.Error(), "\n", " "), "")
		return
	}
	at, msg, hint := e.Mark, e.Message, ""
	switch name, ok := strings.CutPrefix(msg, "unknown anchor '"); {
	case ok:
		name = strings.TrimSuffix(name, "' referenced")
		l.add(max(at.Line, 1), max(at.Column, 1), "", "alias", "alias *"+name+" refers to no anchor before it", "write &"+name+" at the value it stands for")
		return
	case strings.Contains(msg, "exceeded max depth"):
		l.add(max(at.Line, 1), max(at.Column, 1), "", "too-large", "too many lists and mappings inside each other", fmt.Sprintf("at most %d levels", maxDepth))
		return
	case strings.Contains(msg, "cannot start any token"):
		hint = "indent with spaces, not tabs; quote text that begins with @, `, % or *"
	case strings.Contains(e.ContextMsg, "flow"):
		hint = "see that each [ and { before it is closed"
	case strings.Contains(msg, "mapping values are not allowed"):
		hint = "quote text that contains a colon and a space, and begin each key on a line of its own or in { }"
	}
	if e.ContextMsg != "" {
		msg += " (" + e.ContextMsg
		if c := e.ContextMark; c.Line > 0 && c.Line != at.Line {
			msg += fmt.Sprintf(" that begins in line %d", c.Line)
		}
		msg += ")"
	}
	l.add(max(at.Line, 1), max(at.Column, 1), "", "syntax", "not valid YAML: "+msg, hint)
}

func (b *treeBuilder) build(n *yaml.Node) *node {
	r := &node{line: max(n.Line, 1), col: max(n.Column, 1), size: 1}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 1 {
			return b.build(n.Content[0])
		}
	case yaml.AliasNode:
		t := b.anchors[n.Alias]
		if t == nil {
			b.l.add(r.line, r.col, "", "alias", "alias *"+n.Value+" stands for something that it is part of", "write out what is meant")
			return r
		}
		c := *t
		c.line, c.col = r.line, r.col // problems are shown where the alias stands
		return &c
	case yaml.MappingNode:
		b.mapping(r, n)
	case yaml.SequenceNode:
		r.kind = list
		for _, e := range n.Content {
			b.grow(r, b.build(e))
		}
	case yaml.ScalarNode:
		b.scalar(r, n)
	}
	if n.Style&yaml.TaggedStyle != 0 {
		b.l.add(r.line, r.col, "", "tag", "YAML tags have no meaning in a policy", "remove "+n.Tag)
	}
	if n.Anchor != "" {
		b.anchors[n] = r
	}
	return r
}

func (b *treeBuilder) scalar(r *node, n *yaml.Node) {
	r.quoted = n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	tag := n.ShortTag()
	if tag == "!!null" && !r.quoted {
		return
	}
	r.kind, r.text = scalar, n.Value
	r.integer, r.boolean = !r.quoted && tag == "!!int", !r.quoted && tag == "!!bool"
}

// grow adds an item to a list or mapping.
func (b *treeBuilder) grow(r, item *node) {
	r.items = append(r.items, item)
	if r.size += item.size; r.size > maxNodes {
		b.over, r.size = true, maxNodes
	}
}

// mapping reads keys and their values. A merge key (<<) adds those of the
// mappings it refers to: the mapping's own go before, wherever they stand.
func (b *treeBuilder) mapping(r *node, n *yaml.Node) {
	r.kind = mapping
	if len(n.Content) > 0 {
		r.line, r.col = max(n.Content[0].Line, 1), max(n.Content[0].Column, 1)
	}
	seen := make(map[string]bool, len(n.Content)/2)
	var merged []*node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := b.build(n.Content[i])
		v := b.build(n.Content[i+1])
		if v.kind == null {
			v.line, v.col = k.line, k.col
		}
		switch {
		case n.Content[i].ShortTag() == "!!merge":
			if v.kind == list {
				merged = append(merged, v.items...)
			} else {
				merged = append(merged, v)
			}
			continue
		case k.kind == list || k.kind == mapping:
			b.l.add(k.line, k.col, "", "syntax", "a key is "+k.kind.String(), "want a word")
			continue
		case seen[k.text]:
			b.l.add(k.line, k.col, k.text, "duplicate-key", "the key is here twice", "remove one of them")
			continue
		}
		seen[k.text] = true
		r.keys = append(r.keys, k)
		b.grow(r, v)
	}
	for _, m := range merged {
		if m.kind != mapping {
			b.l.add(m.line, m.col, "", "merge", "<< merges "+m.kind.String(), "want an alias of a mapping, or a list of such")
		}
		for i, k := range m.keys {
			if !seen[k.text] {
				seen[k.text] = true
				r.keys = append(r.keys, k)
				b.grow(r, m.items[i])
			}
		}
	}
}

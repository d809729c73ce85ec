package policy

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/thurward/thurward/internal/shared/printable"
)

// What writes policies (suggest, import) makes them of these pieces, which the
// YAML library writes: a value or a comment cannot end where it should not,
// whatever is in it.

// A Node is a piece of a policy that is written.
type Node = yaml.Node

// A Member is a key of a mapping with its value and a comment that stands
// behind it, "" for none.
type Member struct {
	Key     string
	Value   *Node
	Comment string
}

// Mapping returns a mapping, on one line when flow is set.
func Mapping(flow bool, members ...Member) *Node {
	n := &Node{Kind: yaml.MappingNode}
	if flow {
		n.Style = yaml.FlowStyle
	}
	for _, m := range members {
		k := Scalar(m.Key)
		if m.Comment != "" {
			if m.Value.Kind == yaml.ScalarNode || m.Value.Style == yaml.FlowStyle {
				m.Value.LineComment = comment(m.Comment)
			} else {
				k.LineComment = comment(m.Comment)
			}
		}
		n.Content = append(n.Content, k, m.Value)
	}
	return n
}

// List returns a list. One without elements is written as [].
func List(flow bool, elements ...*Node) *Node {
	n := &Node{Kind: yaml.SequenceNode, Content: elements}
	if flow || len(elements) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}

// Scalar returns a text. It is quoted where it would be read as something else.
func Scalar(s string) *Node {
	n := &Node{}
	n.SetString(printable.String(s, maxScalar))
	return n
}

// Plain returns a number or a truth value.
func Plain(v any) *Node { return &Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v)} }

// OneOrList returns one value alone, or several as a list on one line.
func OneOrList[T any](vs []T, node func(T) *Node) *Node {
	if len(vs) == 1 {
		return node(vs[0])
	}
	l := List(true)
	for _, v := range vs {
		l.Content = append(l.Content, node(v))
	}
	return l
}

// Above puts lines of comments above a node.
func Above(n *Node, lines ...string) *Node {
	for i, l := range lines {
		lines[i] = comment(l)
	}
	n.HeadComment = strings.Join(lines, "\n")
	return n
}

// maxScalar is the longest text, and the longest line of a comment, in bytes.
const maxScalar = 1024

func comment(s string) string { return "# " + printable.String(s, maxScalar) }

// Document writes a policy with lines of comments at its beginning.
func Document(root *Node, head ...string) ([]byte, error) {
	for i, l := range head {
		head[i] = comment(l)
	}
	var b bytes.Buffer
	b.WriteString(strings.Join(head, "\n"))
	if len(head) > 0 {
		b.WriteByte('\n')
	}
	d, err := yaml.NewDumper(&b, yaml.WithIndent(2), yaml.WithLineWidth(-1), yaml.WithCompactSeqIndent(false))
	if err != nil {
		return nil, err
	}
	if err := d.Dump(root); err != nil {
		return nil, err
	}
	if err := d.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

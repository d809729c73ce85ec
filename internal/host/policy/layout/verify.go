package layout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/thurward/thurward/internal/host/policy"
)

// parse reads one document. Aliases are not followed.
func parse(src []byte) (*yaml.Node, error) {
	in, err := yaml.NewLoader(bytes.NewReader(src), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		return nil, err
	}
	var doc, second yaml.Node
	switch err := in.Load(&doc); {
	case err == io.EOF:
		return nil, errors.New("the file is empty")
	case err != nil:
		return nil, err
	}
	if err := in.Load(&second); err != io.EOF {
		return nil, fmt.Errorf("line %d: a second YAML document; a policy is one", second.Line)
	}
	return &doc, nil
}

// inWords returns the error of a document that cannot be read as check says it.
func inWords(src []byte, err error) error {
	if p, ds := policy.Load("", src); p == nil && len(ds) > 0 && ds[0].Line > 0 {
		return fmt.Errorf("line %d: %s", ds[0].Line, ds[0].Message)
	}
	return err
}

// different returns a node of a that says something else in b, nil if there is none.
func different(a, b *yaml.Node) *yaml.Node {
	if a.Kind != b.Kind || a.Style != b.Style || a.Tag != b.Tag || a.Value != b.Value || a.Anchor != b.Anchor || len(a.Content) != len(b.Content) {
		return a
	}
	for i := range a.Content {
		if d := different(a.Content[i], b.Content[i]); d != nil {
			return d
		}
	}
	return nil
}

// lostComment returns the line of a comment that is not in the result, in the order of the
// comments; 0 if all are.
func lostComment(want []comment, out []byte) int {
	f := &formatter{lines: strings.Split(string(out), "\n")}
	if f.run() != nil {
		return 1
	}
	got := f.comments
	for i, c := range want {
		if i >= len(got) || got[i].text != c.text {
			return c.line
		}
	}
	if len(got) != len(want) {
		return got[slices.Index(got, got[len(want)])].line
	}
	return 0
}

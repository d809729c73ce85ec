package importer

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// An xmlNode is an element of an XML document. What has been read of it is marked, so that
// nothing is left out unnoticed.
type xmlNode struct {
	name     string
	line     int
	text     string
	children []*xmlNode
	read     bool
	parts    strings.Builder // of the text
}

const maxElements = 500_000

// parseXML reads a document with one element at its root.
func parseXML(src []byte) (*xmlNode, error) {
	d := xml.NewDecoder(bytes.NewReader(src))
	d.CharsetReader = charsetReader
	root := &xmlNode{}
	open := []*xmlNode{root}
	n := 0
	for {
		t, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		top := open[len(open)-1]
		switch t := t.(type) {
		case xml.StartElement:
			if n++; n > maxElements || len(open) > 64 {
				return nil, errors.New("it has too many elements, or too deep ones")
			}
			line, _ := d.InputPos()
			e := &xmlNode{name: t.Name.Local, line: line}
			top.children = append(top.children, e)
			open = append(open, e)
		case xml.EndElement:
			top.text = strings.TrimSpace(top.parts.String())
			top.parts.Reset()
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 1 {
				top.parts.Write(t)
			}
		}
	}
	if len(root.children) != 1 {
		return nil, fmt.Errorf("%d elements at its root", len(root.children))
	}
	return root.children[0], nil
}

// child returns the first element of a name, an empty one where there is none.
func (e *xmlNode) child(path ...string) *xmlNode {
	for _, name := range path {
		var found *xmlNode
		for _, c := range e.children {
			if c.name == name {
				found = c
				break
			}
		}
		if found == nil {
			return &xmlNode{}
		}
		found.read = true
		e = found
	}
	return e
}

// has reports whether there is an element, which counts as read.
func (e *xmlNode) has(name string) bool { return e.child(name).name != "" }

// on reports whether an element is there and does not say no.
func (e *xmlNode) on(name string) bool {
	c := e.child(name)
	return c.name != "" && c.text != "0" && c.text != "no"
}

// all returns the elements of a name.
func (e *xmlNode) all(name string) (es []*xmlNode) {
	for _, c := range e.children {
		if c.name == name {
			c.read = true
			es = append(es, c)
		}
	}
	return es
}

// rest returns the names of what has not been read.
func (e *xmlNode) rest() (names []string) {
	for _, c := range e.children {
		if !c.read && (c.text != "" || len(c.children) > 0) {
			names = append(names, c.name)
		}
	}
	return names
}

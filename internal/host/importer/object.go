package importer

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// An object is a JSON object that is read member by member. What has not been
// read when its reader is done was not understood, and rest says so: a reader
// cannot forget a member that it does not know.
type object struct {
	members map[string]any
	wrong   string // why it is none, or which member is not what it should be
}

// newObject returns the object that v is.
func newObject(v any) *object {
	m, ok := v.(map[string]any)
	if !ok {
		return &object{wrong: "no object"}
	}
	o := &object{members: make(map[string]any, len(m))}
	for k, x := range m {
		o.members[k] = x
	}
	return o
}

func parseObject(raw json.RawMessage) *object {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&v); err != nil {
		return &object{wrong: "no JSON"}
	}
	return newObject(v)
}

// take returns a member, which counts as read.
func (o *object) take(name string) (any, bool) {
	v, ok := o.members[name]
	delete(o.members, name)
	return v, ok
}

// text returns a member that is a string, "" where there is none.
func (o *object) text(name string) string {
	v, ok := o.take(name)
	s, isText := v.(string)
	if ok && !isText {
		o.wrong = name + " is no text"
	}
	return s
}

// list returns a member that is a list.
func (o *object) list(name string) ([]any, bool) {
	v, _ := o.take(name)
	l, ok := v.([]any)
	return l, ok
}

// skip reads members that do not matter.
func (o *object) skip(names ...string) {
	for _, n := range names {
		delete(o.members, n)
	}
}

// only returns the member of an object that has no other.
func (o *object) only(name string) (any, bool) {
	v, ok := o.members[name]
	return v, ok && len(o.members) == 1
}

// rest says what has not been understood, "" when everything has.
func (o *object) rest() string {
	if o.wrong != "" || len(o.members) == 0 {
		return o.wrong
	}
	var names []string
	for k := range o.members {
		names = append(names, k)
	}
	slices.Sort(names)
	return shorten("unknown: " + strings.Join(names, ", "))
}

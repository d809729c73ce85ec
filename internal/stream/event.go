package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// An Event is the fields of an event, by the names of the Elastic Common
// Schema with dots: nested objects are laid flat. Values are string, bool,
// json.Number, []any of these, or nil.
type Event map[string]any

// Bounds of an event.
const (
	maxFields = 128
	maxDepth  = 8
)

var (
	errJSON   = errors.New("not one JSON object")
	errFields = errors.New("too many fields, or nested too deeply")
)

func parseEvent(s string) (Event, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, errJSON
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errJSON
	}
	flat := make(Event, len(m))
	if !flat.lay("", m, 0) {
		return nil, errFields
	}
	return flat, nil
}

// lay adds the fields of m under a prefix.
func (e Event) lay(prefix string, m map[string]any, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for k, v := range m {
		switch v := v.(type) {
		case map[string]any:
			if !e.lay(prefix+k+".", v, depth+1) {
				return false
			}
		case []any:
			for i, x := range v {
				switch x.(type) {
				case map[string]any, []any:
					b, err := json.Marshal(x)
					if err != nil {
						return false
					}
					v[i] = string(b)
				}
			}
			e[prefix+k] = v
		default:
			e[prefix+k] = v
		}
		if len(e) > maxFields {
			return false
		}
	}
	return true
}

// Str returns a field as text: "" when there is none. A list's elements are
// joined by commas.
func (e Event) Str(name string) string { return text(e[name]) }

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		var b bytes.Buffer
		for i, x := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(text(x))
		}
		return b.String()
	}
	return ""
}

// Int returns a field that is a whole number: 0 when there is none.
func (e Event) Int(name string) int64 {
	n, _ := e[name].(json.Number)
	v, err := n.Int64()
	if err != nil {
		return 0
	}
	return v
}

// Time returns when it happened; the zero time when it does not say.
func (e Event) Time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, e.Str("@timestamp"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Count returns how many like events it stands for, at least 1.
func (e Event) Count() int64 { return max(e.Int(CountField), 1) }

// CountField names the field that says how many like events one stands for.
const CountField = "firewall.count"

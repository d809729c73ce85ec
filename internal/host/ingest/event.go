package ingest

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

// Bounds of an event. With them what is kept of one takes up at most a few
// times what its line does.
const (
	maxFields = 128
	maxDepth  = 8
	maxField  = 100 // bytes of a field's name, with its prefixes
	maxList   = 64  // elements of a list
)

var (
	errJSON   = errors.New("not one JSON object")
	errFields = errors.New("too many fields, too long a name or list, or nested too deeply")
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
		if len(prefix)+len(k) > maxField {
			return false
		}
		switch v := v.(type) {
		case map[string]any:
			if !e.lay(prefix+k+".", v, depth+1) {
				return false
			}
		case []any:
			if len(v) > maxList {
				return false
			}
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

// Amount returns a field that counts something: a whole number from 0 to
// MaxAmount, 0 when there is none. Adding up amounts cannot overflow before
// there are more of them than anybody sends.
func (e Event) Amount(name string) int64 { return min(max(e.Int(name), 0), MaxAmount) }

// MaxAmount is the largest Amount.
const MaxAmount = 1 << 40

// Time returns when it happened; the zero time when it does not say, or names
// a time that is none of this (see ValidTime).
func (e Event) Time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, e.Str("@timestamp"))
	if err != nil || !ValidTime(t) {
		return time.Time{}
	}
	return t
}

// ValidTime reports whether a time can be: from 1970, where a firewall without
// a clock begins, to 2199. JSON ends with the year 9999, nanoseconds since 1970
// in 64 bits with 2262.
func ValidTime(t time.Time) bool { return !t.Before(firstTime) && t.Before(endTime) }

var firstTime, endTime = time.Unix(0, 0), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// Duration returns a field of nanoseconds: at most MaxDuration.
func (e Event) Duration(name string) time.Duration {
	return time.Duration(min(max(e.Int(name), 0), int64(MaxDuration)))
}

// MaxDuration is a hundred years, more than anything lasts.
const MaxDuration = 100 * 365 * 24 * time.Hour

// Count returns how many like events it stands for, at least 1.
func (e Event) Count() int64 { return max(e.Amount(CountField), 1) }

// CountField names the field that says how many like events one stands for.
const CountField = "firewall.count"

package ecs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// An Event holds the fields of an event by their names with dots: nested
// objects are flattened. Values are string, bool, json.Number, []any of these,
// or nil.
type Event map[string]any

// MaxBytes is the largest size of an event's JSON. The firewall's own events are
// below 2 KB.
const MaxBytes = 16 << 10

// Bounds of an event's fields. With them a decoded event takes up at most a few
// times the size of its JSON.
const (
	maxFields = 128
	maxDepth  = 8
	maxName   = 100 // bytes of a field's name, with its prefixes
	maxList   = 64  // elements of a list
)

// Why an event is refused.
var (
	ErrTooLong = fmt.Errorf("longer than %d bytes", MaxBytes)
	ErrUTF8    = errors.New("not UTF-8")
	ErrJSON    = errors.New("not one JSON object")
	ErrFields  = errors.New("too many fields, a field twice, too long a name or list, or nested too deeply")
)

// Parse decodes one JSON object.
func Parse(s string) (Event, error) {
	switch {
	case len(s) > MaxBytes:
		return nil, ErrTooLong
	case !utf8.ValidString(s):
		return nil, ErrUTF8
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, ErrJSON
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, ErrJSON
	}
	e := make(Event, len(m))
	if !e.flatten("", m, 0) {
		return nil, ErrFields
	}
	return e, nil
}

// flatten adds the fields of m under a prefix, and reports whether they are
// within the bounds.
func (e Event) flatten(prefix string, m map[string]any, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for k, v := range m {
		name := prefix + k
		if len(name) > maxName {
			return false
		}
		if nested, ok := v.(map[string]any); ok {
			if !e.flatten(name+".", nested, depth+1) {
				return false
			}
			continue
		}
		// {"a":{"b":1},"a.b":2} has no one meaning.
		if _, twice := e[name]; twice || len(e) >= maxFields {
			return false
		}
		if list, ok := v.([]any); ok && !plain(list) {
			return false
		}
		e[name] = v
	}
	return true
}

// plain replaces the lists and objects in a list by their JSON, and reports
// whether the list is within its bound.
func plain(list []any) bool {
	if len(list) > maxList {
		return false
	}
	for i, x := range list {
		switch x.(type) {
		case map[string]any, []any:
			b, err := json.Marshal(x)
			if err != nil {
				return false
			}
			list[i] = string(b)
		}
	}
	return true
}

// Str returns a field as text, "" if it is absent. The elements of a list are
// joined by commas.
func (e Event) Str(name string) string { return Text(e[name]) }

// Text returns the value of a field as text.
func Text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		s := make([]string, len(v))
		for i, x := range v {
			s[i] = Text(x)
		}
		return strings.Join(s, ",")
	}
	return ""
}

// Int returns a field that is a whole number of 64 bits, 0 if it is not.
func (e Event) Int(name string) int64 {
	n, _ := e[name].(json.Number)
	v, err := n.Int64()
	if err != nil {
		return 0
	}
	return v
}

// MaxAmount is the largest Amount.
const MaxAmount = 1 << 40

// Amount returns a field that counts something, clamped to the range from 0 to
// MaxAmount. A sum of amounts overflows only after more of them than anybody
// sends.
func (e Event) Amount(name string) int64 { return min(max(e.Int(name), 0), MaxAmount) }

// Count returns the number of like events that the event stands for, at least 1.
func (e Event) Count() int64 { return max(e.Amount(Count), 1) }

// MaxDuration is the largest Duration: a hundred years.
const MaxDuration = 100 * 365 * 24 * time.Hour

// Duration returns a field of nanoseconds, clamped to the range from 0 to
// MaxDuration.
func (e Event) Duration(name string) time.Duration {
	return time.Duration(min(max(e.Int(name), 0), int64(MaxDuration)))
}

// Seconds returns a field of whole seconds, clamped to the range from 0 to
// 2^32-1, which the firewall counts in.
func (e Event) Seconds(name string) time.Duration {
	return time.Duration(min(max(e.Int(name), 0), 1<<32-1)) * time.Second
}

// Time returns the event's time-stamp, the zero time if it has none or one that
// is out of range (see ValidTime).
func (e Event) Time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, e.Str(Timestamp))
	if err != nil || !ValidTime(t) {
		return time.Time{}
	}
	return t
}

var firstTime, endTime = time.Unix(0, 0), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// ValidTime reports whether a time is in the range that events may have: from
// 1970, where a firewall without a clock begins, up to the year 2200. JSON's
// RFC 3339 ends with the year 9999, nanoseconds since 1970 in 64 bits with 2262.
func ValidTime(t time.Time) bool { return !t.Before(firstTime) && t.Before(endTime) }

// Source returns the source's address and port. Both are zero if absent or not
// valid, as are those of Destination and Translated.
func (e Event) Source() netip.AddrPort { return e.endpoint(SourceIP, SourcePort) }

// Destination returns the destination's address and port.
func (e Event) Destination() netip.AddrPort { return e.endpoint(DestinationIP, DestinationPort) }

// Translated returns the address and port to which the source or the
// destination was translated.
func (e Event) Translated() netip.AddrPort { return e.endpoint(TranslatedAddress, TranslatedPort) }

func (e Event) endpoint(ip, port string) netip.AddrPort {
	a, err := netip.ParseAddr(e.Str(ip))
	if err != nil {
		a = netip.Addr{}
	}
	p := e.Int(port)
	if p < 0 || p > 1<<16-1 {
		p = 0
	}
	return netip.AddrPortFrom(a, uint16(p))
}

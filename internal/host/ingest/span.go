package ingest

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Span is a span in OTLP's JSON encoding.
type Span struct {
	TraceID, SpanID string // lower-case hexadecimal, 32 and 16 digits, not all zero
	Name            string
	Start, End      time.Time
	JSON            string // the whole span
}

var errSpan = errors.New("not a span: wants traceId, spanId, name, startTimeUnixNano and endTimeUnixNano")

func parseSpan(s string) (Span, error) {
	var v struct {
		TraceID string      `json:"traceId"`
		SpanID  string      `json:"spanId"`
		Name    string      `json:"name"`
		Start   json.Number `json:"startTimeUnixNano"`
		End     json.Number `json:"endTimeUnixNano"`
	}
	d := json.NewDecoder(strings.NewReader(s))
	if err := d.Decode(&v); err != nil {
		return Span{}, errSpan
	}
	if _, err := d.Token(); err != io.EOF {
		return Span{}, errSpan
	}
	start, ok1 := nanos(v.Start)
	end, ok2 := nanos(v.End)
	if !isID(v.TraceID, 32) || !isID(v.SpanID, 16) || v.Name == "" || !ok1 || !ok2 {
		return Span{}, errSpan
	}
	return Span{v.TraceID, v.SpanID, v.Name, start, end, s}, nil
}

// nanos returns the time of a number of nanoseconds since 1970. ok is false if it is not
// valid.
func nanos(n json.Number) (t time.Time, ok bool) {
	v, err := n.Int64()
	t = time.Unix(0, v)
	return t, err == nil && ecs.ValidTime(t)
}

// isID reports whether s is n hexadecimal digits that are not all zero (W3C
// Trace Context, section 3.2.2).
func isID(s string, n int) bool {
	if len(s) != n || strings.Trim(s, "0") == "" {
		return false
	}
	for i := range n {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

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
	Start, End      json.Number // nanoseconds since 1970
	JSON            string      // the whole span
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
	if !isID(v.TraceID, 32) || !isID(v.SpanID, 16) || v.Name == "" || !isNanos(v.Start) || !isNanos(v.End) {
		return Span{}, errSpan
	}
	return Span{v.TraceID, v.SpanID, v.Name, v.Start, v.End, s}, nil
}

// isNanos reports whether n is a valid time in nanoseconds since 1970.
func isNanos(n json.Number) bool {
	v, err := n.Int64()
	return err == nil && v >= 0 && ecs.ValidTime(time.Unix(0, v))
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

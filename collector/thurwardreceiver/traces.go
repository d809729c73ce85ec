package thurwardreceiver

import (
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/thurward/thurward/internal/host/ingest"
)

// traces converts spans. Those that OTLP's decoder refuses are left out and counted in
// bad.
func (c *Config) traces(h *ingest.Hello, spans []ingest.Span) (td ptrace.Traces, bad int) {
	td = ptrace.NewTraces()
	rt := td.ResourceSpans().AppendEmpty()
	c.fill(rt.Resource(), h)
	ss := rt.ScopeSpans().AppendEmpty()
	ss.Scope().SetName(scopeName)
	for i := range spans {
		one, err := parseSpans(spans[i].JSON)
		if err != nil {
			bad++
			continue
		}
		one.MoveAndAppendTo(ss.Spans())
	}
	if h.NoTime && !h.Booted.IsZero() { // its times count from its boot
		for i := range ss.Spans().Len() {
			s := ss.Spans().At(i)
			s.SetStartTimestamp(since(h.Booted, s.StartTimestamp()))
			s.SetEndTimestamp(since(h.Booted, s.EndTimestamp()))
		}
	}
	return td, bad
}

func since(boot time.Time, t pcommon.Timestamp) pcommon.Timestamp {
	return pcommon.NewTimestampFromTime(boot.Add(time.Duration(t)))
}

// parseSpans decodes spans in OTLP's JSON encoding, separated by commas.
func parseSpans(json string) (ptrace.SpanSlice, error) {
	var b strings.Builder
	b.Grow(len(json) + 64)
	b.WriteString(`{"resourceSpans":[{"scopeSpans":[{"spans":[`)
	b.WriteString(json)
	b.WriteString(`]}]}]}`)
	td, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces([]byte(b.String()))
	if err != nil {
		return ptrace.SpanSlice{}, err
	}
	return td.ResourceSpans().At(0).ScopeSpans().At(0).Spans(), nil
}

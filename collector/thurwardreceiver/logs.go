package thurwardreceiver

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
)

// A record is a line for a log record: an event, or a malformed line.
type record struct {
	item     ingest.Item
	received time.Time
}

// newRecord returns the parts of a line that its log record needs.
func (c *Config) newRecord(it ingest.Item, now time.Time) record {
	if it.Kind == ingest.EventKind && !c.IncludeOriginal {
		it.Raw = ""
	}
	if it.Kind == ingest.Malformed && len(it.Raw) > maxKept {
		it.Raw = strings.Clone(it.Raw[:maxKept])
	}
	return record{it, now}
}

// maxKept is how many bytes of a malformed line are kept.
const maxKept = 1 << 10

// weight returns the approximate memory of a record in bytes.
func (r *record) weight() int {
	n := 256 + len(r.item.Raw)
	for k, v := range r.item.Event {
		n += 64 + len(k) + size(v)
	}
	return n
}

func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case json.Number:
		return len(v)
	case []any:
		n := 0
		for _, x := range v {
			n += 32 + size(x)
		}
		return n
	}
	return 8
}

// names are the fields with another name in OpenTelemetry's semantic conventions than
// in the Elastic Common Schema.
var names = map[string]string{
	ecs.SourceIP:        "source.address",
	ecs.DestinationIP:   "destination.address",
	ecs.NetworkProtocol: "network.protocol.name",
	ecs.DNSResolvedIP:   "dns.answers",
}

// elsewhere are fields that are not attributes of a log record: they are its time, its
// ids, or in its resource.
var elsewhere = map[string]bool{
	ecs.Timestamp: true, ecs.TraceID: true, ecs.SpanID: true, ecs.Policy: true, ecs.Clock: true,
}

// logs makes the log records of a firewall's lines.
func (c *Config) logs(h *ingest.Hello, rs []record) plog.Logs {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	c.fill(rl.Resource(), h)
	sl := rl.ScopeLogs().AppendEmpty()
	sl.Scope().SetName(scopeName)
	sl.LogRecords().EnsureCapacity(len(rs))
	for i := range rs {
		lr := sl.LogRecords().AppendEmpty()
		lr.SetObservedTimestamp(pcommon.NewTimestampFromTime(rs[i].received))
		if rs[i].item.Kind == ingest.EventKind {
			c.event(lr, h, &rs[i].item)
		} else {
			malformed(lr, &rs[i].item)
		}
	}
	return ld
}

func (c *Config) event(lr plog.LogRecord, h *ingest.Hello, it *ingest.Item) {
	e := it.Event
	if t := h.When(e); !t.IsZero() {
		lr.SetTimestamp(pcommon.NewTimestampFromTime(t))
	}
	action := e.Str(ecs.EventAction)
	lr.SetEventName("thurward." + action)
	severity(lr, action)
	lr.Body().SetStr(ecs.Style{}.Verdict(e))
	if id, err := hex.DecodeString(e.Str(ecs.TraceID)); err == nil && len(id) == 16 {
		lr.SetTraceID(pcommon.TraceID(id))
	}
	if id, err := hex.DecodeString(e.Str(ecs.SpanID)); err == nil && len(id) == 8 {
		lr.SetSpanID(pcommon.SpanID(id))
	}
	a := lr.Attributes()
	a.EnsureCapacity(len(e))
	for k, v := range e {
		if elsewhere[k] {
			continue
		}
		if n := names[k]; n != "" {
			k = n
		}
		put(a.PutEmpty(k), v)
	}
	if c.IncludeOriginal {
		a.PutStr("log.record.original", it.Raw)
	}
}

func severity(lr plog.LogRecord, action string) {
	n, text := plog.SeverityNumberInfo, "INFO"
	switch action {
	case ecs.Drop, ecs.LinesLost:
		n, text = plog.SeverityNumberWarn, "WARN"
	}
	lr.SetSeverityNumber(n)
	lr.SetSeverityText(text)
}

// malformed makes the log record of a malformed line.
func malformed(lr plog.LogRecord, it *ingest.Item) {
	lr.SetEventName("thurward.malformed")
	lr.SetSeverityNumber(plog.SeverityNumberError)
	lr.SetSeverityText("ERROR")
	lr.Body().SetStr(strings.ToValidUTF8(it.Raw, "\ufffd"))
	if it.Err != nil {
		lr.Attributes().PutStr(ecs.ErrorMessage, it.Err.Error())
	}
}

// put stores a value of an event.
func put(to pcommon.Value, v any) {
	switch v := v.(type) {
	case string:
		to.SetStr(v)
	case bool:
		to.SetBool(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			to.SetInt(n)
		} else if f, err := v.Float64(); err == nil && strings.ContainsAny(v.String(), ".eE") {
			to.SetDouble(f)
		} else {
			to.SetStr(v.String()) // whole, but beyond 63 bits
		}
	case []any:
		s := to.SetEmptySlice()
		for _, x := range v {
			put(s.AppendEmpty(), x)
		}
	}
}

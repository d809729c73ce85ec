package export

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"strconv"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Tracer samples the flows, drops and DNS queries that get a span, and derives their ids.
// Within a boot the choice and the ids depend on the flow alone, so that events and spans
// written at different times refer to each other. Which flows are sampled cannot be
// predicted from outside.
type Tracer struct {
	key          [2]uint64
	accept, drop uint32 // sampling rates in 1/(2^32-1), as in ruleset.Settings
}

// NewTracer makes a tracer from a secret and the sampling rates of accepted and dropped
// flows, in 1/(2^32-1).
func NewTracer(secret [16]byte, accept, drop uint32) *Tracer {
	return &Tracer{[2]uint64{binary.LittleEndian.Uint64(secret[:]), binary.LittleEndian.Uint64(secret[8:]) | 1}, accept, drop}
}

// SpanIDs are a span's ids (W3C Trace Context: 16 and 8 bytes, not all zero).
type SpanIDs struct {
	Trace [16]byte
	Span  [8]byte
	ok    bool
}

// Kinds of spans, which make their ids differ.
const (
	traceFlow = iota + 1
	traceDrop
	traceLookup
)

// Span returns the ids of a record's span; ok is unset when it has none. The records of a
// flow share the flow's span; a drop outside of any flow has its own.
func (t *Tracer) Span(r *event.Record) SpanIDs {
	switch {
	case r.Kind == event.DNSQuery:
		return t.ids(traceLookup, r.Lookup, t.hash(traceLookup, r.Lookup), t.accept)
	case r.FlowID != 0:
		return t.ids(traceFlow, r.FlowID, t.hash(traceFlow, r.FlowID), t.accept)
	case r.Kind == event.Verdict && r.Action == verdict.Drop && !r.Truncated:
		// Sampled by what the sender varies least, so that a retransmission is sampled too;
		// the id is of this drop alone.
		h := t.hash(binary.LittleEndian.Uint64(r.Src[8:]), binary.LittleEndian.Uint64(r.Dst[8:]))
		h = t.hash(h, uint64(r.SrcPort)<<32|uint64(r.DstPort)<<16|uint64(r.Proto))
		return t.ids(traceDrop, h^uint64(r.Time), h, t.drop)
	}
	return SpanIDs{}
}

// ids returns the ids of span number n of a kind, if its hash h selects it.
func (t *Tracer) ids(kind, n, h uint64, share uint32) (s SpanIDs) {
	if share == 0 || uint32(h>>32) > share-1 && share != 1<<32-1 {
		return s
	}
	a, b := t.hash(kind<<8|1, n), t.hash(kind<<8|2, n)
	binary.BigEndian.PutUint64(s.Trace[:], a|1)
	binary.BigEndian.PutUint64(s.Trace[8:], b)
	binary.BigEndian.PutUint64(s.Span[:], t.hash(kind<<8|3, n)|1)
	s.ok = true
	return s
}

// hash is a keyed hash: two rounds of multiply and fold.
func (t *Tracer) hash(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^t.key[0], t.key[1])
	hi, lo = bits.Mul64(hi^lo^b^t.key[0]*0x9e3779b97f4a7c15, t.key[1]^0xbf58476d1ce4e5b8)
	hi, lo = bits.Mul64(hi^lo, 0x94d049bb133111eb)
	return hi ^ lo
}

// AppendSpan appends a span line for the record without a newline: "# SPAN " and a span in
// OTLP's JSON encoding. It appends nothing when the record has no span or does not end it.
func AppendSpan(dst []byte, r *event.Record, name []byte, c *Context) []byte {
	if !endsSpan(r) || c.Tracer == nil {
		return dst
	}
	id := c.Tracer.Span(r)
	if !id.ok {
		return dst
	}
	b := append(dst, `# SPAN {"traceId":"`...)
	b = hex.AppendEncode(b, id.Trace[:])
	b = append(b, `","spanId":"`...)
	b = hex.AppendEncode(b, id.Span[:])
	start, end, what, kind := r.Time-r.Duration, r.Time, "flow", byte('1') // internal
	switch {
	case r.Kind == event.DNSQuery:
		what, kind = "dns lookup", '2' // server
	case r.Kind == event.Verdict:
		start, end, what = r.Time, r.Time+r.Duration, "drop"
	}
	b = append(b, `","name":"`...)
	b = append(b, what...)
	b = append(b, `","kind":`...)
	b = append(b, kind)
	b = append(b, `,"startTimeUnixNano":"`...)
	b = strconv.AppendInt(b, c.wall(start), 10)
	b = append(b, `","endTimeUnixNano":"`...)
	b = strconv.AppendInt(b, c.wall(end), 10)
	b = append(b, `","attributes":[`...)
	a := attributes{b, false}
	a.record(r, name, c)
	b = append(a.b, ']')
	if r.Lookup != 0 && r.Kind != event.DNSQuery {
		l := c.Tracer.ids(traceLookup, r.Lookup, 0, 1<<32-1)
		b = append(b, `,"links":[{"traceId":"`...)
		b = hex.AppendEncode(b, l.Trace[:])
		b = append(b, `","spanId":"`...)
		b = hex.AppendEncode(b, l.Span[:])
		b = append(b, `"}]`...)
	}
	return append(b, `,"status":{}}`...)
}

// endsSpan reports whether a record is the last one of its span.
func endsSpan(r *event.Record) bool {
	return r.Kind == event.FlowEnd || r.Kind == event.DNSQuery || r.Kind == event.Verdict && r.Action == verdict.Drop && r.FlowID == 0 && !r.Truncated
}

// attributes renders the attributes of a span.
type attributes struct {
	b    []byte
	some bool
}

func (a *attributes) key(k string) {
	if a.some {
		a.b = append(a.b, ',')
	}
	a.some = true
	a.b = append(a.b, `{"key":"`...)
	a.b = append(a.b, k...)
	a.b = append(a.b, `","value":{`...)
}

func (a *attributes) str(k, v string) {
	a.key(k)
	a.b = append(a.b, `"stringValue":"`...)
	a.b = appendEscaped(a.b, v)
	a.b = append(a.b, `"}}`...)
}

// num renders an integer; OTLP's JSON has 64-bit integers as strings.
func (a *attributes) num(k string, v uint64) {
	a.key(k)
	a.b = append(a.b, `"intValue":"`...)
	a.b = strconv.AppendUint(a.b, v, 10)
	a.b = append(a.b, `"}}`...)
}

func (a *attributes) addr(k string, v [16]byte) {
	a.key(k)
	a.b = append(a.b, `"stringValue":"`...)
	a.b = appendAddr(a.b, v)
	a.b = append(a.b, `"}}`...)
}

// record renders the attributes of a record, named by OpenTelemetry's semantic conventions
// where they have a name.
func (a *attributes) record(r *event.Record, name []byte, c *Context) {
	a.addr("source.address", r.Src)
	a.addr("destination.address", r.Dst)
	if hasPorts(r.Proto) {
		a.num("source.port", uint64(r.SrcPort))
		a.num("destination.port", uint64(r.DstPort))
	}
	var proto [8]byte
	a.str("network.transport", string(appendTransport(proto[:0], r.Proto)))
	a.str("network.type", "ipv4")
	a.str("firewall.direction", r.Direction.String())
	if r.Kind == event.DNSQuery {
		a.str("dns.question.name", string(name))
		a.str("firewall.dns_outcome", r.DNS.String())
		a.num("firewall.dns_lookup", r.Lookup)
		a.str("firewall.policy", c.policyID())
		return
	}
	a.str("firewall.rule_id", RuleID(r.Rule, c.Policy))
	a.str("firewall.action", r.Action.String())
	a.str("firewall.reason", r.Reason.String())
	if len(name) > 0 {
		a.str("server.address", string(name))
	}
	if r.XlatAddr != ([16]byte{}) {
		a.addr("firewall.translated_address", r.XlatAddr)
		a.num("firewall.translated_port", uint64(r.XlatPort))
	}
	if r.FlowID != 0 {
		a.num("firewall.flow_id", r.FlowID)
	}
	if r.Kind == event.FlowEnd {
		a.num("firewall.packets", r.Packets)
		a.num("firewall.bytes", r.Bytes)
	}
	if r.Count > 1 {
		a.num("firewall.count", uint64(r.Count))
	}
	a.str("firewall.policy", c.policyID())
}

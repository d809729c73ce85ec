package export

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Context is what rendering needs beside the record. Only one goroutine may use it.
type Context struct {
	Policy *ruleset.Policy
	// WallBase is the time of day, in nanoseconds since 1970, at which monotonic time was
	// zero. Without a clock it is 0: timestamps then count from boot, and Clock is "none".
	WallBase int64
	before   int64 // WallBase of times before since: see Adjust
	since    int64
	adjusted bool
	Clock    string  // "kvmclock", "rtc" or "none"
	Tracer   *Tracer // nil: no trace ids

	policy string // the policy's digest in hexadecimal
	second int64  // the one of stamp
	stamp  []byte // 2026-11-24T12:00:01
}

// Adjust corrects WallBase. Times before now, in monotonic nanoseconds, keep the former base.
func (c *Context) Adjust(base, now int64) {
	if base != c.WallBase {
		c.WallBase, c.before, c.since, c.adjusted = base, c.WallBase, now, true
	}
}

// wall returns the time of day in nanoseconds since 1970.
func (c *Context) wall(mono int64) int64 {
	if c.adjusted && mono < c.since {
		return c.before + mono
	}
	return c.WallBase + mono
}

// AppendEvent appends the record as one line of JSON with the field names of the Elastic
// Common Schema, without a newline, and returns dst. A rule's id is that in the policy; the
// default action's is default-deny, default-reject or default-accept.
func AppendEvent(dst []byte, r *event.Record, c *Context) []byte { return AppendNamed(dst, r, nil, c) }

// AppendNamed is AppendEvent for a record that has a name: the destination's,
// or a DNS query's.
func AppendNamed(dst []byte, r *event.Record, name []byte, c *Context) []byte {
	b := append(dst, `{"@timestamp":"`...)
	b = c.appendTime(b, r.Time)
	switch r.Kind {
	case event.ClockAdjusted:
		return c.appendEnd(appendAdjusted(b, r), r)
	case event.PacketsLate:
		return c.appendEnd(appendLate(b, r), r)
	}
	b = append(b, `","event.kind":"event","event.category":["network"],"event.type":[`...)
	switch {
	case r.Kind == event.FlowEnd:
		b = append(b, `"connection","end"],"event.action":"flow-end","event.outcome":"success"`...)
	case r.Kind == event.DNSQuery:
		b = append(b, `"protocol","info"],"event.action":"dns-query","event.outcome":"`...)
		b = append(b, dnsSuccess(r.DNS)...)
		b = append(b, '"')
	case r.Kind == event.UpstreamFailed:
		b = append(b, `"protocol","info"],"event.action":"dns-upstream-failed","event.outcome":"failure"`...)
	case r.Action == verdict.Accept:
		b = append(b, `"connection","allowed"],"event.action":"accept","event.outcome":"success"`...)
	case r.Action == verdict.Drop:
		b = append(b, `"connection","denied"],"event.action":"drop","event.outcome":"failure"`...)
	default:
		b = append(b, `"info"],"event.action":"`...)
		b = append(b, r.Action.String()...)
		b = append(b, `","event.outcome":"unknown"`...)
	}
	b = append(b, `,"event.reason":"`...)
	if r.Kind == event.DNSQuery {
		b = append(b, r.DNS.String()...)
		b = append(b, '"')
		return c.appendEnd(appendDNS(b, r, name), r)
	}
	if r.Kind == event.UpstreamFailed {
		b = append(b, r.TLS.String()...)
		b = append(b, '"')
		return c.appendEnd(appendUpstream(b, r, name), r)
	}
	b = append(b, r.Reason.String()...)
	b = append(b, '"')
	if r.Action == verdict.Drop {
		b = append(b, `,"firewall.drop_reason":"`...)
		b = append(b, r.Reason.String()...)
		b = append(b, '"')
	}
	b = appendRule(b, r, c.Policy)
	if !r.Truncated {
		b = appendTuple(b, r)
	} else if r.EtherType != 0 {
		b = append(b, `,"firewall.ethertype":"0x`...)
		b = append(b, hexDigits[r.EtherType>>12], hexDigits[r.EtherType>>8&15], hexDigits[r.EtherType>>4&15], hexDigits[r.EtherType&15], '"')
	}
	if len(name) > 0 {
		b = append(b, `,"destination.domain":"`...)
		b = appendEscaped(b, name)
		b = append(b, '"')
	}
	b = appendHint(b, r.Hint, r.Ago)
	b = append(b, `,"network.direction":"`...)
	b = append(b, r.Direction.String()...)
	b = append(b, '"')
	if r.XlatAddr != ([16]byte{}) {
		b = appendTranslation(b, r)
	}
	if r.Answer {
		b = append(b, `,"firewall.answer":true`...)
	}
	if r.FlowID != 0 {
		b = append(b, `,"firewall.flow_id":`...)
		b = strconv.AppendUint(b, r.FlowID, 10)
	}
	if r.Kind == event.FlowEnd {
		b = appendTotals(b, r)
	}
	if r.Lookup != 0 {
		b = append(b, `,"firewall.dns_lookup":`...)
		b = strconv.AppendUint(b, r.Lookup, 10)
	}
	return c.appendEnd(b, r)
}

// appendEnd appends the fields at the end of every event.
func (c *Context) appendEnd(b []byte, r *event.Record) []byte {
	if r.Count > 1 {
		b = append(b, `,"firewall.count":`...)
		b = strconv.AppendUint(b, uint64(r.Count), 10)
		b = append(b, `,"event.start":"`...)
		b = c.appendTime(b, r.Time)
		b = append(b, `","event.end":"`...)
		b = c.appendTime(b, r.Time+r.Duration)
		b = append(b, '"')
	}
	if c.Tracer != nil {
		if t := c.Tracer.Span(r); t.ok {
			b = append(b, `,"trace.id":"`...)
			b = hex.AppendEncode(b, t.Trace[:])
			b = append(b, `","span.id":"`...)
			b = hex.AppendEncode(b, t.Span[:])
			b = append(b, '"')
		}
	}
	if r.Seq != 0 {
		b = append(b, `,"event.sequence":`...)
		b = strconv.AppendUint(b, r.Seq, 10)
	}
	b = append(b, `,"firewall.clock":"`...)
	b = append(b, c.Clock...)
	b = append(b, `","firewall.policy":"`...)
	b = append(b, c.policyID()...)
	return append(b, `"}`...)
}

// policyID returns the policy's digest in hexadecimal.
func (c *Context) policyID() string {
	if c.policy == "" {
		c.policy = "sha256:" + hex.EncodeToString(c.Policy.Digest[:])
	}
	return c.policy
}

// appendTime appends a timestamp: UTC, RFC 3339, microseconds.
func (c *Context) appendTime(b []byte, mono int64) []byte {
	ns := c.wall(mono)
	s, us := ns/1e9, ns%1e9/1e3
	if us < 0 { // before 1970, in tests
		s, us = s-1, us+1e6
	}
	if c.stamp == nil || s != c.second {
		c.stamp = time.Unix(s, 0).UTC().AppendFormat(c.stamp[:0], "2006-01-02T15:04:05")
		c.second = s
	}
	b = append(b, c.stamp...)
	b = append(b, '.', byte('0'+us/100000), byte('0'+us/10000%10), byte('0'+us/1000%10), byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
	return append(b, 'Z')
}

const hexDigits = "0123456789abcdef"

// appendRule appends rule.id and rule.name.
func appendRule(b []byte, r *event.Record, p *ruleset.Policy) []byte {
	b = append(b, `,"rule.id":"`...)
	b = appendRuleID(b, r.Rule, p)
	b = append(b, '"')
	if n := ruleName(r.Rule, p); n != "" {
		b = append(b, `,"rule.name":"`...)
		b = appendEscaped(b, n[:min(len(n), maxText)])
		b = append(b, '"')
	}
	return b
}

// ruleName returns what a rule's author calls it, or what the default action is.
func ruleName(rule uint32, p *ruleset.Policy) string {
	if rule < p.DefaultRule() {
		return p.Text(p.Rules[rule].Name)
	}
	return p.Settings.DefaultAction.DefaultRuleName()
}

// maxText is how many bytes of a rule's id or name an event shows, so that its line stays
// below MaxLine.
const maxText = 1000

// RuleID returns the id of a rule, or of the default action if the index is beyond the
// rules.
func RuleID(rule uint32, p *ruleset.Policy) string {
	if rule < p.DefaultRule() {
		return p.Text(p.Rules[rule].ID)
	}
	return p.Settings.DefaultAction.DefaultRuleID()
}

func appendRuleID(b []byte, rule uint32, p *ruleset.Policy) []byte {
	id := RuleID(rule, p)
	return appendEscaped(b, id[:min(len(id), maxText)])
}

// appendTuple appends addresses, ports and protocol.
func appendTuple(b []byte, r *event.Record) []byte {
	b = appendEndpoint(b, `,"source.ip":"`, `,"source.port":`, r.Src, r.SrcPort, hasPorts(r.Proto))
	b = appendEndpoint(b, `,"destination.ip":"`, `,"destination.port":`, r.Dst, r.DstPort, hasPorts(r.Proto))
	b = append(b, `,"network.transport":"`...)
	b = appendTransport(b, r.Proto)
	b = append(b, `","network.iana_number":"`...)
	b = strconv.AppendUint(b, uint64(r.Proto), 10)
	b = append(b, `","network.type":"ipv4"`...)
	if r.Proto == 1 {
		b = append(b, `,"firewall.icmp_type":`...)
		b = strconv.AppendUint(b, uint64(r.DstPort>>8), 10)
		b = append(b, `,"firewall.icmp_code":`...)
		b = strconv.AppendUint(b, uint64(r.DstPort&0xff), 10)
	}
	return b
}

func appendEndpoint(b []byte, ip, portName string, a [16]byte, port uint16, ports bool) []byte {
	b = append(b, ip...)
	b = appendAddr(b, a)
	b = append(b, '"')
	if ports {
		b = append(b, portName...)
		b = strconv.AppendUint(b, uint64(port), 10)
	}
	return b
}

func appendAddr(b []byte, a [16]byte) []byte { return netip.AddrFrom16(a).Unmap().AppendTo(b) }

// appendTranslation appends the translated address and port, by the firewall's own field
// names and by those of ECS.
func appendTranslation(b []byte, r *event.Record) []byte {
	side := `,"source.nat.ip":"`
	port := `,"source.nat.port":`
	if r.XlatDst {
		side, port = `,"destination.nat.ip":"`, `,"destination.nat.port":`
	}
	b = appendEndpoint(b, `,"network.translated.address":"`, `,"network.translated.port":`, r.XlatAddr, r.XlatPort, true)
	return appendEndpoint(b, side, port, r.XlatAddr, r.XlatPort, hasPorts(r.Proto))
}

// appendTotals appends a flow's packets, bytes and duration.
func appendTotals(b []byte, r *event.Record) []byte {
	for _, f := range [...]struct {
		name string
		n    uint64
	}{
		{`,"network.packets":`, r.Packets}, {`,"network.bytes":`, r.Bytes},
		{`,"source.packets":`, r.Packets - r.ReplyPackets}, {`,"source.bytes":`, r.Bytes - r.ReplyBytes},
		{`,"destination.packets":`, r.ReplyPackets}, {`,"destination.bytes":`, r.ReplyBytes},
		{`,"event.duration":`, uint64(max(r.Duration, 0))},
	} {
		b = append(b, f.name...)
		b = strconv.AppendUint(b, f.n, 10)
	}
	return b
}

func hasPorts(proto uint8) bool { return proto == 6 || proto == 17 }

func appendTransport(b []byte, proto uint8) []byte {
	switch proto {
	case 1:
		return append(b, "icmp"...)
	case 6:
		return append(b, "tcp"...)
	case 17:
		return append(b, "udp"...)
	}
	return strconv.AppendUint(b, uint64(proto), 10)
}

// appendEscaped appends s as the inside of a JSON string (RFC 8259 section 7). Control
// characters of terminals and of the direction of writing are written as \uXXXX, so that a
// line can be displayed as it is. Invalid UTF-8 becomes U+FFFD.
func appendEscaped[S string | []byte](b []byte, s S) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < 0x20 || c == 0x7f:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			default:
				b = append(b, c)
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		i += n
		switch {
		case strconv.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 0x10000:
			b = appendUnit(b, r)
		default:
			r -= 0x10000 // a surrogate pair
			b = appendUnit(appendUnit(b, 0xd800|r>>10), 0xdc00|r&0x3ff)
		}
	}
	return b
}

// appendUnit appends a UTF-16 code unit as JSON escapes it.
func appendUnit(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

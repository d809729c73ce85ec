package telemetry

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/thurward/thurward/internal/segment"
)

// A Context is what lines need beyond a record.
type Context struct {
	Policy *segment.Policy
	// WallBase is the time of day, in nanoseconds since 1970, at which
	// monotonic time was zero. With no clock it is 0: time-stamps then count
	// from boot, and Clock says so.
	WallBase int64
	Clock    string // "kvmclock", "rtc" or "none"
}

// AppendEvent appends the record as one line of JSON with the field names of
// the Elastic Common Schema, without a newline, and returns dst. A rule's id
// is the policy's; the default action's is default-deny or default-accept.
func AppendEvent(dst []byte, r *Record, c *Context) []byte {
	b := append(dst, `{"@timestamp":"`...)
	b = time.Unix(0, c.WallBase+r.Time).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	if c.Clock == "none" {
		b = append(b, `","thurward.clock":"none`...)
	}
	b = append(b, `","event.kind":"event","event.category":["network"],"event.type":[`...)
	switch {
	case r.Kind == FlowEnd:
		b = append(b, `"connection","end"],"event.action":"flow-end","event.outcome":"success"`...)
	case r.Action == Accept:
		b = append(b, `"connection","allowed"],"event.action":"accept","event.outcome":"success"`...)
	case r.Action == Drop:
		b = append(b, `"connection","denied"],"event.action":"drop","event.outcome":"failure"`...)
	default:
		b = append(b, `"info"],"event.action":"`...)
		b = append(b, r.Action.String()...)
		b = append(b, `","event.outcome":"unknown"`...)
	}
	b = append(b, `,"event.reason":"`...)
	b = append(b, r.Reason.String()...)
	b = append(b, '"')
	if r.Action == Drop {
		b = append(b, `,"firewall.drop_reason":"`...)
		b = append(b, r.Reason.String()...)
		b = append(b, '"')
	}
	b = appendRule(b, r, c.Policy)
	if !r.Truncated {
		b = appendEndpoint(b, "source", r.Src, r.SrcPort, hasPorts(r.Proto))
		b = appendEndpoint(b, "destination", r.Dst, r.DstPort, hasPorts(r.Proto))
		b = append(b, `,"network.transport":"`...)
		b = appendTransport(b, r.Proto)
		b = append(b, `","network.type":"ipv4"`...)
		if r.Proto == 1 {
			b = append(b, `,"icmp.type":`...)
			b = strconv.AppendUint(b, uint64(r.DstPort>>8), 10)
			b = append(b, `,"icmp.code":`...)
			b = strconv.AppendUint(b, uint64(r.DstPort&0xff), 10)
		}
	} else if r.EtherType != 0 {
		b = append(b, `,"network.ethertype":"0x`...)
		b = append(b, hexDigits[r.EtherType>>12], hexDigits[r.EtherType>>8&15], hexDigits[r.EtherType>>4&15], hexDigits[r.EtherType&15], '"')
	}
	b = append(b, `,"network.direction":"`...)
	b = append(b, r.Direction.String()...)
	b = append(b, '"')
	if r.XlatAddr != ([16]byte{}) {
		b = append(b, `,"network.translated.address":"`...)
		b = netip.AddrFrom16(r.XlatAddr).Unmap().AppendTo(b)
		b = append(b, `","network.translated.port":`...)
		b = strconv.AppendUint(b, uint64(r.XlatPort), 10)
	}
	if r.FlowID != 0 {
		b = append(b, `,"firewall.flow_id":`...)
		b = strconv.AppendUint(b, r.FlowID, 10)
	}
	if r.Kind == FlowEnd {
		b = append(b, `,"network.packets":`...)
		b = strconv.AppendUint(b, r.Packets, 10)
		b = append(b, `,"network.bytes":`...)
		b = strconv.AppendUint(b, r.Bytes, 10)
		b = append(b, `,"event.duration":`...)
		b = strconv.AppendInt(b, r.Duration, 10)
	}
	b = append(b, `,"firewall.policy":"sha256:`...)
	b = hex.AppendEncode(b, c.Policy.Digest[:])
	return append(b, `"}`...)
}

const hexDigits = "0123456789abcdef"

// appendRule appends rule.id and rule.name.
func appendRule(b []byte, r *Record, p *segment.Policy) []byte {
	b = append(b, `,"rule.id":"`...)
	switch {
	case r.Rule < p.DefaultRule():
		b = appendEscaped(b, p.Text(p.Rules[r.Rule].ID))
		if n := p.Text(p.Rules[r.Rule].Name); n != "" {
			b = append(b, `","rule.name":"`...)
			b = appendEscaped(b, n)
		}
	case p.Settings.DefaultAction == segment.Accept:
		b = append(b, "default-accept"...)
	default:
		b = append(b, "default-deny"...)
	}
	return append(b, '"')
}

func appendEndpoint(b []byte, name string, a [16]byte, port uint16, ports bool) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, `.ip":"`...)
	b = netip.AddrFrom16(a).Unmap().AppendTo(b)
	b = append(b, '"')
	if ports {
		b = append(b, ',', '"')
		b = append(b, name...)
		b = append(b, `.port":`...)
		b = strconv.AppendUint(b, uint64(port), 10)
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

// appendEscaped appends s as the inside of a JSON string (RFC 8259 section 7).
// Invalid UTF-8 becomes U+FFFD.
func appendEscaped(b []byte, s string) []byte {
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
		r, n := utf8.DecodeRuneInString(s[i:])
		b = utf8.AppendRune(b, r)
		i += n
	}
	return b
}

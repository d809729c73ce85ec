package export

import (
	"strconv"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func dnsSuccess(o verdict.DNSOutcome) string {
	if o == verdict.DNSAnswered || o == verdict.DNSNXDomain {
		return "success"
	}
	return "failure"
}

// appendDNS appends a DNS query's question and answer.
func appendDNS(b []byte, r *event.Record, name []byte) []byte {
	b = appendTuple(b, r)
	b = append(b, `,"network.protocol":"dns","network.direction":"`...)
	b = append(b, r.Direction.String()...)
	b = append(b, `","dns.type":"answer","dns.question.name":"`...)
	b = appendEscaped(b, name)
	b = append(b, `","dns.question.type":"`...)
	b = appendQType(b, r.QType)
	b = append(b, '"')
	if rcode := r.DNS.RCode(); rcode != "" {
		b = append(b, `,"dns.response_code":"`...)
		b = append(b, rcode...)
		b = append(b, '"')
	}
	if r.XlatAddr != ([16]byte{}) {
		b = append(b, `,"dns.resolved_ip":["`...)
		b = appendAddr(b, r.XlatAddr)
		b = append(b, `"]`...)
	}
	b = append(b, `,"event.duration":`...)
	b = strconv.AppendInt(b, max(r.Duration, 0), 10)
	b = append(b, `,"firewall.dns_lookup":`...)
	return strconv.AppendUint(b, r.Lookup, 10)
}

// appendQType appends a question's type by name, or as TYPEn (RFC 3597 section 5).
func appendQType(b []byte, t uint16) []byte {
	switch t {
	case 1:
		return append(b, "A"...)
	case 2:
		return append(b, "NS"...)
	case 5:
		return append(b, "CNAME"...)
	case 6:
		return append(b, "SOA"...)
	case 12:
		return append(b, "PTR"...)
	case 15:
		return append(b, "MX"...)
	case 16:
		return append(b, "TXT"...)
	case 28:
		return append(b, "AAAA"...)
	case 33:
		return append(b, "SRV"...)
	case 64:
		return append(b, "SVCB"...)
	case 65:
		return append(b, "HTTPS"...)
	case 255:
		return append(b, "ANY"...)
	}
	return strconv.AppendUint(append(b, "TYPE"...), uint64(t), 10)
}

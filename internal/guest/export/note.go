package export

import "strconv"

// A Note is what is worth knowing about a packet beside its verdict. Zero:
// nothing.
type Note uint8

// The notes. The first four say by what a flow might resolve names without the
// firewall's DNS proxy.
const (
	_           Note = iota
	BypassDNS        // port 53 of another server
	BypassDoT        // TCP port 853: DNS over TLS (RFC 7858)
	BypassDoQ        // UDP port 853: DNS over QUIC (RFC 9250)
	BypassDoH        // port 443 of a known resolver: DNS over HTTPS (RFC 8484)
	OtherClient      // a rule would accept it if its source had resolved the name, as another client did
	NameExpired      // a rule would accept it if the name that its source has resolved had not expired

)

// Hint returns a note as firewall.hint has it, "" when it is none.
func (n Note) Hint() string {
	switch n {
	case OtherClient:
		return "name_resolved_by_other_client"
	case NameExpired:
		return "name_expired"
	}
	return ""
}

// appendNote appends a note's fields.
func appendNote(b []byte, n Note, ago uint32) []byte {
	switch n {
	case BypassDNS:
		return append(b, `,"firewall.dns_bypass":"dns"`...)
	case BypassDoT:
		return append(b, `,"firewall.dns_bypass":"dot"`...)
	case BypassDoQ:
		return append(b, `,"firewall.dns_bypass":"doq"`...)
	case BypassDoH:
		return append(b, `,"firewall.dns_bypass":"doh"`...)
	case OtherClient:
		b = append(b, `,"firewall.hint":"`...)
		return append(append(b, n.Hint()...), '"')
	case NameExpired:
		b = append(b, `,"firewall.hint":"`...)
		b = append(append(b, n.Hint()...), `","firewall.name_expired_seconds":`...)
		return strconv.AppendUint(b, uint64(ago), 10)
	}
	return b
}
